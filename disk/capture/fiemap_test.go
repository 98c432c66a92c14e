package capture

import (
	"math/rand/v2"
	"testing"

	"github.com/diskvault/diskvault/base/extent"
)

// place is what a map says about one unit of a file.
type place struct {
	kind kind
	at   uint64
}

const unit = 16

// draw makes a map of random pieces, and tells what it says of each unit.
func draw(r *rand.Rand, places []place, like []place) []mapping {
	var m []mapping
	for at := 0; at < len(places); {
		n := min(1+r.IntN(5), len(places)-at)
		flags := []uint32{0, 0, 0, fiemapUnwritten, fiemapEncoded, fiemapInline | fiemapNotAligned, 0x2000 /* shared */}[r.IntN(7)]
		physical := uint64(1+r.IntN(40)) * unit
		if r.IntN(2) == 0 && at < len(like) && like[at].kind == data {
			physical = like[at].at
		}
		hole := r.IntN(4) == 0
		for i := range n {
			p := place{data, physical + uint64(i*unit)}
			switch {
			case hole:
				p = place{}
			case flags&fiemapDoubtful != 0:
				p = place{kind: doubtful}
			case flags&fiemapUnwritten != 0:
				p = place{}
			}
			places[at+i] = p
		}
		if !hole {
			m = append(m, mapping{extent.Range{Off: int64(at) * unit, Len: int64(n) * unit}, physical, flags})
		}
		at += n
	}
	return m
}

func TestDifferingAgainstAWalkUnitByUnit(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 3))
		before, now := make([]place, 1+r.IntN(40)), make([]place, 1+r.IntN(40))
		a := draw(r, before, nil)
		b := draw(r, now, before[:min(len(before), len(now))])
		size := int64(len(now))*unit - r.Int64N(unit)
		if len(before) < len(now) {
			before = append(before, make([]place, len(now)-len(before))...)
		}
		var want []extent.Range
		for i, p := range now {
			if p != before[i] || p.kind == doubtful {
				want = append(want, extent.Between(int64(i)*unit, min(int64(i+1)*unit, size)))
			}
		}
		if got := differing(a, b, size); !got.Equal(extent.Of(want...)) {
			t.Fatalf("seed %d: %v, want %v\n%v\n%v", seed, got, extent.Of(want...), a, b)
		}
	}
}
