package image

import (
	"encoding/binary"

	"github.com/diskvault/diskvault/store/internal/block"
)

// Shape is what follows from the size of a disk alone.
type Shape struct {
	Size      int64 // of the disk, in bytes
	BlockSize int
}

// Blocks is the number of blocks.
func (s Shape) Blocks() int64 { return (s.Size + int64(s.BlockSize) - 1) / int64(s.BlockSize) }

// Top is the level of the top node.
func (s Shape) Top() int {
	level := 0
	for Span(level) < s.Blocks() {
		level++
	}
	return level
}

// Span is how many blocks a node of the level covers.
func Span(level int) int64 {
	n := int64(Fanout)
	for range level {
		n *= Fanout
	}
	return n
}

// Root identifies the whole content: the size and the tree.
func (s Shape) Root(h *block.Hasher, top block.Hash) block.Hash {
	var b [1 + 8 + 4 + 1]byte
	b[0] = 1
	binary.LittleEndian.PutUint64(b[1:], uint64(s.Size))
	binary.LittleEndian.PutUint32(b[9:], uint32(s.BlockSize))
	b[13] = byte(s.Top())
	return h.Sum(b[:], top[:])
}
