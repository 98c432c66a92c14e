package image

import (
	"context"
	"testing"

	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// dense is a Loader of a disk in which every block is the same: any number of
// blocks with one node a level.
type dense struct {
	*shelf
	nodes map[block.Hash]*Node
}

func (d dense) Node(ctx context.Context, c Child, level int) (*Node, error) {
	if n, ok := d.nodes[c.Hash]; ok {
		d.loads++
		return n, nil
	}
	return d.shelf.Node(ctx, c, level)
}

// huge is a full disk of 32 TiB.
func huge() (*Tree, dense) {
	shape := Shape{Size: 32 << 40, BlockSize: 64 << 10}
	d := dense{newShelf(), map[block.Hash]*Node{}}
	child := blockNumber(1)
	for level := 0; level <= shape.Top(); level++ {
		n := &Node{Level: level}
		for i := range min(Fanout, shape.Blocks()/(Span(level)/Fanout)) {
			n.Children[i] = child
		}
		child = Child{Hash: n.Hash(testHasher()), Place: pack.Place{Offset: uint32(level), Length: 1}}
		d.nodes[child.Hash] = n
	}
	return &Tree{shape, child, d}, d
}

func TestTheCostFollowsTheChange(t *testing.T) {
	base, d := huge()
	for _, at := range []int64{0, 1, 127, 128, 1 << 20, 1<<28 + 77, base.Blocks() - 1} {
		nodes, loads := d.shelf.nodes, d.loads
		b := NewBuilder(base.Shape, base, testHasher(), d)
		if err := b.Unchanged(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		if err := b.Blocks(t.Context(), []Child{blockNumber(2)}); err != nil {
			t.Fatal(err)
		}
		if err := b.Unchanged(t.Context(), base.Blocks()-at-1); err != nil {
			t.Fatal(err)
		}
		top, err := b.Finish(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := d.shelf.nodes - nodes; n > 5 {
			t.Errorf("block %d changed: %d nodes were stored", at, n)
		}
		if n := d.loads - loads; n > 12 {
			t.Errorf("block %d changed: %d nodes were read", at, n)
		}
		var got [3]Child
		tree := &Tree{base.Shape, top, d}
		if err := tree.NewCursor().Blocks(t.Context(), at-1+min(1, max(0, 1-at)), got[:]); err != nil {
			t.Fatal(err)
		}
		if got[min(at, 1)].Hash != blockNumber(2).Hash || got[2].Hash == (block.Hash{}) && at < base.Blocks()-1 {
			t.Errorf("block %d changed: around it lies %v", at, got)
		}
	}
}

func TestAnUnchangedDiskStoresNothing(t *testing.T) {
	base, d := huge()
	b := NewBuilder(base.Shape, base, testHasher(), d)
	if err := b.Unchanged(t.Context(), base.Blocks()); err != nil {
		t.Fatal(err)
	}
	top, err := b.Finish(t.Context())
	if err != nil || top != base.TopNode {
		t.Errorf("the top became another: %v, %v", top, err)
	}
	if d.shelf.nodes != 0 || d.loads > 6 {
		t.Errorf("%d nodes were stored and %d read", d.shelf.nodes, d.loads)
	}
}

func TestZerosCostNothing(t *testing.T) {
	s := newShelf()
	shape := Shape{Size: 32 << 40, BlockSize: 16 << 10}
	for _, base := range []*Tree{nil, {Shape: Shape{Size: 0, BlockSize: 16 << 10}, Loader: s}, {Shape: shape, Loader: s}} {
		b := NewBuilder(shape, base, testHasher(), s)
		if err := b.Unchanged(t.Context(), shape.Blocks()/3); err != nil {
			t.Fatal(err)
		}
		if err := b.Zeros(t.Context(), shape.Blocks()-shape.Blocks()/3); err != nil {
			t.Fatal(err)
		}
		top, err := b.Finish(t.Context())
		if err != nil || top != (Child{}) || s.nodes != 0 || s.loads != 0 {
			t.Errorf("32 TiB of zeros: top %v, %d nodes stored, %d read, %v", top, s.nodes, s.loads, err)
		}
		_, _, ok, err := (&Tree{shape, top, s}).NewCursor().NextLeaf(t.Context(), 0)
		if ok || err != nil {
			t.Errorf("a leaf was found in zeros: %v", err)
		}
	}
}
