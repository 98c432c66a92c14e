package ntfs

import (
	"errors"
	"sort"

	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

// Flags of attributes.
const (
	flagCompressed = 0x00ff
	flagEncrypted  = 0x4000
)

// errNoStream: a file has no attribute of this kind and name.
var errNoStream = errors.New("a file lacks an attribute")

// stream gives what the attribute of a kind and name holds, which can be in
// several pieces.
func (s *System) stream(all []attribute, kind uint32, name string) (node.Content, error) {
	var pieces []attribute
	for _, a := range all {
		if a.kind() != kind || a.name() != name {
			continue
		}
		if a.resident() {
			if a.flags()&flagEncrypted != 0 {
				return nil, node.Unsupportedf("it is encrypted by its file system")
			}
			return node.Inline(a.value()), nil
		}
		pieces = append(pieces, a)
	}
	if len(pieces) == 0 {
		return nil, errNoStream
	}
	sort.SliceStable(pieces, func(i, j int) bool { return le.Uint64(pieces[i].raw[16:]) < le.Uint64(pieces[j].raw[16:]) })
	first := pieces[0]
	if first.flags()&flagEncrypted != 0 {
		return nil, node.Unsupportedf("it is encrypted by its file system")
	}
	size, written := int64(le.Uint64(first.raw[48:])), int64(le.Uint64(first.raw[56:]))
	if size < 0 || written < 0 || size > 1<<60 {
		return nil, node.Damagedf("a file has an impossible size")
	}
	m := &node.Mapped{Device: s.device, Length: size}
	next := int64(0)
	var err error
	for _, p := range pieces {
		if int64(le.Uint64(p.raw[16:])) != next {
			return nil, node.Damagedf("a piece of a file is missing")
		}
		if next, err = s.runs(p, m, next); err != nil {
			return nil, err
		}
	}
	if next < (size+s.cluster-1)/s.cluster {
		return nil, node.Damagedf("a file is shorter than its size")
	}
	unit := le.Uint16(first.raw[34:])
	if first.flags()&flagCompressed != 0 && unit != 0 {
		if first.flags()&flagCompressed != 1 || unit != 4 || s.cluster > 4096 {
			return nil, node.Unsupportedf("it is compressed in an unknown way")
		}
		return &compressed{stored: m, unit: s.cluster << unit, written: min(written, size)}, nil
	}
	if written < size {
		cut(m, written)
	}
	return m, nil
}

// cut removes what lies behind the part that was ever written: there are zeros.
func cut(m *node.Mapped, written int64) {
	for n, r := range m.Runs {
		if r.Off >= written {
			m.Runs = m.Runs[:n]
			return
		}
		if r.Off+r.Length > written {
			m.Runs[n].Length = written - r.Off
			m.Runs = m.Runs[:n+1]
			return
		}
	}
}

// runs reads where the clusters of an attribute from number next on lie, and
// returns the number behind.
func (s *System) runs(a attribute, m *node.Mapped, next int64) (int64, error) {
	wrong := node.Damagedf("a file has a damaged list of clusters")
	b := a.raw[le.Uint16(a.raw[32:]):]
	at := int64(0)
	for count := 0; ; count++ {
		if len(b) == 0 || count > node.MaxRuns {
			return 0, wrong
		}
		head := b[0]
		if head == 0 {
			return next, nil
		}
		lengthLen, offsetLen := int(head&0xf), int(head>>4)
		b = b[1:]
		if lengthLen == 0 || lengthLen > 8 || offsetLen > 8 || lengthLen+offsetLen > len(b) {
			return 0, wrong
		}
		length, delta := number(b[:lengthLen]), number(b[lengthLen:lengthLen+offsetLen])
		b = b[lengthLen+offsetLen:]
		if length <= 0 || length > (1<<60)/s.cluster || next > (1<<60)/s.cluster {
			return 0, wrong
		}
		if offsetLen > 0 {
			at += delta
			if at < 0 || at > m.Device.Size/s.cluster {
				return 0, wrong
			}
			if err := m.Add(node.Run{Off: next * s.cluster, Length: length * s.cluster, At: at * s.cluster}); err != nil {
				return 0, err
			}
		}
		next += length
	}
}

// number reads a signed number of some bytes.
func number(b []byte) (n int64) {
	for i := len(b) - 1; i >= 0; i-- {
		if i == len(b)-1 {
			n = int64(int8(b[i]))
			continue
		}
		n = n<<8 | int64(b[i])
	}
	return n
}
