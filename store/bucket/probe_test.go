package bucket_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/faultbucket"
	"github.com/diskvault/diskvault/store/bucket/membucket"
)

// Storage that breaks one promise each.

type overwrites struct{ *membucket.Bucket }

func (b overwrites) Put(_ context.Context, key string, parts [][]byte) error {
	b.Replace(key, slices.Concat(parts...))
	return nil
}

// says keeps the promise in words only: it refuses the second object and stores
// it all the same.
type says struct{ *membucket.Bucket }

func (b says) Put(ctx context.Context, key string, parts [][]byte) error {
	_, missing := b.Stat(ctx, key)
	b.Replace(key, slices.Concat(parts...))
	if missing == nil {
		return bucket.ErrExists
	}
	return nil
}

type lateReads struct{ *membucket.Bucket }

func (b lateReads) Get(_ context.Context, key string, _ int64, _ []byte) error {
	return bucket.NotFound(b, key)
}

type noRanges struct{ *membucket.Bucket }

func (b noRanges) Get(ctx context.Context, key string, _ int64, dst []byte) error {
	return b.Bucket.Get(ctx, key, 0, dst)
}

type lateList struct{ *membucket.Bucket }

func (b lateList) List(context.Context, string, string) iter.Seq2[bucket.Object, error] {
	return func(func(bucket.Object, error) bool) {}
}

type backwards struct{ *membucket.Bucket }

func (b backwards) List(ctx context.Context, prefix, after string) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		var all []bucket.Object
		for o := range b.Bucket.List(ctx, prefix, after) {
			all = append(all, o)
		}
		for _, o := range slices.Backward(all) {
			if !yield(o, nil) {
				return
			}
		}
	}
}

type keeps struct{ *membucket.Bucket }

func (keeps) Delete(context.Context, string) error { return nil }

func TestProbeNamesTheBrokenPromise(t *testing.T) {
	for _, c := range []struct {
		storage bucket.Bucket
		promise string
	}{
		{overwrites{membucket.New()}, "conditional put"},
		{says{membucket.New()}, "conditional put"},
		{lateReads{membucket.New()}, "conditional put"},
		{noRanges{membucket.New()}, "in ranges"},
		{lateList{membucket.New()}, "listed at once"},
		{backwards{membucket.New()}, "in order"},
		{keeps{membucket.New()}, "deleted"},
	} {
		t.Run(fmt.Sprintf("%T", c.storage), func(t *testing.T) {
			err := bucket.Probe(t.Context(), c.storage)
			if !problem.Is(err, problem.StoreContractMissing) || !strings.Contains(err.Error(), c.promise) {
				t.Fatalf("the probe says: %v", err)
			}
		})
	}
}

// An error of the storage is no broken promise, and nothing stays behind.
func TestProbeFailsAtEachCall(t *testing.T) {
	m := membucket.New()
	f := faultbucket.New(m, faultbucket.Nothing)
	if err := bucket.Probe(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	calls := len(f.Calls())
	if calls < 10 {
		t.Fatalf("the probe makes only %d calls", calls)
	}
	for n := 1; n <= calls; n++ {
		for _, mode := range []faultbucket.Mode{faultbucket.NotDone, faultbucket.Done} {
			f.Follow(faultbucket.At(n, faultbucket.Fault{Mode: mode, Err: faultbucket.Permanent}))
			err := bucket.Probe(t.Context(), f)
			if err == nil {
				t.Fatalf("call %d %v: the probe is content", n, mode)
			}
			failed := f.Calls()[n-1]
			if problem.Is(err, problem.StoreContractMissing) && failed.Operation != faultbucket.Get && failed.Operation != faultbucket.Stat {
				t.Errorf("call %d %v (%v): %v", n, mode, failed, err)
			}
			left := 0
			for range m.List(t.Context(), "", "") {
				left++
			}
			if left > 0 && failed.Operation != faultbucket.Delete {
				t.Errorf("call %d %v (%v): %d objects stay", n, mode, failed, left)
			}
			for o := range m.List(t.Context(), "", "") {
				m.Delete(t.Context(), o.Key)
			}
		}
	}
}

func TestProbeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m := membucket.New()
	f := faultbucket.New(m, func(c faultbucket.Call) faultbucket.Fault {
		if c.Number == 4 {
			cancel()
		}
		return faultbucket.Fault{}
	})
	if err := bucket.Probe(ctx, f); !errors.Is(err, context.Canceled) {
		t.Fatalf("the probe says: %v", err)
	}
	for o := range m.List(t.Context(), "", "") {
		t.Errorf("%s stays", o.Key)
	}
}
