package open_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/open"
	"github.com/diskvault/diskvault/store/bucket/s3bucket/s3test"
)

func TestFolders(t *testing.T) {
	folder := t.TempDir()
	t.Chdir(folder)
	for i, url := range []string{folder + "/a", "file:" + folder + "/b", "file://" + folder + "/c", "d", "./e:f", "file:g"} {
		name := []string{"a", "b", "c", "d", "e:f", "g"}[i]
		if _, err := open.Bucket(t.Context(), url, open.Options{}); !problem.Is(err, problem.StoreNotFound) {
			t.Errorf("%s does not exist: %v", url, err)
		}
		b, err := open.Bucket(t.Context(), url, open.Options{Create: true})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if got := b.URL(); got != "file:"+filepath.Join(folder, name) {
			t.Errorf("%s is at %s", url, got)
		}
		if again, err := open.Bucket(t.Context(), b.URL(), open.Options{}); err != nil || again.URL() != b.URL() {
			t.Errorf("%s cannot be opened again: %v", b.URL(), err)
		}
		account := meter.New("test")
		if err := b.Put(bucket.WithAccount(t.Context(), bucket.Account{Meter: account}), "x", [][]byte{[]byte("data")}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if seams := account.Record().Seams; len(seams) != 1 || seams[0].Seam != "bucket.put" || seams[0].Count != 1 {
			t.Errorf("%s: the account has %+v", url, seams)
		}
		if _, err := os.Stat(filepath.Join(folder, name, "x")); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		b.Close()
	}
}

func TestObjectStorage(t *testing.T) {
	server := s3test.Start(t)
	for _, v := range server.Environ() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	b, err := open.Bucket(t.Context(), server.NewBucket(t).URL(), open.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := bucket.Probe(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func TestMemory(t *testing.T) {
	b, err := open.Bucket(t.Context(), "memory:", open.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.Probe(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsRefused(t *testing.T) {
	for _, url := range []string{"", "file:", "file://host/path", "ftp://host/x", "memory:x", "s3://", "s3://id:secret@bucket", "gs://bucket"} {
		_, err := open.Bucket(t.Context(), url, open.Options{Create: true})
		if !problem.Is(err, problem.InvalidArgument) {
			t.Errorf("%q gives %v", url, err)
		}
	}
}
