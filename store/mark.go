package store

import (
	"context"
	"fmt"
	"math/bits"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/internal/image"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// marking walks the trees of roots and notes each piece that they reach, where
// it lies. A subtree is walked once for each place at which it is stored.
type marking struct {
	store   *Store
	packs   map[pack.ID]*reached
	seen    map[pack.Place]seen  // nodes
	listed  map[pack.ID]bool     // packs that are there for certain
	moved   map[pack.ID][]string // keys of what tells of moved pieces
	read    map[pack.ID]*moved
	used    map[pack.ID]bool // packs of which moved pieces are in use
	nodes   int64
	blocks  int64
	between func(ctx context.Context) error // called between nodes
}

// seen is what is known of a node that was marked.
type seen struct {
	whole  bool // the packs of all below it are there
	looked bool // and that was looked for
}

// reached is what is reached of a pack.
type reached struct {
	whole  bool // pinned
	frames map[uint32]*reachedFrame
}

type reachedFrame struct {
	length uint32
	slots  [4]uint64
}

func (f *reachedFrame) has(slot int) bool { return f.slots[slot/64]&(1<<(slot%64)) != 0 }

func (f *reachedFrame) count() int {
	n := 0
	for _, w := range f.slots {
		n += bits.OnesCount64(w)
	}
	return n
}

// bytes that the frames reached take, whole.
func (r *reached) bytes() (n int64) {
	for _, f := range r.frames {
		n += int64(f.length)
	}
	return n
}

func (s *Store) newMarking(ctx context.Context, listed map[pack.ID]bool, between func(context.Context) error) (*marking, error) {
	m := &marking{
		store: s, listed: listed, between: between,
		packs: map[pack.ID]*reached{}, seen: map[pack.Place]seen{},
		read: map[pack.ID]*moved{}, used: map[pack.ID]bool{},
	}
	var err error
	m.moved, err = s.movedPacks(ctx)
	return m, err
}

// all marks what the roots reach. If any of it cannot be read the marking is
// of no use: nothing may be removed on partial knowledge.
func (m *marking) all(ctx context.Context, r *roots) error {
	for _, id := range r.pins {
		m.pack(id).whole = true
	}
	for _, root := range r.images {
		t, err := m.store.image(root.Root, root.Size, root.Top)
		if err == nil {
			_, err = m.subtree(ctx, t.tree.TopNode, t.tree.Top(), false)
		}
		if isDamage(err) {
			return problem.Wrap(err, problem.CollectBlocked, "Not all that %s refers to can be read, so it is not certain what may be removed. Nothing was.", root.key).
				With("object", root.key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *marking) pack(id pack.ID) *reached {
	r := m.packs[id]
	if r == nil {
		r = &reached{frames: map[uint32]*reachedFrame{}}
		m.packs[id] = r
	}
	return r
}

// subtree marks a node, and all below it. If not all is there that it was moved
// to, it is marked where it was before: whoever moved it may have been given up
// meanwhile. whole tells whether the packs of all of it are there; below what was
// not moved nobody looks.
func (m *marking) subtree(ctx context.Context, c image.Child, level int, wasMoved bool) (whole bool, err error) {
	if c.Hash.IsZero() {
		return true, nil
	}
	place, err := m.where(ctx, c.Place)
	if err != nil {
		return false, err
	}
	whole, err = m.node(ctx, c, place, level, wasMoved || place != c.Place)
	if place != c.Place && (isDamage(err) || err == nil && !whole) {
		if old, failed := m.node(ctx, c, c.Place, level, true); failed == nil && (old || err != nil) {
			return old, nil
		}
	}
	return whole, err
}

// node marks a node at a place, and all below it.
func (m *marking) node(ctx context.Context, c image.Child, place pack.Place, level int, wasMoved bool) (whole bool, err error) {
	if before, ok := m.seen[place]; ok && (before.looked || !wasMoved) {
		return before.whole, nil
	}
	n, err := nodes{m.store}.at(ctx, c, place, level)
	if err != nil {
		return false, err
	}
	if err := m.between(ctx); err != nil {
		return false, err
	}
	m.nodes++
	m.piece(place)
	if level == 0 {
		whole, err = m.leaf(ctx, n, wasMoved)
	} else {
		whole = true
		for k := range n.Children {
			below, failed := m.subtree(ctx, n.Children[k], level-1, wasMoved)
			if failed != nil {
				return false, failed
			}
			whole = whole && below
		}
	}
	if err == nil {
		m.seen[place] = seen{whole, wasMoved} // only now: all below is marked
	}
	return whole, err
}

// leaf marks the blocks of a leaf. Neighbours mostly lie in one frame.
func (m *marking) leaf(ctx context.Context, n *image.Node, wasMoved bool) (whole bool, err error) {
	whole = true
	var last pack.Place
	var frame *reachedFrame
	for k := range n.Children {
		b := &n.Children[k]
		if b.Hash.IsZero() {
			continue
		}
		m.blocks++
		if _, moved := m.moved[b.Place.Pack]; !moved && frame != nil && b.Place.Pack == last.Pack && b.Place.Offset == last.Offset {
			frame.slots[b.Place.Slot/64] |= 1 << (b.Place.Slot % 64)
			continue
		}
		place, err := m.where(ctx, b.Place)
		if err != nil {
			return false, err
		}
		if wasMoved && place.Pack != last.Pack {
			there, err := m.there(ctx, place.Pack)
			if err != nil {
				return false, err
			}
			whole = whole && there
		}
		frame, last = m.piece(place), place
	}
	return whole, nil
}

// piece marks one piece.
func (m *marking) piece(p pack.Place) *reachedFrame {
	r := m.pack(p.Pack)
	f := r.frames[p.Offset]
	if f == nil {
		f = &reachedFrame{length: p.Length}
		r.frames[p.Offset] = f
	}
	f.slots[p.Slot/64] |= 1 << (p.Slot % 64)
	return f
}

// where follows a piece to where it was moved. A new place counts only if its
// pack is there: whoever moved the piece may have been given up before it was
// told, and its pack removed; or the piece moved on from there.
func (m *marking) where(ctx context.Context, p pack.Place) (pack.Place, error) {
	if _, ok := m.moved[p.Pack]; !ok {
		return p, nil
	}
	found, at := p, p
	var passed []pack.ID
	for range maxMoves {
		of, err := m.movesOf(ctx, at.Pack)
		if err != nil {
			return p, err
		}
		to, ok := pack.Place{}, false
		if of != nil {
			to, ok = of.place(at)
		}
		if !ok {
			return found, nil
		}
		passed = append(passed, at.Pack)
		at = to
		there, err := m.there(ctx, to.Pack)
		if err != nil {
			return p, err
		}
		if there {
			found = to
			for _, id := range passed {
				m.used[id] = true
			}
			passed = passed[:0]
		}
	}
	return p, m.store.damaged(movedPrefix+p.Pack.String(), fmt.Errorf("the moves of a piece go in a circle"))
}

// movesOf tells where the pieces of a pack went; nil: nowhere.
func (m *marking) movesOf(ctx context.Context, id pack.ID) (*moved, error) {
	if len(m.moved[id]) == 0 {
		return nil, nil
	}
	of, ok := m.read[id]
	if !ok {
		var err error
		if of, err = m.store.readMoved(ctx, id); err != nil {
			return nil, err
		}
		m.read[id] = of
	}
	return of, nil
}

// retain notes what the nodes of a metadata pack name that stays though they were
// moved: whoever reads them finds them where they were, with the old places of
// their children.
func (m *marking) retain(ctx context.Context, id pack.ID) error {
	if len(m.moved[id]) == 0 {
		return nil
	}
	s := m.store
	frames, err := s.directory(ctx, seal.MetadataPack, id, 0)
	if err != nil {
		return err
	}
	for _, f := range frames {
		stored, err := s.nodeFrame(ctx, pack.Place{Pack: id, Offset: f.Offset, Length: f.Length})
		if err != nil {
			return err
		}
		for _, text := range stored {
			var n image.Node
			if err := image.ParseNode(text, &n); err != nil {
				return s.explain(packName(seal.MetadataPack, id), err)
			}
			for k := range n.Children {
				if c := &n.Children[k]; !c.Hash.IsZero() && !c.Place.IsZero() {
					if _, err := m.where(ctx, c.Place); err != nil {
						return err
					}
				}
			}
		}
		if err := m.between(ctx); err != nil {
			return err
		}
	}
	return nil
}

// movedAway notes that all that is in use of a pack was moved just now.
func (m *marking) movedAway(p *movedPack) {
	delete(m.packs, p.id)
	m.used[p.id] = true
	m.moved[p.id], m.read[p.id] = append(m.moved[p.id], movedKey(p.id, 1)), p.moved
	for to := range p.moved.packs() {
		m.listed[to] = true
	}
}

// there tells whether a data or metadata pack exists.
func (m *marking) there(ctx context.Context, id pack.ID) (bool, error) {
	if there, ok := m.listed[id]; ok {
		return there, nil
	}
	for _, name := range []string{packName(seal.DataPack, id), packName(seal.MetadataPack, id)} {
		_, err := m.store.bucket.Stat(ctx, name)
		if err == nil {
			m.listed[id] = true
			return true, nil
		}
		if !isMissing(err) {
			return false, err
		}
	}
	m.listed[id] = false
	return false, nil
}

// pacer lets others go first: it tells after each piece of work how long was
// worked, and whoever was given the word decides how long to wait.
type pacer struct {
	yield func(ctx context.Context, worked time.Duration) error
	since time.Time
}

// workBefore is how long is worked between two looks at whether somebody waits.
const workBefore = 20 * time.Millisecond

func (p *pacer) between(ctx context.Context) error {
	now := time.Now()
	if p.since.IsZero() {
		p.since = now
	}
	worked := now.Sub(p.since)
	if worked < workBefore {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if p.yield != nil {
		if err := p.yield(ctx, worked); err != nil {
			return err
		}
	}
	p.since = time.Now()
	return nil
}
