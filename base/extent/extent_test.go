package extent

import (
	"math/rand/v2"
	"slices"
	"testing"
)

const universe = 257 // prime, so that no alignment fits it by chance

// bitmap is the model: one bool for each byte of a small disk.
type bitmap [universe]bool

func (b *bitmap) set() Set {
	var s Set
	for i := 0; i < universe; i++ {
		if !b[i] {
			continue
		}
		from := i
		for i < universe && b[i] {
			i++
		}
		s = append(s, Between(int64(from), int64(i)))
	}
	return s
}

func draw(rng *rand.Rand) (*bitmap, Set) {
	var b bitmap
	var ranges []Range
	for range rng.IntN(12) {
		r := Range{rng.Int64N(universe), 0}
		r.Len = rng.Int64N(min(40, universe-r.Off+1))
		ranges = append(ranges, r)
		for i := r.Off; i < r.End(); i++ {
			b[i] = true
		}
	}
	return &b, Of(ranges...)
}

func combine(a, b *bitmap, f func(x, y bool) bool) Set {
	var c bitmap
	for i := range c {
		c[i] = f(a[i], b[i])
	}
	return c.set()
}

func TestSetAgainstBitmap(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 4000 {
		ma, a := draw(rng)
		mb, b := draw(rng)
		before := slices.Clone(a)
		check := func(what string, got, want Set) {
			t.Helper()
			if !got.Equal(want) {
				t.Fatalf("seed %d round %d: %s of %v and %v is %v, want %v", seed, round, what, a, b, got, want)
			}
		}
		check("Of", a, ma.set())
		check("Union", a.Union(b), combine(ma, mb, func(x, y bool) bool { return x || y }))
		check("Intersect", a.Intersect(b), combine(ma, mb, func(x, y bool) bool { return x && y }))
		check("Subtract", a.Subtract(b), combine(ma, mb, func(x, y bool) bool { return x && !y }))

		block := 1 + rng.Int64N(20)
		var aligned bitmap
		for i, in := range ma {
			if !in {
				continue
			}
			first := int64(i) / block * block
			for j := first; j < min(first+block, universe); j++ {
				aligned[j] = true
			}
		}
		check("Align", a.Align(block, universe), aligned.set())

		window := Between(rng.Int64N(universe), rng.Int64N(universe))
		var inside bitmap
		total, covered := int64(0), true
		for i, in := range ma {
			if in {
				total++
			}
			if int64(i) >= window.Off && int64(i) < window.End() {
				inside[i] = in
				covered = covered && in
			}
			if a.Contains(int64(i)) != in {
				t.Fatalf("seed %d round %d: Contains(%d) of %v is %v", seed, round, i, a, !in)
			}
		}
		check("Within", a.Within(window), inside.set())
		if a.Covers(window) != covered {
			t.Fatalf("seed %d round %d: Covers(%v) of %v is %v", seed, round, window, a, !covered)
		}
		if a.Total() != total {
			t.Fatalf("seed %d round %d: Total of %v is %d, want %d", seed, round, a, a.Total(), total)
		}
		var pieces []Range
		for w := range a.Windows(block) {
			if w.Empty() || w.Off/block != (w.End()-1)/block {
				t.Fatalf("seed %d round %d: the window %v is not within one of size %d", seed, round, w, block)
			}
			if n := len(pieces); n > 0 && pieces[n-1].End() > w.Off {
				t.Fatalf("seed %d round %d: the windows are not in order", seed, round)
			}
			pieces = append(pieces, w)
		}
		check("Windows", Of(pieces...), a)
		check("operand after the methods", a, before)
	}
}

func TestWindowsCanBeLeft(t *testing.T) {
	n := 0
	for range (Set{{0, 10}, {20, 10}}).Windows(3) {
		if n++; n == 5 {
			break
		}
	}
	if n != 5 {
		t.Fatalf("the walk gave %d windows before it was left, want 5", n)
	}
}

func TestAlignAtTheEndOfTheLargestDisk(t *testing.T) {
	const size = 32<<40 - 1
	got := Of(Range{size - 1, 1}).Align(64<<10, size)
	want := Set{Between(32<<40-64<<10, size)}
	if !got.Equal(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestRangeString(t *testing.T) {
	if got := (Range{4096, 512}).String(); got != "4096-4607" {
		t.Fatalf("got %q", got)
	}
	if got := (Range{7, 0}).String(); got != "7 (empty)" {
		t.Fatalf("got %q", got)
	}
}
