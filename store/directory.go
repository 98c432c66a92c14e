package store

import (
	"context"

	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// directory reads and verifies the directory of a pack of the given size, or
// of unknown size if it is 0.
func (s *Store) directory(ctx context.Context, kind seal.Kind, id pack.ID, size int64) ([]pack.Frame, error) {
	name := packName(kind, id)
	if size == 0 {
		o, err := s.bucket.Stat(ctx, name)
		if err != nil {
			return nil, err
		}
		size = o.Size
	}
	if size < seal.HeaderSize+pack.TrailerSize || size > pack.MaxSize {
		return nil, s.damaged(name, seal.ErrDamaged)
	}
	key, err := s.packKey(ctx, kind, id)
	if err != nil {
		return nil, err
	}
	// One request brings the trailer and, nearly always, the directory.
	end := make([]byte, min(size, likelyDirectory))
	if err := s.bucket.Get(ctx, name, size-int64(len(end)), end); err != nil {
		return nil, err
	}
	t, err := pack.ParseTrailer(end[len(end)-pack.TrailerSize:], size)
	if err != nil {
		return nil, s.explain(name, err)
	}
	offset := size - pack.TrailerSize - int64(t.DirectoryLength)
	sealed := end[:len(end)-pack.TrailerSize]
	if int(t.DirectoryLength) <= len(sealed) {
		sealed = sealed[len(sealed)-int(t.DirectoryLength):]
	} else {
		sealed = make([]byte, t.DirectoryLength)
		if err := s.bucket.Get(ctx, name, offset, sealed); err != nil {
			return nil, err
		}
	}
	plain, err := key.Open(sealed[:0], sealed, offset)
	if err != nil {
		return nil, s.explain(name, err)
	}
	frames, err := pack.ParseDirectory(plain, offset)
	return frames, s.explain(name, err)
}

// likelyDirectory is the size of the directory of a full pack of data that
// compresses well.
const likelyDirectory = 96 << 10
