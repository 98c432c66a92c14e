package fat

import (
	"errors"
	"io"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

// Attributes of entries.
const (
	attrReadOnly = 0x01
	attrVolume   = 0x08
	attrFolder   = 0x10
	attrLong     = 0x0f
)

// entry is a short entry as it lies on the disk.
type entry []byte

func (e entry) cluster() uint32   { return uint32(le.Uint16(e[20:]))<<16 | uint32(le.Uint16(e[26:])) }
func (e entry) has(bit byte) bool { return e[11]&bit != 0 }

// first is where the content begins; the upper half is something else before FAT32.
func (s *System) first(e entry) uint32 {
	if s.bits < 32 {
		return e.cluster() & 0xffff
	}
	return e.cluster()
}

func (e entry) kind() node.Kind {
	if e.has(attrFolder) {
		return node.Directory
	}
	return node.Regular
}

// entry reads the entry that a number stands for.
func (s *System) entry(number uint64) (entry, error) {
	if number > uint64(s.device.Size/entrySize) || int64(number)*entrySize < s.root {
		return nil, node.Damagedf("there is no file %d", number)
	}
	b, err := s.device.Bytes(int64(number)*entrySize, entrySize)
	if err != nil {
		return nil, err
	}
	if b[0] == 0 || b[0] == 0xe5 || b[11]&0x3f == attrLong || b[11]&attrVolume != 0 {
		return nil, node.Damagedf("there is no file %d", number)
	}
	return b, nil
}

// Attr implements node.System.
func (s *System) Attr(number uint64) (node.Attr, error) {
	if number == rootNumber {
		return node.Attr{Ino: number, Kind: node.Directory, Mode: 0o755, Links: 1}, nil
	}
	e, err := s.entry(number)
	if err != nil {
		return node.Attr{}, err
	}
	a := node.Attr{
		Ino: number, Kind: e.kind(), Mode: 0o644, Links: 1,
		Modified: when(le.Uint16(e[24:]), le.Uint16(e[22:]), 0),
		Accessed: when(le.Uint16(e[18:]), 0, 0),
		Created:  when(le.Uint16(e[16:]), le.Uint16(e[14:]), e[13]),
	}
	a.Changed = a.Modified
	if a.Kind == node.Directory {
		a.Mode = 0o755
	} else {
		a.Size = int64(le.Uint32(e[28:]))
		a.Allocated = (a.Size + s.cluster - 1) / s.cluster * s.cluster
	}
	if e.has(attrReadOnly) {
		a.Mode &^= 0o222
	}
	return a, nil
}

// when reads a time. FAT keeps local times of a zone that it does not tell:
// they are given as UTC. hundredths are of up to two seconds.
func when(date, clock uint16, hundredths byte) time.Time {
	if date == 0 {
		return time.Time{}
	}
	return time.Date(1980+int(date>>9), time.Month(date>>5&0xf), int(date&0x1f),
		int(clock>>11), int(clock>>5&0x3f), int(clock&0x1f)*2, int(hundredths)*1e7, time.UTC)
}

// Content implements node.System.
func (s *System) Content(number uint64) (node.Content, error) {
	e, err := s.entry(number)
	if err != nil {
		return nil, err
	}
	if e.kind() != node.Regular {
		return nil, node.Damagedf("file %d is a folder", number)
	}
	return s.chain(s.first(e), int64(le.Uint32(e[28:])))
}

// Link implements node.System: FAT has no symbolic links.
func (s *System) Link(number uint64) (string, error) {
	return "", node.Damagedf("file %d is no symbolic link", number)
}

// Xattrs implements node.System: FAT has none.
func (s *System) Xattrs(uint64) (map[string][]byte, error) { return nil, nil }

// List implements node.System.
func (s *System) List(number uint64, each func(node.Entry) error) error {
	var m *node.Mapped
	var err error
	switch {
	case number != rootNumber:
		var e entry
		if e, err = s.entry(number); err != nil {
			return err
		}
		if e.kind() != node.Directory {
			return node.Damagedf("file %d is no folder", number)
		}
		m, err = s.chain(s.first(e), -1)
	case s.bits == 32:
		m, err = s.chain(s.rootAt, -1)
	default:
		m = &node.Mapped{Device: s.device, Length: s.rootLen}
		if s.rootLen > 0 {
			err = m.Add(node.Run{Length: s.rootLen, At: s.root})
		}
	}
	if err != nil {
		return err
	}
	var long longName
	b := make([]byte, 64<<10)
	for off := int64(0); off < m.Length; off += int64(len(b)) {
		n, err := m.ReadAt(b, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for at := 0; at+entrySize <= n; at += entrySize {
			e := entry(b[at : at+entrySize])
			switch {
			case e[0] == 0:
				return nil
			case e[0] == 0xe5:
				long = longName{}
				continue
			case e[11]&0x3f == attrLong:
				long.add(e)
				continue
			case e.has(attrVolume):
				long = longName{}
				continue
			}
			name := long.of(e)
			long = longName{}
			if name == "" {
				name = shortName(e)
			}
			if name == "." || name == ".." {
				continue
			}
			where := off + int64(at)
			r := m.Runs[m.At(where)]
			if err := each(node.Entry{Name: name, Ino: uint64(r.At+where-r.Off) / entrySize, Kind: e.kind()}); err != nil {
				return err
			}
		}
	}
	return nil
}

// longName gathers the entries before a short one that hold its long name.
type longName struct {
	units []uint16 // from the end of the name
	next  byte     // number of the piece that must follow
	sum   byte     // of the short name
}

func (l *longName) add(e entry) {
	number := e[0]
	if number&0x40 != 0 {
		*l = longName{next: number & 0x3f, sum: e[13]}
	}
	if l.next == 0 || number&0x3f != l.next || e[13] != l.sum || l.next > 20 {
		*l = longName{}
		return
	}
	piece := make([]uint16, 0, 13)
	for _, part := range [][]byte{e[1:11], e[14:26], e[28:32]} {
		for ; len(part) > 0; part = part[2:] {
			piece = append(piece, le.Uint16(part))
		}
	}
	l.units = append(piece, l.units...)
	l.next--
}

// of gives the long name of a short entry; empty if what was gathered is not its.
func (l *longName) of(e entry) string {
	if l.next != 0 || len(l.units) == 0 {
		return ""
	}
	var sum byte
	for _, c := range e[:11] {
		sum = sum>>1 | sum<<7
		sum += c
	}
	if sum != l.sum {
		return ""
	}
	for n, u := range l.units {
		if u == 0 {
			return string(utf16.Decode(l.units[:n]))
		}
	}
	return string(utf16.Decode(l.units))
}

// upper are the characters from 0x80 on, of code page 437.
var upper = []rune("ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0")

func shortName(e entry) string {
	raw := append([]byte(nil), e[:11]...)
	if raw[0] == 0x05 {
		raw[0] = 0xe5
	}
	name, ext := text(raw[:8]), text(raw[8:])
	if e[12]&0x08 != 0 {
		name = strings.ToLower(name)
	}
	if e[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext != "" {
		name += "." + ext
	}
	return name
}

func text(b []byte) string {
	var t strings.Builder
	for _, c := range b {
		if c < 0x80 {
			t.WriteByte(c)
		} else {
			t.WriteRune(upper[c-0x80])
		}
	}
	return strings.TrimRight(t.String(), " ")
}
