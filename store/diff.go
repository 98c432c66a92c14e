package store

import (
	"context"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/store/internal/image"
)

// Differs gives the blocks, in bytes of the disk, that are not the same in the
// two images of one store; behind the end of a disk there are zeros. Its cost
// follows the difference. Errors: those of a damaged store.
func (i *Image) Differs(ctx context.Context, from *Image) (extent.Set, error) {
	return image.Differs(ctx, i.tree, from.tree)
}
