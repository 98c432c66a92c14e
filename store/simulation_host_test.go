package store

import (
	"context"
	"errors"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/index"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

const (
	simBlock = 16 << 10
	simPack  = 8 << 10  // some frames of few blocks, which shrink well
	simNodes = 80 << 10 // a full frame of nodes, and little more
	simKinds = 24       // how many blocks there are that differ
)

// simPool are the blocks that disks are made of; the first is zeros.
var simPool = sync.OnceValue(func() [][]byte {
	random := rand.New(rand.NewPCG(9, 9))
	pool := make([][]byte, simKinds)
	for i := range pool {
		pool[i] = make([]byte, simBlock)
		if i > 0 {
			fill(random, pool[i][:200])
		}
	}
	return pool
})

// simDisk is the content of a disk: for each block which of the pool it is. It
// is never changed in place.
type simDisk struct{ blocks []uint8 }

func newSimDisk(r *rand.Rand, n int) simDisk {
	return simDisk{make([]uint8, n)}.changed(r, 2+r.IntN(14))
}

func (d simDisk) size() int64 { return int64(len(d.blocks)) * simBlock }

func (d simDisk) filled() (n int) {
	for _, b := range d.blocks {
		if b != 0 {
			n++
		}
	}
	return n
}

// changed gives the disk with a few blocks written.
func (d simDisk) changed(r *rand.Rand, n int) simDisk {
	next := simDisk{slices.Clone(d.blocks)}
	at := r.IntN(len(d.blocks))
	for range n {
		if r.IntN(3) == 0 {
			at = r.IntN(len(d.blocks))
		}
		next.blocks[at] = uint8(r.IntN(simKinds))
		at = (at + 1) % len(d.blocks)
	}
	return next
}

// simHost is a process with an index for each store.
type simHost struct {
	world  *simulation
	number int
	name   string
	owner  ID
	stores []*Store
	ctx    context.Context
	cancel context.CancelCauseFunc

	calls   int       // guarded by the world's mu
	dead    bool      // guarded by the world's mu
	until   time.Time // it is paused
	speed   int
	indexes []*simIndex
	backups []*simIndex // older copies
}

// newHost starts a host: a new one, or one that goes on with the data folder of
// an earlier one, as it was left or as it was at some time before.
func (w *simulation) newHost(name string, before *simHost) *simHost {
	h := &simHost{world: w, number: len(w.hosts), name: name, speed: 1}
	if name == "" {
		h.name = "host" + string(rune('0'+len(w.hosts)%10))
	}
	h.ctx, h.cancel = context.WithCancelCause(context.Background())
	h.owner = newSessionID()
	for i, st := range w.stores {
		x := newSimIndex()
		if before != nil {
			h.owner = before.owner
			switch w.random.IntN(4) {
			case 0:
				if before.backups != nil {
					x = before.backups[i].clone(0)
				}
			case 1:
				h.owner = newSessionID() // the folder is gone
			default:
				x = before.indexes[i].clone(w.random.IntN(3))
			}
		}
		s := st.handle(bucket.Retrying(&simBucket{h, st}, bucket.RetryOptions{Attempts: 4, FirstWait: 1, MaxWait: 1}), h.name)
		s.owner, s.index = h.owner, x
		h.stores, h.indexes = append(h.stores, s), append(h.indexes, x)
	}
	w.hosts = append(w.hosts, h)
	w.note(simEvent{who: h.name, op: "starts"})
	return h
}

func (h *simHost) die() {
	for _, x := range h.indexes {
		x.die()
	}
	h.cancel(errKilled)
}

func (h *simHost) close() {
	h.cancel(nil)
	for _, s := range h.stores {
		s.buffers.drop()
	}
}

// honest tells whether the index of the host, once it is up to date, knows
// only packs that are there.
func (h *simHost) honest(st *simStore) {
	for i, s := range h.stores {
		if h.world.stores[i] != st {
			continue
		}
		direct := st.handle(st.raw, h.name)
		direct.index = h.indexes[i]
		if err := direct.syncIndex(context.Background()); err != nil {
			h.world.violate("the index of %s cannot be brought up to date: %v", h.name, err)
		}
		for id := range s.index.Packs() {
			_, data := st.raw.Stat(context.Background(), packName(seal.DataPack, id))
			_, nodes := st.raw.Stat(context.Background(), packName(seal.MetadataPack, id))
			if data != nil && nodes != nil {
				h.world.violate("the index of %s for store %s knows the pack %s, which is not there", h.name, st.name, id)
			}
		}
	}
}

// simIndex is an index in memory, with the promises of the real one.
type simIndex struct {
	mu     sync.Mutex
	dead   bool
	epoch  uint64
	packs  map[pack.ID][]index.Entry
	order  []pack.ID // as they were added
	places map[Root][]pack.Place
}

func newSimIndex() *simIndex {
	return &simIndex{packs: map[pack.ID][]index.Entry{}, places: map[Root][]pack.Place{}}
}

// clone gives a copy without the packs added last, as a crash leaves it.
func (x *simIndex) clone(without int) *simIndex {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := newSimIndex()
	c.epoch = x.epoch
	for _, id := range x.order[:max(0, len(x.order)-without)] {
		if entries, ok := x.packs[id]; ok {
			c.add(id, entries)
		}
	}
	return c
}

func (x *simIndex) die() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dead = true
}

// alive locks the index, and gives an error if its host is dead.
func (x *simIndex) alive() (unlock func(), err error) {
	x.mu.Lock()
	if x.dead {
		err = errKilled
	}
	return x.mu.Unlock, err
}

func (x *simIndex) Lookup(h Root) (pack.Place, bool, error) {
	unlock, err := x.alive()
	defer unlock()
	for _, p := range slices.Backward(x.places[h]) {
		if _, ok := x.packs[p.Pack]; ok {
			return p, err == nil, err
		}
	}
	return pack.Place{}, false, err
}

func (x *simIndex) Add(id pack.ID, entries []index.Entry) error {
	unlock, err := x.alive()
	defer unlock()
	if _, ok := x.packs[id]; !ok && err == nil {
		x.add(id, entries)
	}
	return err
}

func (x *simIndex) add(id pack.ID, entries []index.Entry) {
	x.packs[id] = entries
	x.order = append(x.order, id)
	for _, e := range entries {
		x.places[e.Hash] = append(x.places[e.Hash], pack.Place{Pack: id, Offset: e.Offset, Length: e.Length, Slot: e.Slot})
	}
}

func (x *simIndex) Forget(ids ...pack.ID) error {
	unlock, err := x.alive()
	defer unlock()
	for _, id := range ids {
		if err == nil {
			delete(x.packs, id)
		}
	}
	return err
}

func (x *simIndex) Packs() iter.Seq2[pack.ID, error] {
	return func(yield func(pack.ID, error) bool) {
		unlock, err := x.alive()
		all := slices.SortedFunc(maps.Keys(x.packs), func(a, b pack.ID) int { return slices.Compare(a[:], b[:]) })
		unlock()
		if err != nil {
			yield(pack.ID{}, err)
			return
		}
		for _, id := range all {
			if !yield(id, nil) {
				return
			}
		}
	}
}

func (x *simIndex) Epoch() (uint64, error) {
	unlock, err := x.alive()
	defer unlock()
	return x.epoch, err
}

func (x *simIndex) SetEpoch(epoch uint64) error {
	unlock, err := x.alive()
	defer unlock()
	if err == nil {
		x.epoch = epoch
	}
	return err
}

func (x *simIndex) Sweep(context.Context) (int64, error) { return 0, nil }
func (x *simIndex) Load() (*index.Loader, error)         { return nil, errors.New("it cannot be loaded") }
func (x *simIndex) Close() error                         { return nil }

// start gives somebody something to do.
func (w *simulation) start() {
	awake := w.awake()
	h := awake[w.random.IntN(len(awake))]
	at := w.random.IntN(len(w.stores))
	t := &simTask{simHost: h, ctx: context.WithValue(h.ctx, simTaskKey{}, w.started+1), random: rand.New(rand.NewPCG(w.random.Uint64(), 1)), at: at, st: w.stores[at], store: h.stores[at]}
	total := 0
	for _, n := range w.plan.weights {
		total += n
	}
	n, kind := w.random.IntN(total), 0
	for n >= w.plan.weights[kind] {
		n -= w.plan.weights[kind]
		kind++
	}
	if w.random.IntN(10) == 0 {
		h.backups = nil
		for _, x := range h.indexes {
			h.backups = append(h.backups, x.clone(0))
		}
	}
	var do func()
	var what string
	switch kind {
	case 0:
		what, do = "backup", t.backup()
	case 1:
		what, do = "forget", t.forget()
	case 2:
		what, do = "collect", t.collect()
	case 3:
		what, do = "read", t.read()
	case 4:
		what, do = "copy", t.copy()
	}
	if do == nil {
		return
	}
	w.started++
	w.note(simEvent{who: h.name, op: "begins", what: what})
	w.mu.Lock()
	w.tasks++
	w.mu.Unlock()
	go func() {
		do()
		w.mu.Lock()
		w.tasks--
		w.mu.Unlock()
	}()
}

// simTask is something that a host does.
type simTask struct {
	*simHost
	ctx    context.Context
	random *rand.Rand
	at     int
	st     *simStore
	store  *Store
}

// backup backs up a disk that nobody else backs up, or somebody who is out of
// touch.
func (t *simTask) backup() func() {
	w := t.world
	instance := string(rune('a' + w.random.IntN(w.plan.instances)))
	w.mu.Lock()
	defer w.mu.Unlock()
	if by := w.writing[instance]; by != nil && !by.dead && !by.until.After(time.Now()) {
		return nil
	}
	w.writing[instance] = t.simHost
	disk := w.disks[instance].changed(w.random, w.random.IntN(6))
	w.disks[instance] = disk
	t.at, t.st, t.store = 0, w.stores[0], t.stores[0]
	var base *Point
	if w.random.IntN(6) > 0 {
		base = w.newest[instance]
	}
	return func() {
		began := time.Now()
		p, err := t.write(instance, disk, base)
		if errors.Is(err, ErrBaseGone) {
			p, err = t.write(instance, disk, nil)
		}
		w.mu.Lock()
		if w.writing[instance] == t.simHost {
			w.writing[instance] = nil
		}
		if err == nil {
			if n := w.newest[instance]; n == nil || n.Created.Before(p.Created) {
				w.newest[instance] = &p
			}
		}
		there := t.st.put[p.ID]
		w.mu.Unlock()
		switch {
		case err == nil && !there:
			w.violate("the point %s was reported as committed and is not there", p.ID)
		case err != nil && w.plan.gentle() && !errors.Is(err, errAbandoned) && time.Since(began) < 50*time.Minute:
			w.violate("a run failed though nothing was wrong: %v", err)
		}
	}
}

var errAbandoned = errors.New("a person stopped it")

// write is one run.
func (t *simTask) write(instance string, disk simDisk, base *Point) (p Point, err error) {
	w := t.world
	o := WriterOptions{ID: newID(), Instance: instance, Size: disk.size(), Compression: CompressionFast, Meter: meter.New("transfer")}
	w.mu.Lock()
	w.content[o.ID.String()] = disk
	var before simDisk
	if base != nil {
		before = w.content[base.ID]
	}
	w.mu.Unlock()
	if base != nil {
		if o.Base, err = t.store.Image(*base); err != nil {
			return p, err
		}
	}
	if t.random.IntN(3) == 0 {
		img, _, ok, err := t.store.Unfinished(t.ctx, instance)
		if err != nil {
			return p, err
		}
		if ok {
			o.Base = img
		}
	}
	run, err := t.store.NewWriter(t.ctx, o)
	if err != nil {
		return p, err
	}
	defer run.Close()
	tracked := o.Base != nil && !o.Base.partial && t.random.IntN(2) == 0
	if tracked {
		doubtful, err := run.Doubtful()
		if err != nil {
			return p, err
		}
		tracked = len(doubtful) == 0
	}
	e, err := run.NewEncoder(o.Meter.Stage("cpu", 1), 0)
	if err != nil {
		return p, err
	}
	defer e.Close()
	for off := int64(0); off < o.Size; off += SegmentSize {
		if err := t.segment(run, e, disk, before, off, tracked); err != nil {
			return p, err
		}
		if t.random.IntN(3) == 0 {
			if err := run.Checkpoint(); err != nil {
				return p, err
			}
		}
	}
	if t.random.IntN(10) == 0 {
		return p, errAbandoned
	}
	return run.Commit(Point{Instance: instance, Name: instance, Consistency: CrashConsistent})
}

// segment stores a part of the disk: all of it, or what changed only.
func (t *simTask) segment(run *Writer, e *Encoder, disk, before simDisk, off int64, tracked bool) error {
	first := int(off / simBlock)
	last := min(first+SegmentSize/simBlock, len(disk.blocks))
	var runs, same []Run
	var data []byte
	for k := first; k < last; k++ {
		r := Run{int64(k) * simBlock, simBlock}
		to := &runs
		if tracked && disk.blocks[k] == before.blocks[k] {
			to = &same
		} else if disk.blocks[k] == 0 {
			continue
		} else {
			data = append(data, simPool()[disk.blocks[k]]...)
		}
		if n := len(*to); n > 0 && (*to)[n-1].Offset+(*to)[n-1].Length == r.Offset {
			(*to)[n-1].Length += simBlock
		} else {
			*to = append(*to, r)
		}
	}
	s, err := e.Encode(run.Context(), off, runs, data)
	if err != nil {
		return err
	}
	return run.Add(s, same...)
}

// some picks a point of the store; empty if there is none.
func (t *simTask) some() string {
	all := slices.Sorted(maps.Keys(t.st.points))
	if len(all) == 0 {
		return ""
	}
	return all[t.world.random.IntN(len(all))]
}

// forget deletes a point.
func (t *simTask) forget() func() {
	id := t.some()
	if id == "" {
		return nil
	}
	t.st.doomed[id] = true
	return func() { _ = t.store.DeletePoint(t.ctx, id) }
}

func (t *simTask) collect() func() {
	o := CollectOptions{MaxUnused: -1}
	if t.world.plan.compact {
		o.MaxUnused = []float64{-1, 0, 0.05}[t.random.IntN(3)]
	}
	o.Grace = []time.Duration{0, 0, time.Minute, DefaultGrace}[t.random.IntN(4)]
	o.Wait = []time.Duration{1, time.Minute, 0}[t.random.IntN(3)]
	return func() { _, _ = t.store.Collect(t.ctx, o) }
}

// read reads a point and holds it meanwhile, whoever deletes it.
func (t *simTask) read() func() {
	id := t.some()
	if id == "" {
		return nil
	}
	w := t.world
	return func() {
		p, err := t.store.Point(t.ctx, id)
		if err != nil {
			return
		}
		began := time.Now()
		hold, err := t.store.Hold(t.ctx, p, "a test")
		if err != nil {
			return
		}
		defer hold.Release(t.ctx)
		w.mu.Lock()
		disk := w.content[id]
		w.mu.Unlock()
		err = disk.compare(t.ctx, t.store, p)
		if err != nil && (isDamage(err) || !problem.Is(err, problem.StoreUnreachable)) && w.plan.gentle() && time.Since(began) < 50*time.Minute {
			w.violate("the point %s was held and could not be read: %v", id, err)
		}
	}
}

// copy copies what is missing to the other store.
func (t *simTask) copy() func() {
	if len(t.stores) < 2 {
		return nil
	}
	o := CopyOptions{Meter: meter.New("compare"), CheckpointEvery: 30 * time.Second}
	src, dst := t.stores[0], t.stores[1]
	return func() { _, _ = src.Copy(t.ctx, dst, o) }
}
