package image

import (
	"math/rand/v2"
	"testing"

	"github.com/diskvault/diskvault/base/extent"
)

func TestDiffersAgainstAWalkBlockByBlock(t *testing.T) {
	for seed := range seeds(t, 40) {
		r := rand.New(rand.NewPCG(seed, 11))
		m := model{Rand: r, shelf: newShelf()}
		var trees [2]*Tree
		var blocks [2][]Child
		for k := range trees {
			m.begin(size(r), trees[0])
			for int64(len(m.blocks)) < m.shape.Blocks() {
				m.step(t)
			}
			top, err := m.builder.Finish(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			trees[k], blocks[k] = &Tree{m.shape, top, m.shelf}, m.blocks
			m.base = m.blocks
		}
		var want []extent.Range
		for i := range max(len(blocks[0]), len(blocks[1])) {
			var at [2]Child
			for k := range at {
				if i < len(blocks[k]) {
					at[k] = blocks[k][i]
				}
			}
			if at[0].Hash != at[1].Hash {
				want = append(want, extent.Range{Off: int64(i), Len: 1})
			}
		}
		for k := range trees {
			got, err := Differs(t.Context(), trees[k], trees[1-k])
			if err != nil || !got.Equal(extent.Of(want...)) {
				t.Fatalf("seed %d: of %d and %d blocks %v differ, want %v (%v)", seed, len(blocks[0]), len(blocks[1]), got, want, err)
			}
		}
	}
}

func TestWhatDoesNotDifferIsNotRead(t *testing.T) {
	base, d := huge()
	b := NewBuilder(base.Shape, base, testHasher(), d)
	at := base.Blocks() / 3
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
	loads := d.loads
	got, err := Differs(t.Context(), &Tree{base.Shape, top, d}, base)
	if err != nil || len(got) != 1 || got[0].Off != at*int64(base.BlockSize) || d.loads-loads > 12 {
		t.Errorf("%v differs, %d nodes were read, %v", got, d.loads-loads, err)
	}
}
