package image

import (
	"context"

	"github.com/diskvault/diskvault/base/extent"
)

// doubt is what must not be taken over from a base, in bytes of the disk and
// whole blocks.
type doubt struct {
	lost extent.Set // blocks that the base does not have, or not for certain
	torn extent.Set // below nodes that must be stored anew, whose blocks may serve
}

// Doubtful gives the blocks that must not be taken over from the base, in bytes
// of the disk and whole blocks: those in packs that are distrusted, or below
// nodes that cannot be read; and the last block of a disk that ends within it
// while the base goes on, since it must be padded with zeros. Whoever wants them
// in the tree must have their content from elsewhere.
//
// In a store without damage it costs nothing; in another it reads all nodes of
// the base.
func (b *Builder) Doubtful(ctx context.Context) (extent.Set, error) {
	if b.base == nil {
		return nil, nil
	}
	if err := b.inspect(ctx); err != nil {
		return nil, err
	}
	return b.doubt.lost, nil
}

// inspect finds out once what is doubtful.
func (b *Builder) inspect(ctx context.Context) error {
	if b.doubt != nil {
		return nil
	}
	i := inspection{b: b}
	if len(b.sink.Distrusted()) > 0 {
		if err := i.subtree(ctx, b.base.tree.Top(), 0); err != nil {
			return err
		}
	}
	last := b.shape.Blocks() - 1
	if b.shape.Size%int64(b.shape.BlockSize) != 0 && b.base.tree.Size > b.shape.Size {
		i.lost = append(i.lost, b.bytes(last, 1))
	}
	whole := b.bytes(0, last+1)
	b.doubt = &doubt{extent.Of(i.lost...).Within(whole), extent.Of(i.torn...)}
	return nil
}

type inspection struct {
	b          *Builder
	lost, torn []extent.Range
}

func (i *inspection) subtree(ctx context.Context, level int, number int64) error {
	b := i.b
	all := b.bytes(number*Span(level), Span(level))
	c, err := b.base.Subtree(ctx, level, number)
	if err != nil || c.Hash.IsZero() {
		return err
	}
	distrusted := b.sink.Distrusted()
	if distrusted[c.Place.Pack] {
		i.torn = append(i.torn, all)
	}
	n, err := b.base.node(ctx, level, number)
	if err != nil {
		if !b.sink.Damaged(err) {
			return err
		}
		i.lost = append(i.lost, all)
		return nil
	}
	for at := range n.Children {
		child := int64(at) + number*Fanout
		if level > 0 {
			err = i.subtree(ctx, level-1, child)
		} else if x := &n.Children[at]; !x.Hash.IsZero() && distrusted[x.Place.Pack] {
			i.lost = append(i.lost, b.bytes(child, 1))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
