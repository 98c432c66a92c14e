package ext

import (
	"time"

	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

// Flags of inodes.
const (
	flagCompressed = 0x4
	flagEncrypted  = 0x800
	flagExtents    = 0x80000
	flagInline     = 0x10000000
)

// inode is one inode as it lies on the disk.
type inode struct {
	number uint64
	raw    []byte
}

func (s *System) inode(number uint64) (inode, error) {
	if number == 0 || number > uint64(s.inodes) {
		return inode{}, node.Damagedf("there is no inode %d", number)
	}
	n := uint32(number - 1)
	table, err := s.inodeTable(n / s.perGroup)
	if err != nil {
		return inode{}, err
	}
	if table >= s.blocks {
		return inode{}, node.Damagedf("the inodes of group %d are behind the end", n/s.perGroup)
	}
	raw, err := s.device.Bytes(int64(table)*s.blockSize+int64(n%s.perGroup)*s.inodeSize, s.inodeSize)
	if err != nil {
		return inode{}, err
	}
	i := inode{number, raw}
	if s.sums && !s.intact(i) {
		return inode{}, node.Damagedf("the checksum of inode %d is wrong", number)
	}
	if i.u16(0) == 0 {
		return inode{}, node.Damagedf("inode %d is not in use", number)
	}
	return i, nil
}

func (i inode) u16(at int) uint16 { return le.Uint16(i.raw[at:]) }
func (i inode) u32(at int) uint32 { return le.Uint32(i.raw[at:]) }
func (i inode) flags() uint32     { return i.u32(0x20) }
func (i inode) kind() node.Kind   { return node.KindOf(uint32(i.u16(0))) }

// size in bytes; damage shows as a negative one.
func (i inode) size() int64 {
	n := uint64(i.u32(4))
	if k := i.kind(); k == node.Regular || k == node.Directory || k == node.Unknown {
		n |= uint64(i.u32(0x6c)) << 32
	}
	return int64(n)
}

// extra is the part behind the first 128 bytes that is in use.
func (i inode) extra() int {
	if len(i.raw) <= 128 {
		return 0
	}
	return min(int(i.u16(0x80)), len(i.raw)-128)
}

// seed is what the checksums of the inode's blocks begin with.
func (s *System) inodeSeed(i inode) uint32 {
	var b [4]byte
	le.PutUint32(b[:], uint32(i.number))
	return crc32c(crc32c(s.seed, b[:]), i.raw[0x64:0x68])
}

func (s *System) intact(i inode) bool {
	b := append([]byte(nil), i.raw...)
	want := uint32(i.u16(0x7c))
	b[0x7c], b[0x7d] = 0, 0
	mask := uint32(0xffff)
	if i.extra() >= 4 {
		want |= uint32(i.u16(0x82)) << 16
		b[0x82], b[0x83] = 0, 0
		mask = ^uint32(0)
	}
	return crc32c(s.inodeSeed(i), b)&mask == want
}

// when reads a time, whose nanoseconds and upper bits lie at extra.
func (i inode) when(at, extra int) time.Time {
	sec, nsec := int64(int32(i.u32(at))), int64(0)
	if extra+4 <= 128+i.extra() {
		e := i.u32(extra)
		sec += int64(e&3) << 32
		nsec = int64(e >> 2)
	}
	return time.Unix(sec, nsec).UTC()
}

// Attr implements node.System.
func (s *System) Attr(number uint64) (node.Attr, error) {
	i, err := s.inode(number)
	if err != nil {
		return node.Attr{}, err
	}
	a := node.Attr{
		Ino: number, Kind: i.kind(), Mode: uint32(i.u16(0)) & 0o7777, Links: uint32(i.u16(0x1a)), Size: i.size(),
		UID: uint32(i.u16(2)) | uint32(i.u16(0x78))<<16, GID: uint32(i.u16(0x18)) | uint32(i.u16(0x7a))<<16,
		Allocated: int64(i.u32(0x1c)) * 512,
		Accessed:  i.when(8, 0x8c), Changed: i.when(0xc, 0x84), Modified: i.when(0x10, 0x88),
	}
	if i.extra() >= 0x18 {
		a.Created = i.when(0x90, 0x94)
	}
	switch a.Kind {
	case node.Unknown:
		return a, node.Damagedf("inode %d is of no known kind", number)
	case node.CharDevice, node.BlockDevice:
		a.Size = 0
		if old := i.u32(0x28); old != 0 {
			a.DeviceMajor, a.DeviceMinor = old>>8&0xff, old&0xff
		} else {
			d := i.u32(0x2c)
			a.DeviceMajor, a.DeviceMinor = d>>8&0xfff, d&0xff|d>>12&0xfff00
		}
	}
	if a.Size < 0 {
		return a, node.Damagedf("inode %d is too large", number)
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
	return s.content(i)
}

// content of an inode of any kind.
func (s *System) content(i inode) (node.Content, error) {
	switch {
	case i.flags()&flagEncrypted != 0:
		return nil, node.Unsupportedf("inode %d is encrypted by its file system", i.number)
	case i.flags()&flagCompressed != 0 && s.incompat&compression != 0:
		return nil, node.Unsupportedf("inode %d is compressed", i.number)
	case i.size() < 0:
		return nil, node.Damagedf("inode %d is too large", i.number)
	case i.flags()&flagInline != 0:
		return s.inline(i)
	}
	m := &node.Mapped{Device: s.device, Length: i.size()}
	if i.flags()&flagExtents != 0 {
		w := extentWalk{system: s, inode: i, to: m}
		return m, w.node(i.raw[0x28:0x64], -1, false)
	}
	w := mapWalk{system: s, to: m, left: (m.Length + s.blockSize - 1) / s.blockSize}
	return m, w.file(i)
}

// inline content lies in the inode: the first 60 bytes in place of the block
// numbers, the rest in an attribute.
func (s *System) inline(i inode) (node.Content, error) {
	size := i.size()
	if size <= 60 {
		return node.Inline(i.raw[0x28 : 0x28+size]), nil
	}
	rest, err := s.systemData(i)
	if err != nil {
		return nil, err
	}
	all := append(append([]byte(nil), i.raw[0x28:0x64]...), rest...)
	if size > int64(len(all)) {
		return nil, node.Damagedf("inode %d holds less than its size", i.number)
	}
	return node.Inline(all[:size]), nil
}

// Link implements node.System.
func (s *System) Link(number uint64) (string, error) {
	i, err := s.inode(number)
	if err != nil {
		return "", err
	}
	if i.kind() != node.Symlink {
		return "", node.Damagedf("inode %d is no symbolic link", number)
	}
	if i.size() < 60 && i.flags()&(flagExtents|flagInline|flagEncrypted) == 0 {
		return string(i.raw[0x28 : 0x28+i.size()]), nil
	}
	c, err := s.content(i)
	if err != nil {
		return "", err
	}
	b, err := node.All(c, node.MaxLink)
	return string(b), err
}
