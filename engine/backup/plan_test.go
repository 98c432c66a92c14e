package backup

import (
	"iter"
	"math/rand/v2"
	"testing"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/store"
)

func ranges(all ...extent.Range) iter.Seq2[extent.Range, error] {
	return func(yield func(extent.Range, error) bool) {
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// The plan must read exactly the blocks that hold data, once, in order, and
// each segment must stay within its window.
func TestPlanCoversTheDataOnce(t *testing.T) {
	const blockSize = 64 << 10
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		size := r.Int64N(64 << 20)
		var data []extent.Range
		for at := r.Int64N(9 << 20); at < size; {
			n := min(1+r.Int64N(6<<20), size-at)
			data = append(data, extent.Range{Off: at, Len: n})
			at += n + 1 + r.Int64N(300<<10)
		}
		var read extent.Set
		number, end := int64(0), int64(0)
		for s, err := range plan(t.Context(), ranges(data...), size, blockSize) {
			if err != nil {
				t.Fatal(err)
			}
			bytes := int64(0)
			for _, run := range s.runs {
				if run.Offset < end || run.Offset%blockSize != 0 {
					t.Fatalf("seed %d: run %+v behind %d", seed, run, end)
				}
				if run.Offset < s.offset || run.Offset+run.Length > s.offset+store.SegmentSize {
					t.Fatalf("seed %d: run %+v of the segment at %d", seed, run, s.offset)
				}
				end = run.Offset + run.Length
				bytes += run.Length
				read = read.Union(extent.Of(extent.Range{Off: run.Offset, Len: run.Length}))
			}
			if s.number != number || s.bytes != bytes || s.offset%store.SegmentSize != 0 {
				t.Fatalf("seed %d: segment %+v", seed, s)
			}
			number++
		}
		if want := extent.Of(data...).Align(blockSize, size); !read.Equal(want) {
			t.Fatalf("seed %d: read %v, want %v", seed, read, want)
		}
	}
}
