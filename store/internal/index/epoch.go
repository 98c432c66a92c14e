package index

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Epoch gives the number last given to SetEpoch, 0 at first.
func (x *Index) Epoch() (uint64, error) {
	value, found, err := x.get(epochRow)
	switch {
	case err != nil:
		return 0, x.classify(err)
	case !found:
		return 0, nil
	case len(value) != 8:
		return 0, x.classify(fmt.Errorf("the epoch's row: %w", pebble.ErrCorruption))
	}
	return binary.BigEndian.Uint64(value), nil
}

// SetEpoch notes, durably, up to which collect epoch of the store the index
// has been told what to forget. An index that was put away, or brought back
// by a rollback of its machine, has the epoch of its own state, so its owner
// sees which packs may have gone since.
func (x *Index) SetEpoch(epoch uint64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	b := x.db.NewBatch()
	if err := b.Set(epochRow, binary.BigEndian.AppendUint64(nil, epoch), nil); err != nil {
		return x.classify(err)
	}
	if err := x.commit(b, pebble.Sync); err != nil {
		return x.classify(err)
	}
	return nil
}
