package bucket

import (
	"context"
	"time"

	"github.com/diskvault/diskvault/base/meter"
)

// Account says where the time that calls of a bucket take is written down. Its
// fields may be nil.
type Account struct {
	// Meter gets a seam for each operation: bucket.put, bucket.get,
	// bucket.stat, bucket.list, bucket.delete. Every attempt counts as one; those
	// that the storage refused as too many count in bucket.throttled as well.
	Meter *meter.Meter
	// Worker is in the state Backoff during a wait before a retry, and in Work
	// after it. As the worker belongs to one goroutine, so does the context.
	Worker *meter.Worker
	// Retry is told of each attempt that failed and will be made again.
	Retry func(Retry)
}

// Retry is an attempt that failed and will be made again.
type Retry struct {
	Operation string // name of the seam
	Key       string // or the prefix of a List
	Attempt   int    // that failed, from 1
	Wait      time.Duration
	Err       error
}

type accountKey struct{}

// WithAccount gives a context whose calls of a Retrying bucket are written down
// in the account.
func WithAccount(ctx context.Context, a Account) context.Context {
	return context.WithValue(ctx, accountKey{}, a)
}

func accountOf(ctx context.Context) Account {
	a, _ := ctx.Value(accountKey{}).(Account)
	return a
}

func (a Account) observe(operation string, start time.Time, err error) {
	if a.Meter != nil {
		a.Meter.Seam(operation).Observe(start, err)
	}
}

func (a Account) enter(s meter.State) {
	if a.Worker != nil {
		a.Worker.Enter(s)
	}
}
