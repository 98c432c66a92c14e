package overlay

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
)

// memory is a base with zeros in every third stretch of 1 MiB.
type memory struct {
	content []byte
	reads   atomic.Int64
}

func newMemory(size int, seed uint64) *memory {
	m := &memory{content: make([]byte, size)}
	r := rand.New(rand.NewPCG(seed, 1))
	for at := 0; at < size; at += 1 << 20 {
		if at>>20%3 == 1 || at>>20%16 > 9 {
			continue
		}
		for i := at; i < min(size, at+1<<20); i += 8 {
			m.content[i] = byte(r.Uint32()) | 1
		}
	}
	return m
}

func (m *memory) Size() int64 { return int64(len(m.content)) }

func (m *memory) Read(_ context.Context, p []byte, off int64) error {
	m.reads.Add(1)
	copy(p, m.content[off:])
	return nil
}

func (m *memory) NextData(_ context.Context, off int64) (int64, bool, error) {
	for w := range extent.Between(off, m.Size()).Windows(4096) {
		if !zeros(m.content[w.Off:w.End()]) {
			return w.Off, true, nil
		}
	}
	return 0, false, nil
}

func (m *memory) Data(_ context.Context, off, length int64) (extent.Set, error) {
	var out extent.Set
	for w := range extent.Between(off, off+length).Windows(64 << 10) {
		if !zeros(m.content[w.Off:w.End()]) {
			out = out.Union(extent.Of(w))
		}
	}
	return out, nil
}

func zeros(p []byte) bool { return bytes.Count(p, []byte{0}) == len(p) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// change does one random write, zero or trim to the disk and to what it should
// be.
func change(t *testing.T, d *Disk, want []byte, r *rand.Rand, from, to int64) {
	t.Helper()
	length := 1 + r.Int64N(20_000)
	if r.IntN(20) == 0 {
		length = 1 + r.Int64N(6<<20)
	}
	length = min(length, to-from)
	off := from + r.Int64N(to-from-length+1)
	if r.IntN(3) == 0 {
		off = off / 4096 * 4096
	}
	part := want[off : off+length]
	switch r.IntN(4) {
	case 0:
		must(t, d.Zero(t.Context(), extent.Between(off, off+length), r.IntN(2) == 0))
		clear(part)
	case 1:
		must(t, d.Trim(t.Context(), extent.Between(off, off+length)))
		clear(part)
	default:
		for i := range part {
			part[i] = byte(r.Uint32())
		}
		must(t, d.Write(t.Context(), part, off))
	}
}

// same wants the disk to be as it should, by reads of several sizes, and its
// map to name all that is not zeros.
func same(t *testing.T, d *Disk, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	must(t, d.Read(t.Context(), got, 0))
	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("byte %d is %d, want %d", i, got[i], want[i])
			}
		}
	}
	data, err := d.Data(t.Context(), 0, d.Size())
	must(t, err)
	for _, hole := range extent.Of(extent.Range{Len: d.Size()}).Subtract(data) {
		if !zeros(want[hole.Off:hole.End()]) {
			t.Fatalf("the map calls %v zeros, and it is not", hole)
		}
	}
	for at := int64(0); at < d.Size(); {
		next, ok, err := d.NextData(t.Context(), at)
		must(t, err)
		if !ok {
			next = d.Size()
		}
		if !zeros(want[at:next]) {
			t.Fatalf("NextData leaves data out between %d and %d", at, next)
		}
		at = next + 1<<20
	}
}

func TestScratchAgainstAModel(t *testing.T) {
	base := newMemory(37<<20+12_345, 1)
	before := bytes.Clone(base.content)
	want := bytes.Clone(base.content)
	dir := t.TempDir()
	d, err := Scratch(base, dir)
	must(t, err)
	r := rand.New(rand.NewPCG(2, 2))
	for range 300 {
		change(t, d, want, r, 0, d.Size())
	}
	same(t, d, want)
	must(t, d.Flush(t.Context()))
	for at := int64(0); at < d.Size(); at += 4096 {
		end := min(at+4096, d.Size())
		if !bytes.Equal(want[at:end], before[at:end]) && !d.Written().Covers(extent.Between(at, end)) {
			t.Fatalf("byte %d differs from the base and is not told of", at)
		}
	}
	if !bytes.Equal(base.content, before) {
		t.Fatal("the base was written to")
	}
	must(t, d.Close())
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) > 0 {
		t.Fatalf("the scratch left %v", left)
	}
}

// Clients write, each in its own part, while the base is brought in: the file
// must be the disk in the end.
func TestFillBesideWriters(t *testing.T) {
	base := newMemory(48<<20+777, 3)
	want := bytes.Clone(base.content)
	dir := t.TempDir()
	name := filepath.Join(dir, "new.img")
	d, resumed, err := Open(base, name+".part", "point 1")
	must(t, err)
	if resumed {
		t.Fatal("a new overlay says that it goes on")
	}
	var clients sync.WaitGroup
	const parts = 4
	for c := range int64(parts) {
		clients.Go(func() {
			r := rand.New(rand.NewPCG(uint64(c), 4))
			for range 100 {
				change(t, d, want, r, c*d.Size()/parts, (c+1)*d.Size()/parts)
			}
		})
	}
	var done atomic.Int64
	must(t, d.Fill(t.Context(), &done))
	if done.Load() != d.Size() {
		t.Errorf("progress ended at %d of %d", done.Load(), d.Size())
	}
	clients.Wait()
	same(t, d, want)
	must(t, d.Finish(name))
	must(t, d.Write(t.Context(), []byte("late"), 5<<20))
	copy(want[5<<20:], "late")
	must(t, d.Close())
	got, err := os.ReadFile(name)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatal("the file is not the disk")
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 1 {
		t.Fatalf("beside the file there are %v", left)
	}
}

// What a client flushed survives a crash at any time; what it did not may be
// lost, but then the old content is there, not a mixture within a granule that
// nobody wrote.
func TestCrash(t *testing.T) {
	base := newMemory(24<<20, 5)
	want := bytes.Clone(base.content)
	name := filepath.Join(t.TempDir(), "new.img")
	r := rand.New(rand.NewPCG(6, 6))
	for round := range 6 {
		d, resumed, err := Open(base, name+".part", "point 1")
		must(t, err)
		if resumed != (round > 0) {
			t.Fatalf("round %d: resumed %v", round, resumed)
		}
		same(t, d, want)
		for range 20 {
			change(t, d, want, r, 0, d.Size()/2)
		}
		must(t, d.Flush(t.Context()))
		// Never flushed, and never marked on disk: in the half that the others leave
		// alone, so that nothing of it may be seen later.
		must(t, d.Write(t.Context(), bytes.Repeat([]byte{0xee}, 3_000_000), d.Size()/2+int64(round)<<20))
		if round == 3 {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			var done atomic.Int64
			d.keep.unsaved = map[int64]struct{}{} // a crash before the marks
			if d.Fill(ctx, &done) == nil {
				t.Fatal("a cancelled Fill says that it is done")
			}
		}
		must(t, d.Close())
	}
	if _, _, err := Open(base, name+".part", "point 2"); !problem.Is(err, problem.TargetExists) {
		t.Fatalf("going on with another point: %v", err)
	}
	d, _, err := Open(base, name+".part", "point 1")
	must(t, err)
	if _, _, err := Open(base, name+".part", "point 1"); !problem.Is(err, problem.TargetInUse) {
		t.Fatalf("a second process: %v", err)
	}
	var done atomic.Int64
	must(t, d.Fill(t.Context(), &done))
	must(t, d.Finish(name))
	must(t, d.Close())
	got, err := os.ReadFile(name)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatal("the file is not the disk")
	}
}

func TestNameTaken(t *testing.T) {
	base := newMemory(1<<20, 7)
	name := filepath.Join(t.TempDir(), "new.img")
	d, _, err := Open(base, name+".part", "point 1")
	must(t, err)
	defer d.Close()
	var done atomic.Int64
	must(t, d.Fill(t.Context(), &done))
	must(t, os.WriteFile(name, []byte("somebody's"), 0o600))
	if err := d.Finish(name); !problem.Is(err, problem.TargetExists) {
		t.Fatalf("Finish over a file: %v", err)
	}
	if got, _ := os.ReadFile(name); string(got) != "somebody's" {
		t.Fatal("a file was replaced")
	}
	must(t, os.Remove(name))
	must(t, d.Finish(name))
}
