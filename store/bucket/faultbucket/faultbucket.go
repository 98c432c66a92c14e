// Package faultbucket is a bucket that fails on purpose, for tests. Each call
// can fail before or after it was carried out, be cut short or delayed, by a
// plan or by a seed.
package faultbucket

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
)

// Operation names a method of a bucket.
type Operation string

// The operations that a plan sees.
const (
	Put    Operation = "put"
	Get    Operation = "get"
	Stat   Operation = "stat"
	List   Operation = "list"
	Delete Operation = "delete"
)

// Mode says what becomes of a call.
type Mode int

const (
	Pass    Mode = iota // it is carried out
	NotDone             // it fails, and nothing was done
	Done                // it is carried out, and reported as failed
	Short               // Get fills a part of the buffer, List yields some objects; then it fails. Others: Done
)

func (m Mode) String() string {
	return [...]string{"pass", "not done", "done but reported failed", "cut short"}[m]
}

// Fault is what happens to a call. The zero value is nothing.
type Fault struct {
	Mode  Mode
	Err   error         // what is reported; nil: Temporary
	Delay time.Duration // before anything else
}

// Temporary is an error that Retrying tries again; Permanent is one that it
// does not. Both wrap ErrInjected.
var (
	ErrInjected       = errors.New("a fault was injected")
	Temporary   error = problem.Wrap(&bucket.Transient{Err: ErrInjected}, problem.StoreUnreachable, "The store does not answer.")
	Permanent   error = problem.Wrap(ErrInjected, problem.StoreFailed, "The store reported an error.")
)

// Call is a call of the bucket.
type Call struct {
	Number    int // from 1, in the order of beginning
	Operation Operation
	Key       string // or the prefix of a List
}

// Plan decides on the fault of each call. It is called for one call at a time.
type Plan func(Call) Fault

// Nothing is the plan without faults, to count calls.
func Nothing(Call) Fault { return Fault{} }

// At is the plan that call number n has the fault.
func At(n int, f Fault) Plan {
	return func(c Call) Fault {
		if c.Number == n {
			return f
		}
		return Fault{}
	}
}

// From is the plan that call number n and all later ones have the fault.
func From(n int, f Fault) Plan {
	return func(c Call) Fault {
		if c.Number >= n {
			return f
		}
		return Fault{}
	}
}

// Seeded is the plan that a share of the calls has one of the faults, by chance
// as the seed decides. Without faults given, it is NotDone, Done and Short.
func Seeded(seed uint64, share float64, faults ...Fault) Plan {
	if len(faults) == 0 {
		faults = []Fault{{Mode: NotDone}, {Mode: Done}, {Mode: Short}}
	}
	random := rand.New(rand.NewPCG(seed, seed))
	return func(Call) Fault {
		if random.Float64() >= share {
			return Fault{}
		}
		return faults[random.IntN(len(faults))]
	}
}

// Bucket is a bucket with faults.
type Bucket struct {
	bucket.Bucket

	mu    sync.Mutex
	plan  Plan   // guarded by mu
	calls []Call // guarded by mu
}

// New wraps a bucket.
func New(b bucket.Bucket, plan Plan) *Bucket {
	return &Bucket{Bucket: b, plan: plan}
}

// Follow replaces the plan and begins to count calls anew.
func (b *Bucket) Follow(plan Plan) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.plan, b.calls = plan, nil
}

// Calls gives the calls so far.
func (b *Bucket) Calls() []Call {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.calls)
}

func (b *Bucket) fault(ctx context.Context, op Operation, key string) (Fault, error) {
	b.mu.Lock()
	c := Call{len(b.calls) + 1, op, key}
	b.calls = append(b.calls, c)
	f := b.plan(c)
	b.mu.Unlock()
	if f.Err == nil {
		f.Err = Temporary
	}
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return f, ctx.Err()
		}
	}
	return f, nil
}

// do carries out a call as the fault says.
func (b *Bucket) do(ctx context.Context, op Operation, key string, call func() error) error {
	f, err := b.fault(ctx, op, key)
	switch {
	case err != nil:
		return err
	case f.Mode == Pass:
		return call()
	case f.Mode != NotDone:
		call()
	}
	return f.Err
}

// Put is described at bucket.Bucket.
func (b *Bucket) Put(ctx context.Context, key string, parts [][]byte) error {
	return b.do(ctx, Put, key, func() error { return b.Bucket.Put(ctx, key, parts) })
}

// Get is described at bucket.Bucket.
func (b *Bucket) Get(ctx context.Context, key string, off int64, dst []byte) error {
	f, err := b.fault(ctx, Get, key)
	if err != nil {
		return err
	}
	if f.Mode != NotDone {
		err = b.Bucket.Get(ctx, key, off, dst)
	}
	if f.Mode == Pass {
		return err
	}
	if f.Mode == Short {
		clear(dst[len(dst)/2:])
	} else {
		clear(dst)
	}
	return f.Err
}

// Stat is described at bucket.Bucket.
func (b *Bucket) Stat(ctx context.Context, key string) (o bucket.Object, err error) {
	err = b.do(ctx, Stat, key, func() (err error) {
		o, err = b.Bucket.Stat(ctx, key)
		return err
	})
	if err != nil {
		o = bucket.Object{}
	}
	return o, err
}

// Delete is described at bucket.Bucket.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	return b.do(ctx, Delete, key, func() error { return b.Bucket.Delete(ctx, key) })
}

// List is described at bucket.Bucket. With Done, all objects are yielded before
// the error; with Short, the first few.
func (b *Bucket) List(ctx context.Context, prefix, after string) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		f, err := b.fault(ctx, List, prefix)
		if err != nil || f.Mode == NotDone {
			if err == nil {
				err = f.Err
			}
			yield(bucket.Object{}, err)
			return
		}
		const few = 3
		n := 0
		for o, err := range b.Bucket.List(ctx, prefix, after) {
			if f.Mode == Short && n == few {
				break
			}
			n++
			if !yield(o, err) || err != nil {
				return
			}
		}
		if f.Mode != Pass {
			yield(bucket.Object{}, f.Err)
		}
	}
}
