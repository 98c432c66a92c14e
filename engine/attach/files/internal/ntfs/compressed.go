package ntfs

import (
	"errors"
	"io"

	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

// compressed is content in units, each of which is stored as it is, shorter,
// or, if it is zeros, not at all.
type compressed struct {
	stored  *node.Mapped
	unit    int64 // bytes
	written int64 // bytes; zeros behind
}

// Size implements node.Content.
func (c *compressed) Size() int64 { return c.stored.Length }

// NextData implements node.Content.
func (c *compressed) NextData(off int64) (start, end int64) {
	start, _ = c.stored.NextData(off / c.unit * c.unit)
	if start >= c.Size() {
		return c.Size(), c.Size()
	}
	start = start / c.unit * c.unit
	return max(start, off), min(start+c.unit, c.Size())
}

// ReadAt implements io.ReaderAt.
func (c *compressed) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	for n < len(p) && off+int64(n) < c.Size() {
		at := off + int64(n)
		unit, err := c.read(at / c.unit)
		if err != nil {
			return n, err
		}
		in := at % c.unit
		n += copy(p[n:min(int64(len(p)), int64(n)+c.Size()-at)], unit[in:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// read gives one unit.
func (c *compressed) read(number int64) ([]byte, error) {
	out := make([]byte, c.unit)
	start := number * c.unit
	if start >= c.written {
		return out, nil
	}
	// How much of the unit is stored, from its beginning.
	room := int64(0)
	for room < c.unit {
		i := c.stored.At(start + room)
		if i < 0 {
			break
		}
		r := c.stored.Runs[i]
		room = min(c.unit, r.Off+r.Length-start)
	}
	whole := &node.Mapped{Device: c.stored.Device, Length: start + c.unit, Runs: c.stored.Runs}
	switch {
	case room == 0:
		return out, nil
	case room == c.unit:
		_, err := whole.ReadAt(out, start)
		return out, err
	}
	in := make([]byte, room)
	if _, err := whole.ReadAt(in, start); err != nil {
		return nil, err
	}
	if err := expand(out, in); err != nil {
		return nil, err
	}
	if end := c.written - start; end < c.unit {
		clear(out[end:])
	}
	return out, nil
}

// expand decodes LZNT1: chunks of 4 KiB, each with a head that tells its
// length and whether it is compressed.
func expand(out, in []byte) error {
	wrong := node.Damagedf("compressed data are damaged")
	for pos := 0; len(in) >= 2 && pos < len(out); pos += 4096 {
		head := le.Uint16(in)
		if head == 0 {
			return nil
		}
		n := int(head&0xfff) + 1
		if 2+n > len(in) {
			return wrong
		}
		chunk, dst := in[2:2+n], out[pos:min(pos+4096, len(out))]
		in = in[2+n:]
		if head&0x8000 == 0 {
			copy(dst, chunk)
			continue
		}
		if !expandChunk(dst, chunk) {
			return wrong
		}
	}
	return nil
}

func expandChunk(dst, in []byte) bool {
	n := 0
	for len(in) > 0 && n < len(dst) {
		flags := in[0]
		in = in[1:]
		for bit := 0; bit < 8 && len(in) > 0 && n < len(dst); bit++ {
			if flags>>bit&1 == 0 {
				dst[n] = in[0]
				n, in = n+1, in[1:]
				continue
			}
			if len(in) < 2 || n == 0 {
				return false
			}
			// The further within the chunk, the more bits are for the distance.
			bits := 4
			for n-1 >= 1<<bits {
				bits++
			}
			word := int(le.Uint16(in))
			in = in[2:]
			distance, length := word>>(16-bits)+1, word&(1<<(16-bits)-1)+3
			if distance > n || length > len(dst)-n {
				return false
			}
			for ; length > 0; length-- {
				dst[n] = dst[n-distance]
				n++
			}
		}
	}
	return true
}
