package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// sweepStep is the number of rows that Sweep looks at, and at most removes,
// while packs have to wait to be added.
const sweepStep = 4096

// Sweep removes the entries that packs left behind when they were forgotten,
// and tells how many. They do no harm but take space. It reads the whole
// index, so it is for after a collection, not for after each Forget. Other
// calls may run beside it, except that it fails with IndexBusy while a Loader
// is open. If the context ends, what is done is kept.
func (x *Index) Sweep(ctx context.Context) (removed int64, err error) {
	live, err := x.liveNumbers()
	if err != nil {
		return 0, x.classify(err)
	}
	for from := []byte{spaceBlock}; from != nil; {
		if err := ctx.Err(); err != nil {
			return removed, context.Cause(ctx)
		}
		var n int64
		if from, n, err = x.sweepFrom(from, live); err != nil {
			return removed, x.classify(err)
		}
		removed += n
	}
	if removed > x.Len()/4 {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.refill() // the filter still has the bits of what is gone
	}
	return removed, nil
}

// numberSet holds the numbers below a limit; what is not below it is held to
// be in the set, since such numbers were given after the set was made.
type numberSet []uint64

func (s numberSet) has(n uint32) bool { return int(n/64) >= len(s) || s[n/64]&(1<<(n%64)) != 0 }
func (s numberSet) add(n uint32)      { s[n/64] |= 1 << (n % 64) }

// liveNumbers gives the numbers of packs that are not forgotten. One that is
// forgotten later stays in the set, which only spares its entries this time.
func (x *Index) liveNumbers() (numberSet, error) {
	if err := x.engine.happened(); err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.loading {
		// The loader's packs have numbers, and no rows that tell of them yet.
		return nil, x.beingLoaded()
	}
	live := make(numberSet, x.next/64) // the last, incomplete word counts as live
	rows, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceNumber}, UpperBound: []byte{spaceNumber + 1}})
	if err != nil {
		return nil, err
	}
	for ok := rows.First(); ok; ok = rows.Next() {
		if key := rows.Key(); len(key) == 5 {
			if n := binary.BigEndian.Uint32(key[1:]); int(n/64) < len(live) {
				live.add(n)
			}
		}
	}
	return live, rows.Close()
}

// sweepFrom does one step and gives the key to go on from, nil at the end. The
// lock keeps the rows as they were read until the removal is applied.
func (x *Index) sweepFrom(from []byte, live numberSet) (next []byte, removed int64, err error) {
	if err := x.engine.happened(); err != nil {
		return nil, 0, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	rows, err := x.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: []byte{spaceBlock + 1}})
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	b := x.db.NewBatch()
	seen := 0
	for ok := rows.First(); ok; ok = rows.Next() {
		if seen == sweepStep {
			next = bytes.Clone(rows.Key())
			break
		}
		seen++
		number, _, ok := readBlockValue(rows.Value())
		if !ok {
			return nil, 0, fmt.Errorf("an entry of %d bytes: %w", len(rows.Value()), pebble.ErrCorruption)
		}
		if !live.has(number) {
			if err := b.Delete(rows.Key(), nil); err != nil {
				return nil, 0, err
			}
		}
	}
	if err := rows.Error(); err != nil {
		return nil, 0, err
	}
	if removed = int64(b.Count()); removed == 0 {
		return next, 0, b.Close()
	}
	if err := x.commit(b, pebble.NoSync); err != nil {
		return nil, 0, err
	}
	return next, removed, nil
}
