package index

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// Lookup tells where a block lies. "Unknown" may be wrong; a place is always
// one that Add was given for this hash and a pack that is not forgotten.
func (x *Index) Lookup(h block.Hash) (pack.Place, bool, error) {
	if err := x.engine.happened(); err != nil {
		return pack.Place{}, false, x.classify(err)
	}
	if x.absent(&h) {
		return pack.Place{}, false, nil
	}
	key := x.keys.Get().(*[blockKey]byte)
	defer x.keys.Put(key)
	putBlockKey(key, &h)
	value, closer, err := x.db.Get(key[:])
	if err == pebble.ErrNotFound {
		return pack.Place{}, false, nil
	}
	if err != nil {
		return pack.Place{}, false, x.classify(err)
	}
	number, place, ok := readBlockValue(value)
	closer.Close()
	if !ok {
		return pack.Place{}, false, x.classify(fmt.Errorf("the entry of block %v: %w", h, pebble.ErrCorruption))
	}

	// The key's buffer serves once more: a number's key is shorter.
	key[0] = spaceNumber
	binary.BigEndian.PutUint32(key[1:], number)
	id, closer, err := x.db.Get(key[:5])
	if err == pebble.ErrNotFound {
		return pack.Place{}, false, nil // the pack is forgotten
	}
	if err != nil {
		return pack.Place{}, false, x.classify(err)
	}
	ok = copy(place.Pack[:], id) == len(place.Pack)
	closer.Close()
	if !ok {
		return pack.Place{}, false, x.classify(fmt.Errorf("the row of pack number %d: %w", number, pebble.ErrCorruption))
	}
	return place, true, nil
}
