// Package buckettest is the conformance suite that every driver and every
// wrapper of a bucket passes.
package buckettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/diskvault/diskvault/store/bucket"
)

// Options of Run. The zero value tests all.
type Options struct {
	// Keys is how many objects the test of listing stores; 0 is 1,100, more
	// than the 1,000 that an object store lists at a time.
	Keys int
}

// Run tests the promises of bucket.Bucket. open gives an empty bucket for each
// test and closes it at the end of that test.
func Run(t *testing.T, o Options, open func(*testing.T) bucket.Bucket) {
	if o.Keys == 0 {
		o.Keys = 1100
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T, bucket.Bucket)
	}{
		{"put once", putOnce},
		{"sixteen writers of one key", oneWins},
		{"zero length", zeroLength},
		{"32 MiB of many parts", large},
		{"ranges", ranges},
		{"listing", func(t *testing.T, b bucket.Bucket) { listing(t, b, o.Keys) }},
		{"listing while others write", listingWhileWriting},
		{"order of folders", orderOfFolders},
		{"odd keys", oddKeys},
		{"illegal keys", illegalKeys},
		{"missing objects", missing},
		{"delete and put again", deleteAndPutAgain},
		{"cancelled context", cancelled},
		{"probe", probe},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

func put(t *testing.T, b bucket.Bucket, key string, parts ...string) {
	t.Helper()
	var bytes [][]byte
	for _, p := range parts {
		bytes = append(bytes, []byte(p))
	}
	if err := b.Put(t.Context(), key, bytes); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func content(t *testing.T, b bucket.Bucket, key string) string {
	t.Helper()
	data, err := bucket.ReadAll(t.Context(), b, key, 64<<20)
	if err != nil {
		t.Fatalf("read %s: %v", key, err)
	}
	return string(data)
}

func list(t *testing.T, b bucket.Bucket, prefix, after string) []string {
	t.Helper()
	var keys []string
	for o, err := range b.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatalf("list %q after %q: %v", prefix, after, err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

func expect(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s:\ngot  %.600q\nwant %.600q", what, got, want)
	}
}

func putOnce(t *testing.T, b bucket.Bucket) {
	data := []byte("first")
	if err := b.Put(t.Context(), "a/b", [][]byte{data, nil, []byte(" writer")}); err != nil {
		t.Fatal(err)
	}
	copy(data, "XXXXX") // a driver may not keep what it was given
	for range 2 {
		if err := b.Put(t.Context(), "a/b", [][]byte{[]byte("second")}); !errors.Is(err, bucket.ErrExists) {
			t.Fatalf("the second put gives %v", err)
		}
	}
	if got := content(t, b, "a/b"); got != "first writer" {
		t.Fatalf("the object holds %q", got)
	}
	o, err := b.Stat(t.Context(), "a/b")
	if err != nil || o.Key != "a/b" || o.Size != 12 || time.Since(o.Stored).Abs() > time.Hour {
		t.Fatalf("stat gives %+v, %v", o, err)
	}
	for listed, err := range b.List(t.Context(), "", "") {
		// HTTP headers have whole seconds, listings may have more.
		if err != nil || listed.Key != o.Key || listed.Size != o.Size || listed.Stored.Sub(o.Stored).Abs() > time.Second {
			t.Fatalf("list gives %+v where stat gives %+v, %v", listed, o, err)
		}
	}
}

func oneWins(t *testing.T, b bucket.Bucket) {
	for round := range 3 {
		key := fmt.Sprintf("points/%d", round)
		var won atomic.Int32
		var winner atomic.Value
		var wait sync.WaitGroup
		for i := range 16 {
			wait.Go(func() {
				// Longer than what tells objects apart, and different in it.
				mine := strings.Repeat(fmt.Sprintf("writer %2d ", i), 100)
				err := b.Put(t.Context(), key, [][]byte{[]byte(mine)})
				if err == nil {
					won.Add(1)
					winner.Store(mine)
				} else if !errors.Is(err, bucket.ErrExists) {
					t.Errorf("writer %d: %v", i, err)
				}
			})
		}
		wait.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d of 16 writers won", won.Load())
		}
		if got := content(t, b, key); got != winner.Load() {
			t.Fatalf("the object holds %.20q, the winner wrote %.20q", got, winner.Load())
		}
	}
	expect(t, "what is left", list(t, b, "", ""), []string{"points/0", "points/1", "points/2"})
}

func zeroLength(t *testing.T, b bucket.Bucket) {
	put(t, b, "none")
	put(t, b, "empty", "", "")
	for _, key := range []string{"none", "empty"} {
		if got := content(t, b, key); got != "" {
			t.Fatalf("%s holds %q", key, got)
		}
		if err := b.Get(t.Context(), key, 0, nil); err != nil {
			t.Fatalf("reading nothing of %s: %v", key, err)
		}
		if err := b.Get(t.Context(), key, 0, make([]byte, 1)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("reading a byte of %s gives %v", key, err)
		}
		if err := b.Put(t.Context(), key, [][]byte{[]byte("x")}); !errors.Is(err, bucket.ErrExists) {
			t.Fatalf("putting again gives %v", err)
		}
	}
	expect(t, "list", list(t, b, "", ""), []string{"empty", "none"})
}

func large(t *testing.T, b bucket.Bucket) {
	random := rand.NewChaCha8([32]byte{1})
	whole := make([]byte, 32<<20)
	random.Read(whole)
	var parts [][]byte
	for rest, i := whole, 0; len(rest) > 0; i++ {
		n := min(len(rest), []int{64, 0, 700_001, 1, 65536 + 28}[i%5])
		parts = append(parts, rest[:n])
		rest = rest[n:]
	}
	if err := b.Put(t.Context(), "packs/ab/large", parts); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(whole))
	if err := b.Get(t.Context(), "packs/ab/large", 0, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, whole) {
		t.Fatal("the object holds something else than what was stored")
	}
	piece := got[:100_000]
	if err := b.Get(t.Context(), "packs/ab/large", 31<<20+5, piece); err != nil || !bytes.Equal(piece, whole[31<<20+5:][:100_000]) {
		t.Fatalf("a range in it differs, %v", err)
	}
}

func ranges(t *testing.T, b bucket.Bucket) {
	const data = "0123456789"
	put(t, b, "x", data)
	for off := range len(data) + 3 {
		for length := range len(data) + 3 {
			dst := make([]byte, length)
			err := b.Get(t.Context(), "x", int64(off), dst)
			switch {
			case off+length > len(data):
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("%d bytes at %d of 10 gives %v", length, off, err)
				}
			case err != nil || string(dst) != data[off:off+length]:
				t.Fatalf("%d bytes at %d gives %q, %v", length, off, dst, err)
			}
		}
	}
	if err := b.Get(t.Context(), "x", -1, make([]byte, 1)); err == nil || errors.Is(err, bucket.ErrNotFound) {
		t.Fatalf("a negative offset gives %v", err)
	}
}

func listing(t *testing.T, b bucket.Bucket, n int) {
	var keys []string
	for i := range n {
		keys = append(keys, fmt.Sprintf("packs/%02x/%04d", i%7, i))
	}
	keys = append(keys, "points/1", "points/10", "points/2", "pointless")
	var wait sync.WaitGroup
	next := make(chan string)
	for range 16 {
		wait.Go(func() {
			for k := range next {
				if err := b.Put(t.Context(), k, [][]byte{[]byte(k)}); err != nil {
					t.Errorf("put %s: %v", k, err)
				}
			}
		})
	}
	for _, k := range keys {
		next <- k
	}
	close(next)
	wait.Wait()
	slices.Sort(keys)

	middle := keys[n/2]
	for _, c := range []struct{ prefix, after string }{
		{"", ""}, {"packs/", ""}, {"packs/03/", ""}, {"packs/03", ""}, {"packs/03/0", ""}, {"p", ""}, {"point", ""},
		{"points/1", ""}, {"points/", "points/1"}, {"", middle}, {"packs/", middle}, {"packs/05", middle}, {"packs/", "packs/03"},
		{"packs/", "packs/03/"}, {"packs/", "packs/03/~"}, {"packs/", "a"}, {"packs/", "q"}, {"", keys[len(keys)-1]}, {"nothing/", ""}, {"points/1/", ""}, {"points/1", "points/1"},
	} {
		var want []string
		for _, k := range keys {
			if strings.HasPrefix(k, c.prefix) && k > c.after {
				want = append(want, k)
			}
		}
		expect(t, fmt.Sprintf("list %q after %q", c.prefix, c.after), list(t, b, c.prefix, c.after), want)
	}

	// A listing can be left early, and gone through again.
	all := b.List(t.Context(), "", "")
	for range 2 {
		seen := 0
		for _, err := range all {
			if err != nil {
				t.Fatal(err)
			}
			if seen++; seen == 5 {
				break
			}
		}
	}

	if err := b.Delete(t.Context(), keys[3]); err != nil {
		t.Fatal(err)
	}
	expect(t, "list after a deletion", list(t, b, "", ""), slices.Concat(keys[:3], keys[4:]))
}

func listingWhileWriting(t *testing.T, b bucket.Bucket) {
	var want []string
	for i := range 30 {
		key := fmt.Sprintf("s/%02d/stays", i)
		put(t, b, key, "x")
		want = append(want, key)
	}
	done := make(chan struct{})
	var wait sync.WaitGroup
	for w := range 4 {
		wait.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				// Every other one in a folder of its own, which comes and goes.
				key := fmt.Sprintf("s/%02d/goes-%d", (i*7+w)%30, w)
				if i%2 == 0 {
					key = fmt.Sprintf("s/0123456789abcdef-%d/goes", w)
				}
				if err := b.Put(t.Context(), key, [][]byte{[]byte(key)}); err != nil {
					t.Errorf("put %s: %v", key, err)
					return
				}
				if err := b.Delete(t.Context(), key); err != nil {
					t.Errorf("delete %s: %v", key, err)
					return
				}
			}
		})
	}
	for range 5 {
		got := slices.DeleteFunc(list(t, b, "s/", ""), func(k string) bool { return !strings.HasSuffix(k, "stays") })
		expect(t, "what stays", got, want)
	}
	close(done)
	wait.Wait()
	expect(t, "list in the end", list(t, b, "s/", ""), want)
}

// orderOfFolders holds keys in the order of their bytes, where a slash is just
// another byte, larger than some.
func orderOfFolders(t *testing.T, b bucket.Bucket) {
	keys := []string{"a!/x", "a+", "a-b", "a-b-c/x", "a.x", "a/-", "a/b/z", "a/b-", "a/b.c/d", "a/b0/1", "a0", "aa/b", "~"}
	for _, i := range rand.New(rand.NewPCG(1, 1)).Perm(len(keys)) {
		put(t, b, keys[i], "x")
	}
	slices.Sort(keys)
	expect(t, "list", list(t, b, "", ""), keys)
	for i, after := range keys {
		expect(t, "list after "+after, list(t, b, "", after), keys[i+1:])
	}
}

func oddKeys(t *testing.T, b bucket.Bucket) {
	keys := []string{
		"-", "_", "~", "=", "+", "@", ",", "!", "'", "(x)", "a.b.", "a..b", "CaSe", "case/CASE", "con", "a+b=c@d,e!f'(g)~",
		strings.Repeat("k", 200), strings.Repeat("d", 199) + "/" + strings.Repeat("e", 200) + "/" + strings.Repeat("f", 190) + "/" + strings.Repeat("g", 200),
	}
	for _, k := range keys {
		put(t, b, k, "of ", k)
	}
	for _, k := range keys {
		if got := content(t, b, k); got != "of "+k {
			t.Fatalf("%s holds %q", k, got)
		}
	}
	slices.Sort(keys)
	expect(t, "list", list(t, b, "", ""), keys)
	for _, k := range keys {
		if err := b.Delete(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, "list", list(t, b, "", ""), nil)
}

func illegalKeys(t *testing.T, b bucket.Bucket) {
	for _, k := range []string{
		"", "/", "a/", "/a", "a//b", ".", "..", "a/../b", ".hidden", "a/.tmp-x", "ä", "a b", "a\\b", "a\x00b", "a*", "a?b", "a%20b", "a:b",
		strings.Repeat("k", 201), strings.Repeat("k/", 500) + "k",
	} {
		if err := b.Put(t.Context(), k, [][]byte{[]byte("x")}); err == nil || errors.Is(err, bucket.ErrExists) {
			t.Errorf("put %q gives %v", k, err)
		}
		if err := b.Get(t.Context(), k, 0, make([]byte, 1)); err == nil {
			t.Errorf("get %q succeeds", k)
		}
		if _, err := b.Stat(t.Context(), k); err == nil {
			t.Errorf("stat %q succeeds", k)
		}
		if err := b.Delete(t.Context(), k); err == nil {
			t.Errorf("delete %q succeeds", k)
		}
	}
	expect(t, "list", list(t, b, "", ""), nil)
	expect(t, "list of an illegal prefix", list(t, b, "../", ""), nil)
}

func missing(t *testing.T, b bucket.Bucket) {
	put(t, b, "a/b/c", "x")
	for _, k := range []string{"x", "a/x", "x/y/z", "a/b", "a", "a/b/c/d"} {
		if err := b.Get(t.Context(), k, 0, make([]byte, 1)); !errors.Is(err, bucket.ErrNotFound) {
			t.Errorf("get %s gives %v", k, err)
		}
		if _, err := b.Stat(t.Context(), k); !errors.Is(err, bucket.ErrNotFound) {
			t.Errorf("stat %s gives %v", k, err)
		}
		if _, err := bucket.ReadAll(t.Context(), b, k, 10); !errors.Is(err, bucket.ErrNotFound) {
			t.Errorf("read all of %s gives %v", k, err)
		}
	}
	for _, k := range []string{"x", "a/x", "x/y/z"} {
		if err := b.Delete(t.Context(), k); err != nil {
			t.Errorf("delete %s gives %v", k, err)
		}
	}
	expect(t, "list", list(t, b, "", ""), []string{"a/b/c"})
}

func deleteAndPutAgain(t *testing.T, b bucket.Bucket) {
	const key = "sessions/0123456789abcdef0123456789abcdef/00000001"
	for i := range 3 {
		put(t, b, key, fmt.Sprint(i))
		if got := content(t, b, key); got != fmt.Sprint(i) {
			t.Fatalf("round %d gives %q", i, got)
		}
		for range 2 {
			if err := b.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Stat(t.Context(), key); !errors.Is(err, bucket.ErrNotFound) {
			t.Fatalf("a deleted object gives %v", err)
		}
		expect(t, "list", list(t, b, "sessions/", ""), nil)
	}
}

func cancelled(t *testing.T, b bucket.Bucket) {
	put(t, b, "there", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, stat := b.Stat(ctx, "there")
	var listed error
	for _, err := range b.List(ctx, "", "") {
		listed = err
	}
	for what, err := range map[string]error{
		"put":    b.Put(ctx, "new", [][]byte{[]byte("x")}),
		"get":    b.Get(ctx, "there", 0, make([]byte, 1)),
		"delete": b.Delete(ctx, "there"),
		"stat":   stat,
		"list":   listed,
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context gives %v", what, err)
		}
	}
	expect(t, "list", list(t, b, "", ""), []string{"there"})

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	for i := range 40 {
		put(t, b, fmt.Sprintf("x/%d", i), "x")
	}
	seen := 0
	for _, err := range b.List(ctx, "x/", "") {
		if err != nil {
			return
		}
		if seen++; seen == 2 {
			cancel()
		}
	}
	if seen != 40 {
		t.Fatalf("a listing that was cancelled ends after %d of 40 without an error", seen)
	}
}

func probe(t *testing.T, b bucket.Bucket) {
	for range 2 {
		if err := bucket.Probe(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, "what the probe leaves", list(t, b, "", ""), nil)
}
