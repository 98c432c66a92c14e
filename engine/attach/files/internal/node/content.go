package node

import (
	"errors"
	"io"
	"sort"
)

// Content is the bytes of a file. It is safe for concurrent use.
type Content interface {
	io.ReaderAt
	Size() int64
	// NextData gives the first stretch at or behind off that is not a hole;
	// start equals Size if there is none.
	NextData(off int64) (start, end int64)
}

// Run is a stretch of a file that lies together on the device. What no run
// covers is zeros.
type Run struct {
	Off, Length int64 // of the file, in bytes
	At          int64 // of the device
}

// Mapped is content that lies on a device in runs.
type Mapped struct {
	Device Device
	Length int64
	Runs   []Run // by offset; they do not overlap
}

// Add appends a run behind the others; a neighbour grows instead.
func (m *Mapped) Add(r Run) error {
	if n := len(m.Runs); n > 0 {
		last := &m.Runs[n-1]
		if r.Off < last.Off+last.Length {
			return Damagedf("two extents of a file overlap")
		}
		if r.Off == last.Off+last.Length && r.At == last.At+last.Length {
			last.Length += r.Length
			return nil
		}
	}
	if r.Off < 0 || r.Length <= 0 || r.At < 0 || r.At > m.Device.Size || r.Length > m.Device.Size-r.At {
		return Damagedf("an extent of a file lies outside of the device")
	}
	if len(m.Runs) >= MaxRuns {
		return Unsupportedf("a file in more than %d pieces", MaxRuns)
	}
	m.Runs = append(m.Runs, r)
	return nil
}

// Size implements Content.
func (m *Mapped) Size() int64 { return m.Length }

// from is the number of the first run that ends behind off.
func (m *Mapped) from(off int64) int {
	return sort.Search(len(m.Runs), func(i int) bool { return m.Runs[i].Off+m.Runs[i].Length > off })
}

// NextData implements Content.
func (m *Mapped) NextData(off int64) (start, end int64) {
	i := m.from(off)
	if i == len(m.Runs) || m.Runs[i].Off >= m.Length {
		return m.Length, m.Length
	}
	start, end = max(off, m.Runs[i].Off), m.Runs[i].Off+m.Runs[i].Length
	for i++; i < len(m.Runs) && m.Runs[i].Off == end; i++ {
		end += m.Runs[i].Length
	}
	return start, min(end, m.Length)
}

// ReadAt implements io.ReaderAt.
func (m *Mapped) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if off >= m.Length {
		return 0, io.EOF
	}
	short := int64(len(p)) > m.Length-off
	if short {
		p = p[:m.Length-off]
	}
	for i := m.from(off); n < len(p); {
		at := off + int64(n)
		rest := p[n:]
		if i == len(m.Runs) {
			clear(rest)
			n += len(rest)
			break
		}
		r := m.Runs[i]
		if at < r.Off {
			hole := rest[:min(int64(len(rest)), r.Off-at)]
			clear(hole)
			n += len(hole)
			continue
		}
		piece := rest[:min(int64(len(rest)), r.Off+r.Length-at)]
		got, err := m.Device.ReadAt(piece, r.At+at-r.Off)
		n += got
		if got < len(piece) {
			if err == nil || errors.Is(err, io.EOF) {
				err = Damagedf("the device ends within a file")
			}
			return n, err
		}
		i++
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}

// Inline is content that lies within the metadata.
type Inline []byte

// Size implements Content.
func (c Inline) Size() int64 { return int64(len(c)) }

// NextData implements Content.
func (c Inline) NextData(off int64) (start, end int64) { return min(off, c.Size()), c.Size() }

// ReadAt implements io.ReaderAt.
func (c Inline) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if off >= int64(len(c)) {
		return 0, io.EOF
	}
	n := copy(p, c[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// All reads the whole content, if it is at most limit bytes long.
func All(c Content, limit int64) ([]byte, error) {
	if c.Size() > limit {
		return nil, Damagedf("%d bytes where at most %d may be", c.Size(), limit)
	}
	b := make([]byte, c.Size())
	n, err := c.ReadAt(b, 0)
	if n == len(b) {
		return b, nil
	}
	return nil, err
}

// At gives the number of the run that holds off; -1 in a hole.
func (m *Mapped) At(off int64) int {
	if i := m.from(off); i < len(m.Runs) && m.Runs[i].Off <= off {
		return i
	}
	return -1
}
