// Package fat reads FAT12, FAT16 and FAT32 with long names.
package fat

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

var le = binary.LittleEndian

// System is a FAT file system. Files have no numbers in FAT: theirs is the
// place of their entry on the device, in units of entries; that of the root
// folder is 1.
type System struct {
	device  node.Device
	cluster int64  // bytes
	table   []byte // the first copy
	bits    int    // 12, 16 or 32
	last    uint32 // the last cluster; the first is 2
	data    int64  // where cluster 2 begins
	root    int64  // where the root folder begins: FAT12 and FAT16
	rootLen int64
	rootAt  uint32 // cluster of the root folder: FAT32
}

const (
	rootNumber = 1
	entrySize  = 32
	maxFolder  = 65536 * entrySize // which FAT itself sets
)

// Probe tells whether the first sector is that of a FAT file system.
func Probe(b []byte) bool {
	if len(b) < 512 || b[510] != 0x55 || b[511] != 0xaa || b[0] != 0xeb && b[0] != 0xe9 {
		return false
	}
	sector, cluster, copies := le.Uint16(b[11:]), b[13], b[16]
	return sector >= 512 && sector <= 4096 && sector&(sector-1) == 0 && cluster != 0 && cluster&(cluster-1) == 0 &&
		copies >= 1 && copies <= 2 && le.Uint16(b[14:]) != 0 && b[21] >= 0xf0
}

// Open reads the file allocation table.
func Open(d node.Device) (*System, node.Facts, error) {
	b, err := d.Bytes(0, 512)
	if err != nil {
		return nil, node.Facts{}, err
	}
	if !Probe(b) {
		return nil, node.Facts{}, node.Damagedf("there is no boot sector")
	}
	sector := int64(le.Uint16(b[11:]))
	reserved, copies, rootEntries := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint16(b[17:]))
	tableLen, total := int64(le.Uint16(b[22:])), int64(le.Uint16(b[19:]))
	if tableLen == 0 {
		tableLen = int64(le.Uint32(b[36:]))
	}
	if total == 0 {
		total = int64(le.Uint32(b[32:]))
	}
	s := &System{device: d, cluster: sector * int64(b[13])}
	s.root = (reserved + copies*tableLen) * sector
	s.rootLen = rootEntries * entrySize
	s.data = s.root + (s.rootLen+sector-1)/sector*sector
	clusters := (total*sector - s.data) / s.cluster
	f := node.Facts{Kind: "vfat"}
	ext := 36 // where the label lies in the boot sector
	switch {
	case clusters <= 0:
		return nil, f, node.Damagedf("it has no room for files")
	case le.Uint16(b[22:]) == 0:
		s.bits, s.rootAt, ext = 32, le.Uint32(b[44:])&0x0fffffff, 64
		if le.Uint16(b[42:]) != 0 {
			return nil, f, node.Unsupportedf("FAT32 of version %d", le.Uint16(b[42:]))
		}
		if flags := le.Uint16(b[40:]); flags&0x80 != 0 && flags&0xf != 0 {
			return nil, f, node.Unsupportedf("its first table is not in use")
		}
	case clusters < 4085:
		s.bits = 12
	default:
		s.bits = 16
	}
	s.last = uint32(min(clusters, 0x0ffffff5)) + 1
	if s.table, err = d.Bytes(reserved*sector, min(tableLen*sector, (int64(s.last)+1)*int64(s.bits)/8+2)); err != nil {
		return nil, f, err
	}
	if int64(s.last) >= int64(len(s.table))*8/int64(s.bits) {
		return nil, f, node.Damagedf("its table is too short for its size")
	}
	if b[ext+2] == 0x29 {
		id := le.Uint32(b[ext+3:])
		f.UUID = fmt.Sprintf("%04X-%04X", id>>16, id&0xffff)
		if label := string(bytes.TrimRight(b[ext+7:ext+18], " \x00")); label != "NO NAME" {
			f.Label = label
		}
	}
	if s.bits > 12 && !s.clean() || b[ext+1]&1 != 0 {
		f.Stale = "it was in use: files that were being written can be incomplete"
	}
	return s, f, nil
}

// clean reads the note in the table that it was unmounted.
func (s *System) clean() bool {
	if s.bits == 32 {
		return le.Uint32(s.table[4:])&0x08000000 != 0
	}
	return le.Uint16(s.table[2:])&0x8000 != 0
}

// Root implements node.System.
func (s *System) Root() uint64 { return rootNumber }

// next reads the table. ok is false at the end of a chain.
func (s *System) next(n uint32) (next uint32, ok bool, err error) {
	var limit uint32
	switch s.bits {
	case 12:
		next, limit = uint32(le.Uint16(s.table[n+n/2:]))>>(4*(n&1))&0xfff, 0xff8
	case 16:
		next, limit = uint32(le.Uint16(s.table[2*n:])), 0xfff8
	default:
		next, limit = le.Uint32(s.table[4*n:])&0x0fffffff, 0x0ffffff8
	}
	if next >= limit {
		return 0, false, nil
	}
	if next < 2 || next > s.last {
		return 0, false, node.Damagedf("a chain of clusters leads to %d", next)
	}
	return next, true, nil
}

// chain finds where the clusters from first on lie. size is that of the file;
// of a folder, which has none, the chain says it.
func (s *System) chain(first uint32, size int64) (*node.Mapped, error) {
	m := &node.Mapped{Device: s.device, Length: max(size, 0)}
	if first == 0 && size <= 0 {
		return m, nil
	}
	if first < 2 || first > s.last {
		return nil, node.Damagedf("a file begins in cluster %d", first)
	}
	for n, at := first, int64(0); ; at += s.cluster {
		if at > int64(s.last)*s.cluster || size < 0 && at > maxFolder {
			return nil, node.Damagedf("a chain of clusters goes in circles")
		}
		if err := m.Add(node.Run{Off: at, Length: s.cluster, At: s.data + int64(n-2)*s.cluster}); err != nil {
			return nil, err
		}
		if size < 0 {
			m.Length = at + s.cluster
		} else if at+s.cluster >= size {
			return m, nil
		}
		next, ok, err := s.next(n)
		if err != nil {
			return nil, err
		}
		if !ok {
			if size >= 0 {
				return nil, node.Damagedf("a chain of clusters is shorter than its file")
			}
			return m, nil
		}
		n = next
	}
}
