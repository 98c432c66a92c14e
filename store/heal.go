package store

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/image"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// HealOptions say where a store gets from what it has lost. All of them may be
// left out: what else is in the store is looked through in any case.
type HealOptions struct {
	// From is another store of the realm that has some of the points.
	From *Store
	// Disk reads from the disk of an instance as it is now, and is false where
	// that cannot be done. What is read is used only if it has the hash that was
	// lost.
	Disk func(ctx context.Context, instance string, p []byte, off int64) bool
	// Expect are the IDs of points that somebody relies on: those that are
	// missing come back from the other store, or are reported lost.
	Expect   []string
	Yield    func(ctx context.Context, worked time.Duration) error
	Progress func(done, total int64) // points
	Meter    *meter.Meter
}

// HealReport says what was mended. Sizes are bytes of disks.
type HealReport struct {
	Documents int64    `json:"documents"` // documents that were mended, or are not needed any more
	PutBack   int64    `json:"putBack"`   // recovery points that came back from the other store
	Points    int64    `json:"points"`    // that were looked through
	Packs     int64    `json:"packs"`     // damaged ones that something refers to
	Found     int64    `json:"found"`     // pieces that were elsewhere in the store
	Saved     int64    `json:"saved"`     // pieces of damaged packs that could still be read
	Fetched   int64    `json:"fetched"`   // pieces from the other store
	Reread    int64    `json:"reread"`    // pieces from disks
	Lost      []Damage `json:"lost"`      // what could not be mended
}

// Heal mends documents, and looks for what damaged packs held: in the store
// itself, in another store of the realm, and on the disks; it puts that into new
// packs. The damaged packs are those that checks have noted. What was healed reads
// as if nothing had been; the damaged packs go with the next collection.
// Everything may run beside it. Errors: those of the bucket; RealmMismatch if the
// other store is of another realm. What cannot be mended is no error: it is
// reported.
func (s *Store) Heal(ctx context.Context, o HealOptions) (HealReport, error) {
	h := &healer{store: s, options: o, pace: pacer{yield: o.Yield}, done: map[pack.Place]bool{}, old: map[pack.ID]*movedPack{}, lost: map[string]*Damage{}}
	h.report.Lost = []Damage{}
	if s.index == nil {
		return h.report, errors.New("the store was opened for reading only")
	}
	if o.From != nil {
		if err := o.From.MayCopyTo(s); err != nil {
			return h.report, err
		}
	}
	err := h.run(ctx)
	for _, key := range h.order {
		h.report.Lost = append(h.report.Lost, *h.lost[key])
	}
	return h.report, err
}

// healer walks the trees and mends what lies in damaged packs. Blocks are put
// into new packs as they are found; nodes wait until all those are stored.
type healer struct {
	store   *Store
	options HealOptions
	report  HealReport
	pace    pacer
	damaged map[pack.ID]bool
	places  *marking
	blocks  *mover
	trees   *mover
	done    map[pack.Place]bool // looked at
	old     map[pack.ID]*movedPack
	nodes   []healedNode
	lost    map[string]*Damage
	order   []string
	moved   map[pack.ID][]string // damaged documents about moved pieces
	gone    []gonePoint
	// regrowing: no root keeps what the tree names from collection, so each node
	// is stored anew, and each place in it is one that this run may rely on.
	regrowing bool
	other     *image.Cursor // the same image in the other store; nil: it has none
	reader    *Reader       // of it
	hash      *block.Hasher
}

type healedNode struct {
	from  pack.Place // zero: its parent is to name it
	child *image.Child
	node  *image.Node
	hash  block.Hash
}

func (h *healer) run(ctx context.Context) (err error) {
	s := h.store
	s.forgetRead()
	defer s.forgetRead()
	// The documents first: a damaged list keeps every writer out, healers too.
	if err := h.documents(ctx); err != nil {
		return err
	}
	points, err := h.points(ctx)
	if err != nil {
		return err
	}
	if h.damaged, err = s.damagedPacks(ctx); err != nil || len(h.damaged) == 0 && len(h.gone) == 0 {
		return err
	}
	if h.places, err = s.newMarking(ctx, map[pack.ID]bool{}, nil); err != nil {
		return err
	}
	for id := range h.moved {
		if h.places.read[id], err = s.readableMoves(ctx, id); err != nil {
			return err
		}
	}
	h.hash = s.hasher(blockDomain)
	if h.blocks, err = s.newMover(ctx, seal.DataPack); err != nil {
		return err
	}
	if h.trees, err = s.newMover(ctx, seal.MetadataPack); err != nil {
		return errors.Join(err, h.blocks.close(ctx))
	}
	h.blocks.heals, h.trees.heals = true, true
	// The sessions of the movers are there: no later sweep passes the index by.
	if err = s.syncIndex(ctx); err == nil {
		err = h.all(ctx, points)
	}
	return errors.Join(err, h.blocks.close(ctx), h.trees.close(ctx))
}

func (h *healer) all(ctx context.Context, points []Point) error {
	total := int64(len(points) + len(h.gone))
	for _, p := range points {
		if err := h.point(ctx, p); err != nil {
			return err
		}
		h.looked(total)
	}
	for i := range h.gone {
		if err := h.regrow(ctx, &h.gone[i]); err != nil {
			return err
		}
		h.looked(total)
	}
	h.report.Packs = int64(len(h.old))
	// First the blocks, on stable storage; then the nodes that may name them.
	for _, old := range h.blocks.pending {
		old.taken = true
	}
	if _, err := h.blocks.flush(ctx); err != nil {
		return err
	}
	for _, n := range h.nodes {
		if n.from.IsZero() {
			var err error
			if n.child.Place, err = h.single(ctx, n.node, n.hash); err != nil {
				return err
			}
			continue
		}
		old := h.of(h.trees, n.from.Pack)
		if _, err := h.trees.gather(ctx, old, piece{n.from.Offset, n.from.Slot}, n.node.AppendTo(nil), n.hash); err != nil {
			return err
		}
	}
	for _, old := range h.trees.pending {
		old.taken = true
	}
	if _, err := h.trees.flush(ctx); err != nil {
		return err
	}
	if err := h.settle(ctx); err != nil {
		return err
	}
	if err := h.dropMoves(ctx); err != nil {
		return err
	}
	return h.putBack(ctx)
}

// looked notes that a point was looked through.
func (h *healer) looked(total int64) {
	h.report.Points++
	if h.options.Progress != nil {
		h.options.Progress(h.report.Points, total)
	}
	if h.options.Meter != nil {
		h.options.Meter.Mark(1)
	}
}

// single stores a node in a frame of its own.
func (h *healer) single(ctx context.Context, n *image.Node, hash block.Hash) (pack.Place, error) {
	part := n.AppendTo(make([]byte, 4))
	binary.LittleEndian.PutUint32(part, uint32(len(part)-4))
	return h.trees.single(ctx, part, hash)
}

// settle writes down moves to pieces that lay elsewhere in the store already,
// where nothing new had to be stored.
func (h *healer) settle(ctx context.Context) error {
	for _, w := range []*mover{h.blocks, h.trees} {
		for _, old := range w.pending {
			if len(old.moved.pieces) == 0 {
				continue
			}
			if err := h.store.putMoved(ctx, old.id, old.moved); err != nil {
				return err
			}
		}
		w.pending = nil
	}
	return nil
}

// of gives the damaged pack as the mover knows it.
func (h *healer) of(w *mover, id pack.ID) *movedPack {
	old := h.old[id]
	if old == nil {
		old = &movedPack{id: id, moved: newMoved()}
		h.old[id] = old
		w.pending = append(w.pending, old)
	}
	return old
}

// point mends what a point reaches.
func (h *healer) point(ctx context.Context, p Point) error {
	img, err := h.store.Image(p)
	if err != nil {
		h.lose(pointPrefix+p.ID, pack.ID{}, p, Range{0, p.Size}, reason(err))
		return nil
	}
	h.other, h.reader = nil, nil
	if from := h.options.From; from != nil {
		q, err := from.Point(ctx, p.ID)
		if err == nil && q.Root == p.Root {
			if there, err := from.Image(q); err == nil {
				h.other, h.reader = there.tree.NewCursor(), there.NewReader()
				defer h.reader.Close()
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	h.regrowing = false
	top := img.tree.TopNode
	return h.subtree(ctx, p, &top, img.tree.Top(), 0)
}

// subtree mends a node and all below it.
func (h *healer) subtree(ctx context.Context, p Point, c *image.Child, level int, i int64) error {
	if c.Hash.IsZero() {
		return nil
	}
	if h.regrowing {
		c.Place = pack.Place{}
	}
	place, err := h.places.where(ctx, c.Place)
	if err != nil && !isDamage(err) {
		return err
	}
	if h.done[place] {
		return nil
	}
	if err := h.pace.between(ctx); err != nil {
		return err
	}
	n, err := nodes{h.store}.at(ctx, *c, place, level)
	if err != nil && !isDamage(err) {
		return err
	}
	torn := err
	if n == nil {
		if n, err = h.node(ctx, p, *c, level, i); err != nil {
			return err
		}
	} else if h.damaged[place.Pack] {
		h.report.Saved++
	}
	if n == nil {
		span := image.Span(level) * int64(h.store.blockSize)
		h.losePiece(seal.MetadataPack, place, p, Range{i * span, min(span, p.Size-i*span)}, reason(torn))
		return nil // not done: each point that has it says what it loses
	}
	for k := range n.Children {
		b := &n.Children[k]
		at := i*image.Fanout + int64(k)
		if level > 0 {
			err = h.subtree(ctx, p, b, level-1, at)
		} else {
			err = h.block(ctx, p, b, at)
		}
		if err != nil {
			return err
		}
	}
	if h.regrowing {
		c.Place, err = h.single(ctx, n, c.Hash)
		return err
	}
	if torn != nil || h.damaged[place.Pack] {
		h.nodes = append(h.nodes, healedNode{place, c, n, c.Hash})
		if !place.IsZero() {
			h.of(h.trees, place.Pack)
		}
	}
	if len(h.lost) == 0 && !place.IsZero() {
		h.done[place] = true
	}
	return nil
}

// node finds a node that is not at its place: where the index knows it, or in
// the other store, whose places are not ours; or it is made of what the disk
// holds. It is nil if there is none.
func (h *healer) node(ctx context.Context, p Point, c image.Child, level int, i int64) (*image.Node, error) {
	s := h.store
	place, ok, err := h.known(ctx, c.Hash)
	if err != nil {
		return nil, err
	}
	if ok {
		if n, err := (nodes{s}).at(ctx, c, place, level); err == nil {
			h.report.Found++
			return n, h.reconsider(ctx, n)
		} else if !isDamage(err) {
			return nil, err
		}
	}
	if h.other != nil {
		there, err := h.other.Subtree(ctx, level, i)
		if err == nil && there.Hash == c.Hash {
			n, err := nodes{h.options.From}.Node(ctx, there, level)
			if err == nil {
				h.report.Fetched++
				return h.adopt(ctx, n)
			}
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	if n := h.reread(ctx, p, c, level, i); n != nil {
		h.report.Reread++
		return h.adopt(ctx, n)
	}
	return nil, ctx.Err()
}

// known asks the index for a piece that is stored elsewhere, and keeps its pack
// from collection.
func (h *healer) known(ctx context.Context, hash block.Hash) (pack.Place, bool, error) {
	place, ok, err := h.store.index.Lookup(hash)
	if err != nil || !ok {
		return pack.Place{}, false, err
	}
	ok, err = h.usable(ctx, place)
	return place, ok, err
}

// usable tells whether a place may be relied on.
func (h *healer) usable(ctx context.Context, p pack.Place) (bool, error) {
	if h.damaged[p.Pack] || !h.blocks.clear.use(p.Pack) {
		return false, nil
	}
	return h.places.there(ctx, p.Pack)
}

// reconsider forgets the places of children that may not be relied on, in a
// node that nothing has kept.
func (h *healer) reconsider(ctx context.Context, n *image.Node) error {
	for k := range n.Children {
		c := &n.Children[k]
		if c.Hash.IsZero() || c.Place.IsZero() {
			continue
		}
		place, err := h.places.where(ctx, c.Place)
		if err != nil && !isDamage(err) {
			return err
		}
		ok, err := h.usable(ctx, place)
		if err != nil {
			return err
		}
		if !ok {
			place = pack.Place{}
		}
		c.Place = place
	}
	return nil
}

// adopt gives a node whose places are not of this store the places that its
// index knows. Children that it does not know have none until they are fetched.
func (h *healer) adopt(ctx context.Context, n *image.Node) (*image.Node, error) {
	for k := range n.Children {
		c := &n.Children[k]
		if c.Hash.IsZero() {
			continue
		}
		place, ok, err := h.known(ctx, c.Hash)
		if err != nil {
			return nil, err
		}
		if !ok {
			place = pack.Place{}
		}
		c.Place = place
	}
	return n, nil
}

// reread makes a node of what the disk holds now, if it is the one that was
// lost. It reads all that the node covers, and gives up above rereadLevel: the
// more it is, the less likely that nothing of it has changed.
func (h *healer) reread(ctx context.Context, p Point, c image.Child, level int, i int64) *image.Node {
	if level > rereadLevel || h.options.Disk == nil {
		return nil
	}
	n, ok := h.build(ctx, p, level, i)
	if !ok || n.Hash(h.store.hasher(nodeDomain)) != c.Hash {
		return nil
	}
	return n
}

// rereadLevel is the highest level of nodes that are made anew from a disk.
const rereadLevel = 1

// build makes a node, without places, of what the disk holds.
func (h *healer) build(ctx context.Context, p Point, level int, i int64) (n *image.Node, ok bool) {
	size := int64(h.store.blockSize)
	n = &image.Node{Level: level}
	buf := make([]byte, size)
	for k := range n.Children {
		at := i*image.Fanout + int64(k)
		off := at * size
		if level > 0 {
			off *= image.Span(level - 1)
		}
		if off >= p.Size {
			break
		}
		if level > 0 {
			below, ok := h.build(ctx, p, level-1, at)
			if !ok {
				return nil, false
			}
			n.Children[k].Hash = below.Hash(h.store.hasher(nodeDomain))
			continue
		}
		clear(buf)
		if !h.options.Disk(ctx, p.Instance, buf[:min(size, p.Size-off)], off) {
			return nil, false
		}
		if !block.IsZero(buf) {
			n.Children[k].Hash = h.hash.Sum(buf)
		}
	}
	return n, true
}

// block mends one block, number at of the disk. If its place is unknown, as in
// a node that came from elsewhere, it gets one.
func (h *healer) block(ctx context.Context, p Point, b *image.Child, at int64) error {
	if b.Hash.IsZero() {
		return nil
	}
	place, err := h.places.where(ctx, b.Place)
	if err != nil && !isDamage(err) {
		return err
	}
	unknown := place.IsZero()
	if !unknown && (!h.damaged[place.Pack] || h.done[place]) {
		return nil
	}
	size := int64(h.store.blockSize)
	lost := Range{at * size, min(size, p.Size-at*size)}
	data, err := h.saved(ctx, b.Hash, place)
	if err != nil {
		return err
	}
	if data != nil {
		h.report.Saved++
	} else if to, ok, err := h.elsewhere(ctx, b.Hash); err != nil {
		return err
	} else if ok {
		h.report.Found++
		if unknown {
			b.Place = to
			return nil
		}
		h.of(h.blocks, place.Pack).moved.pieces[piece{place.Offset, place.Slot}] = to
		h.done[place] = true
		return nil
	}
	if data == nil {
		if data, err = h.fetched(ctx, p, b.Hash, lost); err != nil {
			return err
		}
	}
	if data == nil {
		h.losePiece(seal.DataPack, place, p, lost, "it cannot be read")
		return nil
	}
	if unknown {
		b.Place, err = h.blocks.single(ctx, data, b.Hash)
		return err
	}
	h.done[place] = true
	_, err = h.blocks.gather(ctx, h.of(h.blocks, place.Pack), piece{place.Offset, place.Slot}, data, b.Hash)
	return err
}

// elsewhere finds another copy of a block, and has read it.
func (h *healer) elsewhere(ctx context.Context, hash block.Hash) (pack.Place, bool, error) {
	to, ok, err := h.known(ctx, hash)
	if err != nil || !ok {
		return to, false, err
	}
	if _, err = h.blocks.read(ctx, to, hash); isDamage(err) {
		return to, false, nil
	}
	return to, err == nil, err
}

// saved reads a block of a damaged pack that is whole itself; nil if it is not.
func (h *healer) saved(ctx context.Context, want block.Hash, place pack.Place) ([]byte, error) {
	if place.IsZero() {
		return nil, nil
	}
	data, err := h.blocks.read(ctx, place, want)
	if isDamage(err) {
		return nil, nil
	}
	return data, err
}

// fetched gets a block from the other store or from the disk; nil if neither
// has it.
func (h *healer) fetched(ctx context.Context, p Point, want block.Hash, at Range) ([]byte, error) {
	buf := make([]byte, h.store.blockSize)
	if h.reader != nil {
		err := h.reader.Window(ctx, at.Offset, at.Length, func(off int64, data []byte) error {
			copy(buf[off-at.Offset:], data)
			return nil
		}, nil)
		if err == nil && h.hash.Sum(buf) == want {
			h.report.Fetched++
			return buf, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	clear(buf)
	if h.options.Disk != nil && h.options.Disk(ctx, p.Instance, buf[:at.Length], at.Offset) && h.hash.Sum(buf) == want {
		h.report.Reread++
		return buf, nil
	}
	return nil, ctx.Err()
}

// losePiece notes a piece that is nowhere. If it never had a place here, its
// point says so.
func (h *healer) losePiece(kind seal.Kind, place pack.Place, p Point, r Range, what string) {
	if place.IsZero() {
		h.lose(pointPrefix+p.ID, pack.ID{}, p, r, "the other store does not have all of it either")
		return
	}
	h.lose(packName(kind, place.Pack), place.Pack, p, r, what)
}

// lose notes what could not be mended.
func (h *healer) lose(key string, id pack.ID, p Point, r Range, what string) {
	d := h.lost[key]
	if d == nil {
		d = &Damage{Object: key, What: what, pack: id}
		h.lost[key] = d
		h.order = append(h.order, key)
	}
	if r.Length > 0 {
		d.Losses = addLoss(d.Losses, p, r)
	} else {
		d.Losses = append(d.Losses, Lost{Point: p.ID, Name: p.Name})
	}
}
