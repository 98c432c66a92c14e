package store

import (
	"context"
	"time"

	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// Pack is an object that holds blocks or nodes, as somebody sees it who reads
// the store back piece by piece.
type Pack struct {
	ID    string // 32 hex digits
	Bytes int64
	kind  seal.Kind
}

// Packs lists the packs of the store, whether anything refers to them or not.
func (s *Store) Packs(ctx context.Context) (all []Pack, err error) {
	err = s.packs(ctx, func(p packObject) error {
		all = append(all, Pack{p.id.String(), p.size, p.kind})
		return nil
	})
	return all, err
}

// ReadBack reads a pack whole and verifies each piece in it. Damage is noted, so
// that the next backup stores its blocks anew, and returned; nil: it is whole, or
// was removed meanwhile.
func (s *Store) ReadBack(ctx context.Context, p Pack) (*Damage, error) {
	id, ok := pack.ParseID(p.ID)
	if !ok {
		return nil, nil
	}
	v, err := s.verifyPack(ctx, p.kind, id)
	if err != nil {
		return nil, err
	}
	why := v.sum
	for _, bad := range v.bad {
		why = bad
	}
	if why == nil {
		return nil, nil
	}
	name := packName(p.kind, id)
	if _, err := s.bucket.Stat(ctx, name); isMissing(err) {
		return nil, nil // a check of the points says whether it is missed
	}
	return &Damage{Object: name, What: reason(why), pack: id}, s.markDamaged(ctx, id, reason(why))
}

// VerifiedAt tells since when all that a point reaches was read back, given when
// each pack was; false if some of it never was.
func (s *Store) VerifiedAt(ctx context.Context, p Point, at func(pack string) (time.Time, bool)) (oldest time.Time, ok bool, err error) {
	m, err := s.newMarking(ctx, map[pack.ID]bool{}, func(ctx context.Context) error { return ctx.Err() })
	if err != nil {
		return oldest, false, err
	}
	err = m.all(ctx, &roots{images: []root{{stored: stored{p.Root, p.Size, p.Top}, key: pointPrefix + p.ID}}})
	if err != nil {
		return oldest, false, err
	}
	for id := range m.packs {
		t, ok := at(id.String())
		if !ok {
			return time.Time{}, false, nil
		}
		if oldest.IsZero() || t.Before(oldest) {
			oldest = t
		}
	}
	return oldest, true, nil
}
