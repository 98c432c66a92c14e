package image

import (
	"slices"
	"testing"
)

// stored makes an image of n blocks, all different, with a frame for each leaf.
func stored(t *testing.T, s *shelf, n int) (*Tree, []Child) {
	t.Helper()
	shape := Shape{Size: int64(n), BlockSize: 1}
	b := NewBuilder(shape, nil, testHasher(), s)
	blocks := make([]Child, n)
	for i := range blocks {
		blocks[i] = blockNumber(uint32(i + 1))
	}
	for at := 0; at < n; at += Fanout {
		if err := b.Blocks(t.Context(), blocks[at:min(at+Fanout, n)]); err != nil {
			t.Fatal(err)
		}
		if err := b.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	top, err := b.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &Tree{shape, top, s}, blocks
}

// lose makes the node of the level unreadable.
func (s *shelf) lose(t *testing.T, tree *Tree, level int, i int64) {
	t.Helper()
	c, err := tree.NewCursor().Subtree(t.Context(), level, i)
	if err != nil {
		t.Fatal(err)
	}
	s.lost[c.Place.Piece(0)] = true
}

func TestABaseThatLostNodesDoesNotStopTheNextImage(t *testing.T) {
	for level := range 3 {
		s := newShelf()
		base, blocks := stored(t, s, 2*Fanout*Fanout)
		s.lose(t, base, level, 0)
		b := NewBuilder(base.Shape, base, testHasher(), s)
		if err := b.Blocks(t.Context(), blocks[:Fanout+5]); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Checkpoint(t.Context()); err != nil {
			t.Fatalf("a node of level %d lost: checkpoint: %v", level, err)
		}
		if err := b.Blocks(t.Context(), blocks[Fanout+5:]); err != nil {
			t.Fatal(err)
		}
		top, err := b.Finish(t.Context())
		if err != nil || top.Hash != base.TopNode.Hash {
			t.Fatalf("a node of level %d lost: %v, %v", level, top, err)
		}
	}
}

func TestANodeThatDoesNotServeIsStoredAnew(t *testing.T) {
	s := newShelf()
	s.knows = true
	base, blocks := stored(t, s, Fanout*Fanout)
	s.lose(t, base, 0, 3)
	s.stale = true
	b := NewBuilder(base.Shape, base, testHasher(), s)
	if err := b.Blocks(t.Context(), blocks); err != nil {
		t.Fatal(err)
	}
	top, err := b.Finish(t.Context())
	if err != nil || top.Hash != base.TopNode.Hash {
		t.Fatalf("%v, %v", top, err)
	}
	got := make([]Child, len(blocks))
	if err := (&Tree{base.Shape, top, s}).NewCursor().Blocks(t.Context(), 0, got); err != nil || !slices.Equal(got, blocks) {
		t.Errorf("the new image leads to lost nodes: %v", err)
	}
}

func TestNextLeafGoesOnBehindALostSubtree(t *testing.T) {
	for level := range 3 {
		s := newShelf()
		tree, _ := stored(t, s, 2*Fanout*Fanout)
		s.lose(t, tree, level, 0)
		c := tree.NewCursor()
		leaf, _, _, err := c.NextLeaf(t.Context(), 0)
		want := min(Span(level)/Fanout, Span(level))
		if err == nil || leaf != want {
			t.Fatalf("level %d: leaf %d, %v; leaf %d is the first behind it", level, leaf, err, want)
		}
		next, _, ok, err := c.NextLeaf(t.Context(), leaf)
		if level < 2 && (err != nil || !ok || next != want) {
			t.Errorf("level %d: then leaf %d, %v, %v", level, next, ok, err)
		}
	}
}
