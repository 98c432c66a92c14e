// Package restore brings a recovery point back to a file or device: in
// parallel, sparse, each block verified by its hash before it is written, and
// only where the target does not hold it already.
package restore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/store"
	"github.com/diskvault/diskvault/store/bucket"
)

// The phases of a restore, in order.
const (
	phasePreflight = "preflight"
	phaseTransfer  = "transfer"
	phaseCommit    = "commit" // fsync, the name of a new file
)

// Options say what is restored, and where to.
type Options struct {
	Store        *store.Store
	Point        store.Point
	To           string // path of a new file, an existing file or a device
	Overwrite    bool   // allow a target that holds data
	Dense        bool   // give zeros room on the file system, too
	AllowDamaged bool   // leave zeros where the store is damaged, and go on
	Meter        *meter.Meter
}

// Result is what a restore did. Sizes are in bytes, and add up to that of the
// disk.
type Result struct {
	Target   string
	Written  int64
	Zero     int64 // zeros: holes, or written where the target held something else
	Skipped  int64 // right already
	Verified bool  // every block that was written or skipped had the hash that the tree names
	Resumed  bool  // an interrupted restore of the same point was gone on with
	Lost     []store.Range
	Warnings []string
}

// Run is one restore. Make it with New, call Do once; Progress any time.
type Run struct {
	options Options
	began   atomic.Int64 // nanoseconds since 1970; 0: not yet
	written atomic.Int64
	zero    atomic.Int64
	skipped atomic.Int64

	mu   sync.Mutex
	lost extent.Set // guarded by mu
	why  error      // guarded by mu: the first reason of a loss
}

// New prepares a restore.
func New(o Options) *Run { return &Run{options: o} }

// Progress is where a restore stands, in bytes of the disk.
type Progress struct {
	Phase string  `json:"phase"`
	Done  int64   `json:"done"`
	Total int64   `json:"total"`
	Rate  float64 `json:"rate"` // bytes in a second
	Left  float64 `json:"left"` // seconds; 0: not known yet
}

// Progress may be asked for while Do runs, by any goroutine.
func (r *Run) Progress() Progress {
	record := r.options.Meter.Record()
	p := Progress{Total: r.options.Point.Size, Done: r.written.Load() + r.zero.Load() + r.skipped.Load()}
	if n := len(record.Phases); n > 0 {
		p.Phase = record.Phases[n-1].Phase
	}
	if began := r.began.Load(); began > 0 {
		elapsed := time.Since(time.Unix(0, began)).Seconds()
		p.Rate = float64(p.Done) / max(elapsed, 1e-3)
		if elapsed > 1 && p.Rate > 0 {
			p.Left = float64(p.Total-p.Done) / p.Rate
		}
	}
	return p
}

// Do restores the point. Interrupted, or failed, it leaves a new file beside
// its name, and the same call goes on with it. Errors are problems: those of
// disk.OpenTarget, StoreDamaged with the ranges that are lost.
func (r *Run) Do(ctx context.Context) (Result, error) {
	o := r.options
	o.Meter.Phase(phasePreflight)
	result := Result{}
	img, err := o.Store.Image(o.Point)
	if err != nil {
		return result, err
	}
	target, err := disk.OpenTarget(ctx, o.To, disk.TargetOptions{
		Size: o.Point.Size, Overwrite: o.Overwrite, Dense: o.Dense,
		Token: "root " + o.Point.Root.String(),
	})
	if err != nil {
		return result, err
	}
	defer target.Abort(true)
	hold, err := o.Store.Hold(ctx, o.Point, "restore")
	if problem.Is(err, problem.RecoveryPointNotFound) || ctx.Err() != nil {
		return result, err
	}
	if err == nil {
		defer hold.Release(ctx)
	} // else it may not be written to, and is read all the same
	result.Target, result.Resumed = target.Path(), target.Resumed()

	o.Meter.Phase(phaseTransfer)
	r.began.Store(time.Now().UnixNano())
	if o.Dense && target.Blank() {
		if err := target.Zero(ctx, extent.Range{Len: target.Size()}); err != nil {
			return result, err
		}
	}
	if err := r.transfer(ctx, img, target); err != nil {
		return result, err
	}
	result.Written, result.Zero, result.Skipped = r.written.Load(), r.zero.Load(), r.skipped.Load()
	for _, lost := range r.lost {
		result.Lost = append(result.Lost, store.Range{Offset: lost.Off, Length: lost.Len})
	}
	if len(r.lost) > 0 {
		p := problem.Wrap(r.why, problem.StoreDamaged, "Of the disk %d bytes in %s cannot be restored since the store is damaged, the first at byte %d; the rest can.",
			r.lost.Total(), ranges(len(r.lost)), r.lost[0].Off).With("lost", result.Lost)
		if !o.AllowDamaged {
			return result, p.Do("Restore another recovery point.", "Or restore what can be: add --allow-damaged; the ranges that are lost stay zeros.")
		}
		result.Warnings = append(result.Warnings, p.Message)
	}
	o.Meter.Phase(phaseCommit)
	if err := target.Commit(ctx); err != nil {
		return result, err
	}
	result.Verified = len(r.lost) == 0
	return result, nil
}

func ranges(n int) string {
	if n == 1 {
		return "1 range"
	}
	return fmt.Sprintf("%d ranges", n)
}

// window is what a worker restores in one go: a segment, so that no frame is
// read by two workers.
const window = store.SegmentSize

// workers is how many windows are restored at a time. Beside the processors
// some more wait for the store and the target.
func workers(s *store.Store) int {
	if strings.HasPrefix(s.URL(), "file:") {
		return runtime.GOMAXPROCS(0) + 4 // writes go past the page cache, so they take the disk's time
	}
	return max(8, runtime.GOMAXPROCS(0))
}

func (r *Run) transfer(ctx context.Context, img *store.Image, target *disk.Target) error {
	n := workers(r.options.Store)
	stage := r.options.Meter.Stage("restore", n)
	offsets := make(chan int64)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(offsets)
		return r.plan(ctx, img, target, offsets)
	})
	for i := range n {
		group.Go(func() error {
			w := worker{run: r, target: target, reader: img.NewReader(), account: stage.Worker(i), write: r.options.Meter.Seam("target.write")}
			defer w.reader.Close()
			defer w.account.Done()
			return w.work(bucket.WithAccount(ctx, bucket.Account{Meter: r.options.Meter, Worker: w.account}), stage, offsets)
		})
	}
	return group.Wait()
}

// plan sends the offsets of the windows in which the image or the target may
// hold something else than zeros.
func (r *Run) plan(ctx context.Context, img *store.Image, target *disk.Target, offsets chan<- int64) error {
	find := img.NewReader()
	defer find.Close()
	size := img.Size()
	for at := int64(0); at < size; {
		next, ok, err := find.NextData(ctx, at)
		if err != nil {
			next, ok = at, true // the worker reports what is lost
		}
		if !ok {
			next = size
		}
		if !target.Blank() {
			there, err := target.NextData(at)
			if err != nil {
				return err
			}
			next = min(next, there)
		}
		next = min(next/window*window, size)
		if next = max(next, at); next > at {
			r.zero.Add(next - at)
			if err := target.Zero(ctx, extent.Between(at, next)); err != nil {
				return err
			}
		}
		if next == size {
			return nil
		}
		select {
		case offsets <- next:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		at = min(next+window, size)
	}
	return nil
}

// worker restores window after window. It is for one goroutine.
type worker struct {
	run     *Run
	target  *disk.Target
	reader  *store.Reader
	account *meter.Worker
	write   *meter.Seam
	have    []byte // what the target holds
	window  []byte // the window at hand, so that neighbours are written at once
	from    int64  // where the window begins on the disk
	filled  extent.Set
	covered int64 // bytes of the window that were written or lost
}

func (w *worker) work(ctx context.Context, stage *meter.Stage, offsets <-chan int64) error {
	for {
		w.account.Enter(meter.Starved)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case off, ok := <-offsets:
			if !ok {
				return nil
			}
			w.account.Enter(meter.Work)
			length := min(window, w.run.options.Point.Size-off)
			if err := w.restore(ctx, off, length); err != nil {
				return err
			}
			stage.Add(length)
			w.run.options.Meter.Mark(length)
		}
	}
}

func (w *worker) restore(ctx context.Context, off, length int64) error {
	w.covered, w.from, w.filled = 0, off, nil
	if w.window == nil {
		w.window = disk.AlignedBuffer(window)
	}
	if w.target.Blank() {
		if err := w.reader.Window(ctx, off, length, w.visit, w.lose); err != nil {
			return err
		}
		w.run.zero.Add(length - w.covered)
		return w.flush()
	}
	if w.have == nil {
		w.have = disk.AlignedBuffer(window)
	}
	have := w.have[:length]
	if _, err := w.target.ReadAt(have, off); err != nil {
		return err
	}
	skipped, err := w.reader.Update(ctx, off, have, w.visit, func(off, length int64) error {
		w.run.zero.Add(length)
		return w.target.Zero(ctx, extent.Range{Off: off, Len: length})
	}, w.lose)
	w.run.skipped.Add(skipped)
	if err != nil {
		return err
	}
	return w.flush()
}

// visit takes data that was read and verified.
func (w *worker) visit(off int64, data []byte) error {
	copy(w.window[off-w.from:], data)
	w.filled = w.filled.Union(extent.Of(extent.Range{Off: off, Len: int64(len(data))}))
	w.covered += int64(len(data))
	return nil
}

// flush writes what the window was filled with.
func (w *worker) flush() error {
	for _, r := range w.filled {
		start := time.Now()
		_, err := w.target.WriteAt(w.window[r.Off-w.from:r.End()-w.from], r.Off)
		w.write.Observe(start, err)
		if err != nil {
			return err
		}
		w.run.written.Add(r.Len)
	}
	return nil
}

// lose notes a range that the store cannot give. The others are still
// restored, so that the report is whole and what can be had is there.
func (w *worker) lose(off, length int64, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	w.covered += length
	w.run.mu.Lock()
	defer w.run.mu.Unlock()
	w.run.lost = w.run.lost.Union(extent.Of(extent.Range{Off: off, Len: length}))
	if w.run.why == nil {
		w.run.why = fmt.Errorf("the first reason: %w", err)
	}
	return nil
}
