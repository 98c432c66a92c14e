package s3bucket

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/diskvault/diskvault/base/problem"
)

func TestParseURL(t *testing.T) {
	for text, want := range map[string]Location{
		"s3://bucket":                                {Bucket: "bucket"},
		"s3://bucket/":                               {Bucket: "bucket"},
		"s3://bucket/a/b/":                           {Bucket: "bucket", Prefix: "a/b"},
		"s3://b.u-c/p?region=eu-central-1":           {Bucket: "b.u-c", Prefix: "p", Region: "eu-central-1"},
		"s3://bucket?endpoint=http://127.0.0.1:7070": {Bucket: "bucket", Endpoint: "http://127.0.0.1:7070", PathStyle: true},
		"s3://bucket?endpoint=https%3A%2F%2Fs3.example%2F&path-style=false":            {Bucket: "bucket", Endpoint: "https://s3.example"},
		"s3://bucket?path-style=true":                                                  {Bucket: "bucket", PathStyle: true},
		"s3://bucket/p?endpoint=https://s3.example:9000/base&region=r&path-style=true": {Bucket: "bucket", Prefix: "p", Endpoint: "https://s3.example:9000/base", Region: "r", PathStyle: true},
	} {
		got, err := ParseURL(text)
		if err != nil || got != want {
			t.Errorf("%s is read as %+v, %v", text, got, err)
			continue
		}
		if again, err := ParseURL(got.URL()); err != nil || again != got {
			t.Errorf("%s is written as %s and read as %+v, %v", text, got.URL(), again, err)
		}
	}
	for _, text := range []string{
		"", "s3:", "s3://", "http://bucket", "s3://ab", "s3://buck$t", "s3://bucket/a//b", "s3://bucket/.hidden", "s3://bucket?endpoint=ftp://x",
		"s3://bucket?endpoint=127.0.0.1:70", "s3://bucket?path-style=maybe", "s3://bucket?secret=x", "s3://id:hidden@bucket", "s3://bucket?endpoint=http://id:hidden@host",
		"s3://id:hid%zzden@bucket",
	} {
		_, err := ParseURL(text)
		if !problem.Is(err, problem.InvalidArgument) {
			t.Errorf("%q gives %v", text, err)
			continue
		}
		if strings.Contains(err.Error(), "hid") && strings.Contains(text, "@") {
			t.Errorf("%q: the message tells the secret: %v", text, err)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"s3://bucket/a?endpoint=http://h:1&region=r&path-style=true", "s3://bucket", "s3://bucket?endpoint=https://h/a%26b%2Bc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseURL(text)
		if err != nil {
			return
		}
		if again, err := ParseURL(l.URL()); err != nil || again != l {
			t.Fatalf("%q is %+v, written as %q and read as %+v, %v", text, l, l.URL(), again, err)
		}
	})
}

func TestCredentials(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", home)
	find := func() (id, secret, token string, err error) {
		p, err := findCredentials()
		if err != nil {
			return "", "", "", err
		}
		c, err := p.Retrieve(t.Context())
		return c.AccessKeyID, c.SecretAccessKey, c.SessionToken, err
	}
	expect := func(what, id, secret, token string) {
		t.Helper()
		a, b, c, err := find()
		if err != nil || a != id || b != secret || c != token {
			t.Errorf("%s: %s %s %s, %v", what, a, b, c, err)
		}
	}
	if _, _, _, err := find(); !problem.Is(err, problem.StorePermissionDenied) {
		t.Errorf("nothing set gives %v", err)
	}
	file := filepath.Join(home, ".aws", "credentials")
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	const content = "# comment\n[default]\naws_access_key_id = A\naws_secret_access_key=B=\n\n[other]\n aws_access_key_id=C\n AWS_SECRET_ACCESS_KEY = D\naws_session_token = E\n[empty]\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("file", "A", "B=", "")
	t.Setenv("AWS_PROFILE", "other")
	expect("profile", "C", "D", "E")
	t.Setenv("AWS_PROFILE", "empty")
	if _, _, _, err := find(); !problem.Is(err, problem.StorePermissionDenied) || !strings.Contains(err.Error(), "empty") {
		t.Errorf("a profile without values gives %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "F")
	if _, _, _, err := find(); !problem.Is(err, problem.InvalidArgument) {
		t.Errorf("half of the environment gives %v", err)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "G")
	expect("environment", "F", "G", "")
}

func TestBody(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		var parts [][]byte
		for range random.IntN(6) {
			p := make([]byte, random.IntN(4)*random.IntN(50))
			for i := range p {
				p[i] = byte(random.Uint32())
			}
			parts = append(parts, p)
		}
		whole := slices.Concat(parts...)
		if err := iotest.TestReader(newBody(parts), whole); err != nil {
			t.Fatalf("%d parts: %v", len(parts), err)
		}
		b := newBody(parts)
		for range 20 {
			off := random.Int64N(int64(len(whole)) + 1)
			at, err := b.Seek(off-int64(len(whole)), io.SeekEnd)
			if err != nil || at != off {
				t.Fatalf("seek to %d gives %d, %v", off, at, err)
			}
			got, err := io.ReadAll(b)
			if err != nil || !bytes.Equal(got, whole[off:]) {
				t.Fatalf("after a seek to %d of %d: %d bytes, %v", off, len(whole), len(got), err)
			}
		}
		if _, err := b.Seek(1, io.SeekEnd); err == nil {
			t.Fatal("a seek behind the end succeeds")
		}
	}
}
