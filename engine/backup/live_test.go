package backup

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/disktest"
	"github.com/diskvault/diskvault/store"
)

// A ring is a disk to which a program writes numbers in order, from 1 on, each
// into the next of some sectors that lie all over it.
type ring struct {
	path    string
	sectors []int64 // where they lie
	written atomic.Uint64
	stop    chan struct{}
	ended   sync.WaitGroup
	failed  error // once ended
}

const (
	ringSize    = 32 << 20
	ringSectors = 700
	sector      = 4096
)

func newRing(t *testing.T, dir string, seed uint64) *ring {
	t.Helper()
	r := &ring{path: filepath.Join(dir, "disk.img"), stop: make(chan struct{})}
	random := rand.New(rand.NewPCG(seed, 4))
	for _, at := range random.Perm(ringSize / sector)[:ringSectors] {
		r.sectors = append(r.sectors, int64(at)*sector)
	}
	b := make([]byte, ringSize)
	for i := range b[:ringSize/2] {
		b[i] = byte(random.Uint32())
	}
	for _, at := range r.sectors {
		clear(b[at : at+8])
	}
	if err := os.WriteFile(r.path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// begin starts the program; end stops it, and may be called again.
func (r *ring) begin(t *testing.T, put func(off int64, b []byte) error) (end func()) {
	t.Helper()
	r.ended.Go(func() {
		b := disk.AlignedBuffer(sector)
		for n := uint64(1); ; n++ {
			select {
			case <-r.stop:
				return
			default:
			}
			binary.LittleEndian.PutUint64(b, n)
			if r.failed = put(r.sectors[n%ringSectors], b); r.failed != nil {
				return
			}
			r.written.Store(n)
		}
	})
	end = sync.OnceFunc(func() {
		close(r.stop)
		r.ended.Wait()
		if r.failed != nil {
			t.Error(r.failed)
		}
	})
	t.Cleanup(end)
	return end
}

// check fails the test unless the image is the disk as it was after some number
// was written, and before the next one was, no earlier than after the first.
func (r *ring) check(t *testing.T, image []byte, first, last uint64) {
	t.Helper()
	numbers := make([]uint64, ringSectors)
	newest := uint64(0)
	for i, at := range r.sectors {
		numbers[i] = binary.LittleEndian.Uint64(image[at:])
		newest = max(newest, numbers[i])
	}
	if newest < first || newest > last+1 {
		t.Errorf("the newest number is %d; %d was there before and %d after", newest, first, last)
	}
	for back := range uint64(min(ringSectors, newest)) {
		if n := newest - back; numbers[n%ringSectors] != n {
			t.Fatalf("%d is there, %d is not: its sector holds %d", newest, n, numbers[n%ringSectors])
		}
	}
}

func TestEachPointOfADiskInUseIsAPrefixOfItsWrites(t *testing.T) {
	for _, kind := range []string{"xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			dir, _ := disktest.FileSystem(t, kind, 640<<20)
			for how, open := range map[string]func(path string) (put func(int64, []byte) error, done func() error, err error){
				"buffered": func(path string) (func(int64, []byte) error, func() error, error) { return writer(path, 0) },
				"direct":   func(path string) (func(int64, []byte) error, func() error, error) { return writer(path, unix.O_DIRECT) },
				"mapped":   mapped,
			} {
				t.Run(how, func(t *testing.T) {
					s := newStore(t)
					r := newRing(t, dir, 1)
					put, done, err := open(r.path)
					if err != nil {
						t.Fatal(err)
					}
					end := r.begin(t, put)
					var parent *store.Point
					for range seeds(t, 3) {
						first := r.written.Load()
						p := again(t, s, r.path, parent, nil).Point
						if p.CaptureMethod != "reflink" || p.Consistency != store.CrashConsistent || parent != nil && p.ChangeTracking != "fiemap" {
							t.Errorf("%+v", p)
						}
						r.check(t, content(t, s, p), first, r.written.Load())
						parent = &p
						time.Sleep(20 * time.Millisecond)
					}
					end()
					if err := done(); err != nil {
						t.Fatal(err)
					}
				})
			}
		})
	}
}

func writer(path string, flags int) (put func(int64, []byte) error, done func() error, err error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	put = func(off int64, b []byte) error {
		n, err := unix.Pwrite(fd, b, off)
		if err == nil && n != len(b) {
			err = errors.New("a short write")
		}
		return err
	}
	return put, func() error { return unix.Close(fd) }, err
}

func mapped(path string) (put func(int64, []byte) error, done func() error, err error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(fd)
	m, err := unix.Mmap(fd, 0, ringSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	put = func(off int64, b []byte) error {
		copy(m[off:off+8], b) // one store of eight bytes
		time.Sleep(10 * time.Microsecond)
		return nil
	}
	return put, func() error { return unix.Munmap(m) }, err
}
