package overlay

import (
	"iter"
	"slices"
	"sync"

	"github.com/diskvault/diskvault/base/extent"
)

const (
	// granule is what is marked at once: a page of a file system, so that a small
	// write need not bring in more of the base than that.
	granule = 4 << 10
	// segment is what one lock and one set of marks are for.
	segment = 4 << 20
	words   = segment / granule / 64
)

// marks say which granules of a segment are in the file.
type marks [words]uint64

// full are the marks of every segment that is in the file altogether: of a
// restored disk there are many.
var full = func() *marks {
	var m marks
	for i := range m {
		m[i] = ^uint64(0)
	}
	return &m
}()

func (d *Disk) lock(off int64) *sync.RWMutex {
	return &d.locks[off/segment%int64(len(d.locks))]
}

// mark says that granules within a segment are in the file now. The lock of
// the segment is held.
func (d *Disk) mark(r extent.Range) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := r.Off / segment
	old := d.marks[n]
	if old == full {
		return
	}
	m := new(marks) // readers may still look at the old ones
	if old != nil {
		*m = *old
	}
	for g := r.Off % segment / granule; g*granule < r.End()-n*segment; g++ {
		m[g/64] |= 1 << (g % 64)
	}
	if *m == *full {
		m = full
	}
	d.marks[n] = m
	if d.keep != nil {
		d.keep.unsaved[n] = struct{}{}
	}
}

// runs walks over a range within a segment: what is in the file, and what is
// not.
func (d *Disk) runs(r extent.Range) iter.Seq2[extent.Range, bool] {
	d.mu.Lock()
	m := d.marks[r.Off/segment]
	d.mu.Unlock()
	return func(yield func(extent.Range, bool) bool) {
		switch m {
		case nil:
			yield(r, false)
			return
		case full:
			yield(r, true)
			return
		}
		at := func(off int64) bool {
			g := off % segment / granule
			return m[g/64]>>(g%64)&1 == 1
		}
		for from := r.Off; from < r.End(); {
			marked := at(from)
			to := (from/granule + 1) * granule
			for to < r.End() && at(to) == marked {
				to += granule
			}
			if !yield(extent.Between(from, min(to, r.End())), marked) {
				return
			}
			from = to
		}
	}
}

// marked gives what of a range is in the file.
func (d *Disk) marked(r extent.Range) (out extent.Set) {
	for _, n := range d.touched(r) {
		for run, marked := range d.runs(extent.Between(n*segment, min((n+1)*segment, d.size)).Intersect(r)) {
			if !marked {
				continue
			}
			if last := len(out) - 1; last >= 0 && out[last].End() == run.Off {
				out[last].Len += run.Len
			} else {
				out = append(out, run)
			}
		}
	}
	return out
}

// touched gives the segments of a range that have marks, in order. Its cost
// follows the smaller of the range and what is marked.
func (d *Disk) touched(r extent.Range) (out []int64) {
	if r.Empty() {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	first, last := r.Off/segment, (r.End()-1)/segment
	if last-first < int64(len(d.marks)) {
		for n := first; n <= last; n++ {
			if d.marks[n] != nil {
				out = append(out, n)
			}
		}
		return out
	}
	for n := range d.marks {
		if n >= first && n <= last {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}
