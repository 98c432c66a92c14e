package ntfs

import (
	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

// Types of attributes.
const (
	typeStandard   = 0x10
	typeList       = 0x20
	typeFileName   = 0x30
	typeData       = 0x80
	typeIndexRoot  = 0x90
	typeIndex      = 0xa0
	typeBitmap     = 0xb0
	typeReparse    = 0xc0
	typeEnd        = 0xffffffff
	maxListRecords = 1 << 16 // records that one file may spread over
)

// record is a file record, with its sectors mended.
type record struct {
	number uint64
	raw    []byte
	parts  []attribute
}

// attribute is one attribute of a record as it lies on the disk.
type attribute struct {
	raw []byte
}

func (a attribute) kind() uint32   { return le.Uint32(a.raw) }
func (a attribute) resident() bool { return a.raw[8] == 0 }
func (a attribute) flags() uint16  { return le.Uint16(a.raw[12:]) }
func (a attribute) name() string {
	at := int(le.Uint16(a.raw[10:]))
	return text(a.raw[at : at+2*int(a.raw[9])])
}

// value of a resident attribute; of others nothing.
func (a attribute) value() []byte {
	if !a.resident() {
		return nil
	}
	at, n := int(le.Uint16(a.raw[20:])), int(le.Uint32(a.raw[16:]))
	return a.raw[at : at+n]
}

// check holds that what the other methods read is there.
func (a attribute) check() bool {
	if len(a.raw) < 24 || int(le.Uint16(a.raw[10:]))+2*int(a.raw[9]) > len(a.raw) {
		return false
	}
	if a.resident() {
		return uint64(le.Uint16(a.raw[20:]))+uint64(le.Uint32(a.raw[16:])) <= uint64(len(a.raw))
	}
	return len(a.raw) >= 64 && int(le.Uint16(a.raw[32:])) <= len(a.raw)
}

// stride is how often the last two bytes of a record are guarded, whatever the
// size of the sectors is.
const stride = 512

// mend puts the last two bytes of each sector back in place, which tell
// whether all sectors are of one write.
func mend(b []byte) error {
	at, n := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	if at+2*n > len(b) || (n-1)*stride != len(b) {
		return node.Damagedf("a record has a wrong sequence of sectors")
	}
	for i := 1; i < n; i++ {
		end := i*stride - 2
		if b[end] != b[at] || b[end+1] != b[at+1] {
			return node.Damagedf("a record was half written")
		}
		b[end], b[end+1] = b[at+2*i], b[at+2*i+1]
	}
	return nil
}

// read reads a record that is in use.
func (s *System) read(number uint64) (*record, error) {
	if number >= uint64(s.table.Length/s.record) {
		return nil, node.Damagedf("there is no file %d", number)
	}
	b := make([]byte, s.record)
	if n, err := s.table.ReadAt(b, int64(number)*s.record); n < len(b) {
		return nil, err
	}
	const inUse = 0x1
	if string(b[:4]) != "FILE" || le.Uint16(b[22:])&inUse == 0 {
		return nil, node.Damagedf("file %d is not in use", number)
	}
	if err := mend(b); err != nil {
		return nil, err
	}
	r := &record{number: number, raw: b}
	end := int64(le.Uint32(b[24:]))
	if end > int64(len(b)) {
		return nil, node.Damagedf("file %d is longer than its record", number)
	}
	for rest := b[min(int64(le.Uint16(b[20:])), end):end]; len(rest) >= 4 && le.Uint32(rest) != typeEnd; {
		if len(rest) < 24 {
			return nil, node.Damagedf("file %d has an attribute of a wrong length", number)
		}
		n := int64(le.Uint32(rest[4:]))
		if n < 24 || n > int64(len(rest)) {
			return nil, node.Damagedf("file %d has an attribute of a wrong length", number)
		}
		a := attribute{rest[:n]}
		if !a.check() {
			return nil, node.Damagedf("file %d has an attribute that leads out of it", number)
		}
		r.parts = append(r.parts, a)
		rest = rest[n:]
	}
	return r, nil
}

func (r *record) folder() bool { return le.Uint16(r.raw[22:])&0x2 != 0 }

// base is the record that this one belongs to; 0: it is one itself.
func (r *record) base() uint64 { return le.Uint64(r.raw[32:]) & (1<<48 - 1) }

// own finds an attribute in the record itself.
func (r *record) own(kind uint32, name string) (attribute, bool) {
	for _, a := range r.parts {
		if a.kind() == kind && a.name() == name {
			return a, true
		}
	}
	return attribute{}, false
}

// file reads a record that is a file, with all attributes, wherever they lie.
func (s *System) file(number uint64) (*record, error) {
	r, err := s.read(number)
	if err != nil {
		return nil, err
	}
	if r.base() != 0 {
		return nil, node.Damagedf("%d is only a part of a file", number)
	}
	r.parts, err = s.attributes(r)
	return r, err
}

// attributes gives those of a record and of the records that its list names.
func (s *System) attributes(r *record) ([]attribute, error) {
	var list attribute
	found := false
	for _, a := range r.parts {
		if a.kind() == typeList {
			list, found = a, true
		}
	}
	if !found {
		return r.parts, nil
	}
	c, err := s.stream([]attribute{list}, typeList, list.name())
	if err != nil {
		return nil, err
	}
	b, err := node.All(c, 256<<10)
	if err != nil {
		return nil, err
	}
	all := append([]attribute(nil), r.parts...)
	seen := map[uint64]bool{r.number: true}
	for len(b) >= 26 {
		n := int(le.Uint16(b[4:]))
		if n < 26 || n > len(b) {
			return nil, node.Damagedf("file %d has a damaged list of attributes", r.number)
		}
		number := le.Uint64(b[16:]) & (1<<48 - 1)
		b = b[n:]
		if seen[number] {
			continue
		}
		seen[number] = true
		if len(seen) > maxListRecords {
			return nil, node.Damagedf("file %d is spread over too many records", r.number)
		}
		part, err := s.read(number)
		if err != nil {
			return nil, err
		}
		if part.base() != r.number {
			return nil, node.Damagedf("file %d has a part that belongs to another", r.number)
		}
		all = append(all, part.parts...)
	}
	return all, nil
}
