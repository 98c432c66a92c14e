package ext

import "github.com/diskvault/diskvault/engine/attach/files/internal/node"

// extentWalk collects the extents of a file.
type extentWalk struct {
	system *System
	inode  inode
	to     *node.Mapped
	next   int64 // no extent may begin before this block of the file
	count  int
	read   int64 // bytes of nodes
}

// node reads a node of the tree. above is the depth of its parent, -1 for the
// root, which lies in the inode and has no checksum.
func (w *extentWalk) node(b []byte, above int, summed bool) error {
	s := w.system
	entries, most, depth := int(le.Uint16(b[2:])), int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	switch {
	case le.Uint16(b) != 0xf30a || entries > most || 12+12*most > len(b):
		return node.Damagedf("inode %d has a node of extents that is none", w.inode.number)
	case depth > 5 || above >= 0 && (depth != above-1 || entries == 0):
		return node.Damagedf("the extents of inode %d go in circles", w.inode.number)
	}
	if summed && s.sums {
		tail := 12 + 12*most
		if tail+4 > len(b) || crc32c(s.inodeSeed(w.inode), b[:tail]) != le.Uint32(b[tail:]) {
			return node.Damagedf("the checksum of extents of inode %d is wrong", w.inode.number)
		}
	}
	for e := b[12 : 12+12*entries]; len(e) > 0; e = e[12:] {
		first := int64(le.Uint32(e))
		if first < w.next {
			return node.Damagedf("the extents of inode %d are out of order", w.inode.number)
		}
		if depth > 0 {
			if w.read += s.blockSize; w.read > node.MaxTree {
				return node.Damagedf("the extents of inode %d take too much room", w.inode.number)
			}
			child, err := s.block(uint64(le.Uint32(e[4:])) | uint64(le.Uint16(e[8:]))<<32)
			if err != nil {
				return err
			}
			if err := w.node(child, depth, true); err != nil {
				return err
			}
			continue
		}
		if w.count++; w.count > node.MaxRuns {
			return node.Unsupportedf("inode %d is in more than %d pieces", w.inode.number, node.MaxRuns)
		}
		length := int64(le.Uint16(e[4:]))
		unwritten := length > 1<<15
		if unwritten {
			length -= 1 << 15
		}
		at := int64(le.Uint16(e[6:]))<<32 | int64(le.Uint32(e[8:]))
		if length == 0 {
			return node.Damagedf("inode %d has an empty extent", w.inode.number)
		}
		w.next = first + length
		if unwritten {
			continue
		}
		if err := w.to.Add(node.Run{Off: first * s.blockSize, Length: length * s.blockSize, At: at * s.blockSize}); err != nil {
			return err
		}
	}
	return nil
}

// maxMap bounds the bytes of block numbers that are read for one file: enough
// for 4 TiB in blocks of 4 KiB.
const maxMap = 4 << 30

// mapWalk collects the blocks of a file without extents.
type mapWalk struct {
	system *System
	to     *node.Mapped
	at     int64 // block of the file
	left   int64 // blocks until its end
	read   int64 // bytes of block numbers
}

func (w *mapWalk) file(i inode) error {
	for n := range 15 {
		if err := w.branch(i.u32(0x28+4*n), max(0, n-11)); err != nil {
			return err
		}
	}
	return nil
}

// branch takes a block number, which at level 0 is that of data.
func (w *mapWalk) branch(n uint32, level int) error {
	s := w.system
	if w.left <= 0 {
		return nil
	}
	if n == 0 {
		span := int64(1)
		for range level {
			span *= s.blockSize / 4
		}
		w.at, w.left = w.at+span, w.left-span
		return nil
	}
	if level == 0 {
		err := w.to.Add(node.Run{Off: w.at * s.blockSize, Length: s.blockSize, At: int64(n) * s.blockSize})
		w.at, w.left = w.at+1, w.left-1
		return err
	}
	if w.read += s.blockSize; w.read > maxMap {
		return node.Unsupportedf("a file of so many blocks without extents")
	}
	b, err := s.block(uint64(n))
	if err != nil {
		return err
	}
	for ; len(b) > 0 && w.left > 0; b = b[4:] {
		if err := w.branch(le.Uint32(b), level-1); err != nil {
			return err
		}
	}
	return nil
}
