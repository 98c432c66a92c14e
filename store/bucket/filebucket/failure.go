package filebucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
)

// missing tells whether an error says that there is no such file, or that what
// would be a folder on the way to it is a file.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func (b *Bucket) failed(op, key string, err error) error {
	if op != "put" && (missing(err) || errors.Is(err, syscall.EISDIR)) {
		return bucket.NotFound(b, key)
	}
	if errors.Is(err, fs.ErrNotExist) { // even after its folders were made
		return problem.Wrap(err, problem.StoreNotFound, "The folder of the store %s was removed.", b.url)
	}
	return classify(fmt.Errorf("%s %s: %w", op, key, err), b.url)
}

// classify says what an error of the operating system means for a person.
func classify(err error, url string) error {
	is := func(targets ...syscall.Errno) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case is(syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG):
		return problem.Wrap(err, problem.StoreFull, "The store %s has no room left.", url)
	case is(syscall.EACCES, syscall.EPERM, syscall.EROFS):
		return problem.Wrap(err, problem.StorePermissionDenied, "The store %s may not be used by this user.", url).
			Do("Run as a user that may read and write the folder, or correct its permissions; a read-only file system has to be mounted for writing.")
	case is(syscall.ESTALE, syscall.ETIMEDOUT, syscall.ENOTCONN, syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ECONNABORTED):
		return problem.Wrap(err, problem.StoreUnreachable, "The store %s does not answer.", url)
	}
	return problem.Wrap(err, problem.StoreFailed, "The store %s reported an error.", url)
}
