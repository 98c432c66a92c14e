package disk

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/diskvault/diskvault/disk/blockdev"
)

// headSize is how much of a source is read to know its identity: all labels
// looked for lie in it, up to that of btrfs at 64 KiB.
const headSize = 128 << 10

// FactKind is one sort of mark by which a disk can be told from another.
type FactKind string

const (
	GPTDisk        FactKind = "gpt-disk-guid"
	MBRSignature   FactKind = "mbr-signature"
	ExtUUID        FactKind = "ext-uuid"
	XFSUUID        FactKind = "xfs-uuid"
	BtrfsUUID      FactKind = "btrfs-uuid"
	SwapUUID       FactKind = "swap-uuid"
	LVMUUID        FactKind = "lvm-pv-uuid"
	RAIDUUID       FactKind = "md-array-uuid"
	LUKSUUID       FactKind = "luks-uuid"
	NTFSSerial     FactKind = "ntfs-serial"
	FATSerial      FactKind = "fat-serial"
	ExFATSerial    FactKind = "exfat-serial"
	DeviceSerial   FactKind = "device-serial"
	DeviceWWN      FactKind = "device-wwn"
	MapperUUID     FactKind = "mapper-uuid"
	PartitionGUID  FactKind = "partition-uuid"
	deviceLocation          = "device"
)

// Fact is one mark of a disk.
type Fact struct {
	Kind  FactKind `json:"kind"`
	Place string   `json:"place"` // the byte at which it stands, or "device" if the hardware tells it
	Value string   `json:"value"`
}

// Identity is what is known of which disk this is, in the order of search.
// An empty one is known by nothing and contradicts nothing.
type Identity []Fact

// Contradicts tells whether the two cannot be the same disk: both know a fact
// of the same kind at the same place, and it differs. The reason is a clause
// that names it.
func (old Identity) Contradicts(now Identity) (bool, string) {
	for _, o := range old {
		for _, n := range now {
			if o.Kind == n.Kind && o.Place == n.Place && o.Value != n.Value {
				return true, fmt.Sprintf("its %s was %s and is now %s", factNames[o.Kind], o.Value, n.Value)
			}
		}
	}
	return false, ""
}

// String names the facts, for a message.
func (id Identity) String() string {
	parts := make([]string, len(id))
	for i, f := range id {
		parts[i] = factNames[f.Kind] + " " + f.Value
	}
	return strings.Join(parts, ", ")
}

var factNames = map[FactKind]string{
	GPTDisk:       "GPT disk GUID",
	MBRSignature:  "MBR signature",
	ExtUUID:       "ext file system UUID",
	XFSUUID:       "XFS UUID",
	BtrfsUUID:     "btrfs UUID",
	SwapUUID:      "swap UUID",
	LVMUUID:       "LVM physical volume UUID",
	RAIDUUID:      "array UUID",
	LUKSUUID:      "LUKS UUID",
	NTFSSerial:    "NTFS serial number",
	FATSerial:     "FAT serial number",
	ExFATSerial:   "exFAT serial number",
	DeviceSerial:  "serial number",
	DeviceWWN:     "world wide name",
	MapperUUID:    "device mapper UUID",
	PartitionGUID: "partition UUID",
}

// identityOf reads the labels in the first bytes of a disk.
func identityOf(head []byte) Identity {
	var id Identity
	h := labels{head: head}
	for _, sector := range []int{512, 4096} {
		h.gpt(&id, sector)
	}
	h.bootSector(&id)
	h.luks(&id)
	h.ext(&id)
	h.xfs(&id)
	h.lvm(&id)
	h.raid(&id)
	h.swap(&id)
	h.btrfs(&id)
	return id
}

// labels finds labels in the head of a disk. What lies beyond its end reads as
// nothing, so that a disk of any size can be looked at.
type labels struct{ head []byte }

func (h labels) at(off, n int) []byte {
	if off+n > len(h.head) {
		return nil
	}
	return h.head[off : off+n]
}

func (h labels) is(off int, magic string) bool {
	return bytes.Equal(h.at(off, len(magic)), []byte(magic))
}

// add records a value unless it is all zero, which is how labels say "none".
func (id *Identity) add(kind FactKind, off int, value string, raw []byte) {
	if len(raw) == 0 || bytes.Count(raw, []byte{0}) == len(raw) {
		return
	}
	*id = append(*id, Fact{kind, fmt.Sprint(off), value})
}

func (h labels) uuid(id *Identity, kind FactKind, off int) {
	if b := h.at(off, 16); b != nil {
		id.add(kind, off, fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), b)
	}
}

// gpt reads the primary header, at the second sector; its checksum must hold,
// so that old remains are not taken for an identity.
func (h labels) gpt(id *Identity, sector int) {
	if !h.is(sector, "EFI PART") {
		return
	}
	size := h.at(sector+12, 4)
	if size == nil {
		return
	}
	n := int(binary.LittleEndian.Uint32(size))
	if n < 92 || n > 512 {
		return
	}
	header := h.at(sector, n)
	if header == nil {
		return
	}
	sum := binary.LittleEndian.Uint32(header[16:])
	blank := bytes.Clone(header)
	clear(blank[16:20])
	if crc32.ChecksumIEEE(blank) != sum {
		return
	}
	g := header[56:72] // the first three groups are little-endian
	le := binary.LittleEndian
	id.add(GPTDisk, sector+56, fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(g), le.Uint16(g[4:]), le.Uint16(g[6:]), g[8:10], g[10:]), g)
}

// bootSector reads what the first sector is: the boot sector of a file system
// or a master boot record. The bytes of one mean nothing in the other.
func (h labels) bootSector(id *Identity) {
	if !h.is(510, "\x55\xaa") {
		return
	}
	serial := func(kind FactKind, off, n int) {
		b := bytes.Clone(h.at(off, n))
		for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
			b[i], b[j] = b[j], b[i] // little-endian, written as people read it
		}
		id.add(kind, off, hex.EncodeToString(b), b)
	}
	switch {
	case h.is(3, "NTFS    "):
		serial(NTFSSerial, 0x48, 8)
	case h.is(3, "EXFAT   "):
		serial(ExFATSerial, 0x64, 4)
	case h.is(0x52, "FAT32   "):
		serial(FATSerial, 0x43, 4)
	case h.is(0x36, "FAT12   "), h.is(0x36, "FAT16   "), h.is(0x36, "FAT     "):
		serial(FATSerial, 0x27, 4)
	case h.partitionTable():
		serial(MBRSignature, 0x1B8, 4)
	}
}

// partitionTable tells whether the first sector holds a plausible partition
// table: at least one entry, each either empty or marked 00 or 80.
func (h labels) partitionTable() bool {
	used := 0
	for off := 0x1BE; off < 0x1FE; off += 16 {
		e := h.at(off, 16)
		if e[0] != 0 && e[0] != 0x80 {
			return false
		}
		if e[4] != 0 {
			used++
		}
	}
	return used > 0
}

func (h labels) luks(id *Identity) {
	if h.is(0, "LUKS\xba\xbe") {
		if b := h.at(168, 40); b != nil {
			id.add(LUKSUUID, 168, string(bytes.TrimRight(b, "\x00")), b)
		}
	}
}

func (h labels) ext(id *Identity) {
	if h.is(1024+0x38, "\x53\xef") {
		h.uuid(id, ExtUUID, 1024+0x68)
	}
}

func (h labels) xfs(id *Identity) {
	if h.is(0, "XFSB") {
		h.uuid(id, XFSUUID, 32)
	}
}

// lvm reads the label of a physical volume, in one of the first four sectors.
func (h labels) lvm(id *Identity) {
	for sector := 0; sector < 4; sector++ {
		off := sector * 512
		if !h.is(off, "LABELONE") || !h.is(off+24, "LVM2 001") {
			continue
		}
		data := int(binary.LittleEndian.Uint32(h.at(off+20, 4)))
		if data < 32 || data > 480 {
			return
		}
		if b := h.at(off+data, 32); b != nil {
			id.add(LVMUUID, off+data, string(b), b)
		}
		return
	}
}

// raid reads the label of a member of a Linux array (versions 1.1 and 1.2).
func (h labels) raid(id *Identity) {
	for _, off := range []int{0, 4096} {
		if h.is(off, "\xfc\x4e\x2b\xa9") {
			h.uuid(id, RAIDUUID, off+16)
		}
	}
}

// swap reads the header of a swap area; its mark ends the first page, the size
// of which depends on the machine.
func (h labels) swap(id *Identity) {
	for _, page := range []int{4 << 10, 8 << 10, 16 << 10, 64 << 10} {
		if h.is(page-10, "SWAPSPACE2") {
			h.uuid(id, SwapUUID, 1024+12)
			return
		}
	}
}

func (h labels) btrfs(id *Identity) {
	const super = 64 << 10
	if h.is(super+0x40, "_BHRfS_M") {
		h.uuid(id, BtrfsUUID, super+0x20)
	}
}

// hardwareIdentity is what the kernel tells of a device without reading it.
func hardwareIdentity(d blockdev.Device) Identity {
	var id Identity
	add := func(kind FactKind, value string) {
		if value = strings.TrimSpace(value); value != "" {
			id = append(id, Fact{kind, deviceLocation, value})
		}
	}
	first := func(at blockdev.Device, names ...string) string {
		for _, n := range names {
			if v := strings.TrimSpace(at.Attribute(n)); v != "" {
				return v
			}
		}
		return ""
	}
	whole := d.Whole()
	add(DeviceWWN, first(whole, "wwid", "device/wwid"))
	add(DeviceSerial, first(whole, "serial", "device/serial"))
	add(MapperUUID, first(whole, "dm/uuid", "md/uuid"))
	if d.IsPartition() {
		for line := range strings.Lines(d.Attribute("uevent")) {
			if v, ok := strings.CutPrefix(line, "PARTUUID="); ok {
				add(PartitionGUID, v)
			}
		}
	}
	return id
}
