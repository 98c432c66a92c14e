package capture

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
)

// mapping is where a piece of a file lies on the storage, as FIEMAP tells.
type mapping struct {
	extent.Range        // in the file
	physical     uint64 // on the storage; to the file system's understanding
	flags        uint32
}

// The flags of FIEMAP (linux/fiemap.h).
const (
	fiemapUnknown     = 0x2
	fiemapDelalloc    = 0x4
	fiemapEncoded     = 0x8
	fiemapEncrypted   = 0x80
	fiemapNotAligned  = 0x100
	fiemapInline      = 0x200
	fiemapTail        = 0x400
	fiemapUnwritten   = 0x800
	fiemapLast        = 0x1
	fiemapRequestSync = 0x1

	// fiemapDoubtful are those with which the same place on the storage need not
	// mean the same bytes. Of a compressed extent (encoded) the place is the
	// extent's beginning, wherever in it the piece lies; of a small file that is
	// kept with its metadata (inline) it is zero.
	fiemapDoubtful = fiemapUnknown | fiemapDelalloc | fiemapEncoded | fiemapEncrypted | fiemapNotAligned | fiemapInline | fiemapTail
)

const (
	fiemapRequest    = 0xC020660B // FS_IOC_FIEMAP
	fiemapHeaderSize = 32
	fiemapExtentSize = 56
	fiemapAtATime    = 4096 // extents: 224 KiB
)

// fiemap asks once, for the extents from off on; buf has room for n of them. With
// n of zero their number alone is told. What is cached of the file is written to
// its storage first.
func fiemap(fd int, off uint64, buf []byte, n int) (mapped int, err error) {
	clear(buf[:fiemapHeaderSize])
	binary.NativeEndian.PutUint64(buf[0:], off)
	binary.NativeEndian.PutUint64(buf[8:], ^uint64(0)-off)
	binary.NativeEndian.PutUint32(buf[16:], fiemapRequestSync)
	binary.NativeEndian.PutUint32(buf[24:], uint32(n))
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fiemapRequest, uintptr(unsafe.Pointer(&buf[0])))
		if errno == 0 {
			return int(binary.NativeEndian.Uint32(buf[20:])), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// countExtents is of how many pieces a file consists.
func countExtents(fd int) (int64, error) {
	n, err := fiemap(fd, 0, make([]byte, fiemapHeaderSize), 0)
	return int64(n), err
}

// readMap reads where all pieces of a file lie, in order.
func readMap(ctx context.Context, fd int) ([]mapping, error) {
	buf := make([]byte, fiemapHeaderSize+fiemapAtATime*fiemapExtentSize)
	var all []mapping
	for off := uint64(0); ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := fiemap(fd, off, buf, fiemapAtATime)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return all, nil
		}
		for i := range n {
			e := buf[fiemapHeaderSize+i*fiemapExtentSize:]
			m := mapping{
				extent.Range{Off: int64(binary.NativeEndian.Uint64(e)), Len: int64(binary.NativeEndian.Uint64(e[16:]))},
				binary.NativeEndian.Uint64(e[8:]), binary.NativeEndian.Uint32(e[40:]),
			}
			if m.Off < 0 || m.Len <= 0 || m.End() < 0 || len(all) > 0 && m.Off < all[len(all)-1].End() {
				return nil, fmt.Errorf("the file system gave the extent %v after one that ends at %d", m.Range, off)
			}
			all = append(all, m)
			off = uint64(m.End())
			if m.flags&fiemapLast != 0 {
				return all, nil
			}
		}
	}
}

// sameMap tells whether two maps of one file name the same places.
func sameMap(a, b []mapping) bool { return slices.Equal(a, b) }

// kind is what a map says about one byte of a file.
type kind int

const (
	zeros    kind = iota // a hole, or room that was never written to
	data                 // bytes at a known place
	doubtful             // no telling
)

// state is the kind of the byte at an offset, for data how far its place on the
// storage is from its place in the file, and where the next state may begin.
func state(m []mapping, at, end int64) (k kind, shift uint64, until int64) {
	if len(m) == 0 || m[0].Off >= end {
		return zeros, 0, end
	}
	e := m[0]
	switch {
	case e.Off > at:
		return zeros, 0, e.Off
	case e.flags&fiemapDoubtful != 0:
		k = doubtful
	case e.flags&fiemapUnwritten == 0:
		k, shift = data, e.physical-uint64(e.Off)
	}
	return k, shift, min(e.End(), end)
}

// differing gives the bytes of the first size that may differ between two files
// of one file system, both of which exist and nobody writes to: all but those
// that lie at the same place of the storage, and those that are zeros in both.
func differing(a, b []mapping, size int64) extent.Set {
	var out []extent.Range
	for at := int64(0); at < size; {
		for len(a) > 0 && a[0].End() <= at {
			a = a[1:]
		}
		for len(b) > 0 && b[0].End() <= at {
			b = b[1:]
		}
		ka, sa, ua := state(a, at, size)
		kb, sb, ub := state(b, at, size)
		until := min(ua, ub)
		if ka != kb || ka == doubtful || sa != sb {
			out = append(out, extent.Between(at, until))
		}
		at = until
	}
	return extent.Of(out...)
}
