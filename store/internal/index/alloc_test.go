//go:build !race

package index

// The race detector makes pools forget, so these tests are not for it.

import (
	"math/rand/v2"
	"testing"

	"github.com/diskvault/diskvault/store/internal/block"
)

// The engine makes one small allocation for each table that it looks into.
func TestLookupAllocatesLittle(t *testing.T) {
	x := mustOpen(t, t.TempDir())
	defer mustClose(t, x)
	mustAdd(t, x, testPack(1), testEntries(0, 10000))
	if err := x.db.Flush(); err != nil {
		t.Fatal(err)
	}
	for what, h := range map[string]block.Hash{"present": testHash(1), "absent": testHash(1 << 40)} {
		n := testing.AllocsPerRun(2000, func() {
			if _, _, err := x.Lookup(h); err != nil {
				t.Fatal(err)
			}
		})
		if n > 2 {
			t.Errorf("%s: %v allocations a look-up", what, n)
		}
	}
}

func TestLookupOfAbsentAllocatesNothing(t *testing.T) {
	x := openSmall(t, t.TempDir())
	defer mustClose(t, x)
	mustAdd(t, x, testPack(1), testEntries(0, 100))
	h := testHash(1 << 40)
	for x.filters.inUse.Load().has(&h) {
		h = testHash(rand.Uint64() | 1<<40)
	}
	if n := testing.AllocsPerRun(1000, func() { x.Lookup(h) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
