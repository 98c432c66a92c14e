package xfs

import (
	"time"

	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

// Forms of what an inode holds.
const (
	formDevice  = 0
	formLocal   = 1
	formExtents = 2
	formTree    = 3
)

// Flags of inodes.
const (
	flagRealtime    = 0x1
	flagBigTime     = 1 << 3 // of version 3, as the next
	flagManyExtents = 1 << 4
)

type inode struct {
	number uint64
	raw    []byte
	core   int // bytes before what it holds
}

func (s *System) inode(number uint64) (inode, error) {
	place, err := s.place(number >> s.inodeLog)
	if err != nil {
		return inode{}, node.Damagedf("there is no inode %d", number)
	}
	raw, err := s.device.Bytes(place+int64(number&(1<<s.inodeLog-1))*s.inodeSize, s.inodeSize)
	if err != nil {
		return inode{}, err
	}
	i := inode{number, raw, 100}
	if i.u16(0) != 0x494e {
		return inode{}, node.Damagedf("inode %d is none", number)
	}
	switch version := raw[4]; {
	case s.v5 && version == 3:
		i.core = 176
		if !summed(raw, 100) {
			return inode{}, node.Damagedf("the checksum of inode %d is wrong", number)
		}
		if i.u64(152) != number {
			return inode{}, node.Damagedf("inode %d says that it is %d", number, i.u64(152))
		}
	case s.v5 || version != 1 && version != 2:
		return inode{}, node.Damagedf("inode %d is of version %d", number, version)
	}
	if i.u16(2) == 0 {
		return inode{}, node.Damagedf("inode %d is not in use", number)
	}
	if off := i.core + int(raw[82])*8; off > len(raw) {
		return inode{}, node.Damagedf("inode %d has attributes behind its end", number)
	}
	return i, nil
}

func (i inode) u16(at int) uint16 { return be.Uint16(i.raw[at:]) }
func (i inode) u32(at int) uint32 { return be.Uint32(i.raw[at:]) }
func (i inode) u64(at int) uint64 { return be.Uint64(i.raw[at:]) }

func (i inode) kind() node.Kind { return node.KindOf(uint32(i.u16(2))) }
func (i inode) size() int64     { return int64(i.u64(56)) }

// flags2 are those of version 3.
func (i inode) flags2() uint64 {
	if i.core < 176 {
		return 0
	}
	return i.u64(120)
}

// fork is a part of an inode: what the file holds, or its attributes.
type fork struct {
	inode  inode
	form   byte
	raw    []byte
	pieces uint64 // number of extents
}

func (i inode) data() fork {
	f := fork{i, i.raw[5], i.raw[i.core:], uint64(i.u32(76))}
	if i.flags2()&flagManyExtents != 0 {
		f.pieces = i.u64(24)
	}
	if off := int(i.raw[82]) * 8; off > 0 {
		f.raw = f.raw[:off]
	}
	return f
}

// attributes is the other fork; ok is false if there is none.
func (i inode) attributes() (f fork, ok bool) {
	off := int(i.raw[82]) * 8
	if off == 0 {
		return f, false
	}
	f = fork{i, i.raw[83], i.raw[i.core+off:], uint64(i.u16(80))}
	if i.flags2()&flagManyExtents != 0 {
		f.pieces = uint64(i.u32(76))
	}
	return f, true
}

func (i inode) when(at int) time.Time {
	if i.flags2()&flagBigTime != 0 {
		n := i.u64(at)
		return time.Unix(int64(n/1e9)-1<<31, int64(n%1e9)).UTC()
	}
	return time.Unix(int64(int32(i.u32(at))), int64(i.u32(at+4))).UTC()
}

// Attr implements node.System.
func (s *System) Attr(number uint64) (node.Attr, error) {
	i, err := s.inode(number)
	if err != nil {
		return node.Attr{}, err
	}
	a := node.Attr{
		Ino: number, Kind: i.kind(), Mode: uint32(i.u16(2)) & 0o7777, UID: i.u32(8), GID: i.u32(12), Links: i.u32(16),
		Size: i.size(), Allocated: int64(i.u64(64)) * s.blockSize,
		Accessed: i.when(32), Modified: i.when(40), Changed: i.when(48),
	}
	if i.raw[4] == 1 {
		a.Links = uint32(i.u16(6))
	}
	if i.core == 176 {
		a.Created = i.when(144)
	}
	switch {
	case a.Kind == node.Unknown:
		return a, node.Damagedf("inode %d is of no known kind", number)
	case a.Size < 0:
		return a, node.Damagedf("inode %d is too large", number)
	case (a.Kind == node.CharDevice || a.Kind == node.BlockDevice) && len(i.data().raw) >= 4:
		d := be.Uint32(i.data().raw)
		a.DeviceMajor, a.DeviceMinor = d>>18&0x3fff, d&0x3ffff
	}
	return a, nil
}

// Content implements node.System.
func (s *System) Content(number uint64) (node.Content, error) {
	i, err := s.inode(number)
	if err != nil {
		return nil, err
	}
	if i.kind() != node.Regular {
		return nil, node.Damagedf("inode %d is no file", number)
	}
	return s.mapped(i.data(), i.size())
}

// mapped finds where what a fork holds lies on the device.
func (s *System) mapped(f fork, size int64) (*node.Mapped, error) {
	i := f.inode
	switch {
	case size < 0:
		return nil, node.Damagedf("inode %d is too large", i.number)
	case i.u16(90)&flagRealtime != 0 && i.kind() == node.Regular:
		return nil, node.Unsupportedf("inode %d lies on the realtime device", i.number)
	}
	w := extentWalk{system: s, inode: i, to: &node.Mapped{Device: s.device, Length: size}}
	var err error
	switch f.form {
	case formExtents:
		if f.pieces*16 > uint64(len(f.raw)) {
			return nil, node.Damagedf("inode %d has more extents than room for them", i.number)
		}
		err = w.records(f.raw[:f.pieces*16])
	case formTree:
		err = w.root(f.raw)
	default:
		err = node.Damagedf("inode %d has content of the unknown form %d", i.number, f.form)
	}
	return w.to, err
}

// Link implements node.System.
func (s *System) Link(number uint64) (string, error) {
	i, err := s.inode(number)
	if err != nil {
		return "", err
	}
	f := i.data()
	if i.kind() != node.Symlink || i.size() < 0 || i.size() > 1024 {
		return "", node.Damagedf("inode %d is no symbolic link", number)
	}
	if f.form == formLocal {
		if i.size() > int64(len(f.raw)) {
			return "", node.Damagedf("inode %d holds less than its size", number)
		}
		return string(f.raw[:i.size()]), nil
	}
	head := int64(0)
	if s.v5 {
		head = 56 // of each block
	}
	var text []byte
	m, err := s.mapped(f, 4*s.blockSize)
	for off := int64(0); err == nil && int64(len(text)) < i.size(); off += s.blockSize {
		if m.At(off) < 0 {
			return "", node.Damagedf("inode %d holds less than its size", number)
		}
		b := make([]byte, s.blockSize)
		if _, err = m.ReadAt(b, off); err != nil {
			break
		}
		if s.v5 && (string(b[:4]) != "XSLM" || !summed(b, 12)) {
			return "", node.Damagedf("the checksum of the symbolic link %d is wrong", number)
		}
		text = append(text, b[head:min(int64(len(b)), head+i.size()-int64(len(text)))]...)
	}
	return string(text), err
}
