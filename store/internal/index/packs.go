package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// Add makes the blocks of a pack known. The pack must be on stable storage.
// All entries become known together. They are not synced: after a crash the
// packs added last may be unknown, as a whole and latest first. A pack that is
// there already is left as it is.
func (x *Index) Add(id pack.ID, entries []Entry) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if has, err := x.HasPack(id); err != nil || has {
		return err
	}
	b := x.db.NewBatchWithSize(len(entries)*(blockKey+blockValue+4) + 256)
	number := x.next
	if err := x.appendPack(b, id, number); err != nil {
		return err
	}
	var key [blockKey]byte
	var value [blockValue]byte
	for i := range entries {
		putBlockKey(&key, &entries[i].Hash)
		if err := putBlockValue(&value, number, &entries[i]); err != nil {
			return err
		}
		if err := b.Set(key[:], value[:], nil); err != nil {
			return x.classify(err)
		}
	}
	x.note(entries)
	if err := x.commit(b, pebble.NoSync); err != nil {
		return x.classify(err)
	}
	x.next = number + 1
	x.grow()
	return nil
}

// appendPack adds the rows of a new pack, and the counter after it. The
// counter is stored in the batch that uses the number, so a number can be
// given twice only if its first use was lost as a whole.
func (x *Index) appendPack(b *pebble.Batch, id pack.ID, number uint32) error {
	if number == lastNumber {
		return x.outOfNumbers()
	}
	pk, nk := packKey(id), numberKey(number)
	return errors.Join(
		b.Set(pk[:], nk[1:], nil),
		b.Set(nk[:], id[:], nil),
		b.Set(counterRow, binary.BigEndian.AppendUint32(nil, number+1), nil))
}

// lastNumber is never given to a pack, so that the counter cannot wrap.
const lastNumber = 1<<32 - 1

func (x *Index) outOfNumbers() error {
	return problem.New(problem.IndexDamaged, "The index in %s has no numbers for packs left.", x.dir)
}

// reserve takes a number that no pack has. It is not stored as taken; whoever
// stores entries with it stores the counter first.
func (x *Index) reserve() (uint32, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	number := x.next
	if number == lastNumber {
		return 0, x.outOfNumbers()
	}
	x.next++
	return number, nil
}

// Forget makes the blocks of some packs unknown, durably before it returns. Its
// cost does not depend on the number of blocks: their rows stay, and name a
// pack number that resolves no more and is never given again. A pack that is
// not there is no error.
func (x *Index) Forget(ids ...pack.ID) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	b := x.db.NewBatch()
	for _, id := range ids {
		pk := packKey(id)
		number, found, err := x.get(pk[:])
		if err != nil {
			return x.classify(err)
		}
		if !found {
			continue // never added, or forgotten durably: mu covers the sync too
		}
		if len(number) != 4 {
			return x.classify(fmt.Errorf("the row of pack %v: %w", id, pebble.ErrCorruption))
		}
		nk := numberKey(binary.BigEndian.Uint32(number))
		if err := errors.Join(b.Delete(nk[:], nil), b.Delete(pk[:], nil)); err != nil {
			return x.classify(err)
		}
	}
	if b.Empty() {
		return b.Close()
	}
	if err := x.commit(b, pebble.Sync); err != nil {
		return x.classify(err)
	}
	return nil
}

// HasPack tells whether the pack has been added and not been forgotten.
func (x *Index) HasPack(id pack.ID) (bool, error) {
	key := packKey(id)
	_, found, err := x.get(key[:])
	if err != nil {
		return false, x.classify(err)
	}
	return found, nil
}

// Packs walks the packs that HasPack would tell of, as of the beginning of the
// walk, in the order of their IDs. It ends after the first error.
func (x *Index) Packs() iter.Seq2[pack.ID, error] {
	return func(yield func(pack.ID, error) bool) {
		if err := x.engine.happened(); err != nil {
			yield(pack.ID{}, x.classify(err))
			return
		}
		rows, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spacePack}, UpperBound: []byte{spacePack + 1}})
		if err != nil {
			yield(pack.ID{}, x.classify(err))
			return
		}
		defer rows.Close()
		for ok := rows.First(); ok; ok = rows.Next() {
			var id pack.ID
			copy(id[:], rows.Key()[1:])
			if !yield(id, nil) {
				return
			}
		}
		if err := rows.Error(); err != nil {
			yield(pack.ID{}, x.classify(err))
		}
	}
}
