package image

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// model builds a tree and, beside it, the plain array of its blocks.
type model struct {
	*rand.Rand
	shelf   *shelf
	base    []Child // nil: none
	builder *Builder
	shape   Shape
	blocks  []Child // so far
}

// size draws numbers of blocks around the edges of nodes of all levels.
func size(r *rand.Rand) int {
	return max(0, []int{0, 1, 128, 128 * r.IntN(20), 128 * 128, 2 * 128 * 128}[r.IntN(6)]+r.IntN(9)-4)
}

func (m *model) begin(n int, base *Tree) {
	m.shape = Shape{Size: int64(n), BlockSize: 1}
	m.builder = NewBuilder(m.shape, base, testHasher(), m.shelf)
	m.blocks = nil
}

// step adds one run of random kind and length.
func (m *model) step(t *testing.T) {
	left := int(m.shape.Blocks()) - len(m.blocks)
	n := min(left, size(m.Rand))
	if m.IntN(3) == 0 {
		n = left
	}
	var err error
	switch m.IntN(3) {
	case 0:
		n = min(n, 700)
		run := make([]Child, n)
		for i := range run {
			run[i] = blockNumber(uint32(m.IntN(5000)))
			if at := len(m.blocks) + i; at < len(m.base) && m.IntN(2) == 0 {
				run[i] = m.base[at]
			}
		}
		m.blocks = append(m.blocks, run...)
		err = m.builder.Blocks(t.Context(), run)
	case 1:
		m.blocks = append(m.blocks, make([]Child, n)...)
		err = m.builder.Zeros(t.Context(), int64(n))
	case 2:
		m.blocks = m.asBase(m.blocks, n)
		err = m.builder.Unchanged(t.Context(), int64(n))
	}
	if err != nil {
		t.Fatal(err)
	}
	if m.builder.Next() != int64(len(m.blocks)) {
		t.Fatalf("block %d comes next, not %d", len(m.blocks), m.builder.Next())
	}
}

// asBase adds n blocks as the base has them.
func (m *model) asBase(blocks []Child, n int) []Child {
	for range n {
		var c Child
		if at := len(blocks); at < len(m.base) {
			c = m.base[at]
		}
		blocks = append(blocks, c)
	}
	return blocks
}

// compare tells how the tree below the top differs from the array.
func (m *model) compare(t *testing.T, top Child, want []Child) (*Tree, error) {
	if sum := naive(want, m.shape.Top()); top.Hash != sum {
		return nil, fmt.Errorf("the top is %v, built block by block %v", top.Hash, sum)
	}
	tree := &Tree{m.shape, top, m.shelf}
	all := make([]Child, len(want)+3) // and what lies behind the end
	c := tree.NewCursor()
	for at := 0; at < len(all); {
		n := min(len(all)-at, 1+m.IntN(1000))
		if err := c.Blocks(t.Context(), int64(at), all[at:at+n]); err != nil {
			return nil, err
		}
		at += n
	}
	if !slices.Equal(all[:len(want)], want) {
		return nil, fmt.Errorf("Cursor.Blocks gives other blocks than were added")
	}
	if behind := all[len(want):]; !slices.Equal(behind, make([]Child, 3)) {
		return nil, fmt.Errorf("behind the end lies %v", behind)
	}
	clear(all)
	for i := int64(0); ; i++ {
		leaf, n, ok, err := c.NextLeaf(t.Context(), i)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		copy(all[leaf*Fanout:], n.Children[:])
		i = leaf
	}
	if !slices.Equal(all[:len(want)], want) {
		return nil, fmt.Errorf("Cursor.NextLeaf leaves blocks out")
	}
	return tree, nil
}

// run builds a chain of images, each on the one before, with checkpoints.
func (m *model) run(t *testing.T) error {
	var base *Tree
	m.shelf = newShelf()
	m.shelf.knows = m.IntN(2) == 0
	for range 3 {
		m.begin(size(m.Rand), base)
		for int64(len(m.blocks)) < m.shape.Blocks() {
			m.step(t)
			if m.IntN(4) == 0 {
				top, err := m.builder.Checkpoint(t.Context())
				if err != nil {
					return err
				}
				whole := m.asBase(slices.Clone(m.blocks), int(m.shape.Blocks())-len(m.blocks))
				if _, err := m.compare(t, top, whole); err != nil {
					return fmt.Errorf("checkpoint at block %d of %d, base of %d: %w", len(m.blocks), m.shape.Blocks(), len(m.base), err)
				}
			}
		}
		top, err := m.builder.Finish(t.Context())
		if err != nil {
			return err
		}
		if base, err = m.compare(t, top, m.blocks); err != nil {
			return fmt.Errorf("image of %d blocks, base of %d: %w", m.shape.Blocks(), len(m.base), err)
		}
		m.base = m.blocks
	}
	return nil
}

func TestATreeIsWhatWasAddedToIt(t *testing.T) {
	for seed := range seeds(t, 60) {
		m := model{Rand: rand.New(rand.NewPCG(seed, 5))}
		if err := m.run(t); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestABuilderRefusesTooManyAndTooFewBlocks(t *testing.T) {
	b := NewBuilder(Shape{Size: 300, BlockSize: 1}, nil, testHasher(), newShelf())
	if err := b.Blocks(t.Context(), make([]Child, 299)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Finish(t.Context()); err == nil {
		t.Error("a tree without its last block was finished")
	}
	if err := b.Blocks(t.Context(), make([]Child, 2)); err == nil {
		t.Error("a block behind the end was taken")
	}
}
