package store

import (
	"context"

	"github.com/diskvault/diskvault/base/problem"
)

// Hold keeps an image from collection while somebody reads it, even if its
// point is deleted meanwhile.
type Hold struct{ session *session }

// Hold begins a hold on a point for the purpose named, and tells all others of
// it. Release ends it; a hold of a process that died ends after an hour. Errors:
// RecoveryPointNotFound if the point was deleted; those of the bucket.
func (s *Store) Hold(ctx context.Context, p Point, purpose string) (*Hold, error) {
	img, err := s.Image(p)
	if err != nil {
		return nil, err
	}
	doc := sessionDocument{ID: newSessionID(), Task: taskRead, Purpose: purpose, Instance: p.Instance, Images: []stored{img.stored()}}
	x, err := s.beginSession(ctx, doc, nil)
	if err != nil {
		return nil, err
	}
	h := &Hold{x}
	// Only now: a collector that did not see the session saw the point.
	kept, err := img.kept(ctx)
	if err == nil && !kept {
		err = problem.New(problem.RecoveryPointNotFound, "The recovery point %s was deleted.", p.ID)
	}
	if err != nil {
		h.Release(ctx)
		return nil, err
	}
	return h, nil
}

// Release ends the hold. It needs no error: what is left behind ends by itself.
func (h *Hold) Release(ctx context.Context) {
	_ = h.session.end(context.WithoutCancel(ctx))
}
