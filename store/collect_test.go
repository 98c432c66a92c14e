package store

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// collect is a collection with nobody to wait for.
func (l *lab) collect(o CollectOptions) CollectReport {
	l.t.Helper()
	r, err := l.Collect(l.t.Context(), o)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

// holds fails the test unless the point reads as the disk, with the index and
// without it.
func (l *lab) holds(p Point, disk []byte) {
	l.t.Helper()
	known := l.index
	defer func() { l.index = known }()
	for _, with := range []string{"with", "without"} {
		got, err := load(l.t.Context(), l.Store, p)
		if err != nil || !bytes.Equal(got, disk) {
			l.t.Fatalf("%s the index, point %s does not read as it was written: %v", with, p.ID, err)
		}
		l.index = nil
	}
}

// advance sets the clock of the storage.
func (l *lab) advance(d time.Duration) {
	l.ahead += d
	ahead := l.ahead
	l.bucket.SetClock(func() time.Time { return time.Now().Add(ahead) })
}

func (l *lab) objects(prefix string) (n int) {
	l.t.Helper()
	for _, err := range l.bucket.List(l.t.Context(), prefix, "") {
		if err != nil {
			l.t.Fatal(err)
		}
		n++
	}
	return n
}

// history is a disk that changes, and its points.
func (l *lab) history(points int, size int64) (all []Point, disks [][]byte) {
	disk := someDisk(int(size), 1)
	random := rand.New(rand.NewPCG(5, 5))
	var base *Point
	for i := range points {
		if i > 0 {
			disk = bytes.Clone(disk)
			at := random.IntN(len(disk) - 60_000)
			fill(random, disk[at:at+50_000])
		}
		p := l.save("disk", disk, base)
		base = &p
		all, disks = append(all, p), append(disks, disk)
	}
	return all, disks
}

func TestCollectRemovesWhatOnlyDeletedPointsReach(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	points, disks := l.history(12, 3_000_000)
	before := l.objects("packs/")
	for i := range points {
		if i%2 == 0 {
			if err := l.DeletePoint(t.Context(), points[i].ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := l.collect(CollectOptions{MaxUnused: -1})
	if r.Removed.Packs == 0 || l.objects("packs/") != before-int(r.Removed.Packs) || r.Condemned.Packs != 0 {
		t.Errorf("%+v; %d packs of %d are left", r, l.objects("packs/"), before)
	}
	for i := range points {
		if i%2 == 1 {
			l.holds(points[i], disks[i])
		}
	}
	if n := l.objects("condemned/") + l.objects("sessions/"); n != 0 {
		t.Errorf("%d objects are left behind", n)
	}
	// What is gone is not known any more either.
	p := l.save("again", disks[0], nil)
	l.holds(p, disks[0])
	if again := l.collect(CollectOptions{MaxUnused: -1}); again.Removed.Packs != 0 {
		t.Errorf("a second collection removed %+v", again.Removed)
	}
}

func TestCondemnedPacksStayForTheGrace(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	points, disks := l.history(4, 1_000_000)
	if err := l.DeletePoint(t.Context(), points[3].ID); err != nil {
		t.Fatal(err)
	}
	r := l.collect(CollectOptions{Grace: time.Hour, MaxUnused: -1})
	if r.Condemned.Packs == 0 || r.Removed.Packs != 0 || r.Until.IsZero() || r.WaitingFor == "" {
		t.Fatalf("%+v", r)
	}
	// A writer does not rely on them.
	p := l.save("other", disks[3], &points[2])
	r = l.collect(CollectOptions{MaxUnused: -1})
	if r.Removed.Packs == 0 || r.Rescued.Packs != 0 {
		t.Errorf("%+v", r)
	}
	l.holds(p, disks[3])
	for i := range 3 {
		l.holds(points[i], disks[i])
	}
}

// A run that refers to a pack before it is condemned pins it.
func TestARunUnderWayKeepsWhatItRefersTo(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	disk := someDisk(1_000_000, 7)
	old := l.save("old", disk, nil)
	l.advance(time.Hour)
	w, err := l.NewWriter(t.Context(), WriterOptions{ID: newID(), Instance: "new", Size: int64(len(disk)), Compression: CompressionDefault, Meter: meter.New("transfer")})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := feed(w, disk, 0); err != nil {
		t.Fatal(err)
	}
	if err := l.DeletePoint(t.Context(), old.ID); err != nil {
		t.Fatal(err)
	}
	r := l.collect(CollectOptions{MaxUnused: -1})
	if r.Rescued.Packs == 0 {
		t.Fatalf("%+v", r)
	}
	p, err := w.Commit(Point{Instance: "new"})
	if err != nil {
		t.Fatal(err)
	}
	l.holds(p, disk)
	l.collect(CollectOptions{MaxUnused: -1})
	l.holds(p, disk)
}

func TestCompactionMovesWhatIsInUse(t *testing.T) {
	for _, kind := range []string{"sparse", "small"} {
		t.Run(kind, func(t *testing.T) {
			l := newLab(t, CreateOptions{BlockSize: 16 << 10})
			points, disks := l.history(70, 3_000_000)
			if kind == "sparse" {
				for i, p := range points[:69] {
					if i%10 != 0 {
						if err := l.DeletePoint(t.Context(), p.ID); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			r := l.collect(CollectOptions{MaxUnused: 0.01})
			if r.Compacted.Packs == 0 || r.Removed.Packs < r.Compacted.Packs || r.Written == 0 {
				t.Fatalf("%+v", r)
			}
			moved := l.objects("moved/")
			if moved == 0 {
				t.Fatal("nothing tells where the pieces went")
			}
			check := func() {
				t.Helper()
				for i, p := range points {
					if kind == "small" || i%10 == 0 || i == 69 {
						l.holds(p, disks[i])
					}
				}
			}
			check()
			l.open(l.created.LocalKey) // nothing remembered
			check()
			again := l.collect(CollectOptions{MaxUnused: 0.01})
			check()
			if again.Removed.Bytes > r.Removed.Bytes/4 {
				t.Errorf("a second collection removed %+v after %+v", again.Removed, r.Removed)
			}
			// Moves that nobody needs go with the points that needed them.
			for i := range points {
				if err := l.DeletePoint(t.Context(), points[i].ID); err != nil {
					t.Fatal(err)
				}
			}
			l.collect(CollectOptions{})
			l.collect(CollectOptions{})
			if n := l.objects("moved/") + l.objects("packs/"); n != 0 {
				t.Errorf("%d objects stay in an empty store", n)
			}
		})
	}
}

func TestNothingIsRemovedOnPartialKnowledge(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	points, _ := l.history(6, 1_000_000)
	if err := l.DeletePoint(t.Context(), points[2].ID); err != nil {
		t.Fatal(err)
	}
	before := l.objects("packs/")
	name := packName(seal.MetadataPack, points[5].Top.Place.Pack)
	if err := l.bucket.Delete(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	l.open(l.created.LocalKey)
	_, err := l.Collect(t.Context(), CollectOptions{})
	if err == nil || !strings.Contains(err.Error(), points[5].ID) {
		t.Errorf("%v", err)
	}
	if l.objects("packs/") != before-1 || l.objects("condemned/") != 0 {
		t.Error("something was removed")
	}
}

// A writer that is silent for an hour is given up: it cannot commit, and what
// it stored goes after a week.
func TestASilentWriterIsFenced(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	points, _ := l.history(2, 500_000)
	l.advance(time.Hour)
	disk := someDisk(400_000, 99)
	w, err := l.NewWriter(t.Context(), WriterOptions{ID: newID(), Instance: "silent", Size: int64(len(disk)), Compression: CompressionDefault, Meter: meter.New("transfer")})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := feed(w, disk, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	w.session.halt() // as if it were paused
	if err := l.DeletePoint(t.Context(), points[1].ID); err != nil {
		t.Fatal(err)
	}
	l.advance(2 * time.Hour)
	if r := l.collect(CollectOptions{MaxUnused: -1}); r.Removed.Packs == 0 || r.Spared.Packs == 0 {
		t.Errorf("%+v", r)
	}
	if _, err := w.Commit(Point{Instance: "silent"}); err == nil {
		t.Fatal("it could commit")
	} else if !problem.Is(err, problem.SessionFenced) {
		t.Error(err)
	}
	l.advance(8 * 24 * time.Hour)
	if r := l.collect(CollectOptions{MaxUnused: -1}); r.Removed.Packs == 0 {
		t.Errorf("what it stored stays: %+v", r)
	}
	if n := l.objects("sessions/"); n != 0 {
		t.Errorf("%d sessions stay", n)
	}
}

// A collector that wakes in the tidying of its collection, while another has
// begun the next one, must leave what the other's second marking needs.
func TestEndedSessionsStayForAnotherCollection(t *testing.T) {
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	l.history(1, 200_000)
	put := func(key string, kind seal.Kind, n int) {
		t.Helper()
		if _, err := l.putDocument(t.Context(), key, kind, listID(n), condemnedList{Number: n}); err != nil {
			t.Fatal(err)
		}
	}
	x, err := l.beginSession(t.Context(), sessionDocument{ID: newID(), Task: taskWrite}, nil)
	if err != nil {
		t.Fatal(err)
	}
	own, err := l.beginSession(t.Context(), sessionDocument{ID: newID(), Task: taskCollect}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{store: l.Store, session: own}
	put(condemnedKey(1), seal.Condemned, 1)
	if err := x.end(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(sweepKey(1), seal.SweepList, 1)
	put(condemnedKey(2), seal.Condemned, 2)
	if err := c.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, there, err := l.session(t.Context(), x.doc.ID); !there || err != nil {
		t.Fatalf("the ended session is gone (%v)", err)
	}
	put(sweepKey(2), seal.SweepList, 2)
	if err := c.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, there, err := l.session(t.Context(), x.doc.ID); there || err != nil {
		t.Fatalf("the ended session stays (%v)", err)
	}
	if err := own.end(t.Context()); err != nil {
		t.Fatal(err)
	}
}
