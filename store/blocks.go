package store

import (
	"context"

	"github.com/diskvault/diskvault/base/extent"
)

// Data gives the blocks within a stretch that are not zeros, in bytes of the
// disk, without reading them. Its cost follows the length. Errors: those of a
// damaged store.
func (r *Reader) Data(ctx context.Context, off, length int64) (extent.Set, error) {
	size := int64(r.image.tree.BlockSize)
	end := min(off+length, r.image.Size())
	off = off / size * size
	if end <= off {
		return nil, nil
	}
	if _, err := r.window(ctx, off, end-off, nil, nil); err != nil {
		return nil, err
	}
	var data []extent.Range
	for at := range r.children {
		if !r.children[at].Hash.IsZero() {
			start := off + int64(at)*size
			data = append(data, extent.Between(start, min(start+size, end)))
		}
	}
	return extent.Of(data...), nil
}
