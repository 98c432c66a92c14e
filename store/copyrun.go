package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/image"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// copyRun copies one point: a plan that walks both trees, readers, workers that
// verify and seal, and a tree that takes all in order. What is in flight is
// bounded by the buffers for what was read.
type copyRun struct {
	*copier
	point  Point
	image  *Image // in the source
	writer *Writer

	from     *image.Cursor
	base     *image.Cursor // of the destination; nil: none
	baseTop  int           // level of its top
	takeOver bool          // whole subtrees may be taken over from the base
	doubtful extent.Set    // but for these

	jobs chan *copyRequest
	free chan []byte // buffers for what is read
	plan chan copyStep

	moved, gathered, read atomic.Int64

	lost   []extent.Range // of the disk; of the goroutine of the tree
	mu     sync.Mutex
	reason error // why the first of them is lost; guarded by mu
}

// copyStep is the next part of a disk: zeros, what the base has, or blocks.
type copyStep struct {
	offset, length int64 // in bytes of the disk
	same           bool  // as it stands in the base
	lost           bool  // its node cannot be read
	children       []image.Child
	pieces         []double // children whose place is not known yet
}

// do copies the point, compared with base, which may be nil.
func (r *copyRun) do(ctx context.Context, base *Point) (p Point, err error) {
	r.options.Meter.Phase(phaseTransfer)
	if r.image, err = r.src.Image(r.point); err != nil {
		return p, err
	}
	r.from = r.image.tree.NewCursor()
	id, err := ParseID(r.point.ID)
	if err != nil {
		return p, err
	}
	before, fenced, err := r.claim(ctx, id)
	if err != nil {
		return p, err
	}
	if before == nil && base != nil {
		if before, err = r.dst.Image(*base); err != nil && !isDamage(err) {
			return p, err
		}
	}
	r.writer, err = r.dst.NewWriter(ctx, WriterOptions{
		ID: id, Instance: copySession(r.point.Instance), Size: r.point.Size, Base: before, Compression: CompressionAuto, Meter: r.meter(),
	})
	if errors.Is(err, bucket.ErrExists) {
		return p, r.busy(r.point, "another process")
	}
	if err != nil {
		return p, err
	}
	defer r.writer.Close()
	defer r.count()
	if fenced {
		// The fence was meant for a copy that is no more. Should that wake up, its
		// session is gone, and it may not commit.
		if err := r.dst.bucket.Delete(ctx, pointKey(id)); err != nil {
			return p, err
		}
	}
	if before != nil {
		r.base, r.baseTop = r.writer.base.NewCursor(), r.writer.base.Top()
		if r.takeOver = !before.partial; r.takeOver {
			if r.doubtful, err = r.writer.Doubtful(); errors.Is(err, ErrBaseDamaged) {
				r.takeOver = false
			} else if err != nil {
				return p, err
			}
		}
	}
	if err := r.transfer(ctx); err != nil {
		return p, r.explain(err)
	}
	if len(r.lost) > 0 {
		// Nothing is left to be gone on with.
		return p, errors.Join(r.reason, r.writer.session.end(context.WithoutCancel(ctx)))
	}
	r.options.Meter.Phase(phaseCommit)
	return r.commit(id)
}

// copySession marks sessions of copies of an instance, to which those of its
// backups are nothing.
func copySession(instance string) string { return "copy of " + instance }

func (r *copyRun) explain(err error) error {
	if errors.Is(err, ErrBaseDamaged) {
		return errBaseUnsure
	}
	return err
}

// count adds up what the run did, whatever became of it.
func (r *copyRun) count() {
	w, b := r.writer, &r.result.Bytes
	b.Unchanged += w.unchanged.Load()
	b.Known += w.known.Load()
	b.New += w.fresher.Load()
	b.Stored += w.stored.Load()
	b.Read += r.read.Load()
	r.result.Moved += r.moved.Load()
	r.result.Gathered += r.gathered.Load()
	r.result.Notices = append(r.result.Notices, w.Notices()...)
}

// failure tells whether the error costs this point alone.
func (r *copyRun) failure(err error) (CopyFailure, bool) {
	p := r.point
	f := CopyFailure{Point: p.ID, Instance: p.Instance, Name: p.Name, Disk: p.Disk, Time: p.Time, Err: err}
	for _, lost := range extent.Of(r.lost...) {
		f.Lost = append(f.Lost, Range{lost.Off, min(lost.Len, p.Size-lost.Off)})
	}
	return f, isDamage(err) || problem.Is(err, problem.CopyInProgress) || problem.Is(err, problem.SessionFenced)
}

// copyAlive is how long a session counts as that of a live copy without being
// renewed.
const copyAlive = 5 * renewEvery

// claim makes room for the session of the copy, whose ID is that of the point:
// the one of a copy that was interrupted is removed, and what it had reached is
// given to compare with; that of a live one is left alone. fenced tells that the
// point may not be committed because of such a copy.
//
// A copy that is taken for dead and is not finds its session gone before it
// commits, as if a collector had given it up.
func (r *copyRun) claim(ctx context.Context, id ID) (reached *Image, fenced bool, err error) {
	s := r.dst
	old, ok, err := s.session(ctx, id)
	if err != nil {
		return nil, false, err
	}
	if ok && old.damage == nil {
		if alive, err := s.alive(ctx, &old); err != nil {
			return nil, false, err
		} else if alive {
			return nil, false, r.busy(r.point, fmt.Sprintf("process %d of host %s", old.PID, old.Host))
		}
		if k := old.Checkpoint; k != nil {
			if reached, err = s.image(k.Root, k.Size, k.Top); err != nil && !isDamage(err) {
				return nil, false, err
			}
		}
	}
	if reached != nil {
		reached.keeper, reached.partial = sessionPrefix+id.String()+"/", true
	}
	if ok {
		if err := s.deleteSession(ctx, id); err != nil {
			return nil, false, err
		}
	}
	doc, err := s.point(ctx, r.point.ID)
	if errors.Is(err, bucket.ErrNotFound) {
		return reached, false, nil
	}
	return reached, err == nil && doc.Fence != nil, err
}

// alive tells whether the process of a session is most likely at work. It is
// wrong only for a process that looks dead, which does no harm: see claim.
func (s *Store) alive(ctx context.Context, o *sessionObject) (bool, error) {
	if host, _ := os.Hostname(); o.Host == host && o.PID == os.Getpid() {
		s.live.mu.Lock()
		defer s.live.mu.Unlock()
		for x := range s.live.all {
			if x.doc.ID == o.ID {
				return true, nil
			}
		}
		return false, nil
	} else if o.Host == host && errors.Is(syscall.Kill(o.PID, 0), syscall.ESRCH) {
		return false, nil
	}
	return time.Since(o.renewed) < copyAlive, ctx.Err()
}

// transfer makes the tree whole, or finds out what is lost.
func (r *copyRun) transfer(ctx context.Context) error {
	whole, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(r.writer.Context(), func() { cancel(context.Cause(r.writer.Context())) })
	defer stop()
	readers, workers := 2, max(1, runtime.GOMAXPROCS(0))
	if !r.src.onFiles() {
		readers = 8
	}
	m := r.writer.options.Meter
	r.jobs = make(chan *copyRequest, readers)
	r.plan = make(chan copyStep, copyPlanned)
	loaded := make(chan *copyRequest, workers)
	r.free = make(chan []byte, readers+2*workers)
	for range cap(r.free) {
		r.free <- nil
	}
	m.Queue("read-cpu", cap(loaded), func() int { return len(loaded) })

	group, ctx := errgroup.WithContext(whole)
	group.Go(func() error {
		defer close(r.plan)
		defer close(r.jobs)
		return r.walk(ctx, r.image.tree.Top(), 0)
	})
	var reads sync.WaitGroup
	reading := m.Stage("read", readers)
	for i := range readers {
		reads.Add(1)
		group.Go(func() error {
			defer reads.Done()
			return r.reader(ctx, reading, i, loaded)
		})
	}
	go func() { reads.Wait(); close(loaded) }()
	working := m.Stage("cpu", workers)
	for i := range workers {
		group.Go(func() error { return r.worker(ctx, working, i, loaded) })
	}
	group.Go(func() error { return r.assemble(ctx) })
	err := group.Wait()
	if cause := context.Cause(whole); cause != nil {
		return cause
	}
	return err
}

// copyPlanned is how many steps the plan may be ahead of the tree.
const copyPlanned = 64

// walk plans node number i of the level and all below it.
func (r *copyRun) walk(ctx context.Context, level int, i int64) error {
	tree, size := r.image.tree, int64(r.image.tree.BlockSize)
	first := i * image.Span(level)
	blocks := min(image.Span(level), tree.Blocks()-first)
	if blocks <= 0 {
		return nil
	}
	step := copyStep{offset: first * size, length: blocks * size}
	c, err := r.from.Subtree(ctx, level, i)
	switch {
	case isDamage(err):
		return r.lose(ctx, step, err)
	case err != nil:
		return err
	case c.Hash.IsZero():
		return r.next(ctx, step)
	}
	if same, err := r.sameSubtree(ctx, level, i, c); err != nil {
		return err
	} else if same && r.takeOver && len(r.doubtful.Within(extent.Range{Off: step.offset, Len: step.length})) == 0 {
		step.same = true
		return r.next(ctx, step)
	}
	if level == 0 {
		return r.leaf(ctx, step)
	}
	for k := range int64(image.Fanout) {
		if err := r.walk(ctx, level-1, i*image.Fanout+k); err != nil {
			return err
		}
	}
	return nil
}

// sameSubtree tells whether the base has the same below the same place. A base
// that cannot be read is given up.
func (r *copyRun) sameSubtree(ctx context.Context, level int, i int64, c image.Child) (bool, error) {
	if r.base == nil || level > r.baseTop {
		return false, nil
	}
	before, err := r.base.Subtree(ctx, level, i)
	if isDamage(err) {
		r.base, err = nil, nil
	}
	return err == nil && before.Hash == c.Hash, err
}

// leaf plans the blocks of a leaf, a segment at a time.
func (r *copyRun) leaf(ctx context.Context, leaf copyStep) error {
	size := int64(r.image.tree.BlockSize)
	for part := range (extent.Range{Off: leaf.offset, Len: leaf.length}).Windows(max(SegmentSize, size)) {
		step := copyStep{offset: part.Off, length: part.Len, children: make([]image.Child, part.Len/size)}
		if err := r.from.Blocks(ctx, part.Off/size, step.children); isDamage(err) {
			step.children = nil
			if err := r.lose(ctx, step, err); err != nil {
				return err
			}
			continue
		} else if err != nil {
			return err
		}
		requests, err := r.decide(ctx, &step)
		if err != nil {
			return err
		}
		for _, q := range requests {
			if !sendTo(ctx, r.jobs, q) {
				return context.Cause(ctx)
			}
		}
		if err := r.next(ctx, step); err != nil {
			return err
		}
	}
	return nil
}

// decide finds for each block where the destination has it, or has it sent.
func (r *copyRun) decide(ctx context.Context, step *copyStep) ([]*copyRequest, error) {
	w, size := r.writer, int64(r.image.tree.BlockSize)
	var before []image.Child
	if r.base != nil {
		before = make([]image.Child, len(step.children))
		if err := r.base.Blocks(ctx, step.offset/size, before); isDamage(err) {
			r.base, before = nil, nil
		} else if err != nil {
			return nil, err
		}
	}
	var frames copyFrames
	for at := range step.children {
		c := &step.children[at]
		if c.Hash.IsZero() {
			continue
		}
		off := step.offset + int64(at)*size
		n := min(size, r.point.Size-off)
		from := c.Place
		c.Place = pack.Place{} // in the destination it is not known yet
		if before != nil && before[at].Hash == c.Hash && !before[at].Place.IsZero() && !w.damaged[before[at].Place.Pack] {
			c.Place = before[at].Place
			w.unchanged.Add(n)
			continue
		}
		if b, ok := w.fresh.find(c.Hash); ok {
			step.pieces = append(step.pieces, double{at, b.frame, b.slot})
			w.known.Add(n)
			continue
		}
		if place, ok := w.lookup(c.Hash); ok {
			c.Place = place
			w.known.Add(n)
			continue
		}
		if to, ok := r.src.moves.place(from); ok {
			from = to
		}
		f := frames.of(from)
		w.fresh.claim(c.Hash, f.fresh, len(f.pieces))
		step.pieces = append(step.pieces, double{at, f.fresh, len(f.pieces)})
		f.pieces = append(f.pieces, copyPiece{slot: from.Slot, hash: c.Hash, off: off})
		w.fresher.Add(n)
	}
	return frames.requests(), nil
}

func (r *copyRun) lose(ctx context.Context, step copyStep, err error) error {
	step.lost = true
	r.because(err)
	return r.next(ctx, step)
}

// because notes why something is lost; the first reason stays.
func (r *copyRun) because(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reason == nil {
		r.reason = err
	}
}

func (r *copyRun) next(ctx context.Context, step copyStep) error {
	if !sendTo(ctx, r.plan, step) {
		return context.Cause(ctx)
	}
	return nil
}

// assemble adds the steps to the tree of the destination in their order, and
// puts checkpoints. Once something is lost there will be no point, and it only
// goes on to find out what else is lost.
func (r *copyRun) assemble(ctx context.Context) error {
	w := r.writer
	w.treeWork.Enter(meter.Starved)
	checkpoint := time.NewTicker(r.options.CheckpointEvery)
	defer checkpoint.Stop()
	for {
		var step copyStep
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case next, ok := <-r.plan:
			if !ok {
				return context.Cause(ctx)
			}
			step = next
		}
		if err := r.resolve(ctx, &step); err != nil {
			return err
		}
		if len(r.lost) == 0 {
			if err := r.add(step); err != nil {
				return err
			}
		}
		length := min(step.length, r.point.Size-step.offset)
		w.options.Meter.Mark(length)
		r.progress(length)
		select {
		case <-checkpoint.C:
			if len(r.lost) == 0 {
				if err := w.Checkpoint(); err != nil {
					return err
				}
			}
		default:
		}
	}
}

// resolve waits for the places of the blocks that are being sent.
func (r *copyRun) resolve(ctx context.Context, step *copyStep) error {
	if step.lost {
		r.lost = append(r.lost, extent.Range{Off: step.offset, Len: step.length})
	}
	size := int64(r.image.tree.BlockSize)
	for _, p := range step.pieces {
		select {
		case <-p.frame.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		place := p.frame.places[p.slot]
		if place.IsZero() {
			r.lost = append(r.lost, extent.Range{Off: step.offset + int64(p.at)*size, Len: size})
		}
		step.children[p.at].Place = place
	}
	return nil
}

func (r *copyRun) add(step copyStep) error {
	w := r.writer
	w.treeWork.Enter(meter.Work)
	defer w.treeWork.Enter(meter.Starved)
	length := min(step.length, r.point.Size-step.offset)
	switch {
	case step.same:
		return w.Unchanged(length)
	case step.children == nil:
		return w.Zeros(length)
	}
	return w.tree.Blocks(w.ctx, step.children)
}

// commit makes the point exist in the destination, as it stands in the source
// but for the place of its tree.
func (r *copyRun) commit(id ID) (Point, error) {
	w, p := r.writer, r.point
	top, err := w.tree.Finish(w.ctx)
	if err == nil {
		err = w.flush()
	}
	w.treeWork.Done()
	if err != nil {
		return p, r.explain(err)
	}
	if root := w.shape.Root(r.dst.hasher(rootDomain), top.Hash); root != p.Root {
		return p, fmt.Errorf("the copy of %s has the root %s instead of %s", p.ID, root, p.Root)
	}
	p.Top = Ref{top.Hash, top.Place}
	if err := w.session.stands(w.ctx); err != nil {
		return p, err
	}
	if err := r.dst.commit(w.ctx, id, p); err != nil {
		return p, err
	}
	_ = w.session.end(w.ctx) // what stays behind is tidied up by the next collection
	return p, nil
}

// sendTo sends unless the context ends first.
func sendTo[T any](ctx context.Context, out chan<- T, v T) bool {
	select {
	case out <- v:
		return true
	case <-ctx.Done():
		return false
	}
}

// limiter holds the reading back to a number of bytes a second; nil does not.
type limiter struct{ rate *rate.Limiter }

// limitBurst is what may be read at once under a limit.
const limitBurst = 1 << 20

func newLimiter(bytesPerSecond int64) *limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &limiter{rate.NewLimiter(rate.Limit(bytesPerSecond), limitBurst)}
}

// wait returns when n more bytes may be read; the worker is limited meanwhile.
func (l *limiter) wait(ctx context.Context, worker *meter.Worker, n int64) error {
	if l == nil {
		return nil
	}
	worker.Enter(meter.Limited)
	defer worker.Enter(meter.Work)
	for n > 0 {
		part := min(n, limitBurst)
		if err := l.rate.WaitN(ctx, int(part)); err != nil {
			return err
		}
		n -= part
	}
	return nil
}
