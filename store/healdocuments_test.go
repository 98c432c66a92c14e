package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/filebucket"
	"github.com/diskvault/diskvault/store/bucket/membucket"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// A store with an object of every kind, pieces that were moved and a second
// store: whatever happens to one object, no byte is ever read wrongly without an
// error, what is lost is named, and healing makes all of it equal again.
func TestEveryDamageIsHealedFromASecondStore(t *testing.T) {
	c := newCollection(t)
	l := &lab{t: t, bucket: c.bucket, created: c.created, cache: memoryDir(t)}
	l.open(c.created.LocalKey)
	for _, key := range keysOf(t, l.bucket, sessionPrefix) {
		l.replace(key, nil)
	}
	if err := l.DeletePoint(t.Context(), c.points[0].ID); err != nil {
		t.Fatal(err)
	}
	c.points = c.points[1:]
	l.collect(CollectOptions{MaxUnused: 0}) // leaves moved pieces
	l.interrupt(t, "third", someDisk(1<<19, 3))
	if err := l.markDamaged(t.Context(), pack.ID{1}, "a pack that nobody uses"); err != nil {
		t.Fatal(err)
	}
	n := 1 + listNumber(keysOf(t, l.bucket, sweepPrefix)[0])
	if _, err := l.putDocument(t.Context(), condemnedKey(n), seal.Condemned, listID(n), condemnedList{Number: n, Data: []pack.ID{{2}}}); err != nil {
		t.Fatal(err)
	}
	if len(keysOf(t, l.bucket, movedPrefix)) == 0 {
		t.Fatal("nothing was moved")
	}
	second := newLab(t, CreateOptions{Realm: l.Store})
	if _, err := l.Copy(t.Context(), second.Store, CopyOptions{Meter: meter.New("copy")}); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, p := range c.points {
		ids = append(ids, p.ID)
	}
	kinds := append(append([]string{}, everyObject...), movedPrefix, condemnedPrefix, sweepPrefix)
	for seed := range seeds(t, 60) {
		random := rand.New(rand.NewPCG(seed, 21))
		b := c.bucket.Clone()
		key, how := hurt(t, b, random, kinds)
		what := fmt.Sprintf("seed %d, %s %s", seed, key, how)
		ground := bucket.Bucket(b)
		if seed%8 == 7 {
			ground = onFiles(t, b)
		}
		if strings.HasPrefix(key, keyPrefix) || key == headerKey {
			continue // opened by another key, mended by MendHeader: other tests
		}
		k, err := ParseKey(c.created.RecoveryKey)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), unclosed{ground}, k, OpenOptions{CacheDir: memoryDir(t)})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if seed%2 == 0 { // the index knows all, or nothing
			if _, _, err := s.RebuildIndex(t.Context(), nil); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		if _, err := s.Check(t.Context(), CheckOptions{ReadData: true, Expect: ids}); err != nil {
			t.Fatalf("%s: check: %v", what, err)
		}
		for _, p := range c.points {
			if q, err := s.Point(t.Context(), p.ID); err == nil {
				lostBlocks(t, s, q, c.disks[p.ID]) // fails if one is wrong
			}
		}
		r, err := s.Heal(t.Context(), HealOptions{From: second.Store, Expect: ids})
		if err != nil {
			t.Fatalf("%s: heal: %v", what, err)
		}
		for _, d := range r.Lost {
			// What only time or a person can mend holds no data.
			if len(d.Losses) > 0 || d.What == "" || strings.HasPrefix(d.Object, "packs/") {
				t.Fatalf("%s: lost: %+v", what, d)
			}
		}
		for _, p := range c.points {
			q, err := s.Point(t.Context(), p.ID)
			if err != nil {
				t.Fatalf("%s: point %s: %v", what, p.ID, err)
			}
			if got, err := load(t.Context(), s, q); err != nil || !bytes.Equal(got, c.disks[p.ID]) {
				t.Fatalf("%s: point %s after healing: %v", what, p.ID, err)
			}
		}
		if len(r.Lost) == 0 {
			// Nobody goes on with the interrupted run, for which a collection would wait.
			for _, key := range keysOf(t, ground, sessionPrefix) {
				if err := ground.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // what is condemned already, and what the healing left behind
				if _, err := s.Collect(t.Context(), CollectOptions{Grace: 0, Wait: time.Second}); err != nil {
					t.Fatalf("%s: collect after healing: %v", what, err)
				}
			}
			report, err := s.Check(t.Context(), CheckOptions{ReadData: true, Expect: ids})
			if err != nil || len(report.Damage) > 0 {
				t.Fatalf("%s: check after healing: %+v, %v", what, report.Damage, err)
			}
			for _, p := range c.points {
				q, err := s.Point(t.Context(), p.ID)
				if err != nil {
					t.Fatalf("%s: point %s: %v", what, p.ID, err)
				}
				if got, err := load(t.Context(), s, q); err != nil || !bytes.Equal(got, c.disks[p.ID]) {
					t.Fatalf("%s: point %s after collecting: %v", what, p.ID, err)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// onFiles copies a bucket to a folder.
func onFiles(t *testing.T, from *membucket.Bucket) bucket.Bucket {
	t.Helper()
	b, err := filebucket.Open(memoryDir(t), filebucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	for _, key := range keysOf(t, from, "") {
		data, err := bucket.ReadAll(t.Context(), from, key, 1<<30)
		if err == nil {
			err = b.Put(t.Context(), key, [][]byte{data})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// A point that is damaged or gone comes back from the second store although a
// part of what it needs is gone too; without a second store it is listed.
func TestLostPointsComeBack(t *testing.T) {
	for _, gone := range []bool{false, true} {
		c := newCollection(t)
		l := &lab{t: t, bucket: c.bucket, created: c.created, cache: memoryDir(t)}
		l.open(c.created.LocalKey)
		second := newLab(t, CreateOptions{Realm: l.Store})
		if _, err := l.Copy(t.Context(), second.Store, CopyOptions{Meter: meter.New("copy")}); err != nil {
			t.Fatal(err)
		}
		id := c.points[1].ID
		l.bucket.Replace(pointPrefix+id, []byte("damaged"))
		for _, key := range keysOf(t, l.bucket, sessionPrefix) {
			l.replace(key, nil)
		}
		if gone {
			l.replace(pointPrefix+id, nil)
			// Nothing keeps the packs of the point any more.
			l.collect(CollectOptions{})
		}
		l.replace(keysOf(t, l.bucket, metadataPrefix)[0], nil)
		l.checked(CheckOptions{})
		if r, err := l.Heal(t.Context(), HealOptions{Expect: []string{id}}); err != nil || r.PutBack != 0 || !slices.Contains(lostObjects(r), pointPrefix+id) {
			t.Fatalf("without a second store: %+v, %v", r, err)
		}
		r, err := l.Heal(t.Context(), HealOptions{From: second.Store, Expect: []string{id}})
		if err != nil || r.PutBack != 1 || len(r.Lost) > 0 {
			t.Fatalf("gone %v: %+v, %v", gone, r, err)
		}
		l.collect(CollectOptions{})
		l.mustBeWhole()
		back, err := l.Point(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if back.Created != c.points[1].Created || back.Root != c.points[1].Root {
			t.Errorf("it came back as %+v", back)
		}
		for _, p := range c.points {
			q, err := l.Point(t.Context(), p.ID)
			if err != nil {
				t.Fatal(err)
			}
			l.holds(q, c.disks[p.ID])
		}
	}
}

func lostObjects(r HealReport) (all []string) {
	for _, d := range r.Lost {
		all = append(all, d.Object)
	}
	return all
}

// A damaged condemned list keeps writers out. Healing withdraws it, or, if it is
// decided what goes, carries that out; in no case does anything go that is used.
func TestADamagedListIsWithdrawn(t *testing.T) {
	for _, decided := range []bool{false, true} {
		l := newLab(t, CreateOptions{BlockSize: 16 << 10})
		points, disks := l.history(3, 1_000_000)
		if err := l.DeletePoint(t.Context(), points[1].ID); err != nil {
			t.Fatal(err)
		}
		l.collect(CollectOptions{Grace: time.Hour})
		lists := keysOf(t, l.bucket, condemnedPrefix)
		if len(lists) != 1 {
			t.Fatalf("there are %q", lists)
		}
		n := listNumber(lists[0])
		doc, err := l.readList(t.Context(), lists[0], seal.Condemned)
		if err != nil {
			t.Fatal(err)
		}
		if decided {
			if _, err := l.putDocument(t.Context(), sweepKey(n), seal.SweepList, listID(n), doc); err != nil {
				t.Fatal(err)
			}
		}
		l.bucket.Replace(lists[0], []byte("damaged"))
		if _, err := save(t.Context(), l.Store, "disk", disks[2], nil); err == nil {
			t.Fatal("a writer does not heed the list")
		}
		r, err := l.Heal(t.Context(), HealOptions{})
		if err != nil || len(r.Lost) > 0 || r.Documents != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		for kind, id := range doc.packs() {
			_, err := l.bucket.Stat(t.Context(), packName(kind, id))
			if isMissing(err) != decided {
				t.Errorf("decided %v: %s: %v", decided, packName(kind, id), err)
			}
		}
		l.holds(points[2], disks[2])
		l.save("disk", disks[2], &points[2])
		l.collect(CollectOptions{})
		l.mustBeWhole()
		l.holds(points[0], disks[0])
	}
}
