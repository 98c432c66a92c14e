package backup

import (
	"context"
	"errors"
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/store"
)

// reader is what the pipeline needs of a disk.
type reader interface {
	Size() int64
	Read(ctx context.Context, p []byte, off int64) error
	Allocated(ctx context.Context) iter.Seq2[extent.Range, error]
}

// pipeline moves a disk into a store: plan -> read -> cpu -> put, with real
// queues between, and a tree that takes the segments in order. What is in
// flight is bounded by the buffers, so one slow stage stops those before it.
type pipeline struct {
	source reader
	writer *store.Writer
	meter  *meter.Meter
	limit  *limiter
	broken <-chan struct{} // closed when going on is no use; nil: never

	allowUnreadable bool
	checkpointEvery time.Duration

	// With tracked, all but changed, in whole blocks, is taken over from the
	// writer's base; without, what the source has allocated is read.
	tracked bool
	changed extent.Set

	read atomic.Int64 // bytes read from the source
	done atomic.Int64 // bytes of the disk dealt with

	mu         sync.Mutex
	unreadable extent.Set // guarded by mu
}

// Numbers of workers and places in queues. Reading and encoding are both work
// for a processor when the source is in the page cache; two readers keep the
// processors fed, and a real disk busy.
const (
	readers  = 2
	queued   = 2  // segments between read and cpu
	inFlight = 24 // segments planned and not yet in the tree
)

func encoders() int { return max(1, runtime.GOMAXPROCS(0)) }

// errBroken ends a pipeline whose point in time is lost.
var errBroken = errors.New("the source was written to while it was read")

// run stores the whole disk; the tree is then complete but not committed.
func (p *pipeline) run(ctx context.Context, blockSize int64) error {
	whole, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(p.writer.Context(), func() { cancel(context.Cause(p.writer.Context())) })
	defer stop()
	if p.broken != nil {
		go func() {
			select {
			case <-p.broken:
				cancel(errBroken)
			case <-whole.Done():
			}
		}()
	}

	group, ctx := errgroup.WithContext(whole)
	planned := make(chan *segment)
	loaded := make(chan *segment, queued)
	encoded := make(chan *segment, inFlight)
	places := make(chan struct{}, inFlight) // one for each segment in flight
	buffers := newBufferPool(readers+queued+encoders(), bufferSize(blockSize))
	p.meter.Queue("read-cpu", queued, func() int { return len(loaded) })

	group.Go(func() error {
		defer close(planned)
		wanted := p.source.Allocated(ctx)
		if p.tracked {
			wanted = within(wanted, p.changed, p.source.Size(), blockSize)
		}
		for s, err := range plan(ctx, wanted, p.source.Size(), blockSize) {
			if err != nil {
				return err
			}
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			select {
			case planned <- s:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	reading := p.meter.Stage("read", readers)
	var reads sync.WaitGroup
	for i := range readers {
		reads.Add(1)
		group.Go(func() error {
			defer reads.Done()
			return p.reader(ctx, reading, i, blockSize, buffers, planned, loaded)
		})
	}
	go func() { reads.Wait(); close(loaded) }()

	encoding := p.meter.Stage("cpu", encoders())
	var encodes sync.WaitGroup
	for i := range encoders() {
		encodes.Add(1)
		group.Go(func() error {
			defer encodes.Done()
			return p.encoder(ctx, encoding, i, buffers, loaded, encoded)
		})
	}
	go func() { encodes.Wait(); close(encoded) }()

	group.Go(func() error { return p.assemble(ctx, encoded, places) })
	return reason(group.Wait(), whole, p.writer.Context())
}

// reason is what an early end is to be called: an error that only says that a
// context has ended gives way to why the first of the contexts did. A stage may
// also have ended early without noticing.
func reason(err error, contexts ...context.Context) error {
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	for _, ctx := range contexts {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
	}
	return err
}

// reader is a worker of the stage read.
func (p *pipeline) reader(ctx context.Context, stage *meter.Stage, number int, blockSize int64, buffers bufferPool, in <-chan *segment, out chan<- *segment) error {
	worker := stage.Worker(number)
	defer worker.Done()
	for {
		worker.Enter(meter.Starved)
		s, ok := receive(ctx, in)
		if !ok {
			return context.Cause(ctx)
		}
		worker.Enter(meter.Backpressured)
		if s.buffer, ok = receive(ctx, buffers); !ok {
			return context.Cause(ctx)
		}
		worker.Enter(meter.Work)
		if err := p.limit.wait(ctx, worker, s.bytes); err != nil {
			return err
		}
		if err := p.fill(ctx, s, blockSize); err != nil {
			return err
		}
		stage.Add(s.bytes)
		worker.Enter(meter.Backpressured)
		if !send(ctx, out, s) {
			return context.Cause(ctx)
		}
	}
}

// fill reads the runs of a segment into its buffer.
func (p *pipeline) fill(ctx context.Context, s *segment, blockSize int64) error {
	seam := p.meter.Seam("source.read")
	at := int64(0)
	for _, r := range s.runs {
		start := time.Now()
		err := p.source.Read(ctx, s.buffer[at:at+r.Length], r.Offset)
		seam.Observe(start, err)
		if failed := (*disk.ReadError)(nil); errors.As(err, &failed) && p.allowUnreadable {
			p.mu.Lock()
			p.unreadable = p.unreadable.Union(failed.Ranges)
			p.mu.Unlock()
		} else if err != nil {
			return err
		}
		p.read.Add(r.Length)
		p.meter.Mark(r.Length)
		end := (at + r.Length + blockSize - 1) / blockSize * blockSize
		clear(s.buffer[at+r.Length : end]) // the padding of the last block
		at = end
	}
	s.buffer = s.buffer[:at]
	return nil
}

// encoder is a worker of the stage cpu.
func (p *pipeline) encoder(ctx context.Context, stage *meter.Stage, number int, buffers bufferPool, in <-chan *segment, out chan<- *segment) error {
	worker := stage.Worker(number)
	defer worker.Done()
	e, err := p.writer.NewEncoder(stage, number)
	if err != nil {
		return err
	}
	defer e.Close()
	for {
		worker.Enter(meter.Starved)
		s, ok := receive(ctx, in)
		if !ok {
			return context.Cause(ctx)
		}
		worker.Enter(meter.Work)
		if s.result, err = e.Encode(ctx, s.offset, s.runs, s.buffer); err != nil {
			return err
		}
		stage.Add(s.bytes)
		buffers <- s.buffer[:cap(s.buffer)]
		s.buffer = nil
		out <- s // has room for all that is in flight
	}
}

// assemble adds the segments to the tree in order, with what lies between them,
// and puts checkpoints.
func (p *pipeline) assemble(ctx context.Context, in <-chan *segment, places <-chan struct{}) error {
	waiting := map[int64]*segment{}
	next, at, size := int64(0), int64(0), p.source.Size()
	checkpoint := time.NewTicker(p.checkpointEvery)
	defer checkpoint.Stop()
	for {
		select {
		case <-checkpoint.C:
			if err := p.writer.Checkpoint(); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		case s, ok := <-in:
			if !ok {
				if err := context.Cause(ctx); err != nil {
					return err
				}
				if len(waiting) > 0 {
					return errors.New("a segment was lost on its way")
				}
				return p.between(at, size)
			}
			waiting[s.number] = s
		}
		for s := waiting[next]; s != nil; s = waiting[next] {
			delete(waiting, next)
			next++
			if err := p.between(at, s.offset); err != nil {
				return err
			}
			at = min(s.offset+store.SegmentSize, size)
			if err := p.writer.Add(s.result, p.unchanged(s.offset, at)...); err != nil {
				return err
			}
			p.done.Add(s.bytes)
			<-places
		}
	}
}

// between adds what no segment covers: zeros, but for what is unchanged.
func (p *pipeline) between(from, to int64) error {
	for _, r := range p.unchanged(from, to) {
		if err := p.zeros(from, r.Offset); err != nil {
			return err
		}
		if err := p.writer.Unchanged(r.Length); err != nil {
			return err
		}
		from = r.Offset + r.Length
	}
	return p.zeros(from, to)
}

func (p *pipeline) zeros(from, to int64) error {
	if from >= to {
		return nil
	}
	return p.writer.Zeros(to - from)
}

// unchanged are the parts of a range that are taken over from the base.
func (p *pipeline) unchanged(from, to int64) (runs []store.Run) {
	if !p.tracked {
		return nil
	}
	whole := extent.Between(from, to)
	for _, r := range extent.Of(whole).Subtract(p.changed.Within(whole)) {
		runs = append(runs, store.Run{Offset: r.Off, Length: r.Len})
	}
	return runs
}

// receive takes from the channel unless the context ends first.
func receive[T any](ctx context.Context, in <-chan T) (v T, ok bool) {
	select {
	case v, ok = <-in:
		return v, ok
	case <-ctx.Done():
		return v, false
	}
}

func send[T any](ctx context.Context, out chan<- T, v T) bool {
	select {
	case out <- v:
		return true
	case <-ctx.Done():
		return false
	}
}

// bufferPool lends the buffers that segments are read into.
type bufferPool chan []byte

func newBufferPool(n, size int) bufferPool {
	pool := make(bufferPool, n)
	for range n {
		pool <- disk.AlignedBuffer(size)
	}
	return pool
}

// bufferSize is what a segment takes with the padding of its last block.
func bufferSize(blockSize int64) int { return int(max(store.SegmentSize, blockSize)) }
