// Package backup stores one disk as one recovery point: it captures the
// source, moves it through the pipeline into the store, and commits the point
// if the capture proves to be of one point in time.
package backup

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/capture"
	"github.com/diskvault/diskvault/store"
)

// The phases of a backup, in order.
const (
	phasePreflight = "preflight" // base, identity
	phaseQuiesce   = "quiesce"   // flush and lease
	phaseDiscover  = "discover"  // what changed since the parent
	phaseTransfer  = "transfer"  // read, cpu, put
	phaseCommit    = "commit"    // last packs, the point
)

// Options say what is backed up, and how.
type Options struct {
	Store    *store.Store
	Source   *disk.Source
	Capturer capture.Capturer // nil: capture.Options, for the instance
	Parent   *store.Point     // newest point of the instance; nil: none

	// Point is the beginning of the point to be: the fields that the run does
	// not find out itself (instance, name, vault, policy, trigger, retention).
	Point store.Point

	Compression       store.Compression
	FullScan          bool // read all that is allocated, whatever change tracking says
	AllowInconsistent bool
	AllowUnreadable   bool          // store zeros for ranges that cannot be read
	AcceptReplaced    bool          // the disk may be another than that of the parent
	LimitRate         int64         // bytes read in a second; 0: no limit
	CheckpointEvery   time.Duration // 0: five minutes
	// FullReadEvery is after how long all of the disk is read again although its
	// changes are tracked, to see whether tracking missed any; 0: 30 days.
	FullReadEvery time.Duration

	Meter *meter.Meter // required; the run adds phases, stages and seams
}

// Result is what a run did.
type Result struct {
	Point          store.Point
	Capture        Capture
	ChangeTracking ChangeTracking
	Resumed        int64    // bytes that an interrupted run had dealt with already
	Attempts       int      // how often the source was read, from 1
	Warnings       []string // sentences for the user
	Notices        []string // the same, of what is no defect of the point
}

// Capture is how the point in time was had.
type Capture struct {
	Method  string  `json:"method"`
	Seconds float64 `json:"seconds"`
	Proven  bool    `json:"proven"`
	Reason  string  `json:"reason"`
}

// ChangeTracking is how the run knew what to read.
type ChangeTracking struct {
	Method string
	Reason string
	// Planned: all was read because that was asked for or due, not because
	// tracking failed.
	Planned bool
	// Dropped is why the next backup will not know: a clause.
	Dropped string
	// Missed are changes that tracking did not name, found by reading everything.
	Missed []store.Range
}

// Run is one backup. Make it with New, call Do once; Progress any time.
type Run struct {
	options  Options
	result   Result
	parent   *store.Image // content of the parent; nil: none, or damaged
	distrust string       // why changes are not to be tracked: a clause
	reported int64        // bytes that change tracking named in this attempt

	mu     sync.Mutex // covers what Progress looks at
	total  int64
	line   *pipeline
	writer *store.Writer
	began  time.Time
}

// New prepares a run.
func New(o Options) *Run {
	if o.Capturer == nil {
		o.Capturer = capture.Options{Owner: o.Point.Instance}
	}
	if o.FullReadEvery <= 0 {
		o.FullReadEvery = 30 * 24 * time.Hour
	}
	if o.CheckpointEvery <= 0 {
		o.CheckpointEvery = 5 * time.Minute
	}
	if o.Compression == "" {
		o.Compression = store.CompressionAuto
	}
	return &Run{options: o, total: min(o.Source.Size, o.Source.Allocated)}
}

// attempts is how often a source that is written to now and then is read
// before the run is refused. What the first attempt stored is not stored again.
const attempts = 3

// Do makes the backup. When it returns an error there is no recovery point;
// what was stored is used by the next run. Errors are problems: SourceInUse,
// SourceReplaced, SourceReadFailed, SourceResized, and those of the store.
func (r *Run) Do(ctx context.Context) (Result, error) {
	sampling, stop := context.WithCancel(ctx)
	defer stop()
	go r.sample(sampling)
	base, err := r.preflight(ctx)
	if err != nil {
		return r.result, err
	}
	for {
		r.result.Attempts++
		again, err := r.attempt(ctx, base)
		if errors.Is(err, store.ErrBaseGone) && r.distrust != deletedParent {
			base, r.distrust = nil, deletedParent
			continue
		}
		if err != nil {
			err = reason(err, ctx)
		}
		if err == nil || !again || r.result.Attempts == attempts || ctx.Err() != nil {
			return r.result, err
		}
		select {
		case <-time.After(time.Duration(r.result.Attempts) * time.Second):
		case <-ctx.Done():
			return r.result, context.Cause(ctx)
		}
	}
}

// sample looks at the queues five times a second.
func (r *Run) sample(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.options.Meter.Sample()
		case <-ctx.Done():
			return
		}
	}
}

func (r *Run) warn(format string, args ...any) {
	r.result.Warnings = append(r.result.Warnings, fmt.Sprintf(format, args...))
}

// preflight finds the image to compare with.
func (r *Run) preflight(ctx context.Context) (*store.Image, error) {
	o := r.options
	o.Meter.Phase(phasePreflight)
	var base *store.Image
	if o.Parent != nil {
		if err := r.sameDisk(); err != nil {
			return nil, err
		}
		if o.Parent.Size != o.Source.Size {
			r.warn("The disk had %d bytes at the last backup and has %d now.", o.Parent.Size, o.Source.Size)
		}
		var err error
		if base, err = o.Store.Image(*o.Parent); err != nil {
			r.warn("The last recovery point, %s, is damaged; everything is compared with the index instead. Run `diskvault store check`.", o.Parent.ID)
			r.distrust, base = damagedParent, nil
		}
		r.parent = base
	}
	// What an interrupted run stored is nearer to the disk than the parent, and
	// behind what it reached it is the parent.
	partial, done, ok, err := o.Store.Unfinished(ctx, o.Point.Instance)
	if err != nil {
		return nil, err
	}
	if ok {
		base, r.result.Resumed = partial, done
	}
	return base, nil
}

// sameDisk refuses a disk that is another than the one protected so far.
func (r *Run) sameDisk() error {
	o := r.options
	var before disk.Identity
	if o.AcceptReplaced || len(o.Parent.Identity) == 0 || json.Unmarshal(o.Parent.Identity, &before) != nil {
		return nil
	}
	if differs, reason := before.Contradicts(o.Source.Identity); differs {
		return problem.New(problem.SourceReplaced, "%s is not the disk that was protected here before: %s.", o.Source.Path, reason)
	}
	return nil
}

// attempt reads the source once. again tells that another attempt may succeed.
func (r *Run) attempt(ctx context.Context, base *store.Image) (again bool, err error) {
	o := r.options
	o.Meter.Phase(phaseQuiesce)
	began, id := time.Now(), newID()
	view, err := o.Capturer.Capture(ctx, o.Source)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, closeOnce(&view)) }()
	r.result.Capture.Seconds = time.Since(began).Seconds()
	if !o.AllowInconsistent && broken(view) {
		return r.refuse(ctx, view)
	}

	if n, ok := view.(noticer); ok {
		r.result.Notices = n.Notices()
	}
	o.Meter.Phase(phaseDiscover)
	changes, tracked, err := r.changes(ctx, view)
	if err != nil {
		return false, err
	}
	if tracked {
		base, r.result.Resumed = r.parent, 0 // what the changes are against, as no checkpoint is
	}
	writer, err := o.Store.NewWriter(ctx, store.WriterOptions{
		ID: id, Instance: o.Point.Instance, Size: view.Size(), Base: base, Compression: o.Compression, Meter: o.Meter,
	})
	if err != nil {
		return false, err
	}
	defer writer.Close()
	o.Meter.Phase(phaseTransfer)
	line := &pipeline{
		source: view, writer: writer, meter: o.Meter, limit: newLimiter(o.LimitRate),
		allowUnreadable: o.AllowUnreadable, checkpointEvery: o.CheckpointEvery,
	}
	if tracked {
		if line.changed, err = r.changed(changes, writer, view.Size()); err != nil {
			return r.withoutBase(err)
		}
		line.tracked = true
	}
	if !o.AllowInconsistent {
		line.broken = view.Broken()
	}
	r.follow(line, writer)
	err = line.run(ctx, int64(o.Store.BlockSize()))
	if errors.Is(err, errBroken) {
		return r.refuse(ctx, view)
	}
	if err != nil {
		return r.withoutBase(explain(err))
	}

	proof, err := view.Prove(ctx)
	if err != nil {
		return false, err
	}
	r.noteProof(proof)
	if !proof.Proven && !o.AllowInconsistent {
		return proof.Retry, proof.Problem(o.Source)
	}
	point := r.point(began, proof, line)
	point.CaptureBase = r.keep(ctx, view, proof, id)
	if _, ok := view.(tracker); !ok {
		// Whoever waits to write to the source need not wait for the commit.
		if err := closeOnce(&view); err != nil {
			return false, err
		}
	}
	o.Meter.Phase(phaseCommit)
	r.result.Point, err = writer.Commit(point)
	r.result.Warnings = append(r.result.Warnings, writer.Notices()...)
	if err != nil {
		return false, err
	}
	r.settle(ctx, view, changes, tracked)
	return false, nil
}

// follow makes Progress tell of this attempt.
func (r *Run) follow(line *pipeline, writer *store.Writer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.line, r.writer, r.began = line, writer, time.Now()
	r.total = min(r.options.Source.Size, r.options.Source.Allocated)
	if line.tracked {
		r.total = min(r.total, line.changed.Total())
	}
}

// refuse gives the reason of a view that is broken.
func (r *Run) refuse(ctx context.Context, view capture.View) (again bool, err error) {
	proof, err := view.Prove(ctx)
	if err != nil {
		return false, err
	}
	r.noteProof(proof)
	if p := proof.Problem(r.options.Source); p != nil {
		return proof.Retry, p
	}
	return true, problem.New(problem.SourceInUse, "%s was written to while it was read.", r.options.Source.Path)
}

func (r *Run) noteProof(p capture.Proof) {
	r.result.Capture.Method, r.result.Capture.Proven, r.result.Capture.Reason = string(p.Method), p.Proven, p.Reason
}

// point fills in what the run found out.
func (r *Run) point(at time.Time, proof capture.Proof, line *pipeline) store.Point {
	o := r.options
	p := o.Point
	p.Time = at.UTC()
	p.Consistency = store.CrashConsistent
	if !proof.Proven {
		p.Consistency, p.Reason = store.Inconsistent, proof.Reason
		r.warn("The copy may not be of one point in time. %s", proof.Reason)
	}
	for _, lost := range line.unreadable {
		p.Unreadable = append(p.Unreadable, store.Range{Offset: lost.Off, Length: lost.Len})
	}
	if n := line.unreadable.Total(); n > 0 {
		p.Consistency = store.Inconsistent
		p.Reason = fmt.Sprintf("%d bytes in %d ranges could not be read and are stored as zeros", n, len(line.unreadable))
		r.warn("%d bytes in %d ranges could not be read and are stored as zeros.", n, len(line.unreadable))
	}
	p.CaptureMethod = string(proof.Method)
	p.ChangeTracking = r.result.ChangeTracking.Method
	if identity, err := json.Marshal(o.Source.Identity); err == nil && len(o.Source.Identity) > 0 {
		p.Identity = identity
	}
	if o.Parent != nil {
		p.Parent = o.Parent.ID
		p.Created = o.Parent.Created.Add(time.Microsecond) // at least, whatever the clock says
	}
	read := line.read.Load()
	p.Bytes.Provisioned, p.Bytes.Read = o.Source.Size, read
	p.Bytes.Allocated, p.Bytes.ReportedChanged = read, read
	p.FullRead = p.Time
	if line.tracked {
		p.Bytes.Allocated, p.Bytes.ReportedChanged = min(o.Source.Size, o.Source.Allocated), r.reported
		p.FullRead = o.Parent.FullRead
	}
	return p
}

// explain names the ranges that could not be read.
func explain(err error) error {
	failed := (*disk.ReadError)(nil)
	if !errors.As(err, &failed) {
		return err
	}
	first := failed.Ranges[0]
	p := problem.Wrap(failed.Err, problem.SourceReadFailed, "%s cannot be read: %d bytes in %d ranges returned an error, the first at byte %d.",
		failed.Path, failed.Ranges.Total(), len(failed.Ranges), first.Off)
	return p.With("unreadable", failed.Ranges)
}

func broken(v capture.View) bool {
	select {
	case <-v.Broken():
		return true
	default:
		return false
	}
}

// closeOnce closes the view unless that was done before.
func closeOnce(v *capture.View) error {
	if *v == nil {
		return nil
	}
	err := (*v).Close()
	*v = nil
	return err
}

func newID() (id store.ID) {
	rand.Read(id[:])
	return id
}
