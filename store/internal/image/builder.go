package image

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// Sink keeps the nodes of a tree that is being built.
type Sink interface {
	// Known gives the place of a node that is stored already.
	Known(h block.Hash) (pack.Place, bool)
	// Serves tells whether the stored node c may be taken over for n, which has
	// the same hash: not if it is damaged, or names places that are. ofBase
	// tells that it is a node of the base.
	Serves(ctx context.Context, c Child, n *Node, ofBase bool) (bool, error)
	// Damaged tells whether an error of a Loader says that the node is damaged
	// or missing, as against that it could not be asked for.
	Damaged(err error) bool
	// Distrusted are the packs that must not be relied on, nodes and blocks
	// alike.
	Distrusted() map[pack.ID]bool
	// Frame stores the payload of a metadata frame with the nodes of these
	// hashes, which the sink keeps, and gives the place of the first.
	Frame(ctx context.Context, payload []byte, hashes []block.Hash) (pack.Place, error)
}

// frameSize is how many bytes of nodes share a frame: small, since reading one
// node from a cold store reads its frame.
const frameSize = 64 << 10

// maxPieces is how many nodes a frame may hold: their number and their slots
// are bytes.
const maxPieces = 255

// Builder makes the tree of a disk from left to right, in runs of blocks, of
// zeros, and of what is unchanged against a base. It is for one goroutine, and
// of no use after an error.
type Builder struct {
	shape   Shape
	base    *Cursor // nil: there is none
	compare *Cursor // the base, for taking over nodes; nil: none, or found damaged
	hash    *block.Hasher
	sink    Sink
	doubt   *doubt // about the base; nil: not looked for yet

	next   int64 // the block that comes next; a subtree at the end may reach behind it
	levels []level

	// The metadata frame being filled.
	payload []byte
	hashes  []block.Hash
	waiting []*Child // where the place of each of its nodes is to be written
}

type level struct {
	node *Node
	used bool
}

// NewBuilder begins a tree. base may be nil.
func NewBuilder(shape Shape, base *Tree, h *block.Hasher, sink Sink) *Builder {
	b := &Builder{shape: shape, hash: h, sink: sink}
	if base != nil {
		b.base = base.NewCursor()
		b.compare = b.base
	}
	for l := range shape.Top() + 1 {
		b.levels = append(b.levels, level{node: &Node{Level: l}})
	}
	return b
}

// Next is the number of the block that comes next: how many are there so far.
func (b *Builder) Next() int64 { return min(b.next, b.shape.Blocks()) }

// Blocks adds blocks one by one.
func (b *Builder) Blocks(ctx context.Context, children []Child) error {
	for i := range children {
		if err := b.add(ctx, -1, children[i]); err != nil {
			return err
		}
	}
	return nil
}

// Zeros adds n blocks of zeros; the cost does not depend on n.
func (b *Builder) Zeros(ctx context.Context, n int64) error {
	for n > 0 {
		l := b.largest(n, b.shape.Top()-1, true)
		if err := b.add(ctx, l, Child{}); err != nil {
			return err
		}
		n -= min(n, width(l))
	}
	return nil
}

// Unchanged adds n blocks as they stand in the base; whole subtrees are taken
// over without being read. None of the blocks may be Doubtful.
func (b *Builder) Unchanged(ctx context.Context, n int64) error {
	if b.base == nil {
		return b.Zeros(ctx, n)
	}
	if err := b.inspect(ctx); err != nil {
		return err
	}
	if run := b.bytes(b.next, n); len(b.doubt.lost.Within(run)) > 0 {
		return fmt.Errorf("bytes %v cannot be taken over as they stand in the base", run)
	}
	// A base that goes on behind the end of this disk must not be taken over
	// beyond it.
	overshoot := b.base.tree.Blocks() <= b.shape.Blocks()
	for n > 0 {
		if b.next >= b.base.tree.Blocks() {
			return b.Zeros(ctx, n)
		}
		l := b.largest(n, min(b.shape.Top()-1, b.base.tree.Top()), overshoot)
		for l >= 0 && len(b.doubt.torn.Within(b.bytes(b.next, width(l)))) > 0 {
			l--
		}
		c, err := b.base.Subtree(ctx, l, b.next/width(l))
		if err != nil {
			return err
		}
		if err := b.add(ctx, l, c); err != nil {
			return err
		}
		n -= min(n, width(l))
	}
	return nil
}

// bytes is where n blocks from a block on lie on the disk.
func (b *Builder) bytes(first, n int64) extent.Range {
	size := int64(b.shape.BlockSize)
	return extent.Range{Off: first * size, Len: n * size}
}

// largest is the highest level at which a whole subtree fits the next n
// blocks. With overshoot, one that reaches behind the end of the disk fits if
// the run goes to the end.
func (b *Builder) largest(n int64, limit int, overshoot bool) int {
	l := -1
	for l < limit && b.next%width(l+1) == 0 {
		if n < width(l+1) && !(overshoot && b.next+n >= b.shape.Blocks()) {
			break
		}
		l++
	}
	return l
}

// width is how many blocks a subtree of the level covers; level -1 is a block.
func width(level int) int64 {
	if level < 0 {
		return 1
	}
	return Span(level)
}

// add puts a subtree of the level where the tree goes on, and closes the nodes
// that are thereby complete.
func (b *Builder) add(ctx context.Context, l int, c Child) error {
	if b.next >= b.shape.Blocks() {
		return fmt.Errorf("block %d does not exist in a disk of %d blocks", b.next, b.shape.Blocks())
	}
	at := b.next / width(l)
	b.next = (at + 1) * width(l)
	for {
		parent := &b.levels[l+1]
		parent.node.Children[at%Fanout] = c
		parent.used = parent.used || !c.Hash.IsZero()
		if b.next%width(l+1) != 0 || l+1 == b.shape.Top() {
			return nil // Finish closes the top
		}
		at /= Fanout
		l++
		var err error
		if c, err = b.close(ctx, l, at); err != nil {
			return err
		}
	}
}

// close stores node number i of the level and begins the next one. The node
// waits in the open frame; its place is filled in once the frame is stored.
func (b *Builder) close(ctx context.Context, l int, i int64) (Child, error) {
	lv := &b.levels[l]
	if !lv.used {
		return Child{}, nil
	}
	if l > 0 {
		// Its children must know their places before it is written.
		if err := b.flush(ctx); err != nil {
			return Child{}, err
		}
	}
	c := Child{Hash: lv.node.Hash(b.hash)}
	kept, err := b.kept(ctx, l, i, c.Hash, lv.node)
	if err != nil {
		return Child{}, err
	}
	if kept.IsZero() {
		if len(b.payload) >= frameSize || len(b.hashes) == maxPieces {
			if err := b.flush(ctx); err != nil {
				return Child{}, err
			}
		}
		start := len(b.payload)
		b.payload = lv.node.AppendTo(append(b.payload, 0, 0, 0, 0))
		binary.LittleEndian.PutUint32(b.payload[start:], uint32(len(b.payload)-start-4))
		b.hashes = append(b.hashes, c.Hash)
		if l < b.shape.Top() {
			b.waiting = append(b.waiting, &b.levels[l+1].node.Children[i%Fanout])
		}
	}
	c.Place = kept
	lv.node, lv.used = &Node{Level: l}, false
	return c, nil
}

// kept finds a node that is stored already and may stand for n: at the same
// place of the base, or anywhere.
func (b *Builder) kept(ctx context.Context, l int, i int64, h block.Hash, n *Node) (pack.Place, error) {
	if b.compare != nil && l <= b.compare.tree.Top() {
		c, err := b.compare.Subtree(ctx, l, i)
		if err != nil && !b.sink.Damaged(err) {
			return pack.Place{}, err
		}
		if err != nil {
			b.compare = nil
		} else if c.Hash == h {
			if ok, err := b.sink.Serves(ctx, c, n, true); ok || err != nil {
				return c.Place, err
			}
		}
	}
	p, ok := b.sink.Known(h)
	if ok {
		var err error
		if ok, err = b.sink.Serves(ctx, Child{h, p}, n, false); err != nil {
			return pack.Place{}, err
		}
	}
	if !ok {
		return pack.Place{}, nil
	}
	return p, nil
}

// flush stores the open frame and tells the waiting parents where it is.
func (b *Builder) flush(ctx context.Context) error {
	if len(b.hashes) == 0 {
		return nil
	}
	place, err := b.sink.Frame(ctx, b.payload, b.hashes)
	if err != nil {
		return err
	}
	for i, c := range b.waiting {
		c.Place = place
		c.Place.Slot = uint8(i)
	}
	b.payload, b.hashes, b.waiting = b.payload[:0], nil, b.waiting[:0]
	return nil
}

// Finish closes the tree and gives its top node; all blocks must be there.
func (b *Builder) Finish(ctx context.Context) (Child, error) {
	if b.next < b.shape.Blocks() {
		return Child{}, fmt.Errorf("the tree ends at block %d of %d", b.next, b.shape.Blocks())
	}
	top := b.shape.Top()
	for l := range top {
		if !b.levels[l].used {
			continue
		}
		i := (b.shape.Blocks() - 1) / Span(l)
		c, err := b.close(ctx, l, i)
		if err != nil {
			return Child{}, err
		}
		b.levels[l+1].node.Children[i%Fanout] = c
		b.levels[l+1].used = true
	}
	if err := b.flush(ctx); err != nil {
		return Child{}, err
	}
	c, err := b.close(ctx, top, 0)
	if err != nil || c.Hash.IsZero() || !c.Place.IsZero() {
		return c, err
	}
	place, err := b.sink.Frame(ctx, b.payload, b.hashes)
	c.Place = place
	b.payload, b.hashes = nil, nil
	return c, err
}

// Checkpoint gives the top of a whole tree: what was added so far, and behind
// it the base as it stands, or zeros where it is doubtful. The builder goes on as
// before.
func (b *Builder) Checkpoint(ctx context.Context) (Child, error) {
	if err := b.flush(ctx); err != nil {
		return Child{}, err
	}
	rest := b.copy()
	if err := rest.asBase(ctx); err != nil {
		if !b.sink.Damaged(err) {
			return Child{}, err
		}
		rest = b.copy()
		if err := rest.Zeros(ctx, b.shape.Blocks()-b.next); err != nil {
			return Child{}, err
		}
	}
	b.doubt = rest.doubt
	return rest.Finish(ctx)
}

// asBase adds all that is left as it stands in the base, and zeros for what is
// doubtful there: nobody takes over anything from a checkpoint.
func (b *Builder) asBase(ctx context.Context) error {
	doubtful, err := b.Doubtful(ctx)
	if err != nil {
		return err
	}
	size := int64(b.shape.BlockSize)
	for _, r := range doubtful.Within(b.bytes(b.next, b.shape.Blocks()-b.next)) {
		if err := b.Unchanged(ctx, r.Off/size-b.next); err != nil {
			return err
		}
		if err := b.Zeros(ctx, r.Len/size); err != nil {
			return err
		}
	}
	return b.Unchanged(ctx, b.shape.Blocks()-b.Next())
}

// copy makes a builder that goes on from here by itself; the open frame must
// be empty.
func (b *Builder) copy() *Builder {
	c := *b
	c.payload, c.hashes, c.waiting = nil, nil, nil
	c.levels = make([]level, len(b.levels))
	for i, lv := range b.levels {
		n := *lv.node
		c.levels[i] = level{&n, lv.used}
	}
	return &c
}
