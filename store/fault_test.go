package store

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/faultbucket"
	"github.com/diskvault/diskvault/store/bucket/filebucket"
	"github.com/diskvault/diskvault/store/bucket/membucket"
	"github.com/diskvault/diskvault/store/bucket/s3bucket"
	"github.com/diskvault/diskvault/store/bucket/s3bucket/s3test"
)

// quick repeats failed calls without waiting long.
var quick = bucket.RetryOptions{Attempts: 3, FirstWait: time.Nanosecond, MaxWait: time.Microsecond}

// ways are those in which a call can fail: once and for a moment, once and for
// good, or with all calls after it; and each both carried out and not.
var ways = []struct {
	name  string
	heals bool // a retry must make up for it
	plan  func(n int) faultbucket.Plan
}{
	{"for a moment, not done", true, func(n int) faultbucket.Plan { return faultbucket.At(n, faultbucket.Fault{Mode: faultbucket.NotDone}) }},
	{"for a moment, but done", true, func(n int) faultbucket.Plan { return faultbucket.At(n, faultbucket.Fault{Mode: faultbucket.Done}) }},
	{"for a moment, in the middle", true, func(n int) faultbucket.Plan { return faultbucket.At(n, faultbucket.Fault{Mode: faultbucket.Short}) }},
	{"once, not done", false, func(n int) faultbucket.Plan {
		return faultbucket.At(n, faultbucket.Fault{Mode: faultbucket.NotDone, Err: faultbucket.Permanent})
	}},
	{"once, but done", false, func(n int) faultbucket.Plan {
		return faultbucket.At(n, faultbucket.Fault{Mode: faultbucket.Done, Err: faultbucket.Permanent})
	}},
	{"from then on, not done", false, func(n int) faultbucket.Plan {
		return faultbucket.From(n, faultbucket.Fault{Mode: faultbucket.NotDone, Err: faultbucket.Permanent})
	}},
	{"from then on, but done", false, func(n int) faultbucket.Plan {
		return faultbucket.From(n, faultbucket.Fault{Mode: faultbucket.Done, Err: faultbucket.Permanent})
	}},
}

// trial is a store on a bucket that fails, and what was done with it.
type trial struct {
	t       *testing.T
	raw     bucket.Bucket
	faults  *faultbucket.Bucket
	created Created
	cache   string
	disks   [][]byte        // of the runs, in order
	said    map[string]bool // points that were reported as committed
}

func newTrial(t *testing.T, raw bucket.Bucket) *trial {
	first := someDisk(600_333, 8)
	second := bytes.Clone(first)
	fill(rand.New(rand.NewPCG(4, 4)), second[300_000:400_000])
	return &trial{t: t, raw: raw, faults: faultbucket.New(raw, faultbucket.Nothing), cache: memoryDir(t), disks: [][]byte{first, second}, said: map[string]bool{}}
}

func (x *trial) create() (err error) {
	x.created, err = Create(x.t.Context(), x.faults, CreateOptions{BlockSize: 16 << 10, Retry: quick})
	return err
}

func (x *trial) open(b bucket.Bucket) (*Store, error) {
	k, err := ParseKey(x.created.LocalKey)
	if err != nil {
		x.t.Fatal(err)
	}
	return Open(x.t.Context(), b, k, OpenOptions{CacheDir: x.cache, Retry: quick})
}

// unclosed keeps a bucket usable after its store was closed.
type unclosed struct{ bucket.Bucket }

func (unclosed) Close() error { return nil }

// runs backs up both disks, the second on the first, until one fails.
func (x *trial) runs() error {
	s, err := x.open(unclosed{x.faults})
	if err != nil {
		return err
	}
	defer s.Close()
	var base *Point
	for i, disk := range x.disks {
		p, err := save(x.t.Context(), s, fmt.Sprint(i), disk, base)
		if err != nil {
			return err
		}
		x.said[p.ID] = true
		base = &p
	}
	return nil
}

// examine looks at what is left, with another store and without faults.
func (x *trial) examine() error {
	x.faults.Follow(faultbucket.Nothing)
	s, err := x.open(unclosed{x.raw})
	if err != nil {
		return fmt.Errorf("opening it again: %w", err)
	}
	defer s.Close()
	listed := map[string]bool{}
	var newest *Point
	for p, err := range s.Points(x.t.Context()) {
		if err != nil {
			return fmt.Errorf("a point that cannot be read: %w", err)
		}
		listed[p.ID] = true
		var i int
		fmt.Sscan(p.Instance, &i)
		got, err := load(x.t.Context(), s, p)
		if err != nil || !bytes.Equal(got, x.disks[i]) {
			return fmt.Errorf("a point that is not whole: %w", err)
		}
		newest = &p
	}
	for id := range x.said {
		if !listed[id] {
			return fmt.Errorf("the committed point %s is gone", id)
		}
	}
	if err := undamaged(x.t.Context(), s); err != nil {
		return err
	}
	// The next run works, and stands on what is there.
	p, err := save(x.t.Context(), s, "1", x.disks[1], newest)
	if err != nil {
		return fmt.Errorf("the next run: %w", err)
	}
	got, err := load(x.t.Context(), s, p)
	if err != nil || !bytes.Equal(got, x.disks[1]) {
		return fmt.Errorf("the point of the next run is not whole: %w", err)
	}
	return undamaged(x.t.Context(), s)
}

func undamaged(ctx context.Context, s *Store) error {
	report, err := s.Check(ctx, CheckOptions{ReadData: true})
	if err == nil && len(report.Damage) > 0 {
		err = fmt.Errorf("check: %+v", report.Damage)
	}
	return err
}

// class names calls that serve the same end.
func class(c faultbucket.Call) string {
	key, _, _ := strings.Cut(c.Key, "-")
	if at := strings.IndexByte(key, '/'); at >= 0 {
		key = key[:at] + strings.Repeat("/", strings.Count(key, "/"))
	}
	return string(c.Operation) + " " + key
}

// few picks one call of each class, or all of them.
func few(calls []faultbucket.Call, all bool) (numbers []int) {
	seen := map[string]bool{}
	for _, c := range calls {
		if all || !seen[class(c)] {
			numbers = append(numbers, c.Number)
		}
		seen[class(c)] = true
	}
	return numbers
}

// share says which calls fail in which ways. Of any three neighbours among the
// ways, one carries the call out and one does not. With DISKVAULT_LONG set, all
// calls fail in all ways.
type share struct {
	calls bool // all calls, or one of each class
	ways  int  // how many of the ways, a different choice for each call
}

// has tells whether call number n is to fail in the way.
func (s share) has(n, way int) bool { return (n+way)%len(ways) < s.ways }

// grounds are the drivers; each gives an empty bucket.
func grounds(t *testing.T, each func(t *testing.T, s share, empty func(t *testing.T) bucket.Bucket)) {
	shares := map[string]share{"memory": {true, 3}, "file": {false, 3}, "S3": {false, 2}}
	if os.Getenv("DISKVAULT_LONG") != "" {
		for name := range shares {
			shares[name] = share{true, len(ways)}
		}
	}
	t.Run("memory", func(t *testing.T) {
		each(t, shares["memory"], func(*testing.T) bucket.Bucket { return membucket.New() })
	})
	t.Run("file", func(t *testing.T) {
		each(t, shares["file"], func(t *testing.T) bucket.Bucket {
			b, err := filebucket.Open(memoryDir(t), filebucket.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
			return b
		})
	})
	t.Run("S3", func(t *testing.T) {
		server := s3test.Start(t)
		each(t, shares["S3"], func(t *testing.T) bucket.Bucket {
			b, err := s3bucket.Open(server.NewBucket(t), s3bucket.Options{Credentials: server.Credentials()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
			return b
		})
	})
}

func TestACreationMayFailAtEachCall(t *testing.T) {
	grounds(t, func(t *testing.T, s share, empty func(t *testing.T) bucket.Bucket) {
		x := newTrial(t, empty(t))
		if err := x.create(); err != nil {
			t.Fatal(err)
		}
		calls := x.faults.Calls()
		for _, n := range few(calls, s.calls) {
			for w, way := range ways {
				if !s.has(n, w) {
					continue
				}
				x := newTrial(t, empty(t))
				x.faults.Follow(way.plan(n))
				err := x.create()
				fail := func(err error) {
					t.Fatalf("%s fails %s: %v", class(calls[n-1]), way.name, err)
				}
				if way.heals && err != nil {
					fail(err)
				}
				x.faults.Follow(faultbucket.Nothing)
				if _, exists := Identify(t.Context(), x.raw); problem.Is(exists, problem.StoreNotFound) {
					if err == nil {
						fail(exists)
					}
					if err := x.create(); err != nil {
						fail(fmt.Errorf("the next creation: %w", err))
					}
				} else if exists != nil {
					fail(exists)
				}
				// Whatever was said, the keys at hand open what is there.
				opened, err := readOnly(t, unclosed{x.raw}, x.created.RecoveryKey)
				if err != nil {
					fail(err)
				}
				if slots, err := opened.Keys(t.Context()); err != nil || len(slots) != 2 {
					fail(fmt.Errorf("%d keys, %w", len(slots), err))
				}
			}
		}
	})
}

func TestARunMayFailAtEachCall(t *testing.T) {
	grounds(t, func(t *testing.T, s share, empty func(t *testing.T) bucket.Bucket) {
		x := newTrial(t, empty(t))
		if err := x.create(); err != nil {
			t.Fatal(err)
		}
		x.faults.Follow(faultbucket.Nothing)
		if err := x.runs(); err != nil {
			t.Fatal(err)
		}
		calls := x.faults.Calls()
		if !slices.ContainsFunc(calls, func(c faultbucket.Call) bool { return class(c) == "put points/" }) {
			t.Fatalf("no point was put: %v", calls)
		}
		for _, n := range few(calls, s.calls) {
			for w, way := range ways {
				if !s.has(n, w) {
					continue
				}
				x := newTrial(t, empty(t))
				if err := x.create(); err != nil {
					t.Fatal(err)
				}
				x.faults.Follow(way.plan(n))
				err := x.runs()
				failed := "no call"
				if calls := x.faults.Calls(); len(calls) >= n {
					failed = class(calls[n-1])
				}
				if way.heals && err != nil {
					t.Fatalf("%s fails %s: %v", failed, way.name, err)
				}
				if err := x.examine(); err != nil {
					t.Fatalf("%s fails %s: %v", failed, way.name, err)
				}
			}
		}
	})
}
