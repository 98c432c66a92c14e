// Package pack holds the immutable objects that frames are stored in: how one
// is filled, what its directory says, and where in it a piece lies.
// docs/format.md, section 6, is its specification.
package pack

import (
	"bytes"
	"encoding/hex"
	"fmt"
)

// ID names a pack: 16 random bytes, chosen when the pack is begun, so that the
// place of a block is known before the pack is stored.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads what String gives; ok is false for anything else.
func ParseID(text string) (id ID, ok bool) {
	if len(text) != hex.EncodedLen(len(id)) {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(text))
	return id, err == nil && id.String() == text
}

// MarshalText writes 32 hex digits.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads 32 hex digits.
func (id *ID) UnmarshalText(text []byte) error {
	read, ok := ParseID(string(text))
	if !ok {
		return fmt.Errorf("%q is not the ID of a pack", text)
	}
	*id = read
	return nil
}

// Place says where a piece (a block or a tree node) lies: in which pack, where
// the sealed frame lies in it, and which piece of the frame it is.
type Place struct {
	Pack   ID
	Offset uint32 // of the sealed frame in the pack, in bytes
	Length uint32 // of the sealed frame, in bytes
	Slot   uint8  // number of the piece in the frame
}

// IsZero tells whether the place is unknown.
func (p Place) IsZero() bool { return p.Length == 0 }

// Piece is the place of another piece of the same frame.
func (p Place) Piece(slot int) Place {
	p.Slot = uint8(slot)
	return p
}

// MarshalText writes pack:offset:length:slot, or nothing for an unknown place.
func (p Place) MarshalText() ([]byte, error) {
	if p.IsZero() {
		return nil, nil
	}
	return fmt.Appendf(nil, "%x:%d:%d:%d", p.Pack[:], p.Offset, p.Length, p.Slot), nil
}

// UnmarshalText reads what MarshalText writes, and nothing else.
func (p *Place) UnmarshalText(text []byte) error {
	*p = Place{}
	if len(text) == 0 {
		return nil
	}
	var read Place
	if len(text) < 33 || text[32] != ':' {
		return fmt.Errorf("%q is not a place", text)
	}
	if _, err := hex.Decode(read.Pack[:], text[:32]); err != nil {
		return fmt.Errorf("%q is not a place: %w", text, err)
	}
	if _, err := fmt.Sscanf(string(text[33:]), "%d:%d:%d", &read.Offset, &read.Length, &read.Slot); err != nil {
		return fmt.Errorf("%q is not a place: %w", text, err)
	}
	// Signs, spaces, zeros in front and whatever follows are not written.
	if again, err := read.MarshalText(); err != nil || !bytes.Equal(again, text) {
		return fmt.Errorf("%q is not a place", text)
	}
	*p = read
	return nil
}
