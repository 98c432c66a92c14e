package files

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"unicode/utf16"

	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

var le = binary.LittleEndian

// partition is a row of a partition table.
type partition struct {
	number    int
	off, size int64
	name      string
}

// The limits of what is believed of a table.
const (
	maxPartitions = 512
	maxLogical    = 128
)

// partitions reads the partition table; kind is empty if there is none.
func partitions(d node.Device) (kind string, all []partition, err error) {
	if all, ok, err := gpt(d); ok || err != nil {
		return "gpt", all, err
	}
	if all, ok, err := mbr(d); ok || err != nil {
		return "mbr", all, err
	}
	return "", nil, nil
}

// gpt reads a table of GUIDs, or its copy at the end of the disk.
func gpt(d node.Device) ([]partition, bool, error) {
	for _, sector := range []int64{512, 4096} {
		for _, at := range []int64{sector, d.Size/sector*sector - sector} {
			if at < sector || at+sector > d.Size {
				continue
			}
			head, err := d.Bytes(at, sector)
			if err != nil {
				return nil, false, err
			}
			if all, ok, err := gptAt(d, head, sector); ok || err != nil {
				return all, ok, err
			}
		}
	}
	return nil, false, nil
}

func gptAt(d node.Device, head []byte, sector int64) ([]partition, bool, error) {
	if string(head[:8]) != "EFI PART" {
		return nil, false, nil
	}
	n := int64(le.Uint32(head[12:]))
	if n < 92 || n > int64(len(head)) {
		return nil, false, nil
	}
	sum := le.Uint32(head[16:])
	clear(head[16:20])
	start, count, size := le.Uint64(head[72:]), int64(le.Uint32(head[80:])), int64(le.Uint32(head[84:]))
	if crc32.ChecksumIEEE(head[:n]) != sum || size < 128 || size > 4096 || count > 4096 || start > uint64(d.Size/sector) {
		return nil, false, nil
	}
	rows, err := d.Bytes(int64(start)*sector, count*size)
	if errIsDamage(err) || err == nil && crc32.ChecksumIEEE(rows) != le.Uint32(head[88:]) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	var all []partition
	for i := int64(0); i < count && len(all) < maxPartitions; i++ {
		r := rows[i*size:]
		first, last := le.Uint64(r[32:]), le.Uint64(r[40:])
		if bytes.Equal(r[:16], make([]byte, 16)) || last < first || last >= uint64(d.Size/sector) {
			continue
		}
		units := make([]uint16, 0, 36)
		for b := r[56:128]; len(b) > 0 && le.Uint16(b) != 0; b = b[2:] {
			units = append(units, le.Uint16(b))
		}
		all = append(all, partition{int(i) + 1, int64(first) * sector, int64(last-first+1) * sector, string(utf16.Decode(units))})
	}
	return all, true, nil
}

// mbr reads the table in the first sector, with the chain of logical partitions.
func mbr(d node.Device) ([]partition, bool, error) {
	b, err := d.Bytes(0, min(512, d.Size))
	if err != nil || len(b) < 512 || b[510] != 0x55 || b[511] != 0xaa {
		return nil, false, err
	}
	var all []partition
	for i := range 4 {
		r := b[446+16*i:]
		first, count := int64(le.Uint32(r[8:])), int64(le.Uint32(r[12:]))
		if r[0]&0x7f != 0 {
			return nil, false, nil // not a table
		}
		if r[4] == 0 || first == 0 || count == 0 || first*512 >= d.Size {
			continue
		}
		if r[4] == 0x05 || r[4] == 0x0f || r[4] == 0x85 {
			more, err := logical(d, first)
			if err != nil {
				return nil, false, err
			}
			all = append(all, more...)
			continue
		}
		all = append(all, partition{number: i + 1, off: first * 512, size: min(count*512, d.Size-first*512)})
	}
	return all, len(all) > 0, nil
}

// logical follows the chain within an extended partition.
func logical(d node.Device, extended int64) (all []partition, err error) {
	seen := map[int64]bool{}
	for at := extended; at*512 < d.Size && !seen[at] && len(all) < maxLogical; {
		seen[at] = true
		b, err := d.Bytes(at*512, min(512, d.Size-at*512))
		if err != nil || len(b) < 512 || b[510] != 0x55 || b[511] != 0xaa {
			return all, err
		}
		first, count := at+int64(le.Uint32(b[446+8:])), int64(le.Uint32(b[446+12:]))
		if b[446+4] != 0 && count > 0 && first*512 < d.Size {
			all = append(all, partition{number: 5 + len(all), off: first * 512, size: min(count*512, d.Size-first*512)})
		}
		next := int64(le.Uint32(b[462+8:]))
		if next == 0 {
			break
		}
		at = extended + next
	}
	return all, nil
}

func (p partition) title() string { return fmt.Sprintf("p%d", p.number) }
