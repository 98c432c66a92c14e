package disk

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/container"
	"github.com/diskvault/diskvault/disk/nbd"
)

// ReadOptions says how a Source is read. The zero value reads through the page
// cache.
type ReadOptions struct {
	// Direct reads a block device past the page cache of this host, so that what
	// is read is what the device holds. It has no effect on files. Buffers that
	// start at a multiple of Source.SectorSize in memory, as all Go buffers of
	// 32 KiB and more do, are read into without a copy.
	Direct bool
}

// Reader reads the bytes of a Source. All methods but Close are safe for
// concurrent use; Close must come last.
type Reader struct {
	path   string
	file   *os.File
	fd     int
	kind   Kind
	size   int64
	sector int64
	direct bool
	cache  *cacheKeeper    // nil where the page cache is not used or cannot be asked
	export *nbd.Client     // what is read instead of a file; nil for files
	inside *container.Disk // what export is a connection to, for an image in a container

	narrowing narrowBudget
	bounce    sync.Pool // *[]byte, for direct reads into buffers that do not fit
}

// Open opens the source for reading. Errors are problems: those of Probe for a
// source that cannot be opened, SourceNotSupported for a Machine, SourceReplaced if another file or device has
// come to its path since Probe, SourceResized if its size has changed since.
func (s *Source) Open(ctx context.Context, o ReadOptions) (*Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, problem.From(err)
	}
	switch s.Kind {
	case Network:
		return s.openExport(ctx)
	case Machine:
		return nil, problem.New(problem.SourceNotSupported, "%s is read through a capture only.", capital(s.String()))
	}
	if s.Inside() {
		return s.openInside(ctx)
	}
	f, err := openSource(s.Path, s.Path)
	if err != nil {
		return nil, err
	}
	r := &Reader{path: s.Path, file: f, fd: int(f.Fd()), kind: s.Kind, sector: int64(max(s.SectorSize, 512))}
	if err := r.start(s, o); err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

// openExport opens a disk on an NBD server.
func (s *Source) openExport(ctx context.Context) (*Reader, error) {
	var bitmaps []string
	if s.Export != nil {
		bitmaps = s.Export.Bitmaps
	}
	c, err := dialExport(ctx, s.Path, bitmaps)
	if err != nil {
		return nil, err
	}
	if c.Size() != s.Size {
		c.Close()
		return nil, resized(s.Path, s.Size, c.Size())
	}
	return &Reader{path: s.Path, fd: -1, kind: Network, size: c.Size(), sector: 512, export: c}, nil
}

func (r *Reader) start(s *Source, o ReadOptions) error {
	var st unix.Stat_t
	if err := unix.Fstat(r.fd, &st); err != nil {
		return readFailed(err, r.path)
	}
	if s.inode != (inode{}) && s.inode != inodeOf(&st) {
		return problem.New(problem.SourceReplaced, "At %s there is now something else than a moment ago.", r.path).
			Do("Run again.")
	}
	var err error
	if r.size, err = r.CurrentSize(); err != nil {
		return err
	}
	if r.size != s.Size {
		return resized(r.path, s.Size, r.size)
	}
	if o.Direct && r.kind == Block {
		flags, err := unix.FcntlInt(uintptr(r.fd), unix.F_GETFL, 0)
		if err == nil {
			_, err = unix.FcntlInt(uintptr(r.fd), unix.F_SETFL, flags|unix.O_DIRECT)
		}
		if err != nil {
			return problem.Wrap(err, problem.SourceReadFailed, "%s cannot be read past the page cache.", capital(s.String()))
		}
		r.direct = true
		return nil
	}
	// Larger readahead; a hint, so a refusal does not matter.
	_ = unix.Fadvise(r.fd, 0, 0, unix.FADV_SEQUENTIAL)
	r.cache = newCacheKeeper(r.fd, r.size)
	return nil
}

// Size is the size of the source in bytes when it was opened.
func (r *Reader) Size() int64 { return r.size }

// Direct tells whether reads go past the page cache.
func (r *Reader) Direct() bool { return r.direct }

// Fd is the descriptor that the Reader reads from, for system calls of a
// capture; -1 for a disk on an NBD server or in a container. It belongs to the Reader and ends
// with it.
func (r *Reader) Fd() int { return r.fd }

// Export is the connection to the NBD server that the Reader reads from; nil for
// a device or a file that is read as it is. It belongs to the Reader and ends with it.
func (r *Reader) Export() *nbd.Client { return r.export }

// CurrentSize asks the system for the size of the source as it is now.
func (r *Reader) CurrentSize() (int64, error) {
	if r.export != nil {
		return r.export.Size(), nil // it cannot change while the connection lasts
	}
	var st unix.Stat_t
	if r.kind == Block {
		size, err := deviceSize(r.fd)
		if err != nil {
			return 0, readFailed(err, r.path)
		}
		return size, nil
	}
	if err := unix.Fstat(r.fd, &st); err != nil {
		return 0, readFailed(err, r.path)
	}
	return st.Size, nil
}

// Read fills p with the bytes of the source from off on; all of p must lie
// within Size. Unlike an io.ReaderAt it gives no count: when it returns nil, p
// is full.
//
// If some of the bytes cannot be read, the error is a *ReadError that names
// them; they are zero in p, and the rest of p is as on the disk. If the source
// has become shorter the error is the problem SourceResized; if it is gone
// altogether, SourceReadFailed. p holds nothing useful then, nor after the
// context has ended.
func (r *Reader) Read(ctx context.Context, p []byte, off int64) error {
	want := extent.Range{Off: off, Len: int64(len(p))}
	if off < 0 || want.End() > r.size {
		return fmt.Errorf("read of %v, beyond the %d bytes of %s", want, r.size, r.path)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r.cache.beforeRead(want)
	n, err := r.pread(ctx, p, off)
	switch {
	case err == nil && n == len(p):
		r.cache.afterRead(want)
		return nil
	case err == nil:
		return r.shorter()
	case !IsFaultOfRange(err):
		return r.failed(ctx, err)
	}
	return r.readAround(ctx, p, off, n, err)
}

// failed explains why nothing at all can be read, or gives the error of the
// context.
func (r *Reader) failed(ctx context.Context, err error) error {
	if r.export != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return readFailed(err, r.path)
}

// shorter explains a read that met the end of the source too early.
func (r *Reader) shorter() error {
	now, err := r.CurrentSize()
	if err != nil {
		return err
	}
	return resized(r.path, r.size, now)
}

func resized(path string, before, now int64) error {
	return problem.New(problem.SourceResized, "%s had %d bytes and now has %d.", path, before, now).
		With("sizeBefore", before).With("sizeNow", now)
}

// pread reads into p, through a buffer of its own if a direct read needs one.
// It gives the number of bytes that are good, also with an error.
func (r *Reader) pread(ctx context.Context, p []byte, off int64) (int, error) {
	if r.export != nil {
		if err := r.export.Read(ctx, p, off); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	if !r.direct || r.aligned(p, off) {
		return preadFull(r.fd, p, off)
	}
	buf, _ := r.bounce.Get().(*[]byte)
	if buf == nil {
		b := AlignedBuffer(1 << 20)
		buf = &b
	}
	defer r.bounce.Put(buf)
	done := 0
	for done < len(p) {
		at := off + int64(done)
		skip := at % r.sector
		window := extent.Between(at-skip, at+int64(len(p)-done)).Align(r.sector, r.size)
		b := (*buf)[:min(int64(len(*buf)), window.Len)]
		n, err := preadFull(r.fd, b, window.Off)
		if int64(n) > skip {
			done += copy(p[done:], b[skip:n])
		}
		if err != nil || n < len(b) {
			return done, err
		}
	}
	return done, nil
}

// aligned tells whether a direct read can go straight into p.
func (r *Reader) aligned(p []byte, off int64) bool {
	if len(p) == 0 {
		return true
	}
	address := int64(uintptr(unsafe.Pointer(unsafe.SliceData(p))))
	return (address|off|int64(len(p)))%r.sector == 0
}

// AlignedBuffer is a buffer of n bytes that starts at a multiple of 4096 in
// memory, which every direct read can use.
func AlignedBuffer(n int) []byte {
	const align = 4096
	b := make([]byte, n+align)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (align - 1)
	return b[skip : skip+n : skip+n]
}

// Allocated gives, in order, the ranges of the source that may hold something
// else than zeros; what lies between them is holes, which read as zero. The
// ranges are found one by one while the caller walks, so a file of any number
// of pieces takes no memory. A block device, and a file on a file system that
// knows no holes, is one range. After an error the walk ends.
//
// The walk describes the source as it is at that moment; if it is written to
// meanwhile, only the proof of a capture tells.
func (r *Reader) Allocated(ctx context.Context) iter.Seq2[extent.Range, error] {
	if r.export != nil {
		return r.exportAllocated(ctx)
	}
	return func(yield func(extent.Range, error) bool) {
		if r.kind == Block {
			yield(extent.Range{Len: r.size}, nil)
			return
		}
		for at := int64(0); at < r.size; {
			if err := ctx.Err(); err != nil {
				yield(extent.Range{}, err)
				return
			}
			data, err := r.nextData(at)
			if err != nil {
				yield(extent.Range{}, err)
				return
			}
			if data.Empty() || !yield(data, nil) {
				return
			}
			at = data.End()
		}
	}
}

// exportAllocated is Allocated by the word of an NBD server. What it does not
// tell counts as data.
func (r *Reader) exportAllocated(ctx context.Context) iter.Seq2[extent.Range, error] {
	return func(yield func(extent.Range, error) bool) {
		if !r.export.Has(nbd.ContextAllocation) {
			yield(extent.Range{Len: r.size}, nil)
			return
		}
		at := int64(0)
		for e, err := range r.export.Extents(ctx, nbd.ContextAllocation, extent.Range{Len: r.size}) {
			switch {
			case errors.As(err, new(*nbd.Error)):
				yield(extent.Between(at, r.size), nil)
				return
			case err != nil:
				yield(extent.Range{}, r.failed(ctx, err))
				return
			}
			if e.Flags&nbd.StateZero == 0 && !yield(extent.Range{Off: e.Off, Len: e.Len}, nil) {
				return
			}
			at = e.End()
		}
	}
}

// nextData finds the first data at or after a position; empty if there is none.
func (r *Reader) nextData(at int64) (extent.Range, error) {
	start, err := unix.Seek(r.fd, at, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO: // a hole up to the end
		return extent.Range{}, nil
	case err == unix.EINVAL, errors.Is(err, errors.ErrUnsupported):
		return extent.Between(at, r.size), nil
	case err != nil:
		return extent.Range{}, readFailed(err, r.path)
	}
	end, err := unix.Seek(r.fd, start, unix.SEEK_HOLE)
	if err == unix.ENXIO { // the file became shorter in between
		return extent.Range{}, r.shorter()
	}
	if err != nil {
		return extent.Range{}, readFailed(err, r.path)
	}
	return extent.Between(start, min(end, r.size)), nil
}

// Close gives the descriptor or the connection back.
func (r *Reader) Close() error {
	switch {
	case r.inside != nil:
		return r.inside.Close()
	case r.export != nil:
		return r.export.Close()
	}
	return r.file.Close()
}
