package store

import (
	"context"
	"errors"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// putDocument seals v under the newest data key and puts it.
func (s *Store) putDocument(ctx context.Context, key string, kind seal.Kind, id ID, v any) (size int64, err error) {
	object, err := seal.SealDocument(s.epochs[s.epoch], s.header.StoreID, seal.NewHeader(kind, s.epoch, id), v)
	if err != nil {
		return 0, err
	}
	return int64(len(object)), s.bucket.Put(ctx, key, [][]byte{object})
}

// readDocument reads a sealed document of at most max bytes into v.
func (s *Store) readDocument(ctx context.Context, key string, kind seal.Kind, id ID, max int64, v any) error {
	object, err := bucket.ReadAll(ctx, s.bucket, key, max)
	if err != nil {
		return err
	}
	return s.explain(key, seal.OpenDocument(object, kind, id, s.header.StoreID, s.secret, v))
}

// explain turns an error of the pure rooms about an object into a problem.
func (s *Store) explain(key string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, seal.ErrUnsupported):
		return problem.Wrap(err, problem.StoreVersionUnsupported, "The object %s of the store at %s was written by a newer diskvault.", key, s.URL())
	case errors.Is(err, seal.ErrDamaged):
		return s.damaged(key, err)
	}
	return err
}

func (s *Store) damaged(key string, cause error) error {
	return problem.Wrap(cause, problem.StoreDamaged, "The object %s of the store at %s is damaged.", key, s.URL()).With("object", key)
}

// isDamage tells whether the error says that the store does not hold what was
// written to it, as against that it could not be asked. An object of an unknown
// version is as good as damaged, and most likely is: a store that a newer
// diskvault writes says so in its header, and is not opened.
func isDamage(err error) bool {
	return problem.Is(err, problem.StoreDamaged) || problem.Is(err, problem.StoreVersionUnsupported) || isMissing(err)
}

func isMissing(err error) bool {
	return problem.Is(err, problem.StoreObjectMissing) || errors.Is(err, bucket.ErrNotFound)
}
