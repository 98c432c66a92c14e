package restore

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/engine/backup"
	"github.com/diskvault/diskvault/store"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/membucket"
)

// lab is a store in memory and a disk whose content the test knows.
type lab struct {
	t       *testing.T
	bucket  *membucket.Bucket
	store   *store.Store
	path    string
	content []byte
}

func newLab(t *testing.T, size int64) *lab {
	t.Helper()
	l := &lab{t: t, bucket: membucket.New(), path: filepath.Join(t.TempDir(), "disk.img"), content: make([]byte, size)}
	created, err := store.Create(t.Context(), l.bucket, store.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := store.ParseKey(created.LocalKey)
	if err != nil {
		t.Fatal(err)
	}
	if l.store, err = store.Open(t.Context(), l.bucket, key, store.OpenOptions{CacheDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.store.Close() })
	return l
}

// change fills a part of the disk with noise.
func (l *lab) change(off, length int64, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	part := l.content[off : off+length]
	for i := range part {
		part[i] = byte(r.Uint32())
	}
}

func (l *lab) backup() store.Point {
	l.t.Helper()
	if err := os.WriteFile(l.path, l.content, 0o600); err != nil {
		l.t.Fatal(err)
	}
	src, err := disk.Probe(l.t.Context(), l.path)
	if err != nil {
		l.t.Fatal(err)
	}
	result, err := backup.New(backup.Options{Store: l.store, Source: src, Point: store.Point{Instance: "i"}, Meter: meter.New("preflight")}).Do(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return result.Point
}

func (l *lab) options(p store.Point, to string) Options {
	return Options{Store: l.store, Point: p, To: to, Meter: meter.New("preflight")}
}

func (l *lab) mustHold(path string) {
	l.t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, l.content) {
		l.t.Fatalf("%s is not the disk (%v)", path, err)
	}
}

func TestANewFileIsWholeAndSparse(t *testing.T) {
	l := newLab(t, 40<<20+777)
	l.change(5<<20, 3<<20, 1)
	l.change(40<<20, 777, 2)
	to := filepath.Join(t.TempDir(), "new.img")
	result, err := New(l.options(l.backup(), to)).Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.mustHold(to)
	if !result.Verified || result.Written+result.Zero+result.Skipped != int64(len(l.content)) {
		t.Errorf("%+v", result)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(to, &st); err != nil || st.Blocks*512 > 8<<20 {
		t.Errorf("it takes %d bytes (%v)", st.Blocks*512, err)
	}
	if _, err := New(l.options(l.backup(), to)).Do(t.Context()); !problem.Is(err, problem.TargetExists) {
		t.Errorf("an existing file was not refused: %v", err)
	}
}

func TestOntoAnOlderImageOnlyTheDifferenceIsWritten(t *testing.T) {
	l := newLab(t, 24<<20+5)
	l.change(0, 20<<20, 1)
	l.backup()
	older := filepath.Join(t.TempDir(), "older.img")
	if err := os.WriteFile(older, l.content, 0o600); err != nil {
		t.Fatal(err)
	}
	l.change(7<<20, 64<<10, 2)        // one block, aligned
	clear(l.content[10<<20 : 11<<20]) // and a megabyte of zeros
	o := l.options(l.backup(), older)
	o.Overwrite = true
	result, err := New(o).Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.mustHold(older)
	if result.Written != 64<<10 || result.Zero != 1<<20 {
		t.Errorf("%+v", result)
	}
}

func TestAnInterruptedRestoreIsGoneOnWith(t *testing.T) {
	l := newLab(t, 64<<20)
	l.change(0, 64<<20, 3)
	p := l.backup()
	to := filepath.Join(t.TempDir(), "new.img")
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	o := l.options(p, to)
	run := New(o)
	go func() {
		for run.Progress().Done < 8<<20 {
		}
		cancel(stopped)
	}()
	if _, err := run.Do(ctx); !errors.Is(err, stopped) && !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled restore returned %v", err)
	}
	if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a cancelled restore left a file under its name: %v", err)
	}
	result, err := New(l.options(p, to)).Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.mustHold(to)
	if !result.Resumed || result.Skipped == 0 {
		t.Errorf("it began anew: %+v", result)
	}
}

func TestWhatTheStoreLostIsNamedAndTheRestRestored(t *testing.T) {
	l := newLab(t, 12<<20)
	l.change(0, 4<<20, 1)
	l.backup()
	var first []bucket.Object // the packs of the first megabytes
	for o, err := range l.bucket.List(t.Context(), "packs/data/", "") {
		if err != nil {
			t.Fatal(err)
		}
		first = append(first, o)
	}
	l.change(8<<20, 4<<20, 2)
	p := l.backup()
	for _, o := range first {
		if err := l.bucket.Delete(t.Context(), o.Key); err != nil {
			t.Fatal(err)
		}
	}
	to := filepath.Join(t.TempDir(), "new.img")
	_, err := New(l.options(p, to)).Do(t.Context())
	if !problem.Is(err, problem.StoreDamaged) {
		t.Fatalf("the loss was not reported: %v", err)
	}
	o := l.options(p, to)
	o.AllowDamaged = true
	result, err := New(o).Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := []store.Range{{Offset: 0, Length: 4 << 20}}; result.Verified || len(result.Lost) != 1 || result.Lost[0] != want[0] {
		t.Errorf("lost %+v", result.Lost)
	}
	clear(l.content[:4<<20])
	l.mustHold(to)
}
