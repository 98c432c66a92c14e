// Package extent is about ranges of bytes on a disk: single ranges and sets of
// them. Everything in it is a pure value; nothing here does input or output.
package extent

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
)

// Range is a run of bytes. Off and Len are in bytes and not negative; a Range
// of length zero holds nothing.
type Range struct {
	Off int64 `json:"offset"`
	Len int64 `json:"length"`
}

// Between is the range from start up to, but not including, end. It is empty
// if end is not above start.
func Between(start, end int64) Range { return Range{start, max(0, end-start)} }

// End is the first byte after the range.
func (r Range) End() int64 { return r.Off + r.Len }

// Empty tells whether the range holds nothing.
func (r Range) Empty() bool { return r.Len <= 0 }

// Intersect is what lies in both ranges; empty where they do not meet.
func (r Range) Intersect(o Range) Range {
	return Between(max(r.Off, o.Off), min(r.End(), o.End()))
}

// Align grows the range outwards to multiples of block, then cuts it at size.
// block must be above zero.
func (r Range) Align(block, size int64) Range {
	if r.Empty() {
		return Range{}
	}
	end := r.End()
	if rest := end % block; rest != 0 {
		end += block - rest
	}
	return Between(r.Off-r.Off%block, min(end, size))
}

// Windows cuts the range at the multiples of size and gives the pieces in
// order, so that each lies within one aligned window. size must be above zero.
func (r Range) Windows(size int64) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		for at := r.Off; at < r.End(); {
			next := min(at-at%size+size, r.End())
			if !yield(Between(at, next)) {
				return
			}
			at = next
		}
	}
}

// String is the range as people write it: first byte, a dash, last byte.
func (r Range) String() string {
	if r.Empty() {
		return fmt.Sprintf("%d (empty)", r.Off)
	}
	return fmt.Sprintf("%d-%d", r.Off, r.End()-1)
}

// Set is a set of bytes as ranges in ascending order that neither overlap nor
// touch, none of them empty. The zero value is the empty set. Make one with Of
// or with the methods; they never change their operands.
type Set []Range

// Of is the set of all bytes in the given ranges, in any order.
func Of(ranges ...Range) Set {
	sorted := slices.DeleteFunc(slices.Clone(ranges), Range.Empty)
	slices.SortFunc(sorted, func(a, b Range) int { return cmp.Compare(a.Off, b.Off) })
	return merge(sorted)
}

// merge joins ranges that overlap or touch, in place. They are sorted by Off
// and not empty.
func merge(sorted []Range) Set {
	out := Set(sorted[:0])
	for _, r := range sorted {
		out = out.with(r)
	}
	return out.orNil()
}

// with appends a range that does not begin before the last one does.
func (s Set) with(r Range) Set {
	if n := len(s); n > 0 && s[n-1].End() >= r.Off {
		s[n-1].Len = max(s[n-1].End(), r.End()) - s[n-1].Off
		return s
	}
	return append(s, r)
}

// Union is what lies in either set.
func (s Set) Union(t Set) Set {
	out := make(Set, 0, len(s)+len(t))
	for len(s) > 0 || len(t) > 0 {
		if len(t) == 0 || len(s) > 0 && s[0].Off <= t[0].Off {
			out, s = out.with(s[0]), s[1:]
		} else {
			out, t = out.with(t[0]), t[1:]
		}
	}
	return out.orNil()
}

// Intersect is what lies in both sets.
func (s Set) Intersect(t Set) Set {
	var out Set
	for len(s) > 0 && len(t) > 0 {
		if both := s[0].Intersect(t[0]); !both.Empty() {
			out = append(out, both)
		}
		if s[0].End() < t[0].End() {
			s = s[1:]
		} else {
			t = t[1:]
		}
	}
	return out
}

// Subtract is what lies in s but not in t.
func (s Set) Subtract(t Set) Set {
	var out Set
	for _, r := range s {
		at := r.Off
		for len(t) > 0 && t[0].End() <= at {
			t = t[1:]
		}
		// t[0] may reach into the next range of s too, so it stays.
		for i := 0; i < len(t) && t[i].Off < r.End(); i++ {
			if gap := Between(at, t[i].Off); !gap.Empty() {
				out = append(out, gap)
			}
			at = t[i].End()
		}
		if rest := Between(at, r.End()); !rest.Empty() {
			out = append(out, rest)
		}
	}
	return out
}

// Align grows every range outwards to multiples of block and cuts the set at
// size. block must be above zero.
func (s Set) Align(block, size int64) Set {
	out := make(Set, 0, len(s))
	for _, r := range s {
		if a := r.Align(block, size); !a.Empty() {
			out = out.with(a)
		}
	}
	return out.orNil()
}

// Total is the number of bytes in the set.
func (s Set) Total() int64 {
	var n int64
	for _, r := range s {
		n += r.Len
	}
	return n
}

// Contains tells whether the byte at off is in the set.
func (s Set) Contains(off int64) bool { return s.Covers(Range{off, 1}) }

// Covers tells whether all of r is in the set. An empty range always is.
func (s Set) Covers(r Range) bool {
	if r.Empty() {
		return true
	}
	i := s.firstEndingAfter(r.Off)
	return i < len(s) && s[i].Off <= r.Off && r.End() <= s[i].End()
}

// Within is the part of the set that lies in r.
func (s Set) Within(r Range) Set {
	var out Set
	for i := s.firstEndingAfter(r.Off); i < len(s) && s[i].Off < r.End(); i++ {
		if part := s[i].Intersect(r); !part.Empty() {
			out = append(out, part)
		}
	}
	return out
}

// Windows gives the set in order, cut at the multiples of size, so that each
// piece lies within one aligned window. size must be above zero.
func (s Set) Windows(size int64) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		for _, r := range s {
			for w := range r.Windows(size) {
				if !yield(w) {
					return
				}
			}
		}
	}
}

// Equal tells whether both sets hold the same bytes.
func (s Set) Equal(t Set) bool { return slices.Equal(s, t) }

// firstEndingAfter is the place of the first range that ends after off.
func (s Set) firstEndingAfter(off int64) int {
	i, found := slices.BinarySearchFunc(s, off, func(r Range, off int64) int { return cmp.Compare(r.End(), off) })
	if found { // it ends just at off
		i++
	}
	return i
}

func (s Set) orNil() Set {
	if len(s) == 0 {
		return nil
	}
	return s
}
