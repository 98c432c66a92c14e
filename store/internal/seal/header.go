// Package seal turns plain frames into stored bytes and back: compression,
// encryption, and the header that ties every object to its store, its kind
// and its name. docs/format.md, sections 3 and 4, is its specification.
package seal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
)

// Kind says what an object is.
type Kind uint8

const (
	DataPack     Kind = 1
	MetadataPack Kind = 2
	Realm        Kind = 3
	Epoch        Kind = 4
	Point        Kind = 5
	Session      Kind = 6
	Record       Kind = 7
	Condemned    Kind = 8
	IndexSegment Kind = 9
	DamageNote   Kind = 10
	Moved        Kind = 11
	SweepList    Kind = 12
)

// Version is the version that this code writes, of every kind.
const Version = 1

// HeaderSize is the length of a header in bytes.
const HeaderSize = 64

// Header begins every sealed object.
type Header struct {
	Kind    Kind
	Version uint8
	Epoch   uint32 // of the data key; 0 for the root secret
	ID      [16]byte
	Salt    [32]byte
}

// NewHeader makes a header with fresh salt.
func NewHeader(kind Kind, epoch uint32, id [16]byte) Header {
	h := Header{Kind: kind, Version: Version, Epoch: epoch, ID: id}
	rand.Read(h.Salt[:]) // never fails: the program ends if the system has no randomness
	return h
}

const magic = "DVLT"

// AppendTo writes the 64 bytes of the header behind dst.
func (h Header) AppendTo(dst []byte) []byte {
	dst = append(dst, magic...)
	dst = append(dst, byte(h.Kind), h.Version, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, h.Epoch)
	dst = append(dst, h.ID[:]...)
	dst = append(dst, 0, 0, 0, 0)
	return append(dst, h.Salt[:]...)
}

// ErrDamaged is an object or a frame that is not what was written.
var ErrDamaged = errors.New("does not hold what was written to it")

// ErrUnsupported is an object of a version that this code does not know.
var ErrUnsupported = errors.New("was written in a format that this version cannot read")

// ParseHeader reads a header and checks that it is of the kind and ID that
// the object's name promises.
func ParseHeader(b []byte, kind Kind, id [16]byte) (Header, error) {
	h, err := parseHeader(b)
	if err != nil {
		return h, err
	}
	if h.Kind != kind {
		return h, fmt.Errorf("it is an object of kind %d where kind %d should be: %w", h.Kind, kind, ErrDamaged)
	}
	if h.ID != id {
		return h, fmt.Errorf("it is the object %x under the name of %x: %w", h.ID, id, ErrDamaged)
	}
	return h, nil
}

// HeaderOf reads a header whatever it is of. Only what OpenDocument finds
// sealed with it makes it true.
func HeaderOf(b []byte) (Header, error) { return parseHeader(b) }

func parseHeader(b []byte) (Header, error) {
	var h Header
	if len(b) < HeaderSize || string(b[:4]) != magic {
		return h, fmt.Errorf("no header: %w", ErrDamaged)
	}
	if b[5] != Version {
		return h, fmt.Errorf("version %d: %w", b[5], ErrUnsupported)
	}
	if b[6]|b[7]|b[28]|b[29]|b[30]|b[31] != 0 {
		return h, fmt.Errorf("reserved bytes are set: %w", ErrDamaged)
	}
	h.Kind, h.Version = Kind(b[4]), b[5]
	h.Epoch = binary.LittleEndian.Uint32(b[8:])
	copy(h.ID[:], b[12:28])
	copy(h.Salt[:], b[32:64])
	return h, nil
}
