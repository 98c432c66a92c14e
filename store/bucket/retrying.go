package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
)

// Defaults of RetryOptions. Together they give up after about two minutes of
// waiting.
const (
	DefaultAttempts  = 12
	DefaultFirstWait = 100 * time.Millisecond
	DefaultMaxWait   = 30 * time.Second
)

// maxAsked is the longest wait that the storage may ask for.
const maxAsked = 2 * time.Minute

// headLength is how much of an object is compared to tell whose it is: the
// header of an object holds 32 random bytes within it.
const headLength = 64

// RetryOptions are the options of Retrying; zero values mean the defaults.
type RetryOptions struct {
	Attempts  int           // how often a call is made at most
	FirstWait time.Duration // before the second attempt; doubles with each
	MaxWait   time.Duration // the longest wait, unless the storage asks for more
}

func (o RetryOptions) withDefaults() RetryOptions {
	if o.Attempts <= 0 {
		o.Attempts = DefaultAttempts
	}
	if o.FirstWait <= 0 {
		o.FirstWait = DefaultFirstWait
	}
	if o.MaxWait <= 0 {
		o.MaxWait = DefaultMaxWait
	}
	return o
}

// Retrying wraps a bucket so that calls that fail with a Transient error are
// made again, with waits that double and vary by chance. It writes all calls
// down in the Account of the context. A call whose context has ended returns the
// cause of that.
//
// A Put that is repeated may meet its own object, if the attempt that failed
// did store it. Retrying tells it from somebody else's by the length and the
// first 64 bytes, so objects that different writers put under one key must
// differ in these.
func Retrying(b Bucket, o RetryOptions) Bucket {
	return &retrying{b, o.withDefaults()}
}

type retrying struct {
	Bucket
	o RetryOptions
}

func (r *retrying) Put(ctx context.Context, key string, parts [][]byte) error {
	unclear := false
	return r.do(ctx, "bucket.put", key, func(*attempt) error {
		err := r.Bucket.Put(ctx, key, parts)
		if unclear && errors.Is(err, ErrExists) {
			return r.whose(ctx, key, parts, err)
		}
		unclear = unclear || IsTransient(err)
		return err
	})
}

// whose decides what exists means after a Put that failed in an unclear way:
// nil if the object is the one that was put.
func (r *retrying) whose(ctx context.Context, key string, parts [][]byte, exists error) error {
	o, err := r.Bucket.Stat(ctx, key)
	if err == nil {
		if o.Size != Size(parts) {
			return exists
		}
		head := make([]byte, min(headLength, o.Size))
		if err = r.Bucket.Get(ctx, key, 0, head); err == nil {
			if !bytes.Equal(head, firstBytes(parts, len(head))) {
				return exists
			}
			return nil
		}
	}
	if errors.Is(err, ErrNotFound) {
		// Deleted in between: the next attempt finds the key free.
		return &Transient{Err: fmt.Errorf("put %s: the object that had the key is gone", key)}
	}
	return err
}

func firstBytes(parts [][]byte, n int) []byte {
	head := make([]byte, 0, n)
	for _, p := range parts {
		head = append(head, p[:min(len(p), n-len(head))]...)
	}
	return head
}

func (r *retrying) Get(ctx context.Context, key string, off int64, dst []byte) error {
	return r.do(ctx, "bucket.get", key, func(*attempt) error {
		return r.Bucket.Get(ctx, key, off, dst)
	})
}

func (r *retrying) Stat(ctx context.Context, key string) (o Object, err error) {
	err = r.do(ctx, "bucket.stat", key, func(*attempt) (err error) {
		o, err = r.Bucket.Stat(ctx, key)
		return err
	})
	return o, err
}

func (r *retrying) Delete(ctx context.Context, key string) error {
	return r.do(ctx, "bucket.delete", key, func(*attempt) error {
		return r.Bucket.Delete(ctx, key)
	})
}

// List goes on after the last object that it has yielded.
func (r *retrying) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		last := after
		err := r.do(ctx, "bucket.list", prefix, func(a *attempt) error {
			for o, err := range r.Bucket.List(ctx, prefix, last) {
				if err != nil {
					return err
				}
				last = o.Key
				a.number = 1 // what helped the listing on was no failure
				paused := time.Now()
				more := yield(o, nil)
				a.start = a.start.Add(time.Since(paused))
				if !more {
					return nil
				}
			}
			return nil
		})
		if err != nil {
			yield(Object{}, err)
		}
	}
}

// attempt is one try of a call.
type attempt struct {
	number int       // from 1
	start  time.Time // a List moves it by the time that its caller takes
}

func (r *retrying) do(ctx context.Context, operation, key string, call func(*attempt) error) error {
	account := accountOf(ctx)
	began := time.Now()
	for a := (attempt{number: 1}); ; a.number++ {
		a.start = time.Now()
		err := call(&a)
		account.observe(operation, a.start, err)
		var transient *Transient
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.As(err, &transient):
			return err
		case a.number >= r.o.Attempts:
			return problem.Wrap(err, problem.StoreUnreachable, "The store %s did not answer as it should in %d attempts within %s.",
				r.URL(), a.number, time.Since(began).Round(time.Second))
		}
		if transient.Throttled {
			account.observe("bucket.throttled", a.start, err)
		}
		wait := r.wait(a.number, transient.After)
		if account.Retry != nil {
			account.Retry(Retry{operation, key, a.number, wait, err})
		}
		account.enter(meter.Backoff)
		err = sleep(ctx, wait)
		account.enter(meter.Work)
		if err != nil {
			return err
		}
	}
}

// wait is how long to wait after an attempt: FirstWait, doubled each time, of
// which up to a half is left to chance, so that many writers do not come back
// together.
func (r *retrying) wait(attempt int, asked time.Duration) time.Duration {
	wait := r.o.MaxWait
	if shift := attempt - 1; shift < 30 && r.o.FirstWait<<shift < r.o.MaxWait {
		wait = r.o.FirstWait << shift
	}
	wait -= rand.N(wait/2 + 1)
	return max(wait, min(asked, maxAsked))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
