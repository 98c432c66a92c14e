package xfs

import (
	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

// Flags of attributes.
const (
	attrLocal      = 0x01
	attrRoot       = 0x02
	attrSecure     = 0x04
	attrParent     = 0x08
	attrIncomplete = 0x80
)

// maxLeaves bounds the blocks of attributes of one file that are read.
const maxLeaves = 1 << 14

// xattrs are the attributes of one file.
type xattrs struct {
	system *System
	number uint64
	fork   *node.Mapped
	all    map[string][]byte
	read   int // bytes
}

// Xattrs implements node.System.
func (s *System) Xattrs(number uint64) (map[string][]byte, error) {
	i, err := s.inode(number)
	if err != nil {
		return nil, err
	}
	x := &xattrs{system: s, number: number, all: map[string][]byte{}}
	f, ok := i.attributes()
	if !ok || f.form == formExtents && f.pieces == 0 {
		return x.all, nil
	}
	if f.form == formLocal {
		return x.all, x.short(f.raw)
	}
	if x.fork, err = s.mapped(f, 1<<40); err != nil {
		return nil, err
	}
	return x.all, x.leaves()
}

func (x *xattrs) wrong() error {
	return node.Damagedf("the attributes of inode %d are damaged", x.number)
}

// add takes an attribute over under the name that Linux gives it.
func (x *xattrs) add(flags byte, name string, value []byte) error {
	if x.read += 64 + len(name) + len(value); x.read > node.MaxXattrs {
		return x.wrong()
	}
	switch {
	case flags&(attrIncomplete|attrParent) != 0:
		return nil
	case flags&attrSecure != 0:
		name = "security." + name
	case flags&attrRoot != 0:
		linux := map[string]string{"SGI_ACL_FILE": "system.posix_acl_access", "SGI_ACL_DEFAULT": "system.posix_acl_default"}[name]
		if linux == "" {
			name = "trusted." + name
			break
		}
		list, err := acl(value)
		if err != nil {
			return err
		}
		name, value = linux, list
	default:
		name = "user." + name
	}
	x.all[name] = value
	return nil
}

// short reads attributes that lie within the inode.
func (x *xattrs) short(b []byte) error {
	if len(b) < 4 || int(be.Uint16(b)) > len(b) {
		return x.wrong()
	}
	n := int(b[2])
	for b = b[4:be.Uint16(b)]; n > 0; n-- {
		if len(b) < 3 || 3+int(b[0])+int(b[1]) > len(b) {
			return x.wrong()
		}
		name, value := b[3:3+int(b[0])], b[3+int(b[0]):3+int(b[0])+int(b[1])]
		if err := x.add(b[2], string(name), value); err != nil {
			return err
		}
		b = b[3+len(name)+len(value):]
	}
	return nil
}

// block reads one block of the fork.
func (x *xattrs) block(n uint32) ([]byte, error) {
	off := int64(n) * x.system.blockSize
	if x.fork.At(off) < 0 {
		return nil, x.wrong()
	}
	b := make([]byte, x.system.blockSize)
	_, err := x.fork.ReadAt(b, off)
	return b, err
}

// leaves goes down to the first leaf and then from each to the next.
func (x *xattrs) leaves() error {
	v5, at := x.system.v5, uint32(0)
	down := true
	for n := 0; n < maxLeaves; n++ {
		b, err := x.block(at)
		if err != nil {
			return err
		}
		magic := be.Uint16(b[8:])
		if v5 && (!summed(b, 12) || be.Uint64(b[48:]) != x.number) {
			return node.Damagedf("the checksum of the attributes of inode %d is wrong", x.number)
		}
		switch {
		case down && (v5 && magic == 0x3ebe || !v5 && magic == 0xfebe):
			first := 16
			if v5 {
				first = 64
			}
			at = be.Uint32(b[first+4:])
			continue
		case v5 && magic == 0x3bee || !v5 && magic == 0xfbee:
			down = false
		default:
			return x.wrong()
		}
		if err := x.leaf(b); err != nil {
			return err
		}
		if at = be.Uint32(b); at == 0 {
			return nil
		}
	}
	return x.wrong()
}

func (x *xattrs) leaf(b []byte) error {
	head, count := 32, int(be.Uint16(b[12:]))
	if x.system.v5 {
		head, count = 80, int(be.Uint16(b[56:]))
	}
	if head+8*count > len(b) {
		return x.wrong()
	}
	for n := range count {
		e := b[head+8*n:]
		at, flags := int(be.Uint16(e[4:])), e[6]
		if at+9 > len(b) {
			return x.wrong()
		}
		p := b[at:]
		var name string
		var value []byte
		if flags&attrLocal != 0 {
			valueLen, nameLen := int(be.Uint16(p)), int(p[2])
			if 3+nameLen+valueLen > len(p) {
				return x.wrong()
			}
			name, value = string(p[3:3+nameLen]), p[3+nameLen:3+nameLen+valueLen]
		} else {
			length, nameLen := be.Uint32(p[4:]), int(p[8])
			if 9+nameLen > len(p) || length > node.MaxXattr {
				return x.wrong()
			}
			name = string(p[9 : 9+nameLen])
			if flags&attrIncomplete == 0 {
				var err error
				if value, err = x.remote(be.Uint32(p), int(length)); err != nil {
					return err
				}
			}
		}
		if err := x.add(flags, name, value); err != nil {
			return err
		}
	}
	return nil
}

// remote reads a value that lies in blocks of its own.
func (x *xattrs) remote(at uint32, length int) ([]byte, error) {
	var value []byte
	for ; len(value) < length; at++ {
		b, err := x.block(at)
		if err != nil {
			return nil, err
		}
		if x.system.v5 {
			if string(b[:4]) != "XARM" || !summed(b, 12) || be.Uint64(b[32:]) != x.number {
				return nil, node.Damagedf("the checksum of an attribute of inode %d is wrong", x.number)
			}
			b = b[56:]
		}
		value = append(value, b[:min(len(b), length-len(value))]...)
	}
	return value, nil
}

// acl changes a list from the form on the disk into that of Linux.
func acl(b []byte) ([]byte, error) {
	if len(b) < 4 || uint64(be.Uint32(b))*12+4 > uint64(len(b)) {
		return nil, node.Damagedf("a list of permissions is damaged")
	}
	var entries []node.ACLEntry
	n := be.Uint32(b)
	for b = b[4:]; n > 0; n, b = n-1, b[12:] {
		e := node.ACLEntry{Tag: uint16(be.Uint32(b)), ID: be.Uint32(b[4:]), Perm: be.Uint16(b[8:])}
		if e.Tag != 2 && e.Tag != 8 { // neither a user nor a group
			e.ID = node.NoID
		}
		entries = append(entries, e)
	}
	return node.ACL(entries), nil
}
