package disk_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/disktest"
)

// noise is content that holds no zeros for long and no label.
func noise(seed uint64, n int) []byte {
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	b := make([]byte, n)
	rng.Read(b)
	clear(b[:min(n, 8)])
	return b
}

func open(t *testing.T, path string, o disk.ReadOptions) *disk.Reader {
	t.Helper()
	r, err := probe(t, path).Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func allocated(t *testing.T, r *disk.Reader) extent.Set {
	t.Helper()
	var ranges []extent.Range
	for e, err := range r.Allocated(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if n := len(ranges); n > 0 && ranges[n-1].End() > e.Off {
			t.Fatalf("the ranges are not in order: %v after %v", e, ranges[n-1])
		}
		ranges = append(ranges, e)
	}
	return extent.Of(ranges...)
}

func TestReadWhole(t *testing.T) {
	for _, size := range []int{0, 1, 511, 4096, 1<<20 + 7, 9<<20 + 4095} {
		content := noise(uint64(size), size)
		r := open(t, write(t, filepath.Join(t.TempDir(), "disk.img"), content), disk.ReadOptions{})
		if r.Size() != int64(size) {
			t.Fatalf("the size is %d, want %d", r.Size(), size)
		}
		got := make([]byte, size)
		var wait sync.WaitGroup
		for w := range (extent.Range{Len: int64(size)}).Windows(1 << 20) {
			wait.Go(func() {
				if err := r.Read(ctx, got[w.Off:w.End()], w.Off); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if !bytes.Equal(got, content) {
			t.Errorf("a file of %d bytes reads otherwise than it was written", size)
		}
		if !allocated(t, r).Covers(extent.Range{Len: int64(size)}) {
			t.Errorf("a file without holes has allocated only %v", allocated(t, r))
		}
		if err := r.Read(ctx, make([]byte, 1), int64(size)); err == nil {
			t.Error("a read beyond the end was taken")
		}
	}
}

func TestAllocatedCoversAllData(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 3))
	const size = 32<<20 + 123
	path := disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.img"), size)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var data []extent.Range
	for range 40 {
		off := rng.Int64N(size)
		b := noise(seed, int(min(rng.Int64N(100_000)+1, size-off)))
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
		data = append(data, extent.Range{Off: off, Len: int64(len(b))})
	}
	r := open(t, path, disk.ReadOptions{})
	want, got := extent.Of(data...), allocated(t, r)
	if missing := want.Subtract(got); len(missing) > 0 {
		t.Fatalf("seed %d: data in %v is not allocated", seed, missing)
	}
	if !want.Align(64<<10, size).Equal(got.Align(64<<10, size)) {
		t.Errorf("seed %d: holes are taken for data: %v", seed, got.Subtract(want.Align(64<<10, size)))
	}
}

func TestAllocatedOfHolesOnly(t *testing.T) {
	r := open(t, disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.img"), 1<<40), disk.ReadOptions{})
	if got := allocated(t, r); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestAllocatedEndsWithTheContext(t *testing.T) {
	r := open(t, write(t, filepath.Join(t.TempDir(), "disk.img"), noise(1, 4096)), disk.ReadOptions{})
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for _, err := range r.Allocated(ended) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if err := r.Read(ended, make([]byte, 1), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("read gave %v", err)
	}
}

func TestReadOfAFileThatShrinks(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "disk.img"), noise(2, 1<<20))
	r := open(t, path, disk.ReadOptions{})
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
	err := r.Read(ctx, make([]byte, 4096), 0)
	wantCode(t, err, problem.SourceResized, "1048576", "1000")
}

func TestOpenAfterAChange(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "disk.img"), noise(3, 4096))
	s := probe(t, path)
	if err := os.Truncate(path, 8192); err != nil {
		t.Fatal(err)
	}
	_, err := s.Open(ctx, disk.ReadOptions{})
	wantCode(t, err, problem.SourceResized, "4096", "8192")

	s = probe(t, path)
	other := write(t, filepath.Join(dir, "other"), make([]byte, 8192))
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	_, err = s.Open(ctx, disk.ReadOptions{})
	wantCode(t, err, problem.SourceReplaced, path)

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err = s.Open(ctx, disk.ReadOptions{})
	wantCode(t, err, problem.SourceNotFound, path)
}

func TestReadAroundUnreadableRanges(t *testing.T) {
	content := noise(4, 4<<20)
	// Two pages, a run across a 64 KiB border, and a single byte: the page cache
	// loses the whole page of it.
	bad := extent.Of(extent.Range{Off: 8192, Len: 8192}, extent.Range{Off: 1<<20 - 4096, Len: 8192}, extent.Range{Off: 3<<20 + 5000, Len: 1})
	want := bad.Align(4096, int64(len(content)))
	f := disktest.NewFaulty(t, content, bad)
	r := open(t, f.Path, disk.ReadOptions{})
	got := bytes.Repeat([]byte{0xEE}, len(content))
	err := r.Read(ctx, got, 0)
	var e *disk.ReadError
	if !errors.As(err, &e) {
		t.Fatalf("got the error %v", err)
	}
	if !e.Ranges.Equal(want) || !errors.Is(err, unix.EIO) {
		t.Errorf("got the ranges %v (%v), want %v", e.Ranges, e.Err, want)
	}
	for _, b := range want {
		clear(content[b.Off:b.End()])
	}
	if !bytes.Equal(got, content) {
		t.Error("the data around the unreadable ranges was not delivered, or they are not zero")
	}
	if n := f.Reads.Load(); n > 1000 {
		t.Errorf("it took %d reads", n)
	}
	if err := r.Read(ctx, got[:1<<20], 2<<20); err != nil {
		t.Errorf("a read without a fault gave %v", err)
	}
}

func TestReadAroundADeviceFault(t *testing.T) {
	content := noise(5, 4<<20)
	bad := extent.Of(extent.Range{Off: 1 << 20, Len: 4096})
	f := disktest.NewFaulty(t, content, bad)
	r := open(t, disktest.Loop(t, f.Path, "--read-only"), disk.ReadOptions{Direct: true})
	got := disk.AlignedBuffer(len(content))
	err := r.Read(ctx, got, 0)
	var e *disk.ReadError
	if !errors.As(err, &e) || !e.Ranges.Equal(bad) {
		t.Fatalf("got %v, want a ReadError of %v", err, bad)
	}
	clear(content[1<<20 : 1<<20+4096])
	if !bytes.Equal(got, content) {
		t.Error("the data around the fault was not delivered")
	}
}

func TestReadAroundNothingReadable(t *testing.T) {
	const size = 16 << 20
	all := extent.Of(extent.Range{Len: size})
	f := disktest.NewFaulty(t, make([]byte, size), all)
	// The probe cannot read its labels, and says what it knows all the same.
	r := open(t, f.Path, disk.ReadOptions{})
	var e *disk.ReadError
	if err := r.Read(ctx, make([]byte, size), 0); !errors.As(err, &e) || !e.Ranges.Equal(all) {
		t.Fatalf("got %v", err)
	}
	if n := f.Reads.Load(); n > 10000 {
		t.Errorf("it took %d reads: the tries are not bounded", n)
	}
}

func TestDirectReadIntoAnyBuffer(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 4))
	content := noise(6, 3<<20)
	device := disktest.Loop(t, write(t, filepath.Join(t.TempDir(), "disk.img"), content))
	r := open(t, device, disk.ReadOptions{Direct: true})
	if !r.Direct() {
		t.Fatal("the reader is not direct")
	}
	buffer := make([]byte, len(content)+1)
	for range 200 {
		off := rng.IntN(len(content))
		n := rng.IntN(len(content) - off + 1)
		p := buffer[1 : 1+n] // at an odd address
		if err := r.Read(ctx, p, int64(off)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !bytes.Equal(p, content[off:off+n]) {
			t.Fatalf("seed %d: a direct read of %d bytes at %d is wrong", seed, n, off)
		}
	}
	if got := allocated(t, r); !got.Equal(extent.Of(extent.Range{Len: r.Size()})) {
		t.Errorf("the device has allocated %v", got)
	}
}

func TestReadKeepsThePageCacheAsItWas(t *testing.T) {
	const size = 96 << 20
	path := write(t, filepath.Join(t.TempDir(), "disk.img"), bytes.Repeat(noise(7, 1<<20), size>>20))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cached := func(r extent.Range) uint64 {
		var st unix.Cachestat_t
		if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{Off: uint64(r.Off), Len: uint64(r.Len)}, &st, 0); err != nil {
			t.Skip("skip: needs cachestat(2)")
		}
		return st.Cache
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	// Somebody uses the chunk at 32 MiB; nobody the rest.
	warm := extent.Range{Off: 32 << 20, Len: 4 << 20}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, warm.Len), warm.Off); err != nil {
		t.Fatal(err)
	}
	before, kept := cached(extent.Range{Len: size}), cached(warm)
	if kept == 0 || before != kept {
		t.Skip("skip: needs a file system that drops its cache when told")
	}
	r := open(t, path, disk.ReadOptions{})
	p := make([]byte, 4<<20)
	for w := range (extent.Range{Len: size}).Windows(4 << 20) {
		if err := r.Read(ctx, p, w.Off); err != nil {
			t.Fatal(err)
		}
	}
	if got := cached(warm); got != kept {
		t.Errorf("of %d pages that were in use, %d are left", kept, got)
	}
	// Some pages may escape the hint; most must not.
	if got := cached(extent.Range{Len: size}) - kept; got > size/4096/10 {
		t.Errorf("%d pages of the backup are left in the cache", got)
	}
}
