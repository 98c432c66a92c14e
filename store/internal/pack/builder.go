package pack

import (
	"crypto/rand"
	"encoding/binary"
	"hash/crc32"
	"sync"

	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// MaxSize is the largest pack that a reader accepts.
const MaxSize = 64 << 20

// NewID draws a random ID.
func NewID() (id ID) {
	rand.Read(id[:])
	return id
}

// Frame is an entry of a pack's directory: a sealed frame and its pieces.
type Frame struct {
	Offset, Length uint32
	Hashes         []block.Hash
}

// Builder fills one pack in a buffer of fixed capacity. Reserve and Finish are
// to be called by one goroutine at a time; the frames reserved may be filled
// by many at once, so that encryption runs in parallel and writes its output
// where it is put to the bucket from.
type Builder struct {
	ID       ID
	key      *seal.Key
	buf      []byte
	frames   []Frame
	pieces   int
	unfilled sync.WaitGroup
}

// NewBuilder begins a pack in buf, whose capacity bounds the pack.
func NewBuilder(buf []byte, kind seal.Kind, secret [32]byte, epoch uint32, storeID [16]byte) *Builder {
	b := &Builder{ID: NewID()}
	h := seal.NewHeader(kind, epoch, b.ID)
	b.key = seal.ObjectKey(secret, storeID, h)
	b.buf = h.AppendTo(buf[:0])
	return b
}

// Empty tells whether no frame was reserved yet.
func (b *Builder) Empty() bool { return len(b.frames) == 0 }

// Size is what the pack would weigh if it were finished now, in bytes.
func (b *Builder) Size() int {
	return len(b.buf) + directorySize(len(b.frames), b.pieces) + trailerSize
}

// Reserve takes room for a plain frame of n bytes that holds the pieces with
// these hashes, which the builder keeps. It is false if the pack has no room.
// Each frame reserved must be filled.
func (b *Builder) Reserve(n int, hashes []block.Hash) (Slot, bool) {
	sealed := n + seal.Overhead
	if len(b.buf)+sealed+directorySize(len(b.frames)+1, b.pieces+len(hashes))+trailerSize > cap(b.buf) {
		return Slot{}, false
	}
	offset := len(b.buf)
	b.buf = b.buf[:offset+sealed]
	b.frames = append(b.frames, Frame{uint32(offset), uint32(sealed), hashes})
	b.pieces += len(hashes)
	b.unfilled.Add(1)
	return Slot{b, b.buf[offset : offset : offset+sealed], Place{Pack: b.ID, Offset: uint32(offset), Length: uint32(sealed)}}, true
}

// Slot is room for one frame in a pack.
type Slot struct {
	builder *Builder
	dst     []byte
	place   Place
}

// Place of the frame's first piece.
func (s Slot) Place() Place { return s.place }

// Fill seals the plain frame into its room.
func (s Slot) Fill(plain []byte) {
	s.builder.key.Seal(s.dst, plain, int64(s.place.Offset))
	s.builder.unfilled.Done()
}

// Finish waits until all frames are filled, adds directory and trailer, and
// gives the bytes of the pack, which lie in the buffer.
func (b *Builder) Finish() []byte {
	b.unfilled.Wait()
	plain := make([]byte, seal.PrefixSize, seal.PrefixSize+directorySize(len(b.frames), b.pieces))
	plain[0] = byte(seal.Plain)
	for _, f := range b.frames {
		plain = binary.LittleEndian.AppendUint32(plain, f.Offset)
		plain = binary.LittleEndian.AppendUint32(plain, f.Length)
		plain = append(plain, byte(len(f.Hashes)))
		for i := range f.Hashes {
			plain = append(plain, f.Hashes[i][:]...)
		}
	}
	offset := len(b.buf)
	b.buf = b.key.Seal(b.buf, plain, int64(offset))
	length := len(b.buf) - offset
	sum := crc32.Checksum(b.buf, castagnoli)
	b.buf = binary.LittleEndian.AppendUint32(b.buf, uint32(length))
	b.buf = binary.LittleEndian.AppendUint32(b.buf, sum)
	b.buf = append(b.buf, trailerMagic...)
	return b.buf
}

// Frames lists what was reserved so far.
func (b *Builder) Frames() []Frame { return b.frames }

const (
	trailerSize  = 16
	trailerMagic = "DVLTpend"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func directorySize(frames, pieces int) int {
	return seal.PrefixSize + frames*9 + pieces*32 + seal.Overhead
}

// Buffer gives the buffer back, once the pack's bytes are no longer needed.
func (b *Builder) Buffer() []byte { return b.buf[:0] }
