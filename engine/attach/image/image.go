// Package image reads a recovery point like a disk, at any place and by many at
// a time. Every byte was verified by the hash of its block; what was read stays
// in a cache of bounded size, and what is read in order is read ahead.
package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"sync"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/store"
)

// Options say how much is kept. The zero value is good.
type Options struct {
	CacheBytes int64 // decoded data that is kept; 0: 128 MiB
}

const (
	cacheBytes = 128 << 20
	// segment is what a backup seals together: reading ahead in its bounds
	// decodes each frame once.
	segment = 4 << 20
	// maxAhead is how far is read ahead of a reader that reads in order.
	maxAhead = 4 * segment
	minAhead = 512 << 10
	// zeroWeight is what a block of zeros counts in the cache.
	zeroWeight = 512
)

// Image is a recovery point that is being read. It is safe for concurrent use.
// Errors of its methods are those of the store; StoreDamaged is only about the
// blocks that are damaged.
type Image struct {
	source  *store.Image
	block   int64 // bytes
	size    int64
	readers chan *store.Reader // those that are free; nil: one may be made

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	work    sync.WaitGroup
	closing sync.Once

	mu      sync.Mutex
	cache   cache
	streams streams
}

// Open begins to read an image; Close must be called in the end. Who opens it
// holds the point in the store, see store.Hold. blockSize is that of the store.
func Open(source *store.Image, blockSize int, o Options) *Image {
	if o.CacheBytes <= 0 {
		o.CacheBytes = cacheBytes
	}
	ctx, cancel := context.WithCancel(context.Background())
	i := &Image{source: source, block: int64(blockSize), size: source.Size(), ctx: ctx, cancel: cancel}
	i.cache.limit = o.CacheBytes
	// More than processors: with a store far away most of them wait.
	i.readers = make(chan *store.Reader, runtime.GOMAXPROCS(0)+4)
	for range cap(i.readers) {
		i.readers <- nil
	}
	return i
}

var errClosed = errors.New("the image is closed")

// Size of the disk, in bytes.
func (i *Image) Size() int64 { return i.size }

// Close ends all reading and frees what is held. A second call does nothing.
func (i *Image) Close() error {
	i.closing.Do(func() {
		i.mu.Lock() // nothing begins to fetch between the two
		i.cancel()
		i.mu.Unlock()
		i.work.Wait()
		for range cap(i.readers) {
			if r := <-i.readers; r != nil {
				r.Close()
			}
		}
	})
	return nil
}

// with runs work with a reader that is free.
func (i *Image) with(ctx context.Context, work func(*store.Reader) error) error {
	select {
	case r := <-i.readers:
		if r == nil {
			r = i.source.NewReader()
		}
		defer func() { i.readers <- r }()
		return work(r)
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-i.ctx.Done():
		return errClosed
	}
}

// NextData finds where the first byte at or behind off may lie that is not
// zero, at the granularity of some MiB; ok is false if there is none.
func (i *Image) NextData(ctx context.Context, off int64) (next int64, ok bool, err error) {
	err = i.with(ctx, func(r *store.Reader) error {
		next, ok, err = r.NextData(ctx, off)
		return err
	})
	return next, ok, err
}

// Data gives the blocks within a stretch that are not zeros, in bytes of the
// disk. Its cost follows the length: ask for some GiB at most, and skip with
// NextData.
func (i *Image) Data(ctx context.Context, off, length int64) (set extent.Set, err error) {
	err = i.with(ctx, func(r *store.Reader) error {
		set, err = r.Data(ctx, off, length)
		return err
	})
	return set, err
}

// Read fills p from off on.
func (i *Image) Read(ctx context.Context, p []byte, off int64) error {
	n, err := i.read(ctx, p, off)
	if n == len(p) {
		return nil
	}
	return err
}

// ReadAt implements io.ReaderAt.
func (i *Image) ReadAt(p []byte, off int64) (int, error) { return i.read(i.ctx, p, off) }

// read is ReadAt that ends early with ctx. What it had begun to fetch is kept.
func (i *Image) read(ctx context.Context, p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if off >= i.size {
		return 0, io.EOF
	}
	short := int64(len(p)) > i.size-off
	if short {
		p = p[:i.size-off]
	}
	if len(p) == 0 {
		return 0, nil
	}
	for _, b := range i.want(off, int64(len(p))) {
		select {
		case <-b.done:
		case <-ctx.Done():
			return n, context.Cause(ctx)
		}
		if b.err != nil {
			return n, b.err
		}
		in := off + int64(n) - b.number*i.block
		piece := p[n:min(int64(len(p)), int64(n)+i.block-in)]
		if b.data == nil {
			clear(piece)
		} else {
			copy(piece, b.data[in:])
		}
		n += len(piece)
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}

// want gives the blocks of a stretch, in order, and has those fetched that are
// not there, and what will probably be wanted next.
func (i *Image) want(off, length int64) []*block {
	i.mu.Lock()
	defer i.mu.Unlock()
	first, last := off/i.block, (off+length-1)/i.block
	blocks := make([]*block, 0, last-first+1)
	missing := i.missing(first, last, func(b *block) { blocks = append(blocks, b) })
	ahead := i.streams.next(off, length)
	if ahead.end > ahead.start {
		missing = append(missing, i.missing(ahead.start/i.block, (min(ahead.end, i.size)-1)/i.block, nil)...)
	}
	if i.ctx.Err() != nil {
		for _, m := range missing {
			i.fail(m, errClosed)
		}
		return blocks
	}
	for _, m := range missing {
		i.work.Go(func() { i.fetch(m) })
	}
	return blocks
}

// missing makes the blocks that are not in the cache, as stretches to be
// fetched at once, none beyond the bounds of a segment. i.mu is held.
func (i *Image) missing(first, last int64, each func(*block)) (out [][]*block) {
	var run []*block
	flush := func() {
		if len(run) > 0 {
			out = append(out, run)
			run = nil
		}
	}
	for n := first; n <= last; n++ {
		b, ok := i.cache.get(n)
		if !ok {
			b = &block{number: n, done: make(chan struct{})}
			i.cache.put(b)
			if n*i.block%segment == 0 {
				flush()
			}
			run = append(run, b)
		} else {
			flush()
		}
		if each != nil {
			each(b)
		}
	}
	flush()
	return out
}

// fetch reads neighbouring blocks.
func (i *Image) fetch(blocks []*block) {
	start := blocks[0].number
	err := i.with(i.ctx, func(r *store.Reader) error {
		return r.Window(i.ctx, start*i.block, int64(len(blocks))*i.block,
			func(off int64, data []byte) error {
				for at := off / i.block; len(data) > 0; at++ {
					n := min(int64(len(data)), i.block)
					blocks[at-start].data = bytes.Clone(data[:n])
					data = data[n:]
				}
				return nil
			},
			func(off, length int64, err error) error {
				for at := off / i.block; at*i.block < off+length; at++ {
					blocks[at-start].err = err
				}
				return nil
			})
	})
	if err != nil {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.fail(blocks, err)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, b := range blocks {
		i.cache.settle(b)
		close(b.done)
	}
}

// fail ends blocks with an error; who wants them again has them fetched again.
// i.mu is held.
func (i *Image) fail(blocks []*block, err error) {
	for _, b := range blocks {
		b.data, b.err = nil, err
		i.cache.settle(b)
		close(b.done)
	}
}
