package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// CopyOptions say what is copied, and how fast.
type CopyOptions struct {
	Instances []string // IDs of backup instances; empty: all
	Points    []string // IDs of recovery points; empty: all
	// Placed are points that are known to be in the destination. Those that it
	// lists beside them are read once, to tell points from fences.
	Placed map[string]bool
	// Omitted are points that are not to be copied, as those that somebody deleted
	// from the destination.
	Omitted map[string]bool
	// Bases names, by instance, a point of the destination to compare with where it
	// does not have the parent; without one all its points are read to find one.
	Bases           map[string]string
	LimitRate       int64 // bytes read from the source store in a second; 0: no limit
	CheckpointEvery time.Duration
	Meter           *meter.Meter            // required
	Progress        func(done, total int64) // hears of bytes of the disks dealt with; may be nil
}

// CopyResult is what a copy did.
type CopyResult struct {
	There    int           `json:"there"`  // points asked for that the destination had
	Copied   []Point       `json:"copied"` // as they stand in the destination, in the order of the copy
	Failed   []CopyFailure `json:"failed"`
	Placed   []string      `json:"-"`       // IDs of all points of the source that the destination has now
	Records  int           `json:"records"` // configuration records written
	Bytes    CopyBytes     `json:"bytes"`
	Moved    int64         `json:"movedFrames"`    // frames sent as they were
	Gathered int64         `json:"gatheredFrames"` // frames made anew of the blocks that were missing
	Notices  []string      `json:"-"`              // sentences for the user
}

// CopyBytes counts what a copy did, by class of work. Unchanged counts what was
// looked at block by block; whole subtrees that both stores have count nowhere.
type CopyBytes struct {
	Disk      int64 `json:"disk"`      // size of the disks copied
	Unchanged int64 `json:"unchanged"` // same as in the point before, at the same place
	Known     int64 `json:"known"`     // in the destination already, from elsewhere
	New       int64 `json:"new"`       // sent, before compression
	Read      int64 `json:"read"`      // from the data packs of the source
	Stored    int64 `json:"stored"`    // written to the destination, packs of both kinds
}

// CopyFailure is a point that was not copied. The others were.
type CopyFailure struct {
	Point    string    `json:"point"`
	Instance string    `json:"instance"`
	Name     string    `json:"name"` // of the instance
	Disk     string    `json:"disk"`
	Time     time.Time `json:"time"`
	Lost     []Range   `json:"lost,omitempty"` // parts of the disk that the source store does not have
	Err      error     `json:"-"`
}

// errBaseUnsure: the point to compare with turned out not to be readable.
var errBaseUnsure = errors.New("the recovery point to compare with cannot be taken over from")

// copyReaders is how many documents are read at a time.
const copyReaders = 16

// Copy copies recovery points, with all that they show, and the configuration
// records to another store of the realm. Only what is missing there is sent;
// points keep their IDs and all fields but the place of their tree. Both stores
// may be used meanwhile, by anybody. What an interrupted copy sent is used by the
// next one.
//
// A point that cannot be copied, since the source store is damaged or another
// process copies it, is told in the result; the others are copied. Any other
// error ends the copy, with a result that tells what was done until then. Errors:
// StoreRealmDiffers, and those of both stores.
func (s *Store) Copy(ctx context.Context, dst *Store, o CopyOptions) (CopyResult, error) {
	c := &copier{src: s, dst: dst, options: o, limit: newLimiter(o.LimitRate), newest: map[string]Point{}}
	if c.options.CheckpointEvery <= 0 {
		c.options.CheckpointEvery = 5 * time.Minute
	}
	if err := s.MayCopyTo(dst); err != nil {
		return c.result, err
	}
	o.Meter.Phase(phaseCompare)
	missing, err := c.missing(ctx)
	if err == nil {
		err = c.records(ctx)
	}
	if err != nil {
		return c.result, err
	}
	for _, p := range missing {
		c.total += p.Size
	}
	c.progress(0)
	for _, points := range byInstance(missing) {
		if err := c.instance(ctx, points); err != nil {
			return c.result, err
		}
	}
	return c.result, nil
}

// The phases of a copy. They may follow one another several times.
const (
	phaseCompare  = "compare"
	phaseTransfer = "transfer"
	phaseCommit   = "commit"
)

// MayCopyTo refuses a destination in which the same content has other hashes, and
// the store itself. Errors: StoreRealmDiffers, InvalidArgument.
func (s *Store) MayCopyTo(dst *Store) error {
	switch {
	case s.header.StoreID == dst.header.StoreID:
		return problem.New(problem.InvalidArgument, "%s and %s are the same store.", s.URL(), dst.URL())
	case s.header.RealmID != dst.header.RealmID || s.identity != dst.identity || s.blockSize != dst.blockSize:
		return problem.New(problem.StoreRealmDiffers, "The store at %s is of another realm than the one at %s, so the same data has other names there.", dst.URL(), s.URL())
	}
	return nil
}

// copier is one copy. It is for one goroutine.
type copier struct {
	src, dst *Store
	options  CopyOptions
	limit    *limiter
	result   CopyResult

	newest map[string]Point // by instance: the point of the destination copied last
	others []Point          // points of the destination; nil: not read yet
	meters int              // points that the meter has accounted for

	done, total int64 // bytes of the disks
}

func (c *copier) progress(done int64) {
	c.done += done
	if c.options.Progress != nil {
		c.options.Progress(c.done, c.total)
	}
}

// missing gives the points asked for that the destination does not have.
func (c *copier) missing(ctx context.Context) ([]Point, error) {
	there := map[string]bool{}
	var unsure, wanted []string
	if len(c.options.Points) > 0 {
		// A few points of a large store are asked for one by one.
		for _, name := range c.options.Points {
			if !c.options.Omitted[name] {
				unsure = append(unsure, name)
			}
		}
	} else {
		all, err := c.src.pointNames(ctx)
		if err != nil {
			return nil, err
		}
		listed, err := c.dst.pointNames(ctx)
		if err != nil {
			return nil, err
		}
		for name := range all {
			switch {
			case listed[name] && c.options.Placed[name]:
				there[name] = true
			case listed[name]:
				unsure = append(unsure, name)
			case !c.options.Omitted[name]:
				wanted = append(wanted, name)
			}
		}
	}
	var mu sync.Mutex // covers there, wanted, points and failed
	err := each(ctx, unsure, func(ctx context.Context, name string) error {
		doc, err := c.dst.point(ctx, name)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case doc.Fence != nil || errors.Is(err, bucket.ErrNotFound):
			wanted = append(wanted, name)
		case err == nil || isDamage(err): // what is damaged there is for a check to say
			there[name] = true
		default:
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var points []Point
	err = each(ctx, wanted, func(ctx context.Context, name string) error {
		doc, err := c.src.point(ctx, name)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case doc.Fence != nil || errors.Is(err, bucket.ErrNotFound): // deleted meanwhile
		case isDamage(err):
			c.result.Failed = append(c.result.Failed, CopyFailure{Point: name, Err: err})
		case err != nil:
			return err
		case len(c.options.Instances) == 0 || slices.Contains(c.options.Instances, doc.Instance):
			points = append(points, doc.Point)
		}
		return nil
	})
	for name := range there {
		c.result.Placed = append(c.result.Placed, name)
	}
	c.result.There = len(there)
	return points, err
}

// pointNames lists points and fences by their IDs.
func (s *Store) pointNames(ctx context.Context) (map[string]bool, error) {
	names := map[string]bool{}
	for o, err := range s.bucket.List(ctx, pointPrefix, "") {
		if err != nil {
			return nil, err
		}
		text := strings.TrimPrefix(o.Key, pointPrefix)
		if id, err := ParseID(text); err == nil && id.String() == text {
			names[text] = true
		}
	}
	return names, nil
}

// each calls f for all names, several at a time.
func each(ctx context.Context, names []string, f func(ctx context.Context, name string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(copyReaders)
	for _, name := range names {
		group.Go(func() error { return f(ctx, name) })
	}
	return group.Wait()
}

// byInstance sorts points so that each is an increment on the one before.
func byInstance(points []Point) (out [][]Point) {
	slices.SortFunc(points, func(a, b Point) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Instance, b.Instance), a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	for i, p := range points {
		if i == 0 || points[i-1].Instance != p.Instance {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], p)
	}
	return out
}

// instance copies the points of one instance, oldest first.
func (c *copier) instance(ctx context.Context, points []Point) error {
	leave, err := c.src.hold(ctx, points)
	if err != nil {
		return err
	}
	defer leave()
	for _, p := range points {
		if err := c.copy(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// hold keeps what the points show from collection until leave is called. A
// store that this process may only read is read without.
func (s *Store) hold(ctx context.Context, points []Point) (leave func(), err error) {
	doc := sessionDocument{ID: ID(pack.NewID()), Task: taskRead, Instance: points[0].Instance}
	for _, p := range points {
		doc.Images = append(doc.Images, stored{p.Root, p.Size, p.Top})
	}
	session, err := s.beginSession(ctx, doc, nil)
	if problem.Is(err, problem.StorePermissionDenied) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	// A session that stays behind is tidied up by the next collection.
	return func() { _ = session.end(context.WithoutCancel(ctx)) }, nil
}

// copy copies one point, and tells in the result what became of it.
func (c *copier) copy(ctx context.Context, p Point) error {
	if _, err := c.src.bucket.Stat(ctx, pointPrefix+p.ID); isMissing(err) {
		c.progress(p.Size)
		return nil // deleted meanwhile
	} else if err != nil {
		return err
	}
	before := c.done
	base, err := c.base(ctx, p)
	if err != nil {
		return err
	}
	run := &copyRun{copier: c, point: p}
	copied, err := run.do(ctx, base)
	if errors.Is(err, errBaseUnsure) || errors.Is(err, ErrBaseGone) {
		c.done = before
		run = &copyRun{copier: c, point: p}
		copied, err = run.do(ctx, nil)
	}
	if cause := context.Cause(ctx); cause != nil && err != nil {
		return cause
	}
	c.done = before
	c.progress(p.Size)
	if failure, ok := run.failure(err); ok {
		c.result.Failed = append(c.result.Failed, failure)
		return nil
	}
	if err != nil {
		return err
	}
	c.newest[p.Instance] = copied
	c.result.Copied = append(c.result.Copied, copied)
	c.result.Placed = append(c.result.Placed, p.ID)
	c.result.Bytes.Disk += p.Size
	return nil
}

// base finds the point of the destination that is nearest to p: its parent, the
// one copied before it, or any of the instance.
func (c *copier) base(ctx context.Context, p Point) (*Point, error) {
	if newest, ok := c.newest[p.Instance]; ok {
		return &newest, nil
	}
	for _, id := range []string{p.Parent, c.options.Bases[p.Instance]} {
		if id == "" {
			continue
		}
		switch base, err := c.dst.Point(ctx, id); {
		case err == nil:
			return &base, nil
		case !isDamage(err) && !problem.Is(err, problem.RecoveryPointNotFound):
			return nil, err
		}
	}
	if c.others == nil {
		c.others = []Point{}
		for other, err := range c.dst.Points(ctx) {
			if err == nil {
				c.others = append(c.others, other)
			} else if !isDamage(err) {
				return nil, err
			}
		}
	}
	var nearest *Point
	distance := func(o *Point) time.Duration { return o.Created.Sub(p.Created).Abs() }
	for i := range c.others {
		if o := &c.others[i]; o.Instance == p.Instance && (nearest == nil || distance(o) < distance(nearest)) {
			nearest = o
		}
	}
	return nearest, nil
}

// maxCopyMeters bounds how many points get stages of their own in the job's
// record; a first copy may have thousands.
const maxCopyMeters = 32

// meter gives the account of the next point.
func (c *copier) meter() *meter.Meter {
	if c.meters++; c.meters > maxCopyMeters {
		return meter.New(phaseTransfer)
	}
	return c.options.Meter
}

func (c *copier) busy(p Point, who string) error {
	return problem.New(problem.CopyInProgress, "The recovery point %s of %q is being copied to %s by %s.", p.ID, p.Name, c.dst.URL(), who)
}

func (f CopyFailure) String() string {
	var lost int64
	for _, r := range f.Lost {
		lost += r.Length
	}
	name := f.Point
	if f.Name != "" {
		name = fmt.Sprintf("%s of %s (%s UTC)", f.Point, f.Name, f.Time.UTC().Format("2006-01-02 15:04:05"))
	}
	if len(f.Lost) > 0 {
		return fmt.Sprintf("The recovery point %s was not copied: its store has lost %d bytes of %s in %d ranges, the first at byte %d.", name, lost, f.Disk, len(f.Lost), f.Lost[0].Offset)
	}
	return fmt.Sprintf("The recovery point %s was not copied: %v", name, f.Err)
}
