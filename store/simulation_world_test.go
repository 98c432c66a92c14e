package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/faultbucket"
	"github.com/diskvault/diskvault/store/bucket/membucket"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// simulation is a small world that a seed decides: stores in memory, hosts that
// work on them, and their misfortunes. Each call of a bucket waits until the
// world lets it go on, one at a time, so that the seed decides the order of all
// that happens; the clock stands still meanwhile. Whatever changes a store is
// judged at the moment at which it happens.
type simulation struct {
	seed   uint64
	random *rand.Rand
	plan   simPlan
	stores []*simStore
	hosts  []*simHost

	mu       sync.Mutex
	waiting  []*simCall          // guarded by mu
	tasks    int                 // that are running; guarded by mu
	writing  map[string]*simHost // by instance; guarded by mu
	newest   map[string]*Point   // by instance, in the first store, as a catalog knows it; guarded by mu
	content  map[string]simDisk  // by point: what it must show; guarded by mu
	disks    map[string]simDisk  // by instance; of the world alone
	violated error               // guarded by mu

	steps   int
	started int // tasks

	trace []simEvent
	hash  uint64
}

// simPlan is how kind a world is. Kinder ones find more of what lies deep.
type simPlan struct {
	tasks     int // how many are started in all
	together  int // and at a time
	faults    float64
	stalls    float64
	kills     float64
	pauses    float64
	jumps     float64
	outages   float64
	longest   int // of simSpans, how long a jump or a pause may be
	compact   bool
	twins     bool // a host may have the name of a paused one
	instances int
	blocks    int // of the largest disk
	weights   [5]int
}

// simSpans are how long somebody is paused, or all time is let pass.
var simSpans = []time.Duration{
	20 * time.Second, 2 * time.Minute, 20 * time.Minute, 62 * time.Minute, 3 * time.Hour,
	25 * time.Hour, 8 * 24 * time.Hour, 31 * 24 * time.Hour, 45 * 24 * time.Hour,
}

// gentle tells that nothing happens that a run may fail of.
func (p simPlan) gentle() bool {
	return p.faults+p.kills+p.pauses+p.outages == 0 && p.longest <= 3
}

func newPlan(r *rand.Rand) simPlan {
	rare := func(rate float64) float64 {
		if r.IntN(2) == 0 {
			return 0
		}
		return rate * r.Float64()
	}
	p := simPlan{
		tasks: 8 + r.IntN(16), together: 2 + r.IntN(4),
		faults: rare(0.05), stalls: rare(0.03), kills: rare(0.004), pauses: rare(0.01), jumps: rare(0.03), outages: rare(0.001),
		longest: 2 + r.IntN(len(simSpans)-1), compact: r.IntN(3) > 0, twins: r.IntN(4) == 0,
		instances: 1 + r.IntN(3), blocks: 8 + r.IntN(600),
		weights: [...]int{3 + r.IntN(6), r.IntN(5), 1 + r.IntN(5), r.IntN(3), r.IntN(3)},
	}
	if r.IntN(3) == 0 { // many collections, each of which may fall far behind
		p.tasks, p.together, p.stalls = 20+r.IntN(12), 4+r.IntN(3), 0.02+0.08*r.Float64()
		p.kills, p.outages, p.instances = 0, 0, 1
		p.weights = [...]int{4, 4, 8, 0, 0}
	}
	return p
}

// simStore is a store of the world.
type simStore struct {
	world    *simulation
	name     string
	origin   *Store
	raw      *membucket.Bucket
	points   map[string]map[string]bool // that exist: the keys that reading each needs
	put      map[string]bool            // points that ever were there
	doomed   map[string]bool            // points that somebody was told to delete
	unsynced []string                   // packs that were reported as stored, and are not on stable storage
}

// simEvent is something that happened.
type simEvent struct {
	step        int
	at          time.Time
	who, op     string
	where, what string
	fate        string
}

func (w *simulation) note(e simEvent) {
	e.step, e.at = w.steps, time.Now()
	w.trace = append(w.trace, e)
	h := fnv.New64a()
	fmt.Fprint(h, w.hash, e.at.UnixNano(), e.who, e.op, e.where, e.what, e.fate)
	w.hash = h.Sum64()
}

// violate notes the first thing that must not be.
func (w *simulation) violate(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.violated == nil {
		w.violated = fmt.Errorf(format, args...)
	}
}

func (w *simulation) broken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.violated != nil
}

// story is what happened last: so many things at most.
func (w *simulation) story(most int) string {
	var b strings.Builder
	for _, e := range w.trace[max(0, len(w.trace)-most):] {
		fmt.Fprintf(&b, "%6d %s %-8s %-7s %s %s %s\n", e.step, e.at.Format("02T15:04:05.000"), e.who, e.op, e.where, e.what, e.fate)
	}
	return b.String()
}

// simOrigins are the stores that each world begins with a copy of: creating one
// takes longer than a world lasts.
var simOrigins = sync.OnceValues(func() ([]*Store, error) {
	var all []*Store
	for range 2 {
		o := CreateOptions{BlockSize: simBlock}
		if len(all) > 0 {
			o.Realm = all[0]
		}
		b := membucket.New()
		created, err := Create(context.Background(), b, o)
		if err != nil {
			return nil, err
		}
		k, err := ParseKey(created.LocalKey)
		if err != nil {
			return nil, err
		}
		s, err := Open(context.Background(), unretried{b}, k, OpenOptions{})
		if err != nil {
			return nil, err
		}
		s.bucket = b
		all = append(all, s)
	}
	return all, nil
})

type unretried struct{ bucket.Bucket }

// simulate lives through the world of a seed and gives what must not be, if it
// came to be.
func simulate(t *testing.T, seed uint64) (w *simulation, err error) {
	origins, err := simOrigins()
	if err != nil {
		return nil, err
	}
	synctest.Test(t, func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, seed)
		random := rand.New(rand.NewPCG(seed, 77))
		w = &simulation{
			seed: seed, random: random, plan: newPlan(random),
			writing: map[string]*simHost{}, newest: map[string]*Point{}, content: map[string]simDisk{}, disks: map[string]simDisk{},
		}
		copies := random.IntN(5) == 0
		for i, o := range origins {
			if i > 0 && !copies {
				break
			}
			w.stores = append(w.stores, &simStore{
				world: w, name: string(rune('A' + i)), origin: o, raw: o.bucket.(*membucket.Bucket).Clone(),
				points: map[string]map[string]bool{}, put: map[string]bool{}, doomed: map[string]bool{},
			})
		}
		for range 1 + random.IntN(3) {
			w.newHost("", nil)
		}
		for i := range w.plan.instances {
			w.disks[string(rune('a'+i))] = newSimDisk(random, 1+random.IntN(w.plan.blocks))
		}
		w.live()
		w.end()
		err = w.violated
	})
	return w, err
}

// live is the time of misfortunes.
func (w *simulation) live() {
	for w.steps = 0; !w.broken(); w.steps++ {
		synctest.Wait()
		if w.started >= w.plan.tasks && w.running() == 0 {
			return
		}
		if w.steps > 60_000 {
			w.violate("the tasks do not come to an end")
			return
		}
		w.misfortune()
		if w.started < w.plan.tasks && w.running() < w.plan.together && w.random.IntN(25) == 0 {
			w.start()
			continue
		}
		if c := w.choose(); c != nil {
			w.letGo(c)
			continue
		}
		w.idle()
	}
}

func (w *simulation) running() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tasks
}

// idle is when nobody who is awake has anything to do.
func (w *simulation) idle() {
	if w.started < w.plan.tasks && w.running() < w.plan.together+2 && w.random.IntN(3) > 0 {
		w.start()
		return
	}
	span := time.Duration(1+w.random.IntN(2000)) * time.Millisecond
	for _, h := range w.hosts {
		if !h.dead && h.until.After(time.Now()) && w.random.IntN(8) == 0 {
			span = max(span, min(simSpans[w.random.IntN(w.plan.longest)], time.Until(h.until)))
		}
	}
	w.sleep(span)
}

// sleep lets time pass for all.
func (w *simulation) sleep(d time.Duration) {
	if d > time.Minute {
		w.note(simEvent{who: "all", op: "time", what: d.String()})
	}
	time.Sleep(d)
}

// chance is true at the rate.
func (w *simulation) chance(rate float64) bool { return rate > 0 && w.random.Float64() < rate }

// misfortune may befall somebody.
func (w *simulation) misfortune() {
	p := w.plan
	if w.chance(p.jumps) {
		w.sleep(simSpans[w.random.IntN(p.longest)])
	}
	if w.chance(p.outages) {
		w.outage()
	}
	if !w.chance(p.kills + p.pauses) {
		return
	}
	awake := w.awake()
	h := awake[w.random.IntN(len(awake))]
	if w.random.Float64()*(p.kills+p.pauses) < p.kills {
		w.kill(h)
		w.newHost(h.name, h)
		return
	}
	h.until = time.Now().Add(simSpans[w.random.IntN(p.longest)])
	w.note(simEvent{who: h.name, op: "paused", what: time.Until(h.until).String()})
	if len(awake) == 1 || w.random.IntN(3) == 0 {
		name := ""
		if p.twins {
			name = h.name
		}
		w.newHost(name, nil)
	}
}

func (w *simulation) awake() (all []*simHost) {
	for _, h := range w.hosts {
		if !h.dead && !h.until.After(time.Now()) {
			all = append(all, h)
		}
	}
	if len(all) == 0 {
		return []*simHost{w.newHost("", nil)}
	}
	return all
}

// outage kills all hosts; a storage that does not sync loses what it promised.
func (w *simulation) outage() {
	w.note(simEvent{who: "all", op: "outage"})
	for _, h := range slices.Clone(w.hosts) {
		if !h.dead {
			w.kill(h)
			w.newHost(h.name, h)
		}
	}
	for _, st := range w.stores {
		for _, key := range st.unsynced {
			st.delete(key)
		}
		st.unsynced = nil
	}
}

// kill ends a host. Each call under way is carried out, or not.
func (w *simulation) kill(h *simHost) {
	w.note(simEvent{who: h.name, op: "killed"})
	w.mu.Lock()
	h.dead = true
	all := w.waiting
	w.waiting = nil
	for _, c := range all {
		if c.host != h {
			w.waiting = append(w.waiting, c)
		}
	}
	w.mu.Unlock()
	h.die()
	slices.SortFunc(all, compareCalls)
	for _, c := range all {
		if c.host == h {
			if w.random.IntN(2) == 0 {
				_ = c.act() // what becomes of it is not told to anybody
			}
			c.done <- errKilled
		}
	}
	synctest.Wait()
}

// end lets all that is left go on, and looks at what stays when nobody works
// any more and all times are over.
func (w *simulation) end() {
	if w.broken() {
		for _, h := range w.hosts {
			if !h.dead {
				w.kill(h)
			}
		}
	}
	for w.running() > 0 { // they end by themselves
		synctest.Wait()
		time.Sleep(time.Minute)
	}
	if !w.broken() {
		w.settle()
	}
	for _, h := range w.hosts {
		h.close()
	}
}

// choose picks the call that goes on; nil if nobody may.
func (w *simulation) choose() *simCall {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortFunc(w.waiting, compareCalls)
	now := time.Now()
	var may []*simCall
	total := 0
	for _, c := range w.waiting {
		if c.host.until.After(now) {
			continue
		}
		if c.ctx.Err() != nil {
			may, total = []*simCall{c}, 1
			break
		}
		if c.stalled > w.steps {
			continue
		}
		if c.fresh && w.chance(w.plan.stalls) {
			c.stalled = w.steps + 1 + w.random.IntN(400)
		}
		c.fresh = false
		may = append(may, c)
		total += c.host.speed
	}
	if len(may) == 0 {
		for _, c := range w.waiting {
			c.stalled = 0
		}
		return nil
	}
	if w.random.IntN(40) == 0 {
		h := may[w.random.IntN(len(may))].host
		h.speed = []int{1, 1, 8, 64}[w.random.IntN(4)]
	}
	n := w.random.IntN(max(1, total))
	for _, c := range may {
		if n -= c.host.speed; n < 0 {
			return c
		}
	}
	return may[len(may)-1]
}

// letGo carries out a call, or lets it fail.
func (w *simulation) letGo(c *simCall) {
	w.mu.Lock()
	w.waiting = slices.DeleteFunc(w.waiting, func(o *simCall) bool { return o == c })
	w.mu.Unlock()
	carryOut, fault := true, error(nil)
	switch {
	case time.Since(c.began) > simPatience:
		carryOut, fault = false, faultbucket.Temporary
	case c.ctx.Err() != nil:
		carryOut, fault = w.random.IntN(2) == 0, c.ctx.Err()
	case w.chance(w.plan.faults):
		carryOut, fault = w.random.IntN(2) == 0, faultbucket.Temporary
		if w.random.IntN(6) == 0 {
			fault = faultbucket.Permanent
		}
	}
	var err error
	fate := ""
	if carryOut {
		if err = c.act(); err != nil {
			fate = reasonOf(err)
		}
	}
	if fault != nil {
		err = fault
		fate = fmt.Sprintf("fails, done: %v", carryOut)
	}
	w.note(simEvent{who: c.host.name, op: c.op, where: c.store.name, what: c.key, fate: fate})
	c.done <- err
	if w.random.IntN(3) == 0 {
		time.Sleep(time.Duration(1+w.random.IntN(20)) * time.Millisecond)
	}
}

func reasonOf(err error) string {
	switch {
	case errors.Is(err, bucket.ErrExists):
		return "exists"
	case errors.Is(err, bucket.ErrNotFound):
		return "not found"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "short"
	}
	return err.Error()
}

// simCall is a call of a bucket that waits for the world.
type simCall struct {
	ctx     context.Context
	host    *simHost
	store   *simStore
	op, key string
	began   time.Time
	task    int // of the host, or 0
	number  int
	fresh   bool
	stalled int // until this step
	act     func() error
	done    chan error
}

// simPatience is for how long a call may be under way and yet be carried out. It
// must be shorter than a fence stays.
const simPatience = fencesFor - time.Hour

// simTaskKey is under which a context knows the number of its task.
type simTaskKey struct{}

// compareCalls orders calls in a way that only what happened decides.
func compareCalls(a, b *simCall) int {
	return cmp.Or(cmp.Compare(a.host.number, b.host.number), cmp.Compare(a.store.name, b.store.name),
		cmp.Compare(a.op, b.op), cmp.Compare(a.key, b.key), cmp.Compare(a.task, b.task), cmp.Compare(a.number, b.number))
}

// simBucket is a store's bucket as a host sees it.
type simBucket struct {
	host  *simHost
	store *simStore
}

var errKilled = errors.New("the host was killed")

func (b *simBucket) do(ctx context.Context, op, key string, act func() error) error {
	w := b.store.world
	c := &simCall{ctx: ctx, host: b.host, store: b.store, op: op, key: key, fresh: true, began: time.Now(), act: act, done: make(chan error, 1)}
	c.task, _ = ctx.Value(simTaskKey{}).(int)
	w.mu.Lock()
	if b.host.dead {
		w.mu.Unlock()
		return errKilled
	}
	b.host.calls++
	c.number = b.host.calls
	w.waiting = append(w.waiting, c)
	w.mu.Unlock()
	return <-c.done
}

func (b *simBucket) Put(ctx context.Context, key string, parts [][]byte) error {
	return b.do(ctx, "put", key, func() error { return b.store.putObject(key, parts) })
}

func (b *simBucket) Get(ctx context.Context, key string, off int64, dst []byte) error {
	return b.do(ctx, "get", key, func() error { return b.store.raw.Get(context.Background(), key, off, dst) })
}

func (b *simBucket) Stat(ctx context.Context, key string) (o bucket.Object, err error) {
	err = b.do(ctx, "stat", key, func() (err error) {
		o, err = b.store.raw.Stat(context.Background(), key)
		return err
	})
	if err != nil {
		o = bucket.Object{}
	}
	return o, err
}

func (b *simBucket) Delete(ctx context.Context, key string) error {
	return b.do(ctx, "delete", key, func() error {
		b.store.delete(key)
		return nil
	})
}

// List shows no one moment: it comes in pages, between which others go on.
func (b *simBucket) List(ctx context.Context, prefix, after string) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		for more := true; more; {
			var page []bucket.Object
			err := b.do(ctx, "list", prefix, func() error {
				limit := 1 << 30
				if w := b.store.world; w.random.IntN(6) == 0 {
					limit = w.random.IntN(4)
				}
				page, more = nil, false
				for o := range b.store.raw.List(context.Background(), prefix, after) {
					if more = len(page) == limit; more {
						return nil
					}
					page = append(page, o)
				}
				return nil
			})
			for _, o := range page {
				after = o.Key
				if !yield(o, nil) {
					return
				}
			}
			if err != nil {
				yield(bucket.Object{}, err)
				return
			}
		}
	}
}

func (b *simBucket) URL() string  { return "file:/" + b.store.name }
func (b *simBucket) Close() error { return nil }

// putObject puts an object, and judges a point that appears.
func (st *simStore) putObject(key string, parts [][]byte) error {
	w := st.world
	err := st.raw.Put(context.Background(), key, parts)
	if err != nil {
		return err
	}
	kind, _, _ := strings.Cut(key, "/")
	switch kind {
	case "packs":
		if !guardSync && w.random.IntN(4) > 0 {
			st.unsynced = append(st.unsynced, key)
		}
	case "points":
		id := strings.TrimPrefix(key, pointPrefix)
		doc, err := st.reader(st.raw).point(context.Background(), id)
		if err != nil {
			w.violate("the point %s cannot be read as soon as it is there: %v", id, err)
		} else if doc.Fence == nil {
			st.points[id], st.put[id] = nil, true
			delete(st.doomed, id)
			st.examine(id)
		}
	case "sessions", "condemned", "sweeps", "moved":
	default:
		w.violate("somebody put %s", key)
	}
	return nil
}

// delete removes an object, and judges the points that needed it.
func (st *simStore) delete(key string) {
	_ = st.raw.Delete(context.Background(), key) // it has no errors
	if id, ok := strings.CutPrefix(key, pointPrefix); ok {
		if _, there := st.points[id]; there {
			if !st.doomed[id] {
				st.world.violate("the point %s was removed by nobody who was told to", id)
			}
			delete(st.points, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(st.points)) {
		if st.points[id][key] {
			st.examine(id)
		}
	}
}

// reader is the store as a host sees it that knows nothing but the key.
func (st *simStore) reader(b bucket.Bucket) *Store { return st.handle(b, "reader") }

func (st *simStore) handle(b bucket.Bucket, host string) *Store {
	o := st.origin
	return &Store{
		bucket: b, header: o.header, root: o.root, identity: o.identity, blockSize: o.blockSize, epochs: o.epochs, epoch: o.epoch,
		keys: newPackKeys(), frames: newFrameCache(), syncing: newTurn(), packLimit: simPack, nodeLimit: simNodes, host: host,
	}
}

// needed notes which objects are read.
type needed struct {
	*membucket.Bucket
	keys map[string]bool
}

func (n needed) Get(ctx context.Context, key string, off int64, dst []byte) error {
	n.keys[key] = true
	return n.Bucket.Get(ctx, key, off, dst)
}

// examine reads a point, and notes what that needed: as long as all of it is
// there the point reads the same, since objects never change.
func (st *simStore) examine(id string) {
	n := needed{st.raw, map[string]bool{}}
	if err := st.compare(n, id); err != nil {
		st.world.violate("the point %s in store %s: %v", id, st.name, err)
	}
	delete(n.keys, pointPrefix+id)
	st.points[id] = n.keys
}

func (st *simStore) compare(b bucket.Bucket, id string) error {
	ctx, s := context.Background(), st.reader(b)
	p, err := s.Point(ctx, id)
	if err != nil {
		return err
	}
	st.world.mu.Lock()
	want := st.world.content[id]
	st.world.mu.Unlock()
	return want.compare(ctx, s, p)
}

// settle lets all times pass, collects, and finds nothing that need not be there.
func (w *simulation) settle() {
	w.note(simEvent{who: "all", op: "settle"})
	ctx := context.Background()
	for _, st := range w.stores {
		s := st.handle(st.raw, "last")
		s.index = newSimIndex()
		for range 4 { // packs, what tells where they went, and what that led to
			time.Sleep(fencesFor + resumeWithin)
			if _, err := s.Collect(ctx, CollectOptions{MaxUnused: -1}); err != nil {
				w.violate("the last collection of store %s: %v", st.name, err)
				return
			}
		}
		s.buffers.drop()
		if err := st.tidy(ctx); err != nil {
			w.violate("at the end of store %s: %v", st.name, err)
		}
		for _, h := range w.hosts {
			if !h.dead {
				h.honest(st)
			}
		}
	}
}

// tidy tells whether nothing is there but what points need, as a marking sees it.
func (st *simStore) tidy(ctx context.Context) error {
	for _, id := range slices.Sorted(maps.Keys(st.points)) {
		st.examine(id)
	}
	s := st.reader(st.raw)
	roots, err := s.roots(ctx, nil)
	if err != nil {
		return err
	}
	m, err := s.newMarking(ctx, map[pack.ID]bool{}, func(context.Context) error { return nil })
	if err == nil {
		err = m.all(ctx, roots)
	}
	if err != nil {
		return err
	}
	for o := range st.raw.List(ctx, metadataPrefix, "") {
		id, _ := pack.ParseID(strings.Split(o.Key, "/")[3])
		if err := m.retain(ctx, id); err != nil {
			return err
		}
	}
	sweeps := 0
	for o := range st.raw.List(ctx, "", "") {
		if _, err := st.origin.bucket.Stat(ctx, o.Key); err == nil {
			continue // it was there from the start
		}
		parts := strings.Split(o.Key, "/")
		id, _ := pack.ParseID(parts[min(1, len(parts)-1)])
		needed := false
		switch parts[0] {
		case "points":
			_, needed = st.points[parts[1]]
		case "packs":
			id, _ = pack.ParseID(parts[3])
			needed = m.packs[id] != nil
		case "moved":
			needed = m.used[id] || m.packs[id] != nil // of the latter some pieces stay
		case "sweeps":
			needed = sweeps == 0 // the newest tells the collect epoch
			sweeps++
		}
		if !needed {
			return fmt.Errorf("%s stays though nothing needs it", o.Key)
		}
	}
	return nil
}

var simPayloads = sync.Pool{New: func() any {
	payload := make([]byte, 0, FrameSize)
	return &payload
}}

// compare reads a point and compares it with the disk.
func (d simDisk) compare(ctx context.Context, s *Store, p Point) error {
	img, err := s.Image(p)
	if err != nil {
		return err
	}
	// A reader of its own would spend most of the time on clearing a new buffer.
	payload := simPayloads.Get().(*[]byte)
	defer simPayloads.Put(payload)
	r := &Reader{image: img, cursor: img.tree.NewCursor(), hash: s.hasher(blockDomain), decoder: seal.NewDecoder(FrameSize), payload: *payload}
	defer r.Close()
	blocks := 0
	for off := int64(0); off < p.Size; off += SegmentSize {
		err := r.Window(ctx, off, SegmentSize, func(at int64, data []byte) error {
			for ; len(data) > 0; data, at = data[simBlock:], at+simBlock {
				if k := at / simBlock; d.blocks[k] == 0 || !bytes.Equal(data[:simBlock], simPool()[d.blocks[k]]) {
					return fmt.Errorf("block %d is not what was written", k)
				}
				blocks++
			}
			return nil
		}, nil)
		if err != nil {
			return err
		}
	}
	if want := d.filled(); blocks != want || p.Size != d.size() {
		return fmt.Errorf("it has %d blocks in %d bytes, and was written with %d in %d", blocks, p.Size, want, d.size())
	}
	return nil
}
