package image

import (
	"context"

	"github.com/diskvault/diskvault/store/internal/block"
)

// Loader reads the node of the given level that a child stands for, and has
// checked its hash. It is safe for concurrent use.
type Loader interface {
	Node(ctx context.Context, c Child, level int) (*Node, error)
}

// Tree is a stored image.
type Tree struct {
	Shape
	TopNode Child
	Loader  Loader
}

// Cursor looks into a tree and remembers the path to where it looked last, so
// that looks in order load each node once. It is for one goroutine.
type Cursor struct {
	tree  *Tree
	nodes []*Node // by level; nil for zeros
	index []int64 // which node of its level is held; -1 for none
}

// NewCursor looks into the tree.
func (t *Tree) NewCursor() *Cursor {
	c := &Cursor{tree: t}
	for range t.Top() + 1 {
		c.nodes = append(c.nodes, nil)
		c.index = append(c.index, -1)
	}
	return c
}

// node gives node number i of the level, nil for zeros.
func (c *Cursor) node(ctx context.Context, level int, i int64) (*Node, error) {
	if c.index[level] == i {
		return c.nodes[level], nil
	}
	child, err := c.Subtree(ctx, level, i)
	if err != nil {
		return nil, err
	}
	var n *Node
	if !child.Hash.IsZero() {
		if n, err = c.tree.Loader.Node(ctx, child, level); err != nil {
			return nil, err
		}
	}
	c.nodes[level], c.index[level] = n, i
	return n, nil
}

// Subtree gives node number i of the level as a child; level -1 are the
// blocks. Beyond the end of the disk there are zeros. The level must not be
// above the top.
func (c *Cursor) Subtree(ctx context.Context, level int, i int64) (Child, error) {
	if level == c.tree.Top() {
		if i == 0 {
			return c.tree.TopNode, nil
		}
		return Child{}, nil
	}
	parent, err := c.node(ctx, level+1, i/Fanout)
	if err != nil || parent == nil {
		return Child{}, err
	}
	return parent.Children[i%Fanout], nil
}

// NextLeaf finds the first leaf at or behind leaf number i that is not zeros,
// without looking into subtrees of zeros. ok is false if there is none. After an
// error of a node, leaf is the first one behind that node.
func (c *Cursor) NextLeaf(ctx context.Context, i int64) (leaf int64, n *Node, ok bool, err error) {
	leaves := (c.tree.Blocks() + Fanout - 1) / Fanout
	for i < leaves {
		level := c.tree.Top()
		for {
			width := Span(level) / Fanout // leaves below a node of the level
			n, err := c.node(ctx, level, i/width)
			if err != nil {
				return (i/width + 1) * width, nil, false, err
			}
			if n == nil {
				i = (i/width + 1) * width // behind the zeros
				break
			}
			if level == 0 {
				return i, n, true, nil
			}
			level--
		}
	}
	return 0, nil, false, nil
}

// Blocks fills dst with the children that stand for the blocks from first on.
func (c *Cursor) Blocks(ctx context.Context, first int64, dst []Child) error {
	for k := 0; k < len(dst); {
		i := first + int64(k)
		n := min(len(dst)-k, int(Fanout-i%Fanout))
		var leaf *Node
		if i < c.tree.Shape.Blocks() {
			var err error
			if leaf, err = c.node(ctx, 0, i/Fanout); err != nil {
				return err
			}
		}
		if leaf == nil {
			clear(dst[k : k+n])
		} else {
			copy(dst[k:k+n], leaf.Children[i%Fanout:])
		}
		k += n
	}
	return nil
}

// Root gives the root hash of the tree.
func (t *Tree) Root(h *block.Hasher) block.Hash { return t.Shape.Root(h, t.TopNode.Hash) }
