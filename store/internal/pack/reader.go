package pack

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// Trailer is the end of a pack.
type Trailer struct {
	DirectoryLength uint32
	Checksum        uint32 // CRC-32C of all stored bytes before the trailer
}

// TrailerSize is how many bytes the trailer has.
const TrailerSize = trailerSize

// ParseTrailer reads the last bytes of a pack of the given size.
func ParseTrailer(b []byte, size int64) (Trailer, error) {
	if len(b) != trailerSize || string(b[8:]) != trailerMagic {
		return Trailer{}, fmt.Errorf("no trailer: %w", seal.ErrDamaged)
	}
	t := Trailer{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])}
	if int64(t.DirectoryLength) > size-trailerSize-seal.HeaderSize || t.DirectoryLength < seal.Overhead+seal.PrefixSize {
		return Trailer{}, fmt.Errorf("directory of %d bytes in a pack of %d: %w", t.DirectoryLength, size, seal.ErrDamaged)
	}
	return t, nil
}

// Checksum is the CRC-32C that a trailer holds, continued over b.
func Checksum(sum uint32, b []byte) uint32 { return crc32.Update(sum, castagnoli, b) }

// ParseDirectory reads the plain directory of a pack whose frames end at end.
func ParseDirectory(plain []byte, end int64) ([]Frame, error) {
	if len(plain) < seal.PrefixSize || plain[0] != byte(seal.Plain) {
		return nil, fmt.Errorf("directory: %w", seal.ErrDamaged)
	}
	plain = plain[seal.PrefixSize:]
	var frames []Frame
	next := int64(seal.HeaderSize)
	for len(plain) > 0 {
		if len(plain) < 9 {
			return nil, fmt.Errorf("directory ends in the middle of an entry: %w", seal.ErrDamaged)
		}
		f := Frame{Offset: binary.LittleEndian.Uint32(plain), Length: binary.LittleEndian.Uint32(plain[4:])}
		pieces := int(plain[8])
		plain = plain[9:]
		if len(plain) < pieces*32 || int64(f.Offset) != next || next+int64(f.Length) > end || f.Length <= seal.Overhead {
			return nil, fmt.Errorf("directory entry of the frame at offset %d: %w", f.Offset, seal.ErrDamaged)
		}
		next += int64(f.Length)
		f.Hashes = make([]block.Hash, pieces)
		for i := range f.Hashes {
			copy(f.Hashes[i][:], plain[i*32:])
		}
		plain = plain[pieces*32:]
		frames = append(frames, f)
	}
	if next != end {
		return nil, fmt.Errorf("directory covers %d of %d bytes: %w", next, end, seal.ErrDamaged)
	}
	return frames, nil
}
