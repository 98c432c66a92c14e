package image

import (
	"math/rand/v2"
	"testing"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// onto builds an image on a base: Unchanged wherever the base is not doubtful,
// and there the blocks of want.
func onto(t *testing.T, shape Shape, base *Tree, s *shelf, want []Child) (*Tree, extent.Set) {
	t.Helper()
	b := NewBuilder(shape, base, testHasher(), s)
	doubtful, err := b.Doubtful(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	size := int64(shape.BlockSize)
	for _, r := range doubtful {
		if r.Off%size != 0 || r.Len%size != 0 || r.End() > shape.Blocks()*size {
			t.Fatalf("%v is not whole blocks of the disk", r)
		}
		if err := b.Unchanged(t.Context(), r.Off/size-b.Next()); err != nil {
			t.Fatal(err)
		}
		if err := b.copy().Unchanged(t.Context(), 1); err == nil {
			t.Fatalf("the doubtful block at %d was taken over", r.Off)
		}
		if err := b.Blocks(t.Context(), want[r.Off/size:r.End()/size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Unchanged(t.Context(), shape.Blocks()-b.Next()); err != nil {
		t.Fatal(err)
	}
	top, err := b.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &Tree{shape, top, s}, doubtful
}

// whole fails the test if the tree relies on a pack that is distrusted, or holds
// other blocks than want.
func whole(t *testing.T, tree *Tree, s *shelf, want []Child) {
	t.Helper()
	var walk func(level int, i int64)
	c := tree.NewCursor()
	walk = func(level int, i int64) {
		child, err := c.Subtree(t.Context(), level, i)
		if err != nil {
			t.Fatal(err)
		}
		if level < 0 && i < int64(len(want)) && child.Hash != want[i].Hash {
			t.Fatalf("block %d is another", i)
		}
		if child.Hash.IsZero() {
			return
		}
		if s.bad[child.Place.Pack] {
			t.Fatalf("level %d, number %d lies in a distrusted pack", level, i)
		}
		for k := int64(0); level >= 0 && k < Fanout; k++ {
			walk(level-1, i*Fanout+k)
		}
	}
	walk(tree.Top(), 0)
}

func TestWhatLiesInDistrustedPacksIsNotTakenOver(t *testing.T) {
	for seed := range seeds(t, 30) {
		r := rand.New(rand.NewPCG(seed, 9))
		s := newShelf()
		base, blocks := stored(t, s, r.IntN(3*Fanout*Fanout)+1)
		s.bad = map[pack.ID]bool{}
		for range r.IntN(3) {
			s.bad[blocks[r.IntN(len(blocks))].Place.Pack] = true
		}
		for range r.IntN(3) {
			c, err := base.NewCursor().Subtree(t.Context(), r.IntN(base.Top()+1), 0)
			if err != nil {
				continue // below a lost node
			}
			s.bad[c.Place.Pack] = true
			if r.IntN(2) == 0 {
				s.lost[c.Place.Piece(0)] = true
			}
		}
		again := make([]Child, len(blocks)) // the same, stored anew
		for i := range blocks {
			again[i] = blocks[i]
			again[i].Place.Pack[15] = 77
		}
		tree, _ := onto(t, base.Shape, base, s, again)
		whole(t, tree, s, blocks)
	}
}

func TestTheLastBlockOfALargerBaseIsNotTakenOver(t *testing.T) {
	const size = 4
	for _, n := range []struct{ base, disk int64 }{{403, 402}, {404, 402}, {4 * Fanout * 3, 4*Fanout*2 + 1}, {9, 1}} {
		s := newShelf()
		shape := Shape{Size: n.base, BlockSize: size}
		blocks := make([]Child, shape.Blocks())
		for i := range blocks {
			blocks[i] = blockNumber(uint32(i + 1))
		}
		b := NewBuilder(shape, nil, testHasher(), s)
		if err := b.Blocks(t.Context(), blocks); err != nil {
			t.Fatal(err)
		}
		top, err := b.Finish(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		smaller := Shape{Size: n.disk, BlockSize: size}
		want := append([]Child(nil), blocks[:smaller.Blocks()]...)
		want[len(want)-1] = blockNumber(4000) // padded with zeros
		tree, doubtful := onto(t, smaller, &Tree{shape, top, s}, s, want)
		if doubtful.Total() != size {
			t.Errorf("of %d bytes on a base of %d, %v is doubtful", n.disk, n.base, doubtful)
		}
		whole(t, tree, s, want)

		c := NewBuilder(smaller, &Tree{shape, top, s}, testHasher(), s)
		if top, err = c.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		want[len(want)-1] = Child{}
		whole(t, &Tree{smaller, top, s}, s, want)
	}
}
