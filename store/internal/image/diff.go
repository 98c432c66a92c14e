package image

import (
	"context"

	"github.com/diskvault/diskvault/base/extent"
)

// Differs gives the blocks, in bytes of the disk, that are not the same in two
// trees of one block size; behind the end of a disk there are zeros. Its cost
// follows the difference.
func Differs(ctx context.Context, a, b *Tree) (extent.Set, error) {
	d := difference{a: a.NewCursor(), b: b.NewCursor(), blockSize: int64(a.BlockSize)}
	if err := d.subtree(ctx, max(a.Top(), b.Top()), 0); err != nil {
		return nil, err
	}
	return extent.Of(d.found...), nil
}

type difference struct {
	a, b      *Cursor
	blockSize int64
	found     []extent.Range
}

func (d *difference) subtree(ctx context.Context, level int, i int64) error {
	if level <= min(d.a.tree.Top(), d.b.tree.Top()) || i > 0 {
		a, err := d.a.beyond(ctx, level, i)
		if err != nil {
			return err
		}
		b, err := d.b.beyond(ctx, level, i)
		if err != nil || a.Hash == b.Hash {
			return err
		}
		if level < 0 {
			d.found = append(d.found, extent.Range{Off: i * d.blockSize, Len: d.blockSize})
			return nil
		}
	}
	for child := i * Fanout; child < (i+1)*Fanout; child++ {
		if err := d.subtree(ctx, level-1, child); err != nil {
			return err
		}
	}
	return nil
}

// beyond is Subtree that gives zeros above the top too; i is not zero there.
func (c *Cursor) beyond(ctx context.Context, level int, i int64) (Child, error) {
	if level > c.tree.Top() {
		return Child{}, nil
	}
	return c.Subtree(ctx, level, i)
}
