package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// Two processes with an index each, and four writers in each, on one store.
// Some of the disks are the same.
func TestManyWritersShareAStore(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	k, err := ParseKey(l.created.LocalKey)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Open(t.Context(), l.bucket, k, OpenOptions{CacheDir: memoryDir(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var mu sync.Mutex
	saved := map[string][]byte{}
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			s := []*Store{l.Store, other}[i%2]
			disk := someDisk(1<<20+i/3*777, uint64(i/3))
			random := rand.New(rand.NewPCG(uint64(i), 1))
			var base *Point
			for range 3 {
				p, err := save(t.Context(), s, fmt.Sprint(i), disk, base)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				saved[p.ID] = bytes.Clone(disk)
				mu.Unlock()
				fill(random, disk[random.IntN(1<<20):][:3000])
				base = &p
			}
		})
	}
	writers.Wait()
	for p, err := range l.Points(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(l.load(p), saved[p.ID]) {
			t.Errorf("point %s of instance %s came back different", p.ID, p.Instance)
		}
		delete(saved, p.ID)
	}
	if len(saved) > 0 {
		t.Errorf("%d points are gone", len(saved))
	}
	l.mustBeWhole()
	if left := keysOf(t, l.bucket, sessionPrefix); len(left) > 0 {
		t.Errorf("sessions stayed behind: %q", left)
	}
}

// Writers of one process that store the same disk at the same time share most
// of its blocks, whichever of them came first, and both points are whole.
func TestEqualDisksAtTheSameTime(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	disk := someDisk(3<<20, 12)
	points := make([]Point, 4)
	var writers sync.WaitGroup
	for i := range points {
		writers.Go(func() {
			var err error
			if points[i], err = save(t.Context(), l.Store, fmt.Sprint(i), disk, nil); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	for _, p := range points {
		if p.Root != points[0].Root {
			t.Error("equal disks have different roots")
		}
		if !bytes.Equal(l.load(p), disk) {
			t.Error("came back different")
		}
	}
	l.mustBeWhole()
}

var errStopped = errors.New("a person stopped it")

// A run that is cancelled says why, wherever it is, and the store is fine.
func TestARunThatIsCancelledTellsTheCause(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	disk := someDisk(9<<20, 13)
	first := l.save("disk", disk, nil)
	fill(rand.New(rand.NewPCG(1, 1)), disk[:5<<20])
	for _, stop := range []string{"at once", "while encoding", "before a checkpoint", "before the commit"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		at := func(moment string) {
			if moment == stop {
				cancel(errStopped)
			}
		}
		at("at once")
		err := func() error {
			img, err := l.Image(first)
			if err != nil {
				return err
			}
			w, err := l.NewWriter(ctx, WriterOptions{ID: newID(), Instance: "disk", Size: int64(len(disk)), Base: img, Compression: CompressionFast, Meter: meter.New("transfer")})
			if err != nil {
				return err
			}
			defer w.Close()
			if err := feed(w, disk[:SegmentSize], 0); err != nil {
				return err
			}
			at("while encoding")
			if err := feed(w, disk, SegmentSize); err != nil {
				return err
			}
			at("before a checkpoint")
			if err := w.Checkpoint(); err != nil {
				return err
			}
			at("before the commit")
			_, err = w.Commit(Point{Instance: "disk"})
			return err
		}()
		if !errors.Is(err, errStopped) {
			t.Errorf("stopped %s: %v", stop, err)
		}
		cancel(nil)
		l.mustBeWhole()
	}
	p := l.save("disk", disk, &first)
	if !bytes.Equal(l.load(p), disk) {
		t.Error("came back different")
	}
}

func TestAFencedSessionCannotCommit(t *testing.T) {
	l := newLab(t, CreateOptions{})
	disk := someDisk(3<<20, 14)
	id := newID()
	w, err := l.NewWriter(t.Context(), WriterOptions{ID: id, Instance: "disk", Size: int64(len(disk)), Compression: CompressionFast, Meter: meter.New("transfer")})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := feed(w, disk, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := l.putDocument(t.Context(), pointKey(id), seal.Point, id, pointDocument{Fence: &fence{By: "a collector"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(Point{Instance: "disk"}); !problem.Is(err, problem.SessionFenced) {
		t.Errorf("a fenced session committed: %v", err)
	}
	if _, err := l.Point(t.Context(), id.String()); !problem.Is(err, problem.RecoveryPointNotFound) {
		t.Errorf("the fence is taken for a point: %v", err)
	}
	for p, err := range l.Points(t.Context()) {
		t.Errorf("the fence is listed as a point: %v, %v", p.ID, err)
	}
	w.Close()
	// Its data stays known.
	if p := l.save("disk", disk, nil); p.Bytes.New != 0 || !bytes.Equal(l.load(p), disk) {
		t.Errorf("%d bytes were stored again", p.Bytes.New)
	}
	l.mustBeWhole()
}

// A segment that waits for a block of another segment must learn that this one
// failed.
func TestAFailedSegmentDoesNotLeaveOthersWaiting(t *testing.T) {
	l := newLab(t, CreateOptions{})
	o := WriterOptions{ID: newID(), Instance: "disk", Size: 2 * SegmentSize, Compression: CompressionFast, Meter: meter.New("transfer")}
	w, err := l.NewWriter(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	stage := o.Meter.Stage("cpu", 2)
	var encoders [2]*Encoder
	for i := range encoders {
		if encoders[i], err = w.NewEncoder(stage, i); err != nil {
			t.Fatal(err)
		}
		defer encoders[i].Close()
	}
	same := someDisk(64<<10, 15)
	fill(rand.New(rand.NewPCG(2, 2)), same)
	// The first claims the block and fails before it is stored: its runs name
	// more than there is.
	if _, err := encoders[0].Encode(w.Context(), 0, []Run{{0, 2 * 64 << 10}}, same); err == nil {
		t.Fatal("a segment without its data was encoded")
	}
	segment, err := encoders[1].Encode(w.Context(), SegmentSize, []Run{{SegmentSize, 64 << 10}}, same)
	if err == nil {
		err = w.Add(segment)
	}
	if err == nil {
		t.Error("the run went on after a segment had failed")
	}
	if _, err := w.Commit(Point{Instance: "disk"}); err == nil {
		t.Error("a run with a failed segment was committed")
	}
}
