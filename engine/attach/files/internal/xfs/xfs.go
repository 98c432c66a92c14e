// Package xfs reads XFS of versions 4 and 5. The log is not replayed; that it
// would have to be is said.
package xfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

// Magic begins the device.
const Magic = "XFSB"

// Features of version 5 that change how things lie on the disk.
const (
	fileType    = 0x1
	sparseNodes = 0x2
	metaUUID    = 0x4
	bigTime     = 0x8
	needsRepair = 0x10
	manyExtents = 0x20
	exchange    = 0x40
	parents     = 0x80

	knownIncompatible = fileType | sparseNodes | metaUUID | bigTime | needsRepair | manyExtents | exchange | parents
)

var be = binary.BigEndian

// System is an XFS file system.
type System struct {
	device    node.Device
	super     []byte
	v5        bool
	types     bool // entries of folders tell the kind
	blockSize int64
	dirSize   int64 // block of a folder
	groups    uint64
	perGroup  uint64 // blocks of a group
	groupLog  uint   // bits of a block number within its group
	inodeLog  uint   // bits of an inode number within its block
	inodeSize int64
}

// Open reads the superblock and looks at the log.
func Open(d node.Device) (*System, node.Facts, error) {
	b, err := d.Bytes(0, 512)
	if err != nil {
		return nil, node.Facts{}, err
	}
	s := &System{device: d, super: b}
	version := be.Uint16(b[100:]) & 0xf
	s.v5 = version == 5
	switch {
	case string(b[:4]) != Magic:
		return nil, node.Facts{}, node.Damagedf("there is no superblock")
	case version < 4 || version > 5:
		return nil, node.Facts{}, node.Unsupportedf("version %d", version)
	case !s.v5 && be.Uint16(b[100:])&0x2000 == 0:
		return nil, node.Facts{}, node.Unsupportedf("folders of version 1")
	}
	if s.v5 {
		incompat := be.Uint32(b[216:])
		if odd := incompat &^ knownIncompatible; odd != 0 {
			return nil, node.Facts{}, node.Unsupportedf("it uses features (%#x) that are not known", odd)
		}
		s.types = incompat&fileType != 0
		sector := int64(be.Uint16(b[102:]))
		if sector < 512 || sector > 32<<10 {
			return nil, node.Facts{}, node.Damagedf("its sectors would be %d bytes large", sector)
		}
		whole, err := d.Bytes(0, sector)
		if err != nil {
			return nil, node.Facts{}, err
		}
		if !summed(whole, 224) {
			return nil, node.Facts{}, node.Damagedf("the checksum of the superblock is wrong")
		}
	} else {
		s.types = be.Uint32(b[200:])&0x200 != 0
	}
	blockLog, dirLog := uint(b[120]), uint(b[192])
	s.inodeLog, s.groupLog = uint(b[123]), uint(b[124])
	s.groups, s.perGroup = uint64(be.Uint32(b[88:])), uint64(be.Uint32(b[84:]))
	s.inodeSize = int64(be.Uint16(b[104:]))
	if blockLog < 9 || blockLog > 16 || blockLog+dirLog > 16 || s.groupLog > 32 || s.inodeLog > 8 || s.perGroup == 0 || s.perGroup > 1<<s.groupLog ||
		s.inodeSize < 256 || s.inodeSize > 2048 || s.inodeSize<<s.inodeLog != 1<<blockLog || int64(be.Uint32(b[4:])) != 1<<blockLog {
		return nil, node.Facts{}, node.Damagedf("the superblock describes an impossible shape")
	}
	s.blockSize, s.dirSize = 1<<blockLog, 1<<(blockLog+dirLog)
	f := node.Facts{Kind: "xfs", Label: string(bytes.TrimRight(b[108:120], "\x00"))}
	u := b[32:48]
	f.UUID = fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
	clean, err := s.logIsClean()
	switch {
	case err != nil:
		f.Stale = "its log cannot be read (" + err.Error() + "): files that were changed shortly before the point can be old, missing or half written"
	case !clean:
		f.Stale = "it was in use: files that were changed shortly before the point can be old, missing or half written, since its log is not replayed"
	}
	return s, f, nil
}

// Root implements node.System.
func (s *System) Root() uint64 { return be.Uint64(s.super[56:]) }

// place finds a block of the file system on the device.
func (s *System) place(block uint64) (int64, error) {
	group, in := block>>s.groupLog, block&(1<<s.groupLog-1)
	if group >= s.groups || in >= s.perGroup {
		return 0, node.Damagedf("there is no block %d", block)
	}
	return int64(group*s.perGroup+in) * s.blockSize, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// summed verifies the checksum that lies at at.
func summed(b []byte, at int) bool {
	sum := crc32.Update(0, castagnoli, b[:at])
	sum = crc32.Update(sum, castagnoli, []byte{0, 0, 0, 0})
	sum = crc32.Update(sum, castagnoli, b[at+4:])
	return sum == binary.LittleEndian.Uint32(b[at:])
}
