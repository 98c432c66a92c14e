package backup

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/store"
	"github.com/diskvault/diskvault/store/bucket/membucket"
)

func newStore(t *testing.T) *store.Store {
	t.Helper()
	b := membucket.New()
	created, err := store.Create(t.Context(), b, store.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := store.ParseKey(created.LocalKey)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), b, key, store.OpenOptions{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// image writes a file of the given size, with noise at some places and holes
// between.
func image(t *testing.T, size int64, seed uint64) (path string, content []byte) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	content = make([]byte, size)
	path = filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for at := int64(0); at < size; at += 1 + r.Int64N(3<<20) {
		part := content[at:min(size, at+1+r.Int64N(1<<20))]
		for i := range part {
			part[i] = byte(r.Uint32())
		}
		if _, err := f.WriteAt(part, at); err != nil {
			t.Fatal(err)
		}
	}
	return path, content
}

func options(t *testing.T, s *store.Store, path string) Options {
	t.Helper()
	src, err := disk.Probe(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return Options{Store: s, Source: src, Point: store.Point{Instance: "i"}, Meter: meter.New("preflight")}
}

func content(t *testing.T, s *store.Store, p store.Point) []byte {
	t.Helper()
	img, err := s.Image(p)
	if err != nil {
		t.Fatal(err)
	}
	r := img.NewReader()
	defer r.Close()
	got := make([]byte, p.Size)
	for off := int64(0); off < p.Size; off += store.SegmentSize {
		err := r.Window(t.Context(), off, store.SegmentSize, func(at int64, data []byte) error {
			copy(got[at:], data)
			return nil
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	return got
}

func TestBackupsOfAFileThatChanges(t *testing.T) {
	s := newStore(t)
	path, want := image(t, 37<<20+123, 1)
	var parent *store.Point
	for round := range 3 {
		o := options(t, s, path)
		o.Parent = parent
		began := time.Now()
		result, err := New(o).Do(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		o.Meter.Finish()
		wall := time.Since(began).Seconds()
		p := result.Point
		if got := content(t, s, p); !bytes.Equal(got, want) {
			t.Fatalf("round %d: came back different", round)
		}
		if p.Consistency != store.CrashConsistent || !result.Capture.Proven {
			t.Errorf("round %d: %+v", round, result.Capture)
		}
		if b := p.Bytes; b.Zero+b.Unchanged+b.Known+b.New != b.Read || b.Provisioned != int64(len(want)) {
			t.Errorf("round %d: the classes do not add up: %+v", round, b)
		}
		if round > 0 && p.Bytes.New > 3*64<<10 {
			t.Errorf("round %d: %d bytes were new for one small change", round, p.Bytes.New)
		}
		sum := 0.0
		for _, phase := range o.Meter.Record().Phases {
			sum += phase.Seconds
		}
		if math.Abs(sum-wall) > 1 {
			t.Errorf("round %d: the phases take %.2f s of %.2f s", round, sum, wall)
		}
		for _, stage := range o.Meter.Record().Stages {
			if stage.Stage == "put" && (stage.Workers == 0 || round == 0 && stage.Work == 0) {
				t.Errorf("round %d: the stage put: %+v", round, stage)
			}
		}
		parent = &p
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		change := []byte("something else")
		copy(want[20<<20+7:], change)
		if _, err := f.WriteAt(change, 20<<20+7); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

// A clock that was set back does not make a new point older than its parent.
func TestAPointIsCommittedAfterItsParent(t *testing.T) {
	s := newStore(t)
	path, _ := image(t, 1<<20, 1)
	o := options(t, s, path)
	first, err := New(o).Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, created := range []time.Time{first.Point.Created, time.Now().AddDate(1, 0, 0)} {
		parent := first.Point
		parent.Created = created
		o := options(t, s, path)
		o.Parent = &parent
		result, err := New(o).Do(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stored, err := s.Point(t.Context(), result.Point.ID)
		if err != nil || !stored.Created.After(created) || stored.Created.Sub(created) > time.Hour {
			t.Errorf("the parent was committed at %v, the point at %v (%v)", created, stored.Created, err)
		}
		if stored.Time.After(time.Now()) {
			t.Errorf("the point shows the disk at %v, which is yet to come", stored.Time)
		}
	}
}

func TestAFileThatIsOpenForWritingIsRefusedOrMarked(t *testing.T) {
	s := newStore(t)
	path, want := image(t, 5<<20, 2)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := New(options(t, s, path)).Do(t.Context()); !problem.Is(err, problem.SourceInUse) {
		t.Errorf("it was not refused: %v", err)
	}
	o := options(t, s, path)
	o.AllowInconsistent = true
	result, err := New(o).Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if result.Point.Consistency != store.Inconsistent || result.Point.Reason == "" || len(result.Warnings) == 0 {
		t.Errorf("the point is not marked: %+v", result)
	}
	if !bytes.Equal(content(t, s, result.Point), want) {
		t.Error("came back different")
	}
}

func TestAnotherDiskAtTheSamePathIsRefused(t *testing.T) {
	s := newStore(t)
	ext4 := func(uuid byte) string {
		path := filepath.Join(t.TempDir(), "disk.img")
		label := make([]byte, 1<<20)
		copy(label[1024+0x38:], []byte{0x53, 0xEF})
		for i := range 16 {
			label[1024+0x68+i] = uuid
		}
		if err := os.WriteFile(path, label, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first, err := New(options(t, s, ext4(1))).Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, s, ext4(2))
	o.Parent = &first.Point
	if _, err := New(o).Do(t.Context()); !problem.Is(err, problem.SourceReplaced) {
		t.Errorf("it was not refused: %v", err)
	}
	o.AcceptReplaced, o.Meter = true, meter.New("preflight")
	if _, err := New(o).Do(t.Context()); err != nil {
		t.Errorf("it was refused although it is accepted: %v", err)
	}
}

func TestAnInterruptedRunIsGoneOnWith(t *testing.T) {
	s := newStore(t)
	path, want := image(t, 64<<20, 3)
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("somebody pressed Ctrl-C")
	o := options(t, s, path)
	o.LimitRate, o.CheckpointEvery = 6<<20, 300*time.Millisecond
	run := New(o)
	time.AfterFunc(1200*time.Millisecond, func() { cancel(interrupted) })
	if _, err := run.Do(ctx); !errors.Is(err, interrupted) {
		t.Fatalf("a cancelled run returned %v", err)
	}
	for range s.Points(t.Context()) {
		t.Fatal("a cancelled run left a point")
	}
	stored := run.Progress().Bytes.New
	result, err := New(options(t, s, path)).Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if result.Resumed == 0 {
		t.Error("no checkpoint was found")
	}
	if b := result.Point.Bytes; b.Unchanged+b.Known == 0 || b.Unchanged+b.Known > stored {
		t.Errorf("%d bytes had been new before the interruption, %d were used: %+v", stored, b.Unchanged+b.Known, b)
	}
	if !bytes.Equal(content(t, s, result.Point), want) {
		t.Error("came back different")
	}
}
