// Package bucket is the object storage under a store: objects with a key, that
// are written once, never changed, and one day deleted.
//
// The drivers are filebucket (a folder, fully synced), s3bucket and membucket.
// Retrying wraps any of them; Probe checks a place before a store is made
// there. One conformance suite, buckettest, holds them all to the promises
// below.
package bucket

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/diskvault/diskvault/base/problem"
)

// Errors that callers decide by, to be tested with errors.Is. A range that
// reaches behind the end of an object is io.ErrUnexpectedEOF.
var (
	ErrExists   = errors.New("an object with this key exists already")
	ErrNotFound = errors.New("there is no object with this key")
)

// Bucket is object storage: objects are written once, never changed.
//
// Every method may be called concurrently, ends soon after its context does,
// and returns errors that are, or wrap, a *problem.Error where a person can act
// on them. Keys follow CheckKey.
type Bucket interface {
	// Put stores the concatenation of parts under key if there is no such
	// object. When it returns nil the object is on stable storage and visible
	// to every later Get and List. It returns ErrExists if the key is taken; the
	// object that took it is then on stable storage. Any other error leaves it
	// unknown whether the object was stored; if it was, it is whole. Put does
	// not keep parts after it returned.
	Put(ctx context.Context, key string, parts [][]byte) error

	// Get fills dst from the object's bytes at offset off. It returns
	// io.ErrUnexpectedEOF if the object ends before that and ErrNotFound if
	// there is none; the content of dst is then undefined.
	Get(ctx context.Context, key string, off int64, dst []byte) error

	// Stat tells size and time of storing. It returns ErrNotFound if there is
	// no object.
	Stat(ctx context.Context, key string) (Object, error)

	// List yields the objects whose key starts with prefix and is greater than
	// after, in the order of the bytes of their keys. It is complete: whatever
	// was stored before the call and not deleted during it is there, and is on
	// stable storage. After an error nothing more is yielded.
	List(ctx context.Context, prefix, after string) iter.Seq2[Object, error]

	// Delete removes the object for good, or does nothing if there is none.
	// When it returns nil no later Get or List shows the object, not even after
	// a power failure.
	Delete(ctx context.Context, key string) error

	// URL says where the bucket is, without secrets.
	URL() string

	// Close releases what the bucket holds; no method may run or follow.
	Close() error
}

// Object is what a bucket knows of an object without reading it.
type Object struct {
	Key    string
	Size   int64     // in bytes
	Stored time.Time // by the clock of the storage, not of this machine
}

// NotFound is the error of a driver for an object that is not there.
func NotFound(b Bucket, key string) error {
	return problem.Wrap(ErrNotFound, problem.StoreObjectMissing, "The object %s is not in the store %s.", key, b.URL())
}

// Short is the error of a driver for a range that reaches behind the end of an
// object of the given size.
func Short(b Bucket, key string, size, off int64, length int) error {
	return problem.Wrap(io.ErrUnexpectedEOF, problem.StoreDamaged,
		"The object %s of the store %s is too short: it has %d bytes where at least %d are expected.", key, b.URL(), size, off+int64(length))
}

// ReadAll reads a whole object of at most max bytes; a larger one is reported
// as damaged, and not read.
func ReadAll(ctx context.Context, b Bucket, key string, max int64) ([]byte, error) {
	o, err := b.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	if o.Size > max {
		return nil, problem.New(problem.StoreDamaged, "The object %s of the store %s is too large: it has %d bytes where at most %d are expected.", key, b.URL(), o.Size, max)
	}
	data := make([]byte, o.Size)
	if err := b.Get(ctx, key, 0, data); err != nil {
		return nil, err
	}
	return data, nil
}
