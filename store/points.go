package store

import (
	"context"
	"errors"
	"iter"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/seal"
)

const pointPrefix = "points/"

// fence stands where a point would: the session of that ID may not commit.
type fence struct {
	By     string    `json:"by"`
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

// pointDocument is a point or a fence.
type pointDocument struct {
	Point
	Fence *fence `json:"fence,omitempty"`
}

func pointKey(id ID) string { return pointPrefix + id.String() }

// commit makes the point exist. Everything that it refers to must be on stable
// storage.
func (s *Store) commit(ctx context.Context, id ID, p Point) error {
	_, err := s.putDocument(ctx, pointKey(id), seal.Point, id, pointDocument{Point: p})
	if !errors.Is(err, bucket.ErrExists) {
		return err
	}
	// Retried puts that meet their own object succeed in the bucket, so this
	// is somebody else's: a fence.
	return s.fenced(err)
}

// Points yields the recovery points in no particular order. A point that
// cannot be read is yielded with its ID, name of the object in the error, and
// the iteration goes on.
func (s *Store) Points(ctx context.Context) iter.Seq2[Point, error] {
	return func(yield func(Point, error) bool) {
		for o, err := range s.bucket.List(ctx, pointPrefix, "") {
			if err != nil {
				yield(Point{}, err)
				return
			}
			text := strings.TrimPrefix(o.Key, pointPrefix)
			if id, err := ParseID(text); err != nil || id.String() != text {
				continue // not ours
			}
			doc, err := s.point(ctx, text)
			if errors.Is(err, bucket.ErrNotFound) || doc.Fence != nil {
				continue // deleted meanwhile, or a fence
			}
			if err != nil {
				doc.Point.ID = text
			}
			if !yield(doc.Point, err) {
				return
			}
		}
	}
}

// Point reads one recovery point. Errors: RecoveryPointNotFound, StoreDamaged.
func (s *Store) Point(ctx context.Context, id string) (Point, error) {
	doc, err := s.point(ctx, id)
	if errors.Is(err, bucket.ErrNotFound) || doc.Fence != nil {
		return Point{}, problem.New(problem.RecoveryPointNotFound, "The store at %s has no recovery point %s.", s.URL(), id)
	}
	return doc.Point, err
}

func (s *Store) point(ctx context.Context, text string) (doc pointDocument, err error) {
	id, err := ParseID(text)
	if err != nil {
		return doc, problem.Wrap(err, problem.RecoveryPointNotFound, "%q is not the ID of a recovery point.", text)
	}
	err = s.readDocument(ctx, pointKey(id), seal.Point, id, maxControlSize, &doc)
	return doc, err
}

// DeletePoint removes a recovery point for good; no other point is touched.
// Its space comes back when the store is collected.
func (s *Store) DeletePoint(ctx context.Context, id string) error {
	p, err := ParseID(id)
	if err != nil {
		return problem.Wrap(err, problem.RecoveryPointNotFound, "%q is not the ID of a recovery point.", id)
	}
	return s.bucket.Delete(ctx, pointKey(p))
}
