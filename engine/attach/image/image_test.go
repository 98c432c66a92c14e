package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/engine/backup"
	"github.com/diskvault/diskvault/store"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/filebucket"
	"github.com/diskvault/diskvault/store/bucket/membucket"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shelf is a store with points of one disk.
type shelf struct {
	bucket bucket.Bucket
	key    store.Key
	store  *store.Store
	disk   string
}

func newShelf(t testing.TB, b bucket.Bucket) *shelf {
	t.Helper()
	s := &shelf{bucket: b, disk: filepath.Join(t.TempDir(), "disk.img")}
	created, err := store.Create(t.Context(), b, store.CreateOptions{})
	must(t, err)
	s.key, err = store.ParseKey(created.LocalKey)
	must(t, err)
	s.store, err = store.Open(t.Context(), b, s.key, store.OpenOptions{CacheDir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { _ = s.store.Close() }) // which a test may have done
	return s
}

func (s *shelf) backup(t testing.TB) store.Point {
	t.Helper()
	src, err := disk.Probe(t.Context(), s.disk)
	must(t, err)
	r, err := backup.New(backup.Options{Store: s.store, Source: src, Point: store.Point{Instance: "i"}, Meter: meter.New("preflight")}).Do(t.Context())
	must(t, err)
	return r.Point
}

func (s *shelf) open(t testing.TB, p store.Point, o Options) *Image {
	t.Helper()
	source, err := s.store.Image(p)
	must(t, err)
	i := Open(source, s.store.BlockSize(), o)
	t.Cleanup(func() { i.Close() })
	return i
}

// noise is a disk with data, text and holes; its size is odd.
func noise(size int64) []byte {
	r := rand.New(rand.NewPCG(5, 6))
	b := make([]byte, size)
	for at := int64(0); at < size; at += 512 << 10 {
		part := b[at:min(size, at+512<<10)]
		switch r.IntN(3) {
		case 0:
			for i := range part {
				part[i] = byte(r.Uint32())
			}
		case 1:
			for i := range part {
				part[i] = "some text "[i%10] + byte(at>>19)
			}
		}
	}
	return b
}

func TestReadsLikeTheDisk(t *testing.T) {
	s := newShelf(t, membucket.New())
	want := noise(37<<20 + 1234)
	must(t, os.WriteFile(s.disk, want, 0o600))
	// Too small for two segments: much is dropped and fetched again.
	img := s.open(t, s.backup(t), Options{CacheBytes: 6 << 20})
	if img.Size() != int64(len(want)) {
		t.Fatalf("size %d", img.Size())
	}
	var all sync.WaitGroup
	for seed := range 8 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(seed), 9))
			buf := make([]byte, 3<<20)
			for range 120 {
				off := r.Int64N(img.Size())
				p := buf[:r.IntN([]int{5000, 200_000, len(buf)}[r.IntN(3)])+1]
				n, err := img.ReadAt(p, off)
				left := int64(len(want)) - off
				if wantN := min(int64(len(p)), left); int64(n) != wantN || (err == io.EOF) != (left < int64(len(p))) || err != nil && err != io.EOF {
					t.Errorf("read of %d at %d: %d, %v", len(p), off, n, err)
				}
				if !bytes.Equal(p[:n], want[off:off+int64(n)]) {
					t.Errorf("other bytes at %d", off)
				}
			}
		})
	}
	all.Go(func() { // in order, beside them
		got, err := io.ReadAll(io.NewSectionReader(img, 0, img.Size()))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("read in order: %v", err)
		}
	})
	all.Wait()
	img.mu.Lock()
	defer img.mu.Unlock()
	if img.cache.weight > 6<<20 || len(img.cache.blocks) > img.cache.order.Len()+int(2*maxAhead/img.block) {
		t.Errorf("%d bytes in %d blocks are kept", img.cache.weight, len(img.cache.blocks))
	}
}

func TestDataAreTheBlocksThatAreNotZeros(t *testing.T) {
	s := newShelf(t, membucket.New())
	f, err := os.Create(s.disk)
	must(t, err)
	must(t, f.Truncate(3<<30))
	for _, off := range []int64{100, 1 << 30, 1<<30 + 70_000, 3<<30 - 10} {
		_, err := f.WriteAt([]byte("data"), off)
		must(t, err)
	}
	must(t, f.Close())
	img := s.open(t, s.backup(t), Options{})
	var got []int64
	for off := int64(0); off < img.Size(); {
		next, ok, err := img.NextData(t.Context(), off)
		must(t, err)
		if !ok {
			break
		}
		set, err := img.Data(t.Context(), next, 64<<20)
		must(t, err)
		for _, r := range set {
			got = append(got, r.Off, r.End())
		}
		off = next + 64<<20
	}
	const b = 64 << 10
	want := []int64{0, b, 1 << 30, 1<<30 + 2*b, 3<<30 - b, 3 << 30}
	if len(got) != len(want) {
		t.Fatalf("%d, want %d", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%d, want %d", got, want)
		}
	}
}

// TestDamageIsNamedAndGoesAway holds that a damaged block is an error and not
// zeros, that others can be read, and that a failure is not remembered.
func TestDamageIsNamedAndGoesAway(t *testing.T) {
	mem := membucket.New()
	broken := &breaking{Bucket: mem}
	s := newShelf(t, broken)
	want := noise(20 << 20)
	must(t, os.WriteFile(s.disk, want, 0o600))
	p := s.backup(t)
	img := s.open(t, p, Options{})
	buf := make([]byte, 4096)
	broken.set(true)
	if _, err := img.ReadAt(buf, 0); !errors.Is(err, errBroken) && problem.From(err) == nil {
		t.Errorf("got %v", err)
	}
	broken.set(false)
	for off := int64(0); off < int64(len(want)); off += 1 << 20 {
		if _, err := img.ReadAt(buf, off); err != nil || !bytes.Equal(buf, want[off:off+4096]) {
			t.Errorf("at %d after the failure: %v", off, err)
		}
	}
}

func TestAReaderThatGoesAwayDoesNotDisturbOthers(t *testing.T) {
	mem := membucket.New()
	slow := &breaking{Bucket: mem}
	s := newShelf(t, slow)
	want := noise(8 << 20)
	must(t, os.WriteFile(s.disk, want, 0o600))
	img := s.open(t, s.backup(t), Options{})
	slow.delay.Store(50)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	buf := make([]byte, 4<<20)
	if err := img.Read(ctx, buf, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := img.Read(t.Context(), buf, 0); err != nil || !bytes.Equal(buf, want[:len(buf)]) {
		t.Errorf("the other: %v", err)
	}
	img.Close()
	if _, err := img.ReadAt(buf, 6<<20); err == nil {
		t.Error("a closed image was read")
	}
}

// TestSpeed tells how fast it is; it fails only where it is far from its aims.
func TestSpeed(t *testing.T) {
	dir := t.TempDir()
	b, err := filebucket.Open(dir, filebucket.Options{})
	must(t, err)
	s := newShelf(t, b)
	const size = 192 << 20
	content := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 1))
	for at := 0; at < size; at += 16 { // half of it is noise
		for i := range 8 {
			content[at+i] = byte(r.Uint32())
		}
		copy(content[at+8:], "filler12")
	}
	must(t, os.WriteFile(s.disk, content, 0o600))
	p := s.backup(t)
	must(t, s.store.Close())
	b, err = filebucket.Open(dir, filebucket.Options{})
	must(t, err)
	again, err := store.Open(t.Context(), b, s.key, store.OpenOptions{}) // without an index
	must(t, err)
	s.store = again

	start := time.Now()
	img := s.open(t, p, Options{})
	buf := make([]byte, 1<<20)
	_, err = img.ReadAt(buf[:4096], 100<<20)
	must(t, err)
	first := time.Since(start)

	var times []time.Duration
	for range 400 {
		off := r.Int64N(size/4096) * 4096
		start := time.Now()
		_, err := img.ReadAt(buf[:4096], off)
		must(t, err)
		times = append(times, time.Since(start))
		if !bytes.Equal(buf[:4096], content[off:off+4096]) {
			t.Fatalf("other bytes at %d", off)
		}
	}
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })

	img = s.open(t, p, Options{})
	start = time.Now()
	for off := int64(0); off < size; off += int64(len(buf)) {
		_, err := img.ReadAt(buf, off)
		must(t, err)
	}
	rate := size / time.Since(start).Seconds() / 1e9
	t.Logf("first byte %s, random reads p50 %s p99 %s, in order %.2f GB/s", first, times[200], times[396], rate)
	if first > 500*time.Millisecond || times[396] > 500*time.Millisecond || rate < 0.03 {
		t.Error("too slow")
	}
}
