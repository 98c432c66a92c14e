package bucket_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/buckettest"
	"github.com/diskvault/diskvault/store/bucket/faultbucket"
	"github.com/diskvault/diskvault/store/bucket/membucket"
)

// quick retries without any wait worth the name.
var quick = bucket.RetryOptions{Attempts: 40, FirstWait: time.Microsecond, MaxWait: 10 * time.Microsecond}

func TestConformanceWithoutFaults(t *testing.T) {
	buckettest.Run(t, buckettest.Options{}, func(*testing.T) bucket.Bucket {
		return bucket.Retrying(membucket.New(), quick)
	})
}

// Whatever fails for a moment must not show: not as an error, not as an object
// that is refused because an earlier attempt stored it.
func TestConformanceWithFaults(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			buckettest.Run(t, buckettest.Options{Keys: 200}, func(*testing.T) bucket.Bucket {
				return bucket.Retrying(faultbucket.New(membucket.New(), faultbucket.Seeded(seed, 0.3)), quick)
			})
		})
	}
}

// header makes an object as the store does: what tells it apart lies in its
// first 64 bytes.
func header(who byte, length int) [][]byte {
	data := make([]byte, length)
	for i := range min(length, 64) {
		data[i] = who
	}
	return [][]byte{data[:length/3], data[length/3:]}
}

func TestUnclearPut(t *testing.T) {
	for _, c := range []struct {
		name   string
		mode   faultbucket.Mode
		others [][]byte // stored by somebody else before
		exists bool
	}{
		{"not stored", faultbucket.NotDone, nil, false},
		{"stored, but reported failed", faultbucket.Done, nil, false},
		{"taken, and reported failed", faultbucket.Done, header(2, 100), true},
		{"taken by an object of another length", faultbucket.NotDone, header(1, 101), true},
		{"taken by one without content", faultbucket.NotDone, [][]byte{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := membucket.New()
			if c.others != nil {
				if err := m.Put(t.Context(), "x", c.others); err != nil {
					t.Fatal(err)
				}
			}
			f := faultbucket.New(m, faultbucket.At(1, faultbucket.Fault{Mode: c.mode}))
			err := bucket.Retrying(f, quick).Put(t.Context(), "x", header(1, 100))
			if errors.Is(err, bucket.ErrExists) != c.exists || (err != nil) != c.exists {
				t.Fatalf("the put gives %v", err)
			}
			data, err := bucket.ReadAll(t.Context(), m, "x", 200)
			if err != nil {
				t.Fatal(err)
			}
			if ours := len(data) == 100 && data[0] == 1; ours == c.exists {
				t.Fatalf("the object holds %d bytes, %x", len(data), data)
			}
		})
	}
}

// Every call of an unclear put and of the look at what is there fails in turn.
func TestUnclearPutFailsAgain(t *testing.T) {
	for n := 2; n <= 5; n++ {
		for _, mode := range []faultbucket.Mode{faultbucket.NotDone, faultbucket.Done, faultbucket.Short} {
			f := faultbucket.New(membucket.New(), func(c faultbucket.Call) faultbucket.Fault {
				if c.Number == 1 {
					return faultbucket.Fault{Mode: faultbucket.Done}
				}
				if c.Number == n {
					return faultbucket.Fault{Mode: mode}
				}
				return faultbucket.Fault{}
			})
			if err := bucket.Retrying(f, quick).Put(t.Context(), "x", header(1, 100)); err != nil {
				t.Errorf("call %d %v: %v after %v", n, mode, err, f.Calls())
			}
		}
	}
}

func TestAnObjectThatGoesAwayInBetweenIsPutAgain(t *testing.T) {
	m := membucket.New()
	f := faultbucket.New(m, func(c faultbucket.Call) faultbucket.Fault {
		switch c.Number {
		case 1:
			return faultbucket.Fault{Mode: faultbucket.Done}
		case 3: // between the refused put and the look at what is there
			if err := m.Delete(context.Background(), "x"); err != nil {
				t.Error(err)
			}
		}
		return faultbucket.Fault{}
	})
	if err := bucket.Retrying(f, quick).Put(t.Context(), "x", header(1, 100)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Stat(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsNotRetried(t *testing.T) {
	m := membucket.New()
	if err := m.Put(t.Context(), "taken", [][]byte{[]byte("x")}); err != nil {
		t.Fatal(err)
	}
	f := faultbucket.New(m, faultbucket.Nothing)
	b := bucket.Retrying(f, quick)
	// The same content, but no attempt of ours can have stored it.
	if err := b.Put(t.Context(), "taken", [][]byte{[]byte("x")}); !errors.Is(err, bucket.ErrExists) {
		t.Errorf("put gives %v", err)
	}
	if _, err := b.Stat(t.Context(), "missing"); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("stat gives %v", err)
	}
	if n := len(f.Calls()); n != 2 {
		t.Errorf("%d calls instead of 2", n)
	}
	f.Follow(faultbucket.From(1, faultbucket.Fault{Mode: faultbucket.NotDone, Err: faultbucket.Permanent}))
	if err := b.Delete(t.Context(), "taken"); !errors.Is(err, faultbucket.ErrInjected) || !problem.Is(err, problem.StoreFailed) {
		t.Errorf("delete gives %v", err)
	}
	if n := len(f.Calls()); n != 1 {
		t.Errorf("%d calls instead of 1", n)
	}
}

func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := faultbucket.New(membucket.New(), faultbucket.From(1, faultbucket.Fault{Mode: faultbucket.NotDone}))
		var waits []time.Duration
		ctx := bucket.WithAccount(t.Context(), bucket.Account{Retry: func(r bucket.Retry) {
			if r.Operation != "bucket.get" || r.Key != "x" || r.Attempt != len(waits)+1 || !errors.Is(r.Err, faultbucket.ErrInjected) {
				t.Errorf("told of %+v", r)
			}
			waits = append(waits, r.Wait)
		}})
		err := bucket.Retrying(f, bucket.RetryOptions{}).Get(ctx, "x", 0, make([]byte, 1))
		if !problem.Is(err, problem.StoreUnreachable) || !errors.Is(err, faultbucket.ErrInjected) {
			t.Errorf("giving up gives %v", err)
		}
		if n := len(f.Calls()); n != bucket.DefaultAttempts || len(waits) != n-1 {
			t.Errorf("%d calls, %d waits", n, len(waits))
		}
		for i, w := range waits {
			longest := min(bucket.DefaultFirstWait<<i, bucket.DefaultMaxWait)
			if w > longest || w < longest/2-1 {
				t.Errorf("wait %d is %v, longest %v", i+1, w, longest)
			}
		}
	})
}

func TestTheStorageIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &bucket.Transient{Err: errors.New("slow down"), After: 70 * time.Second}
		f := faultbucket.New(membucket.New(), faultbucket.At(1, faultbucket.Fault{Mode: faultbucket.NotDone, Err: slow}))
		start := time.Now()
		if err := bucket.Retrying(f, bucket.RetryOptions{}).Put(t.Context(), "x", nil); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != 70*time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

// What the storage refuses as too much is told from what fails.
func TestThrottledRequestsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &bucket.Transient{Err: errors.New("slow down"), Throttled: true}
		throttled, failed := faultbucket.At(1, faultbucket.Fault{Mode: faultbucket.NotDone, Err: slow}), faultbucket.At(2, faultbucket.Fault{Mode: faultbucket.NotDone, Err: faultbucket.Temporary})
		f := faultbucket.New(membucket.New(), func(c faultbucket.Call) faultbucket.Fault {
			if c.Number == 1 {
				return throttled(c)
			}
			return failed(c)
		})
		m := meter.New("transfer")
		ctx := bucket.WithAccount(t.Context(), bucket.Account{Meter: m})
		if err := bucket.Retrying(f, bucket.RetryOptions{}).Put(ctx, "x", nil); err != nil {
			t.Fatal(err)
		}
		counts := map[string]int64{}
		for _, s := range m.Record().Seams {
			counts[s.Seam] = s.Count
		}
		if counts["bucket.put"] != 3 || counts["bucket.throttled"] != 1 {
			t.Errorf("%v", counts)
		}
	})
}

func TestCancelEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := faultbucket.New(membucket.New(), faultbucket.From(1, faultbucket.Fault{Mode: faultbucket.NotDone}))
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		start := time.Now()
		err := bucket.Retrying(f, bucket.RetryOptions{}).Put(ctx, "x", nil)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 7*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := membucket.New()
		for i := range 10 {
			if err := m.Put(t.Context(), fmt.Sprint(i), nil); err != nil {
				t.Fatal(err)
			}
		}
		// Each call takes a second; the first put and the first list fail.
		seen := map[faultbucket.Operation]bool{}
		f := faultbucket.New(m, func(c faultbucket.Call) faultbucket.Fault {
			fault := faultbucket.Fault{Delay: time.Second}
			if !seen[c.Operation] && (c.Operation == faultbucket.Put || c.Operation == faultbucket.List) {
				fault.Mode = faultbucket.Short
			}
			seen[c.Operation] = true
			return fault
		})
		account := meter.New("test")
		worker := account.Stage("put", 1).Worker(0)
		ctx := bucket.WithAccount(t.Context(), bucket.Account{Meter: account, Worker: worker})
		b := bucket.Retrying(f, bucket.RetryOptions{FirstWait: 10 * time.Second, MaxWait: 10 * time.Second})
		worker.Enter(meter.Work)
		if err := b.Put(ctx, "x", header(1, 100)); err != nil {
			t.Fatal(err)
		}
		worker.Enter(meter.Starved)
		listed := 0
		for _, err := range b.List(bucket.WithAccount(ctx, bucket.Account{Meter: account}), "", "") {
			if err != nil {
				t.Fatal(err)
			}
			listed++
			time.Sleep(time.Minute) // the caller's own time
		}
		worker.Done()
		if listed != 11 {
			t.Errorf("%d objects listed", listed)
		}
		seams := map[string]meter.SeamRecord{}
		for _, s := range account.Record().Seams {
			seams[s.Seam] = s
		}
		// The second attempt of the put meets the own object and looks at it:
		// one second each for put, stat and get.
		if s := seams["bucket.put"]; s.Count != 2 || s.Errors != 1 || s.Seconds != 4 {
			t.Errorf("put: %+v", s)
		}
		if s := seams["bucket.list"]; s.Count != 2 || s.Errors != 1 || s.Seconds != 2 {
			t.Errorf("list: %+v", s)
		}
		if w := account.Record().Stages[0]; w.Backoff < 5 || w.Backoff > 10 {
			t.Errorf("worker: %+v", w)
		}
	})
}
