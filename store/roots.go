package store

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// roots are what keeps packs from collection: every point, and what every
// session stands on, has reached or has pinned.
type roots struct {
	images   []root
	pins     []pack.ID
	points   []ID // found now or known before
	fences   map[ID]time.Time
	sessions []sessionObject
}

// root is an image, and the key of the object that names it.
type root struct {
	stored
	key     string
	session *sessionObject // nil: of a point
}

// roots reads the roots, without the points that are known already. Points are
// listed before sessions: a point that is deleted in between can have served a
// session only that was there before, and is seen.
func (s *Store) roots(ctx context.Context, known map[ID]bool) (*roots, error) {
	r := &roots{fences: map[ID]time.Time{}}
	for o, err := range s.bucket.List(ctx, pointPrefix, "") {
		if err != nil {
			return nil, err
		}
		text := strings.TrimPrefix(o.Key, pointPrefix)
		id, err := ParseID(text)
		if err != nil || id.String() != text {
			continue // not ours
		}
		if known[id] {
			r.points = append(r.points, id)
			continue
		}
		doc, err := s.point(ctx, text)
		switch {
		case errors.Is(err, bucket.ErrNotFound): // deleted meanwhile
		case err != nil:
			return nil, err
		case doc.Fence != nil:
			r.fences[id] = o.Stored
		default:
			r.points = append(r.points, id)
			r.images = append(r.images, root{stored{doc.Root, doc.Size, doc.Top}, o.Key, nil})
		}
	}
	var err error
	if r.sessions, err = s.sessions(ctx); err != nil {
		return nil, err
	}
	for i := range r.sessions {
		o := &r.sessions[i]
		key := sessionPrefix + o.ID.String()
		for _, img := range o.Images {
			r.images = append(r.images, root{img, key, o})
		}
		if o.Checkpoint != nil {
			r.images = append(r.images, root{o.Checkpoint.stored, key, o})
		}
		r.pins = append(r.pins, o.Pins...)
	}
	return r, nil
}
