package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/faultbucket"
	"github.com/diskvault/diskvault/store/bucket/filebucket"
	"github.com/diskvault/diskvault/store/bucket/s3bucket"
	"github.com/diskvault/diskvault/store/bucket/s3bucket/s3test"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// pair is two stores of a realm, and what the points of the first one show.
type pair struct {
	t        *testing.T
	src, dst *lab
	disks    map[string][]byte // by point
}

func newPair(t *testing.T) *pair {
	src := newLab(t, CreateOptions{BlockSize: 16 << 10})
	return &pair{t, src, newLab(t, CreateOptions{Realm: src.Store}), map[string][]byte{}}
}

func (x *pair) save(instance string, disk []byte, base *Point) Point {
	x.t.Helper()
	p := x.src.save(instance, disk, base)
	x.disks[p.ID] = bytes.Clone(disk)
	return p
}

// history saves n states of a disk, each a little different from the one before.
func (x *pair) history(instance string, size, n int, seed uint64) (points []Point) {
	x.t.Helper()
	random := rand.New(rand.NewPCG(seed, 77))
	disk := someDisk(size, seed)
	var base *Point
	for range n {
		p := x.save(instance, disk, base)
		points = append(points, p)
		base = &p
		fill(random, disk[random.IntN(size-5000):][:5000])
	}
	return points
}

func (x *pair) copy(o CopyOptions) CopyResult {
	x.t.Helper()
	result, err := copyAll(x.t.Context(), x.src.Store, x.dst.Store, o)
	if err != nil {
		x.t.Fatal(err)
	}
	return result
}

func copyAll(ctx context.Context, src, dst *Store, o CopyOptions) (CopyResult, error) {
	o.Meter = meter.New("prepare")
	return src.Copy(ctx, dst, o)
}

// mustHave checks that the destination has these points, byte for byte, and
// that nothing else is wrong with it.
func (x *pair) mustHave(points ...Point) {
	x.t.Helper()
	if err := x.has(x.t.Context(), x.dst.Store, points...); err != nil {
		x.t.Error(err)
	}
	x.dst.mustBeWhole()
	for _, l := range []*lab{x.src, x.dst} {
		if left := keysOf(x.t, l.bucket, sessionPrefix); len(left) > 0 {
			x.t.Errorf("sessions stayed behind: %q", left)
		}
	}
}

func (x *pair) has(ctx context.Context, s *Store, points ...Point) error {
	for _, want := range points {
		got, err := s.Point(ctx, want.ID)
		if err != nil {
			return err
		}
		disk, err := load(ctx, s, got)
		if err != nil {
			return err
		}
		if !bytes.Equal(disk, x.disks[want.ID]) {
			return fmt.Errorf("the copy of %s holds something else", want.ID)
		}
		got.Top = want.Top
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("the copy is %+v, not %+v", got, want)
		}
	}
	return nil
}

func TestACopyHoldsTheSame(t *testing.T) {
	x := newPair(t)
	points := slices.Concat(x.history("a", 5<<20+333, 4, 1), x.history("b", 9<<20, 3, 2), x.history("tiny", 7000, 2, 3))
	// A disk that grew, one that shrank, and one of zeros.
	grown := bytes.Clone(x.disks[points[3].ID])
	grown = append(grown, someDisk(3<<20+77, 4)...)
	p := x.save("a", grown, &points[3])
	points = append(points, p, x.save("a", grown[:4<<20+12345], &p), x.save("zeros", make([]byte, 3<<20), nil))

	var seen int64
	r := x.copy(CopyOptions{Progress: func(done, total int64) {
		if done < seen || done > total {
			t.Errorf("progress went from %d to %d of %d", seen, done, total)
		}
		seen = done
	}})
	if len(r.Copied) != len(points) || len(r.Failed) > 0 || len(r.Placed) != len(points) {
		t.Errorf("copied %d of %d points, %d failed", len(r.Copied), len(points), len(r.Failed))
	}
	if seen != r.Bytes.Disk {
		t.Errorf("progress ended at %d of %d bytes", seen, r.Bytes.Disk)
	}
	x.mustHave(points...)

	r = x.copy(CopyOptions{})
	if len(r.Copied) > 0 || r.There != len(points) || r.Bytes != (CopyBytes{}) {
		t.Errorf("a second copy did %+v", r)
	}
	x.mustHave(points...)
}

func TestACopySendsOnlyWhatIsMissing(t *testing.T) {
	x := newPair(t)
	disk := make([]byte, 16<<20)
	fill(rand.New(rand.NewPCG(9, 9)), disk)
	first := x.save("a", disk, nil)
	whole := x.copy(CopyOptions{})
	if whole.Bytes.New != int64(len(disk)) || whole.Moved == 0 || whole.Gathered != 0 {
		t.Errorf("the first copy did %+v", whole)
	}
	for _, at := range []int{0, 5 << 20, 15<<20 + 12345} {
		disk[at]++
	}
	second := x.save("a", disk, &first)
	other := x.save("b", disk, nil)
	third := x.save("a", disk[:8<<20], &second)
	r := x.copy(CopyOptions{})
	if want := int64(3 * 16 << 10); r.Bytes.New != want || r.Bytes.Read < want || r.Bytes.Read > want+4096 {
		t.Errorf("three blocks were changed, and %d bytes sent, %d read", r.Bytes.New, r.Bytes.Read)
	}
	if r.Bytes.Stored > 200<<10 {
		t.Errorf("three blocks took %d bytes", r.Bytes.Stored)
	}
	x.mustHave(first, second, third, other)
}

// Of a frame with few blocks that are wanted only these are sent.
func TestACopyTakesFramesApart(t *testing.T) {
	x := newPair(t)
	disk := make([]byte, 8<<20)
	fill(rand.New(rand.NewPCG(5, 9)), disk)
	x.save("a", disk, nil)
	var few []byte
	for at := 0; at < len(disk); at += 8 * 16 << 10 {
		few = append(few, disk[at:at+16<<10]...)
	}
	b := x.save("b", few, nil)
	r := x.copy(CopyOptions{Instances: []string{"b"}})
	if r.Moved != 0 || r.Gathered == 0 || r.Bytes.New != int64(len(few)) || r.Bytes.Stored > int64(len(few))+100<<10 {
		t.Errorf("an eighth of all blocks was wanted, and the copy did %+v", r)
	}
	if len(r.Copied) != 1 {
		t.Fatalf("copied %d points", len(r.Copied))
	}
	x.mustHave(b)
}

func TestPointsAreChosenForACopy(t *testing.T) {
	x := newPair(t)
	a, b := x.history("a", 1<<20, 3, 1), x.history("b", 1<<20, 2, 2)
	if r := x.copy(CopyOptions{Points: []string{a[1].ID}}); len(r.Copied) != 1 || r.Copied[0].ID != a[1].ID {
		t.Errorf("copied %v", r.Copied)
	}
	x.mustHave(a[1])
	if r := x.copy(CopyOptions{Instances: []string{"b"}}); len(r.Copied) != 2 {
		t.Errorf("copied %v", r.Copied)
	}
	x.mustHave(a[1], b[0], b[1])
	if _, err := x.dst.Point(t.Context(), a[0].ID); !problem.Is(err, problem.RecoveryPointNotFound) {
		t.Errorf("a point was copied that nobody asked for: %v", err)
	}
}

// To find nothing to do takes as many requests for a hundred points as for one.
func TestAnUnchangedCopyReadsNothing(t *testing.T) {
	x := newPair(t)
	points := x.history("a", 300_000, 100, 1)
	for i := range 5 {
		if err := x.src.PutRecord(t.Context(), "instance", fmt.Sprint(i), i); err != nil {
			t.Fatal(err)
		}
	}
	placed := map[string]bool{}
	for _, id := range x.copy(CopyOptions{}).Placed {
		placed[id] = true
	}
	var faults []*faultbucket.Bucket
	for _, l := range []*lab{x.src, x.dst} {
		f := faultbucket.New(l.Store.bucket, faultbucket.Nothing)
		l.Store.bucket = f
		faults = append(faults, f)
	}
	began := time.Now()
	r := x.copy(CopyOptions{Placed: placed})
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
	if r.There != len(points) || len(r.Copied) > 0 {
		t.Errorf("it did %+v", r)
	}
	for _, f := range faults {
		for _, c := range f.Calls() {
			if c.Operation != faultbucket.List {
				t.Errorf("it called %s %s", c.Operation, c.Key)
			}
		}
		if len(f.Calls()) != 2 {
			t.Errorf("it made %d calls", len(f.Calls()))
		}
	}
	x.mustHave(points[99])
}

func TestACopyIsOnlyMadeWithinARealm(t *testing.T) {
	x := newPair(t)
	x.history("a", 300_000, 1, 1)
	stranger := newLab(t, CreateOptions{BlockSize: 16 << 10})
	coarse := newLab(t, CreateOptions{})
	for _, dst := range []*lab{stranger, coarse} {
		if _, err := copyAll(t.Context(), x.src.Store, dst.Store, CopyOptions{}); !problem.Is(err, problem.StoreRealmDiffers) {
			t.Errorf("a copy to another realm: %v", err)
		}
		if names := keysOf(t, dst.bucket, pointPrefix); len(names) > 0 {
			t.Errorf("it left %v", names)
		}
	}
	if _, err := copyAll(t.Context(), x.src.Store, x.src.Store, CopyOptions{}); !problem.Is(err, problem.InvalidArgument) {
		t.Errorf("a copy onto itself: %v", err)
	}
}

func TestRecordsAreCopied(t *testing.T) {
	x := newPair(t)
	ctx := t.Context()
	put := func(l *lab, name string, body any) {
		t.Helper()
		if err := l.PutRecord(ctx, "policy", name, body); err != nil {
			t.Fatal(err)
		}
	}
	all := func(l *lab) string {
		var out []string
		for r, err := range l.Records(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("%s=%s", r.Name, r.Body))
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	copied := func(want int) {
		t.Helper()
		if r := x.copy(CopyOptions{}); r.Records != want {
			t.Errorf("%d records were written, not %d", r.Records, want)
		}
		if got, want := all(x.dst), all(x.src); got != want {
			t.Errorf("the destination has %q, the source %q", got, want)
		}
	}
	put(x.src, "a", 1)
	put(x.src, "b", 1)
	put(x.src, "gone", 1)
	put(x.src, "gone", nil)
	copied(2)
	copied(0)
	put(x.src, "a", 2)
	put(x.src, "a", 3)
	put(x.src, "b", nil)
	copied(2)
	copied(0)

	// What the destination decided later stays.
	put(x.src, "c", "old")
	time.Sleep(2 * time.Millisecond)
	put(x.dst, "c", "older")
	put(x.dst, "c", "new")
	if r := x.copy(CopyOptions{}); r.Records != 0 || all(x.dst) != `a=3 c="new"` {
		t.Errorf("%d records were written: %s", r.Records, all(x.dst))
	}
	time.Sleep(2 * time.Millisecond)
	put(x.src, "c", "newest")
	copied(1)
}

// interrupted copies until the destination is to get an object that ends it.
func (x *pair) interrupted(o CopyOptions, ends func(key string) bool) CopyResult {
	x.t.Helper()
	ctx, cancel := context.WithCancel(x.t.Context())
	defer cancel()
	whole := x.dst.Store.bucket
	defer func() { x.dst.Store.bucket = whole }()
	x.dst.Store.bucket = faultbucket.New(whole, func(c faultbucket.Call) faultbucket.Fault {
		if c.Operation == faultbucket.Put && ends(c.Key) {
			cancel()
			return faultbucket.Fault{Mode: faultbucket.NotDone, Err: faultbucket.Permanent}
		}
		return faultbucket.Fault{}
	})
	r, err := copyAll(ctx, x.src.Store, x.dst.Store, o)
	if err == nil {
		x.t.Fatal("the copy ended before it could be interrupted")
	}
	return r
}

func TestAnInterruptedCopyIsGoneOnWith(t *testing.T) {
	x := newPair(t)
	disk := make([]byte, 20<<20)
	fill(rand.New(rand.NewPCG(6, 6)), disk)
	p := x.save("a", disk, nil)
	x.dst.packLimit = 3 << 20
	for _, puts := range []int{0, 1, 4} {
		ends := func(key string) bool {
			if strings.HasPrefix(key, dataPrefix) {
				puts--
			}
			return puts < 0
		}
		if r := x.interrupted(CopyOptions{}, ends); len(r.Copied) > 0 {
			t.Fatal("it copied a point")
		}
		if left := keysOf(t, x.dst.bucket, sessionPrefix); len(left) != 1 {
			t.Errorf("the sessions %q stayed behind", left)
		}
		if left := keysOf(t, x.src.bucket, sessionPrefix); len(left) > 0 {
			t.Errorf("the sessions %q stayed behind in the source", left)
		}
	}
	r := x.copy(CopyOptions{})
	if r.Bytes.New+r.Bytes.Known != p.Size || r.Bytes.Known < 8<<20 {
		t.Errorf("what was sent before was sent again: %+v", r.Bytes)
	}
	x.mustHave(p)
}

// On another machine, whose index knows nothing, the checkpoint is gone on with.
func TestACopyIsGoneOnWithFromItsCheckpoint(t *testing.T) {
	x := newPair(t)
	disk := make([]byte, 20<<20)
	fill(rand.New(rand.NewPCG(6, 7)), disk)
	p := x.save("a", disk, nil)
	disk[3]++
	q := x.save("a", disk, &p)
	x.dst.packLimit = 3 << 20
	// Nodes are stored for a checkpoint, then the session tells of it.
	nodes, told := false, false
	x.interrupted(CopyOptions{CheckpointEvery: time.Microsecond}, func(key string) bool {
		nodes = nodes || strings.HasPrefix(key, metadataPrefix)
		before := told
		told = told || nodes && strings.HasPrefix(key, sessionPrefix)
		return before
	})
	x.dst.closeIndex()
	x.dst.cache = memoryDir(t)
	x.dst.open(x.dst.created.RecoveryKey)
	r := x.copy(CopyOptions{})
	if r.Bytes.New >= p.Size || r.Bytes.Unchanged == 0 {
		t.Errorf("nothing of the checkpoint was used: %+v", r.Bytes)
	}
	x.mustHave(p, q)
}

// putRaw puts a sealed document into the destination, past all faults.
func (x *pair) putRaw(key string, kind seal.Kind, id ID, v any) {
	x.t.Helper()
	s := x.dst.Store
	object, err := seal.SealDocument(s.epochs[s.epoch], s.header.StoreID, seal.NewHeader(kind, s.epoch, id), v)
	if err == nil {
		err = x.dst.bucket.Put(x.t.Context(), key, [][]byte{object})
	}
	if err != nil {
		x.t.Fatal(err)
	}
}

// sessionOf puts a session as another process would have.
func (x *pair) sessionOf(p Point, host string) ID {
	x.t.Helper()
	id, err := ParseID(p.ID)
	if err != nil {
		x.t.Fatal(err)
	}
	doc := sessionDocument{ID: id, Task: taskWrite, Host: host, PID: 1, Instance: copySession(p.Instance), Started: time.Now(), Renewed: time.Now()}
	x.putRaw(sessionKey(id, 7), seal.Session, id, doc)
	return id
}

func TestTwoCopiesOfAPointDoNotMeet(t *testing.T) {
	x := newPair(t)
	points := x.history("a", 300_000, 2, 1)
	id := x.sessionOf(points[1], "another host")
	r := x.copy(CopyOptions{})
	if len(r.Copied) != 1 || len(r.Failed) != 1 || !problem.Is(r.Failed[0].Err, problem.CopyInProgress) || r.Failed[0].Point != points[1].ID {
		t.Errorf("beside another copy it did %+v", r)
	}
	// Out of touch for long it counts as dead, and as fenced by a collector.
	x.dst.bucket.SetClock(func() time.Time { return time.Now().Add(-time.Hour) })
	if err := x.dst.deleteSession(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	x.sessionOf(points[1], "another host")
	x.dst.bucket.SetClock(time.Now)
	fenced := pointDocument{Point: Point{ID: id.String()}, Fence: &fence{By: "collect", Time: time.Now(), Reason: "test"}}
	x.putRaw(pointKey(id), seal.Point, id, fenced)
	if r := x.copy(CopyOptions{}); len(r.Copied) != 1 || len(r.Failed) > 0 {
		t.Errorf("behind a dead copy it did %+v", r)
	}
	x.mustHave(points...)
}

// A copy that was taken for dead wakes up when another one has taken its place,
// or a collector has given it up: it must not commit.
func TestACopyThatWasGivenUpCannotCommit(t *testing.T) {
	for _, fate := range []string{"another copy", "a collector"} {
		x := newPair(t)
		p := x.history("a", 1<<20, 1, 1)[0]
		whole := x.dst.Store.bucket
		var once sync.Once
		id, _ := ParseID(p.ID)
		x.dst.Store.bucket = faultbucket.New(whole, func(c faultbucket.Call) faultbucket.Fault {
			if c.Operation == faultbucket.Put && strings.HasPrefix(c.Key, metadataPrefix) {
				once.Do(func() {
					for _, key := range keysOf(t, x.dst.bucket, sessionPrefix) {
						if err := x.dst.bucket.Delete(t.Context(), key); err != nil {
							t.Error(err)
						}
					}
					if fate == "another copy" {
						x.sessionOf(p, "another host")
					}
				})
			}
			return faultbucket.Fault{}
		})
		r := x.copy(CopyOptions{})
		x.dst.Store.bucket = whole
		if len(r.Copied) > 0 || len(r.Failed) != 1 || !problem.Is(r.Failed[0].Err, problem.SessionFenced) {
			t.Errorf("given up for %s it did %+v", fate, r)
		}
		if _, err := x.dst.Point(t.Context(), id.String()); !problem.Is(err, problem.RecoveryPointNotFound) {
			t.Errorf("given up for %s it committed: %v", fate, err)
		}
	}
}

// A point whose data the source has lost is not copied; it is told with the very
// ranges that a restore could not bring. All others are copied.
func TestACopyTellsWhatTheSourceHasLost(t *testing.T) {
	for seed := range seeds(t, 4) {
		x := newPair(t)
		points := slices.Concat(x.history("a", 3<<20+5, 4, 2*seed+50), x.history("b", 2<<20, 3, 2*seed+51))
		random := rand.New(rand.NewPCG(seed, 5))
		key, how := hurt(t, x.src.bucket, random, []string{"packs/data/", "packs/meta/"})
		src, err := readOnly(t, x.src.bucket, x.src.created.LocalKey)
		if err != nil {
			t.Fatal(err)
		}
		r, err := copyAll(t.Context(), src, x.dst.Store, CopyOptions{})
		if err != nil {
			t.Fatalf("seed %d, %s %s: %v", seed, key, how, err)
		}
		failed := map[string]CopyFailure{}
		for _, f := range r.Failed {
			failed[f.Point] = f
		}
		for _, p := range points {
			lost := lostBlocks(t, src, p, x.disks[p.ID])
			f, ok := failed[p.ID]
			if ok != (len(lost) > 0) {
				t.Errorf("seed %d, %s %s: point %s of %s failed: %v (%v), and %d blocks are lost", seed, key, how, p.ID, p.Instance, ok, f.Err, len(lost))
			}
			var told []int64
			for _, l := range f.Lost {
				for at := l.Offset; at < l.Offset+l.Length; at += 16 << 10 {
					told = append(told, at)
				}
			}
			if !slices.Equal(told, lost) {
				t.Errorf("seed %d, %s %s: point %s: lost are %v, told %v", seed, key, how, p.ID, lost, told)
			}
			if ok && !strings.Contains(f.String(), "was not copied: its store has lost") {
				t.Error(f)
			}
			if !ok {
				if err := x.has(t.Context(), x.dst.Store, p); err != nil {
					t.Errorf("seed %d, %s %s: %v", seed, key, how, err)
				}
			}
		}
		x.mustHave()
	}
}

// Damage in the destination is not built upon: what the copies need of it is
// sent again.
func TestACopyDoesNotBuildOnDamage(t *testing.T) {
	for seed := range seeds(t, 4) {
		x := newPair(t)
		points := x.history("a", 3<<20+5, 2, seed+90)
		x.copy(CopyOptions{Points: []string{points[0].ID}})
		random := rand.New(rand.NewPCG(seed, 6))
		key, how := hurt(t, x.dst.bucket, random, []string{"packs/data/", "packs/meta/"})
		if _, err := x.dst.Check(t.Context(), CheckOptions{ReadData: true}); err != nil {
			t.Fatal(err)
		}
		x.dst.keys, x.dst.frames = newPackKeys(), newFrameCache()
		r := x.copy(CopyOptions{})
		if err := x.has(t.Context(), x.dst.Store, points[1]); err != nil || len(r.Failed) > 0 {
			t.Errorf("seed %d, %s %s: %v, %v", seed, key, how, err, r.Failed)
		}
	}
}

func TestBothStoresAreUsedDuringACopy(t *testing.T) {
	x := newPair(t)
	points := slices.Concat(x.history("a", 6<<20, 6, 1), x.history("b", 6<<20, 6, 2))
	done := make(chan struct{})
	var others sync.WaitGroup
	for _, l := range []*lab{x.src, x.dst} {
		for _, instance := range []string{"a", "other"} {
			others.Go(func() {
				disk := someDisk(2<<20, 8)
				random := rand.New(rand.NewPCG(8, 8))
				var base *Point
				for running := true; running; {
					select {
					case <-done:
						running = false
					default:
					}
					p, err := save(t.Context(), l.Store, instance, disk, base)
					if err != nil {
						t.Error(err)
						return
					}
					got, err := load(t.Context(), l.Store, p)
					if err != nil || !bytes.Equal(got, disk) {
						t.Errorf("a backup beside the copy came back different, %v", err)
					}
					base = &p
					fill(random, disk[random.IntN(1<<20):][:30000])
				}
			})
		}
	}
	r := x.copy(CopyOptions{})
	if len(r.Failed) > 0 {
		t.Errorf("failed: %v", r.Failed[0].Err)
	}
	close(done)
	others.Wait()
	x.mustHave(points...)
}

// A copy may fail at each call of either store: no point is there that cannot be
// read, and the next copy makes up for it.
func TestACopyMayFailAtEachCall(t *testing.T) {
	x := newPair(t)
	points := slices.Concat(x.history("a", 700_000, 2, 1), x.history("b", 100_000, 1, 2))
	if err := x.src.PutRecord(t.Context(), "policy", "p", 1); err != nil {
		t.Fatal(err)
	}
	empty := x.dst.bucket.Clone()
	for side, name := range []string{"source", "destination"} {
		// trial copies with faults on one side, to a destination that is new.
		trial := func(plan faultbucket.Plan) (*lab, []faultbucket.Call, error) {
			dst := &lab{t: t, bucket: empty.Clone(), created: x.dst.created, cache: memoryDir(t)}
			dst.open(dst.created.LocalKey)
			sides := []*Store{x.src.Store, dst.Store}
			whole := sides[side].bucket
			faults := faultbucket.New(whole, plan)
			sides[side].bucket = bucket.Retrying(faults, quick)
			_, err := copyAll(t.Context(), x.src.Store, dst.Store, CopyOptions{})
			sides[side].bucket = whole
			return dst, faults.Calls(), err
		}
		_, calls, err := trial(faultbucket.Nothing)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range few(calls, os.Getenv("DISKVAULT_LONG") != "") {
			for w, way := range ways {
				if os.Getenv("DISKVAULT_LONG") == "" && (n+w)%3 != 0 {
					continue
				}
				x.src.keys, x.src.frames = newPackKeys(), newFrameCache()
				dst, _, err := trial(way.plan(n))
				fail := func(err error) {
					t.Fatalf("%s: %s fails %s: %v", name, class(calls[n-1]), way.name, err)
				}
				if way.heals && err != nil {
					fail(err)
				}
				if err != nil && !errors.Is(err, faultbucket.ErrInjected) {
					fail(err)
				}
				if err := undamaged(t.Context(), dst.Store); err != nil {
					fail(err)
				}
				if r, err := copyAll(t.Context(), x.src.Store, dst.Store, CopyOptions{}); err != nil || len(r.Failed) > 0 {
					fail(fmt.Errorf("the next copy: %w, %v", err, r.Failed))
				}
				if err := x.has(t.Context(), dst.Store, points...); err != nil {
					fail(err)
				}
				dst.closeIndex()
			}
		}
	}
}

func TestACopyIsLimited(t *testing.T) {
	x := newPair(t)
	disk := make([]byte, 2<<20)
	fill(rand.New(rand.NewPCG(3, 3)), disk)
	p := x.save("a", disk, nil)
	began := time.Now()
	x.copy(CopyOptions{LimitRate: 4 << 20})
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("2 MiB at 4 MiB a second, of which one at once, took %v", took)
	}
	x.mustHave(p)
}

// From a folder to an object store and back to another folder.
func TestCopiesBetweenDrivers(t *testing.T) {
	server := s3test.Start(t)
	open := func(b bucket.Bucket, err error, realm *Store) *Store {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		made, err := Create(t.Context(), b, CreateOptions{BlockSize: 16 << 10, Realm: realm})
		if err != nil {
			t.Fatal(err)
		}
		k, err := ParseKey(made.LocalKey)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), b, k, OpenOptions{CacheDir: memoryDir(t)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	folder := func(realm *Store) *Store {
		b, err := filebucket.Open(memoryDir(t), filebucket.Options{})
		return open(b, err, realm)
	}
	first := folder(nil)
	b, err := s3bucket.Open(server.NewBucket(t), s3bucket.Options{Credentials: server.Credentials()})
	second := open(b, err, first)
	third := folder(first)

	x := &pair{t: t, disks: map[string][]byte{}}
	disk := someDisk(12<<20+99, 5)
	var points []Point
	var base *Point
	for i := range 3 {
		p, err := save(t.Context(), first, "a", disk, base)
		if err != nil {
			t.Fatal(err)
		}
		points, base = append(points, p), &p
		x.disks[p.ID] = bytes.Clone(disk)
		copy(disk[i<<20:], someDisk(300_000, uint64(i)))
	}
	for _, way := range [][2]*Store{{first, second}, {second, third}} {
		r, err := copyAll(t.Context(), way[0], way[1], CopyOptions{})
		if err != nil || len(r.Copied) != len(points) {
			t.Fatalf("from %s to %s: %+v, %v", way[0].URL(), way[1].URL(), r, err)
		}
		if err := x.has(t.Context(), way[1], points...); err != nil {
			t.Errorf("from %s to %s: %v", way[0].URL(), way[1].URL(), err)
		}
		if err := undamaged(t.Context(), way[1]); err != nil {
			t.Error(err)
		}
	}
}

// Collections run all the time in both stores while points are copied and
// others deleted: nothing is swept that a copy relies on, on either side.
func TestACopyBesideCollections(t *testing.T) {
	x := newPair(t)
	points := slices.Concat(x.history("a", 4<<20, 6, 1), x.history("b", 4<<20, 6, 2))
	x.copy(CopyOptions{Points: []string{points[0].ID, points[6].ID}})
	done := make(chan struct{})
	var collectors sync.WaitGroup
	for _, l := range []*lab{x.src, x.dst} {
		collectors.Go(func() {
			for {
				if _, err := l.Collect(t.Context(), CollectOptions{Meter: meter.New("collect")}); err != nil {
					t.Error(err)
				}
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
	}
	// The bases of the copies go while they are made.
	for _, p := range []Point{points[0], points[6]} {
		if err := x.dst.DeletePoint(t.Context(), p.ID); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if r := x.copy(CopyOptions{}); len(r.Failed) > 0 {
			t.Errorf("failed: %v", r.Failed[0].Err)
		}
	}
	close(done)
	collectors.Wait()
	if err := x.has(t.Context(), x.dst.Store, points...); err != nil {
		t.Error(err)
	}
	x.dst.mustBeWhole()
	x.src.mustBeWhole()
}
