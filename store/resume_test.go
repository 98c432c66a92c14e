package store

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/diskvault/diskvault/base/meter"
)

// half begins a run on the disk, checkpoints after the first bytes, goes on for
// a while and dies.
func (l *lab) half(t *testing.T, disk []byte, base *Point, checkpointed, reached int64) {
	t.Helper()
	o := WriterOptions{ID: newID(), Instance: "disk", Size: int64(len(disk)), Compression: CompressionFast, Meter: meter.New("transfer")}
	if base != nil {
		img, err := l.Image(*base)
		if err != nil {
			t.Fatal(err)
		}
		o.Base = img
	}
	w, err := l.NewWriter(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := feed(w, disk[:checkpointed], 0); err != nil {
		t.Fatal(err)
	}
	if err := w.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if err := feed(w, disk[:reached], checkpointed); err != nil {
		t.Fatal(err)
	}
}

// A run that was interrupted is found on another machine, with an empty index,
// and what its checkpoint covers is not stored again.
func TestAnInterruptedRunIsGoneOnWithOnAnotherMachine(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	disk := make([]byte, 4*SegmentSize)
	fill(rand.New(rand.NewPCG(1, 16)), disk)
	const covered = 3 * SegmentSize
	l.half(t, disk, nil, covered, 4*SegmentSize)

	l.closeIndex()
	l.cache = memoryDir(t)
	l.open(l.created.RecoveryKey)
	img, done, ok, err := l.Unfinished(t.Context(), "disk")
	if err != nil || !ok || done != covered {
		t.Fatalf("found %v, %d bytes, %v", ok, done, err)
	}
	if _, _, ok, err := l.Unfinished(t.Context(), "another"); ok || err != nil {
		t.Errorf("it was taken for another disk's, %v", err)
	}
	w, err := l.NewWriter(t.Context(), WriterOptions{ID: newID(), Instance: "disk", Size: int64(len(disk)), Base: img, Compression: CompressionFast, Meter: meter.New("transfer")})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := feed(w, disk, 0); err != nil {
		t.Fatal(err)
	}
	p, err := w.Commit(Point{Instance: "disk"})
	if err != nil {
		t.Fatal(err)
	}
	if p.Bytes.New != int64(len(disk))-covered || p.Bytes.Unchanged != covered {
		t.Errorf("%d bytes were stored and %d used", p.Bytes.New, p.Bytes.Unchanged)
	}
	if !bytes.Equal(l.load(p), disk) {
		t.Error("came back different")
	}
	if _, _, ok, err := l.Unfinished(t.Context(), "disk"); ok || err != nil {
		t.Errorf("after the commit the interrupted run is still there, %v", err)
	}
	l.mustBeWhole()
}

// On the same machine nothing that was put is stored again, whether a
// checkpoint covers it or not.
func TestAnInterruptedRunCostsNothingTwiceOnTheSameMachine(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	disk := make([]byte, 3*SegmentSize)
	fill(rand.New(rand.NewPCG(2, 16)), disk)
	l.half(t, disk, nil, 2*SegmentSize, 2*SegmentSize)
	if p := l.save("disk", disk, nil); p.Bytes.New != SegmentSize {
		t.Errorf("%d bytes were stored, %d were not there", p.Bytes.New, SegmentSize)
	}
	l.mustBeWhole()
}

// Behind what a checkpoint covers, its image is the base; a restore of it would
// be neither disk, but as a base it is as good as both.
func TestACheckpointOfAnIncrementStandsOnItsBase(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	before := make([]byte, 3*SegmentSize)
	fill(rand.New(rand.NewPCG(3, 16)), before)
	first := l.save("disk", before, nil)
	after := bytes.Clone(before)
	fill(rand.New(rand.NewPCG(4, 16)), after[:2*SegmentSize])
	l.half(t, after, &first, SegmentSize, SegmentSize)
	img, done, ok, err := l.Unfinished(t.Context(), "disk")
	if err != nil || !ok || done != SegmentSize {
		t.Fatalf("%v, %d, %v", ok, done, err)
	}
	want := append(bytes.Clone(after[:SegmentSize]), before[SegmentSize:]...)
	p := Point{Root: img.root, Size: img.Size(), Top: Ref{img.tree.TopNode.Hash, img.tree.TopNode.Place}}
	if !bytes.Equal(l.load(p), want) {
		t.Error("the checkpoint shows something else than the new beginning and the old rest")
	}
}

// A machine with nothing but the bucket and the recovery key reads everything,
// and cannot write by mistake.
func TestAStoreIsReadWithNothingButTheRecoveryKey(t *testing.T) {
	c := newCollection(t)
	s := openFor(t, c.bucket, c.created.RecoveryKey)
	for _, p := range c.points {
		q, err := s.Point(t.Context(), p.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := load(t.Context(), s, q); err != nil || !bytes.Equal(got, c.disks[p.ID]) {
			t.Errorf("point %s of %s: %v", p.ID, p.Instance, err)
		}
	}
	records := 0
	for _, err := range s.Records(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		records++
	}
	if records != 3 {
		t.Errorf("%d records", records)
	}
	if err := undamaged(t.Context(), s); err != nil {
		t.Error(err)
	}
	before := len(keysOf(t, c.bucket, ""))
	if _, err := save(t.Context(), s, "disk", make([]byte, 100), nil); err == nil {
		t.Error("a store that was opened for reading was written to")
	}
	if _, _, err := s.RebuildIndex(t.Context(), nil); err == nil {
		t.Error("an index was rebuilt where there is none")
	}
	if after := len(keysOf(t, c.bucket, "")); after != before {
		t.Errorf("%d objects became %d", before, after)
	}
}
