// Package ext reads ext2, ext3 and ext4. A journal that was not written back
// is replayed in memory.
package ext

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

// Features that change how things lie on the disk.
const (
	hasJournal = 0x4 // compatible

	compression = 0x1 // incompatible
	fileType    = 0x2
	needsReplay = 0x4
	journalDev  = 0x8
	metaGroups  = 0x10
	extents     = 0x40
	wide        = 0x80
	multiMount  = 0x100
	flexGroups  = 0x200
	xattrInodes = 0x400
	ownSeed     = 0x2000
	largeDir    = 0x4000
	inlineData  = 0x8000
	encryption  = 0x10000
	caseFolding = 0x20000

	knownIncompatible = fileType | needsReplay | metaGroups | extents | wide | multiMount | flexGroups |
		xattrInodes | ownSeed | largeDir | inlineData | encryption | caseFolding

	metadataSums = 0x400 // read-only compatible
)

// Magic lies at MagicAt of the device.
const (
	Magic   = "\x53\xef"
	MagicAt = 1024 + 0x38
)

var le = binary.LittleEndian

// System is an ext file system.
type System struct {
	device      node.Device
	super       []byte
	blockSize   int64
	blocks      uint64
	inodes      uint32
	perGroup    uint32 // inodes of a group
	groupBlocks uint32
	firstBlock  uint32
	inodeSize   int64
	descSize    int64
	incompat    uint32
	sums        bool // metadata has checksums
	seed        uint32
}

// Open reads the superblock and, if need be, the journal.
func Open(d node.Device) (*System, node.Facts, error) {
	s, err := open(d)
	if err != nil {
		return nil, node.Facts{}, err
	}
	var stale string
	replayed := false
	if s.incompat&needsReplay != 0 {
		over, why, err := s.replay()
		switch {
		case err != nil:
			stale = "its journal cannot be replayed (" + err.Error() + "): files that were changed shortly before the point can be old or half written"
		case why != "":
			stale = why
		default:
			// The superblock and the descriptors of groups are in the journal, too.
			if s, err = open(node.Device{ReaderAt: over, Size: d.Size}); err != nil {
				return nil, node.Facts{}, err
			}
			replayed = true
		}
	}
	f := s.facts()
	f.Stale, f.Replayed = stale, replayed
	return s, f, nil
}

func open(d node.Device) (*System, error) {
	b, err := d.Bytes(1024, 1024)
	if err != nil {
		return nil, err
	}
	s := &System{device: d, super: b}
	if string(b[0x38:0x3a]) != Magic {
		return nil, node.Damagedf("there is no superblock")
	}
	s.incompat = le.Uint32(b[0x60:])
	if s.incompat&journalDev != 0 {
		return nil, node.Unsupportedf("it is the journal of another file system")
	}
	if odd := s.incompat &^ knownIncompatible; odd != 0 {
		return nil, node.Unsupportedf("it uses features (%#x) that are not known", odd)
	}
	log := le.Uint32(b[0x18:])
	if log > 6 {
		return nil, node.Damagedf("its blocks would be 2^%d KiB large", log)
	}
	s.blockSize = 1024 << log
	s.inodes, s.perGroup = le.Uint32(b), le.Uint32(b[0x28:])
	s.groupBlocks, s.firstBlock = le.Uint32(b[0x20:]), le.Uint32(b[0x14:])
	s.blocks = uint64(le.Uint32(b[4:]))
	s.inodeSize, s.descSize = 128, 32
	if le.Uint32(b[0x4c:]) > 0 {
		s.inodeSize = int64(le.Uint16(b[0x58:]))
	}
	if s.incompat&wide != 0 {
		s.blocks |= uint64(le.Uint32(b[0x150:])) << 32
		s.descSize = int64(le.Uint16(b[0xfe:]))
	}
	switch {
	case s.perGroup == 0 || s.groupBlocks == 0:
		return nil, node.Damagedf("its groups are empty")
	case s.inodeSize < 128 || s.inodeSize > s.blockSize || s.inodeSize&(s.inodeSize-1) != 0:
		return nil, node.Damagedf("its inodes would be %d bytes large", s.inodeSize)
	case s.descSize < 32 || s.descSize > s.blockSize || s.descSize&(s.descSize-1) != 0:
		return nil, node.Damagedf("its descriptors would be %d bytes large", s.descSize)
	}
	if le.Uint32(b[0x64:])&metadataSums != 0 {
		s.sums = true
		s.seed = crc32c(^uint32(0), b[0x68:0x78])
		if s.incompat&ownSeed != 0 {
			s.seed = le.Uint32(b[0x270:])
		}
		if crc32c(^uint32(0), b[:0x3fc]) != le.Uint32(b[0x3fc:]) {
			return nil, node.Damagedf("the checksum of the superblock is wrong")
		}
	}
	return s, nil
}

func (s *System) facts() node.Facts {
	f := node.Facts{Kind: "ext2", Label: string(bytes.TrimRight(s.super[0x78:0x88], "\x00"))}
	u := s.super[0x68:0x78]
	f.UUID = fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
	if le.Uint32(s.super[0x5c:])&hasJournal != 0 {
		f.Kind = "ext3"
	}
	if s.incompat&(extents|wide|flexGroups|inlineData) != 0 || le.Uint32(s.super[0x64:])&^uint32(7) != 0 {
		f.Kind = "ext4"
	}
	return f
}

// Root implements node.System.
func (s *System) Root() uint64 { return 2 }

// block reads one block.
func (s *System) block(n uint64) ([]byte, error) {
	if n >= s.blocks {
		return nil, node.Damagedf("block %d is behind the end", n)
	}
	return s.device.Bytes(int64(n)*s.blockSize, s.blockSize)
}

// inodeTable finds where the inodes of a group lie.
func (s *System) inodeTable(group uint32) (uint64, error) {
	each := uint32(s.blockSize / s.descSize)
	n := uint64(s.firstBlock) + 1 + uint64(group/each)
	if s.incompat&metaGroups != 0 && group/each >= le.Uint32(s.super[0x104:]) {
		first := group / each * each
		n = uint64(s.firstBlock) + uint64(first)*uint64(s.groupBlocks)
		if s.hasSuper(first) {
			n++
		}
	}
	if n >= s.blocks {
		return 0, node.Damagedf("the descriptor of group %d is behind the end", group)
	}
	d, err := s.device.Bytes(int64(n)*s.blockSize+int64(group%each)*s.descSize, s.descSize)
	if err != nil {
		return 0, err
	}
	table := uint64(le.Uint32(d[8:]))
	if s.descSize >= 64 {
		table |= uint64(le.Uint32(d[0x28:])) << 32
	}
	return table, nil
}

// hasSuper tells whether the group begins with a copy of the superblock.
func (s *System) hasSuper(group uint32) bool {
	const sparse, sparse2 = 0x1, 0x200
	if le.Uint32(s.super[0x5c:])&sparse2 != 0 {
		return group == 0 || group == le.Uint32(s.super[0x24c:]) || group == le.Uint32(s.super[0x250:])
	}
	if group <= 1 || le.Uint32(s.super[0x64:])&sparse == 0 {
		return true
	}
	for _, base := range []uint32{3, 5, 7} {
		n := base
		for n < group {
			n *= base
		}
		if n == group {
			return true
		}
	}
	return false
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c is the checksum as ext4 uses it: without the final inversion.
func crc32c(crc uint32, b []byte) uint32 { return ^crc32.Update(^crc, castagnoli, b) }
