package pack

import "encoding/hex"

// ID names a pack: 16 random bytes, chosen when the pack is begun, so that the
// place of a block is known before the pack is stored.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Place says where a piece (a block or a tree node) lies: in which pack, where
// the sealed frame lies in it, and which piece of the frame it is.
type Place struct {
	Pack   ID
	Offset uint32 // of the sealed frame in the pack, in bytes
	Length uint32 // of the sealed frame, in bytes; at most MaxFrame + overhead
	Slot   uint8  // number of the piece in the frame
}

// IsZero tells whether the place is unknown.
func (p Place) IsZero() bool { return p.Length == 0 }
