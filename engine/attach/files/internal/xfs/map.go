package xfs

import "github.com/diskvault/diskvault/engine/attach/files/internal/node"

// extentWalk collects the extents of a fork.
type extentWalk struct {
	system *System
	inode  inode
	to     *node.Mapped
	next   uint64 // no extent may begin before this block of the file
	count  int
	read   int64 // bytes of nodes
}

// records takes extents of 16 bytes each.
func (w *extentWalk) records(b []byte) error {
	s := w.system
	for ; len(b) >= 16; b = b[16:] {
		hi, lo := be.Uint64(b), be.Uint64(b[8:])
		first, length := hi>>9&(1<<54-1), lo&(1<<21-1)
		if first < w.next || length == 0 || first > 1<<54-1-length {
			return node.Damagedf("the extents of inode %d are out of order", w.inode.number)
		}
		w.next = first + length
		if w.count++; w.count > node.MaxRuns {
			return node.Unsupportedf("inode %d is in more than %d pieces", w.inode.number, node.MaxRuns)
		}
		if hi>>63 != 0 {
			continue // room that was never written
		}
		if int64(first) > (1<<62)/s.blockSize {
			return node.Damagedf("inode %d has an extent too far behind", w.inode.number)
		}
		at, err := s.place((hi&0x1ff)<<43 | lo>>21)
		if err != nil {
			return err
		}
		if err := w.to.Add(node.Run{Off: int64(first) * s.blockSize, Length: int64(length) * s.blockSize, At: at}); err != nil {
			return err
		}
	}
	return nil
}

// root reads the root of a tree of extents, which lies in the inode.
func (w *extentWalk) root(b []byte) error {
	if len(b) < 4 {
		return node.Damagedf("inode %d has no room for its extents", w.inode.number)
	}
	level, n := int(be.Uint16(b)), int(be.Uint16(b[2:]))
	most := (len(b) - 4) / 16
	if level == 0 || level > 9 || n > most {
		return node.Damagedf("the tree of extents of inode %d is none", w.inode.number)
	}
	return w.children(b[4+8*most:4+8*most+8*n], level)
}

func (w *extentWalk) children(b []byte, level int) error {
	for ; len(b) > 0; b = b[8:] {
		if err := w.node(be.Uint64(b), level-1); err != nil {
			return err
		}
	}
	return nil
}

func (w *extentWalk) node(block uint64, level int) error {
	s := w.system
	at, err := s.place(block)
	if err != nil {
		return err
	}
	if w.read += s.blockSize; w.read > node.MaxTree {
		return node.Damagedf("the extents of inode %d take too much room", w.inode.number)
	}
	b, err := s.device.Bytes(at, s.blockSize)
	if err != nil {
		return err
	}
	head, magic := 24, "BMAP"
	if s.v5 {
		head, magic = 72, "BMA3"
	}
	n := int(be.Uint16(b[6:]))
	if string(b[:4]) != magic || int(be.Uint16(b[4:])) != level || n == 0 || n > (len(b)-head)/16 {
		return node.Damagedf("the tree of extents of inode %d is damaged", w.inode.number)
	}
	if s.v5 && (!summed(b, 64) || be.Uint64(b[56:]) != w.inode.number) {
		return node.Damagedf("the checksum of extents of inode %d is wrong", w.inode.number)
	}
	if level == 0 {
		return w.records(b[head : head+16*n])
	}
	most := (len(b) - head) / 16
	return w.children(b[head+8*most:head+8*most+8*n], level)
}
