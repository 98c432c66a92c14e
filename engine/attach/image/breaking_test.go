package image

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/diskvault/diskvault/store/bucket"
)

var errBroken = errors.New("broken on purpose")

// breaking is a bucket that can be made slow and broken.
type breaking struct {
	bucket.Bucket
	broken atomic.Bool
	delay  atomic.Int64 // milliseconds
}

func (b *breaking) set(broken bool) { b.broken.Store(broken) }

func (b *breaking) Get(ctx context.Context, key string, off int64, p []byte) error {
	if b.broken.Load() {
		return errBroken
	}
	time.Sleep(time.Duration(b.delay.Load()) * time.Millisecond)
	return b.Bucket.Get(ctx, key, off, p)
}
