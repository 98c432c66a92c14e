package store

import (
	"errors"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket/faultbucket"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// What the simulation found once, each in the fewest steps. (In its worlds it
// takes more of them, and another seed with every change of the code.)

// A run died after it put its session and before it saw that its base was gone.
func TestADeadSessionWithoutItsBaseDoesNotBlockCollections(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	points, _ := l.history(2, 500_000)
	img, err := l.Image(points[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := l.DeletePoint(t.Context(), points[1].ID); err != nil {
		t.Fatal(err)
	}
	l.collect(CollectOptions{MaxUnused: -1})
	x, err := l.beginSession(t.Context(), sessionDocument{ID: newID(), Task: taskWrite, Images: []stored{img.stored()}}, l.newClearance())
	if err != nil {
		t.Fatal(err)
	}
	l.frames.drop() // it was another process
	if _, err := l.Collect(t.Context(), CollectOptions{MaxUnused: -1}); !problem.Is(err, problem.CollectBlocked) {
		t.Errorf("as long as it may live: %v", err)
	}
	x.halt()
	l.advance(2 * fenceAfter)
	l.collect(CollectOptions{MaxUnused: -1})
	if err := l.commit(t.Context(), x.doc.ID, Point{ID: x.doc.ID.String()}); !problem.Is(err, problem.SessionFenced) {
		t.Errorf("its image was left out, and it could commit: %v", err)
	}
}

// A renewal was carried out and reported as failed: the next takes another number.
func TestARenewalThatWasReportedAsFailedIsNotTheLast(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	faults := faultbucket.New(l.bucket, faultbucket.Nothing)
	l.Store.bucket = faults
	x, err := l.beginSession(t.Context(), sessionDocument{ID: newID(), Task: taskWrite}, l.newClearance())
	if err != nil {
		t.Fatal(err)
	}
	defer x.halt()
	faults.Follow(func(c faultbucket.Call) faultbucket.Fault {
		if c.Operation == faultbucket.Put {
			return faultbucket.Fault{Mode: faultbucket.Done, Err: faultbucket.Permanent}
		}
		return faultbucket.Fault{}
	})
	if err := x.put(t.Context()); !errors.Is(err, faultbucket.ErrInjected) {
		t.Fatal(err)
	}
	faults.Follow(faultbucket.Nothing)
	if err := x.put(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := x.stands(t.Context()); err != nil {
		t.Error(err)
	}
	if n := l.objects(sessionPrefix); n != 1 {
		t.Errorf("it has %d objects", n)
	}
}

// A writer slept until its session and its fence were gone. Its next renewal
// must not bring the session back.
func TestASessionThatWasRemovedDoesNotComeBack(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	id := newID()
	begin := func() *session {
		x, err := l.beginSession(t.Context(), sessionDocument{ID: id, Task: taskWrite}, l.newClearance())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(x.halt)
		return x
	}
	sleeper := begin()
	if err := l.deleteSession(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	other := begin() // such as another copy of the same point
	for range 2 {
		if err := sleeper.put(t.Context()); !problem.Is(err, problem.SessionFenced) {
			t.Errorf("it was renewed: %v", err)
		}
		if err := sleeper.stands(t.Context()); !problem.Is(err, problem.SessionFenced) {
			t.Errorf("it stands: %v", err)
		}
	}
	if err := other.put(t.Context()); err != nil {
		t.Error(err)
	}
	if err := other.stands(t.Context()); err != nil {
		t.Errorf("the other does not stand: %v", err)
	}
}

// Two collections moved a piece, and the later one was given up before it told:
// its pack was swept.
func TestAMoveToNowhereDoesNotHideAnother(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	disk := someDisk(500_000, 3)
	p := l.save("disk", disk, nil)
	old := p.Top.Place
	true1, false1 := newMoved(), newMoved()
	b := pack.NewBuilder(make([]byte, 0, 1<<20), seal.MetadataPack, l.epochs[l.epoch], l.epoch, l.header.StoreID)
	stored, err := l.nodeFrame(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	w, err := l.newMover(t.Context(), seal.MetadataPack)
	if err != nil {
		t.Fatal(err)
	}
	payload := append([]byte{byte(len(stored[old.Slot])), byte(len(stored[old.Slot]) >> 8), 0, 0}, stored[old.Slot]...)
	slot, _ := b.Reserve(len(w.encode.Encode(payload, 1)), []Root{p.Top.Hash})
	slot.Fill(w.encode.Encode(payload, 1))
	if err := l.bucket.Put(t.Context(), packName(seal.MetadataPack, b.ID), [][]byte{b.Finish()}); err != nil {
		t.Fatal(err)
	}
	if err := w.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	from := piece{old.Offset, old.Slot}
	true1.pieces[from] = slot.Place()
	nowhere := slot.Place()
	nowhere.Pack = pack.NewID()
	false1.pieces[from] = nowhere
	for _, m := range []*moved{true1, false1} {
		if err := l.putMoved(t.Context(), old.Pack, m); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.bucket.Delete(t.Context(), packName(seal.MetadataPack, old.Pack)); err != nil {
		t.Fatal(err)
	}
	l.open(l.created.LocalKey)
	l.index = nil
	if got, err := load(t.Context(), l.Store, p); err != nil || string(got) != string(disk) {
		t.Errorf("came back different: %v", err)
	}
}

// A process remembers the nodes of its last point. By the next run of the disk
// they were compacted, and what tells where their blocks went is gone.
func TestABaseThatIsRememberedFromBeforeItWasCompacted(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	points, disks := l.history(40, 3_000_000)
	last := len(points) - 1
	l.holds(points[last], disks[last]) // remembered
	known := l.frames
	for i := range last {
		if err := l.DeletePoint(t.Context(), points[i].ID); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 { // by others
		l.open(l.created.LocalKey)
		if _, err := l.Collect(t.Context(), CollectOptions{MaxUnused: 0}); err != nil {
			t.Fatal(err)
		}
		l.advance(time.Minute)
	}
	l.open(l.created.LocalKey)
	l.frames = known
	img, err := l.Image(points[last])
	if err != nil {
		t.Fatal(err)
	}
	disk := append([]byte(nil), disks[last]...)
	disk[1_000_000]++
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
	l.frames.drop()
	l.holds(p, disk)
}

// A collection tidied up while its own list was there still, and took away the
// decision that told the collect epoch: an index that was behind was not noticed.
func TestTheCollectEpochIsToldAllTheTime(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	for n := 1; n <= 3; n++ {
		if _, err := l.putDocument(t.Context(), sweepKey(n), seal.SweepList, listID(n), condemnedList{Number: n}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.putDocument(t.Context(), condemnedKey(3), seal.Condemned, listID(3), condemnedList{Number: 3}); err != nil {
		t.Fatal(err)
	}
	own, err := l.beginSession(t.Context(), sessionDocument{ID: newID(), Task: taskCollect}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer own.halt()
	c := &collector{store: l.Store, session: own}
	if err := c.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	lists, err := l.condemnedLists(t.Context())
	if err != nil || lists.swept() != 2 || len(lists.decided) != 2 {
		t.Errorf("%+v, %v", lists, err)
	}
}

// A collector that slept put its list again, after all was done under the number:
// an index that was behind took it for a collection under way.
func TestAListThatIsPutAgainDoesNotHideTheCollectEpoch(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	points, disks := l.history(2, 500_000)
	if err := l.DeletePoint(t.Context(), points[1].ID); err != nil {
		t.Fatal(err)
	}
	behind := newSimIndex() // of another host
	gone := map[pack.ID]bool{}
	for id, err := range l.index.Packs() {
		if err != nil {
			t.Fatal(err)
		}
		behind.packs[id], gone[id] = nil, true
	}
	if r := l.collect(CollectOptions{MaxUnused: -1}); r.Removed.Packs == 0 {
		t.Fatal("nothing was removed")
	}
	if _, err := l.putDocument(t.Context(), condemnedKey(1), seal.Condemned, listID(1), condemnedList{Number: 1}); err != nil {
		t.Fatal(err)
	}
	known := l.index
	l.index = behind
	if err := l.syncIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.index = known
	if len(behind.packs) == len(gone) {
		t.Error("it knows packs that are gone")
	}
	l.collect(CollectOptions{MaxUnused: -1})
	l.holds(points[0], disks[0])
}
