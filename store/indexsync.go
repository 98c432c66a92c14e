package store

import (
	"context"

	"github.com/diskvault/diskvault/store/internal/pack"
)

// syncIndex makes the local index forget what collections have swept since it
// was last up to date, whoever ran them. The session of whoever asks must be
// there: no later sweep passes it by.
func (s *Store) syncIndex(ctx context.Context) error {
	s.syncing.take()
	defer s.syncing.give()
	l, err := s.condemnedLists(ctx)
	if err != nil {
		return err
	}
	known, err := s.index.Epoch()
	if err != nil {
		return err
	}
	// While a decided list is there its packs may be gone, or go: it may be the
	// list of a collection that slept, put again after all was done.
	swept, unsure := l.swept(), l.sweeping()
	if s.swept != swept || unsure {
		// What is remembered may name places that lead nowhere any more.
		s.frames.drop()
		s.moves.drop()
		s.swept = swept
	}
	if known == uint64(swept) && !unsure {
		return nil
	}
	there := map[pack.ID]bool{}
	if err := s.packs(ctx, func(p packObject) error { there[p.id] = true; return nil }); err != nil {
		return err
	}
	var gone []pack.ID
	for id, err := range s.index.Packs() {
		if err != nil {
			return err
		}
		if !there[id] {
			gone = append(gone, id)
		}
	}
	if err := s.index.Forget(gone...); err != nil {
		return err
	}
	return s.index.SetEpoch(uint64(swept))
}
