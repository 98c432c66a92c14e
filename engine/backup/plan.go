package backup

import (
	"context"
	"iter"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/store"
)

// segment is a unit of work on its way through the pipeline.
type segment struct {
	number int64       // in the order of the plan, from 0
	offset int64       // a multiple of store.SegmentSize
	runs   []store.Run // what is to be read, in order
	bytes  int64       // of the runs
	buffer []byte      // holds the runs, each padded to whole blocks
	result *store.Segment
}

// plan cuts the ranges of a disk that hold data, which come in order, into
// segments; whatever lies between them is zeros. Ranges are widened to whole
// blocks, since a block is read as a whole.
func plan(ctx context.Context, allocated iter.Seq2[extent.Range, error], size, blockSize int64) iter.Seq2[*segment, error] {
	return func(yield func(*segment, error) bool) {
		var open *segment
		number := int64(0)
		flush := func() bool {
			s := open
			open = nil
			return s == nil || yield(s, nil)
		}
		read := int64(0) // up to where the disk is planned
		for r, err := range allocated {
			if err != nil {
				yield(nil, err)
				return
			}
			r = r.Align(blockSize, size)
			if r = extent.Between(max(r.Off, read), r.End()); r.Empty() {
				continue
			}
			read = r.End()
			for part := range r.Windows(store.SegmentSize) {
				offset := part.Off / store.SegmentSize * store.SegmentSize
				if open != nil && open.offset != offset && !flush() {
					return
				}
				if open == nil {
					open = &segment{number: number, offset: offset}
					number++
				}
				open.add(part)
			}
		}
		if err := ctx.Err(); err != nil {
			yield(nil, context.Cause(ctx))
			return
		}
		flush()
	}
}

// add appends a part of the segment, joined to the one before if they touch.
func (s *segment) add(r extent.Range) {
	s.bytes += r.Len
	if n := len(s.runs); n > 0 && s.runs[n-1].Offset+s.runs[n-1].Length == r.Off {
		s.runs[n-1].Length += r.Len
		return
	}
	s.runs = append(s.runs, store.Run{Offset: r.Off, Length: r.Len})
}

// within gives those parts of the ranges, which come in order, that lie in the
// set, in whole blocks as the set is.
func within(ranges iter.Seq2[extent.Range, error], set extent.Set, size, blockSize int64) iter.Seq2[extent.Range, error] {
	return func(yield func(extent.Range, error) bool) {
		for r, err := range ranges {
			if err != nil {
				yield(r, err)
				return
			}
			for _, part := range set.Within(r.Align(blockSize, size)) {
				if !yield(part, nil) {
					return
				}
			}
		}
	}
}
