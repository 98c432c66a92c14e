// Package ntfs reads NTFS. Its log is not replayed; that it would have to be
// is said. Owners and permissions, which are of another kind than those of
// Unix, are not read.
package ntfs

import (
	"encoding/binary"
	"fmt"
	"unicode/utf16"

	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

var le = binary.LittleEndian

// Magic lies at MagicAt of the device.
const (
	Magic   = "NTFS    "
	MagicAt = 3
)

// Records with a fixed number.
const (
	recordTable  = 0
	recordVolume = 3
	recordRoot   = 5
	firstUser    = 16 // those before belong to the file system
)

// System is an NTFS file system.
type System struct {
	device  node.Device
	sector  int64
	cluster int64
	record  int64 // bytes of a file record
	table   *node.Mapped
}

// Open finds the table of file records.
func Open(d node.Device) (*System, node.Facts, error) {
	f := node.Facts{Kind: "ntfs"}
	b, err := d.Bytes(0, 512)
	if err != nil {
		return nil, f, err
	}
	s := &System{device: d, sector: int64(le.Uint16(b[11:]))}
	if string(b[MagicAt:MagicAt+8]) != Magic || s.sector < 256 || s.sector > 4096 || s.sector&(s.sector-1) != 0 {
		return nil, f, node.Damagedf("there is no boot sector")
	}
	perCluster := int64(b[13])
	if b[13] > 0x80 {
		perCluster = 1 << min(-int8(b[13]), 20)
	}
	s.cluster = s.sector * perCluster
	s.record = sizeOf(b[64], s.cluster)
	if s.cluster == 0 || s.cluster > 2<<20 || s.cluster&(s.cluster-1) != 0 || s.record < 512 || s.record > 64<<10 || s.record&(s.record-1) != 0 {
		return nil, f, node.Damagedf("the boot sector describes an impossible shape")
	}
	f.UUID = fmt.Sprintf("%016X", le.Uint64(b[72:]))
	start := le.Uint64(b[48:])
	if start > uint64(d.Size/s.cluster) {
		return nil, f, node.Damagedf("the table of files lies behind the end")
	}
	// The first record tells where the table lies, itself included.
	s.table = &node.Mapped{Device: d, Length: s.record, Runs: []node.Run{{Length: s.record, At: int64(start) * s.cluster}}}
	if err := s.findTable(); err != nil {
		return nil, f, err
	}
	return s, f, s.volume(&f)
}

// sizeOf reads a size that is told in clusters, or as a power of two if negative.
func sizeOf(b byte, cluster int64) int64 {
	if n := int8(b); n < 0 {
		return 1 << min(-int(n), 40)
	}
	return int64(b) * cluster
}

// findTable finds all pieces of the table, the later of which are named by
// records in the earlier.
func (s *System) findTable() error {
	r, err := s.read(recordTable)
	if err != nil {
		return err
	}
	first, ok := r.own(typeData, "")
	if !ok || first.resident() {
		return node.Damagedf("the table of files has no content")
	}
	table := &node.Mapped{Device: s.device, Length: int64(le.Uint64(first.raw[48:]))}
	if _, err := s.runs(first, table, 0); err != nil {
		return err
	}
	s.table = table
	all, err := s.attributes(r)
	if err != nil {
		return err
	}
	c, err := s.stream(all, typeData, "")
	if err != nil {
		return err
	}
	if m, ok := c.(*node.Mapped); ok {
		s.table = m
		return nil
	}
	return node.Unsupportedf("its table of files is compressed")
}

// volume reads the label and whether it was in use.
func (s *System) volume(f *node.Facts) error {
	const typeName, typeInformation = 0x60, 0x70
	r, err := s.read(recordVolume)
	if err != nil {
		return err
	}
	if a, ok := r.own(typeName, ""); ok {
		f.Label = text(a.value())
	}
	a, ok := r.own(typeInformation, "")
	if !ok || len(a.value()) < 12 {
		return node.Damagedf("it does not tell its version")
	}
	v := a.value()
	if v[8] != 3 {
		return node.Unsupportedf("version %d.%d", v[8], v[9])
	}
	const dirty = 0x1
	if le.Uint16(v[10:])&dirty != 0 {
		f.Stale = "it was in use: files that were changed shortly before the point can be old or half written, since its log is not replayed"
		return nil
	}
	clean, err := s.logIsClean()
	if err != nil || !clean {
		f.Stale = "its log is not closed: files that were changed shortly before the point can be old or half written, since the log is not replayed"
	}
	return nil
}

// logIsClean reads the restart page of the log: closed by an unmount, or
// emptied.
func (s *System) logIsClean() (bool, error) {
	const recordLog, closed = 2, 0x2
	r, err := s.read(recordLog)
	if err != nil {
		return false, err
	}
	all, err := s.attributes(r)
	if err != nil {
		return false, err
	}
	c, err := s.stream(all, typeData, "")
	if err != nil {
		return false, err
	}
	newest, clean := uint64(0), false
	for page := range int64(2) {
		b := make([]byte, 4096)
		if n, err := c.ReadAt(b, page*4096); n < len(b) {
			return false, err
		}
		if page == 0 && string(b[:4]) == "\xff\xff\xff\xff" {
			return true, nil // emptied
		}
		at := int(le.Uint16(b[24:]))
		if string(b[:4]) != "RSTR" || mend(b) != nil || at+48 > len(b) {
			continue
		}
		if area := b[at:]; le.Uint64(area) >= newest {
			newest = le.Uint64(area)
			noClient := le.Uint16(area[12:]) == 0xffff
			clean = noClient || le.Uint16(area[14:])&closed != 0
		}
	}
	return clean, nil
}

// Root implements node.System.
func (s *System) Root() uint64 { return recordRoot }

// text reads a string of UTF-16.
func text(b []byte) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = le.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}
