package store

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// damagePrefix is where packs found damaged are noted: writers do not rely on
// them and store their blocks anew.
const damagePrefix = "damage/"

type damageNote struct {
	What string    `json:"what"`
	Time time.Time `json:"time"`
}

// markDamaged remembers that the pack is not to be relied on.
func (s *Store) markDamaged(ctx context.Context, id pack.ID, what string) error {
	if s.index != nil {
		if err := s.index.Forget(id); err != nil {
			return err
		}
	}
	_, err := s.putDocument(ctx, damagePrefix+id.String(), seal.DamageNote, ID(id), damageNote{what, time.Now().UTC()})
	if errors.Is(err, bucket.ErrExists) {
		return nil // known already
	}
	return err
}

// damagedPacks lists the packs marked so far.
func (s *Store) damagedPacks(ctx context.Context) (map[pack.ID]bool, error) {
	packs := map[pack.ID]bool{}
	for o, err := range s.bucket.List(ctx, damagePrefix, "") {
		if err != nil {
			return nil, err
		}
		if id, ok := pack.ParseID(strings.TrimPrefix(o.Key, damagePrefix)); ok {
			packs[id] = true
		}
	}
	return packs, nil
}
