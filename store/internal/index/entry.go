package index

import (
	"encoding/binary"
	"fmt"

	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// Entry says where in a pack the block of a hash lies. The fields mean what
// they mean in pack.Place.
type Entry struct {
	Hash   block.Hash
	Offset uint32 // of the sealed frame in the pack, in bytes
	Length uint32 // of the sealed frame, in bytes; less than 16 MiB
	Slot   uint8  // number of the block in the frame
}

// Rows. Every key begins with the letter of its space. A block's row holds the
// number of its pack rather than the pack's ID: four bytes instead of sixteen,
// and forgetting a pack is the removal of one number.
const (
	spaceBlock  = 'b' // first hashPart bytes of the hash -> number, offset, length, slot
	spaceMeta   = 'm' // identity, counter, epoch
	spaceNumber = 'n' // number of a pack, big-endian -> ID
	spacePack   = 'p' // ID of a pack -> number

	hashPart   = 16
	blockKey   = 1 + hashPart
	blockValue = 4 + 4 + 3 + 1
	maxLength  = 1<<24 - 1
)

var (
	identityRow = []byte{spaceMeta, 'i'} // format version, then the store's identity
	counterRow  = []byte{spaceMeta, 'c'} // the next number to give to a pack
	epochRow    = []byte{spaceMeta, 'e'} // see Index.Epoch
)

func putBlockKey(key *[blockKey]byte, h *block.Hash) {
	key[0] = spaceBlock
	copy(key[1:], h[:hashPart])
}

func putBlockValue(value *[blockValue]byte, number uint32, e *Entry) error {
	if e.Length == 0 || e.Length > maxLength {
		return fmt.Errorf("a frame of %d bytes does not fit an index entry", e.Length)
	}
	binary.LittleEndian.PutUint32(value[0:], number)
	binary.LittleEndian.PutUint32(value[4:], e.Offset)
	binary.LittleEndian.PutUint32(value[8:], e.Length|uint32(e.Slot)<<24)
	return nil
}

// readBlockValue gives the place without its pack, and the pack's number.
func readBlockValue(value []byte) (number uint32, place pack.Place, ok bool) {
	if len(value) != blockValue {
		return 0, pack.Place{}, false
	}
	number = binary.LittleEndian.Uint32(value[0:])
	place.Offset = binary.LittleEndian.Uint32(value[4:])
	last := binary.LittleEndian.Uint32(value[8:])
	place.Length, place.Slot = last&maxLength, uint8(last>>24)
	return number, place, place.Length != 0
}

func numberKey(n uint32) [5]byte {
	var key [5]byte
	key[0] = spaceNumber
	binary.BigEndian.PutUint32(key[1:], n)
	return key
}

func packKey(id pack.ID) [17]byte {
	var key [17]byte
	key[0] = spacePack
	copy(key[1:], id[:])
	return key
}
