// Package open finds the driver for a URL. It stands above the drivers, since
// they know bucket.Bucket and bucket does not know them.
package open

import (
	"context"
	"strings"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/filebucket"
	"github.com/diskvault/diskvault/store/bucket/membucket"
	"github.com/diskvault/diskvault/store/bucket/s3bucket"
)

// Options of Bucket. The zero value opens a place that must exist.
type Options struct {
	Create bool                // make the folder of a file bucket if it is missing
	Retry  bucket.RetryOptions // how long to go on when the storage fails for a moment
}

// Bucket opens the bucket at a URL: file:/PATH or a plain path, s3://BUCKET/PREFIX
// (see s3bucket.Location), or memory: for an empty one that nobody else sees.
// Its calls are retried and written down in the account of their context.
// Object storage is not talked to yet.
func Bucket(ctx context.Context, url string, o Options) (bucket.Bucket, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := driver(url, o)
	if err != nil {
		return nil, err
	}
	return bucket.Retrying(b, o.Retry), nil
}

func driver(url string, o Options) (bucket.Bucket, error) {
	scheme, rest, hasScheme := strings.Cut(url, ":")
	switch {
	case url == "":
		return nil, problem.New(problem.InvalidArgument, "The URL of a store is empty.").
			Do("Give a folder, or a URL like s3://BUCKET/PREFIX.")
	case !hasScheme || strings.ContainsAny(scheme, "/."):
		return file(url, o)
	case scheme == "file":
		// file:/path and file:///path; a host cannot be meant.
		if path, ok := strings.CutPrefix(rest, "//"); ok {
			if !strings.HasPrefix(path, "/") {
				return nil, problem.New(problem.InvalidArgument, "The URL %q names another machine; a file store is a folder of this one.", url).
					Do("Write file:/PATH, with one slash or three.")
			}
			rest = path
		}
		if rest == "" {
			return nil, problem.New(problem.InvalidArgument, "The URL %q names no folder.", url)
		}
		return file(rest, o)
	case scheme == "s3":
		location, err := s3bucket.ParseURL(url)
		if err != nil {
			return nil, err
		}
		return s3bucket.Open(location, s3bucket.Options{})
	case scheme == "memory" && rest == "":
		return membucket.New(), nil
	}
	return nil, problem.New(problem.InvalidArgument, "There is no kind of storage called %q.", scheme).
		Do("Use a folder, file:/PATH or s3://BUCKET/PREFIX.")
}

func file(path string, o Options) (bucket.Bucket, error) {
	b, err := filebucket.Open(path, filebucket.Options{Create: o.Create})
	if err != nil {
		return nil, err // not b, which would be an interface that is not nil
	}
	return b, nil
}
