// Package overlay makes a recovery point a disk that can be written: what is
// written goes to a file of this host, what is not comes from the point. The
// file lives as long as the overlay, or becomes the whole disk in the end.
package overlay

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
)

const (
	seekData = unix.SEEK_DATA
	seekHole = unix.SEEK_HOLE
)

// Base is what lies under an overlay. It never changes and is safe for
// concurrent use.
type Base interface {
	Size() int64
	Read(ctx context.Context, p []byte, off int64) error
	// NextData finds where the first byte at or behind off may lie that is not
	// zero; ok is false if there is none.
	NextData(ctx context.Context, off int64) (next int64, ok bool, err error)
	// Data gives the parts of a stretch that may be other than zeros.
	Data(ctx context.Context, off, length int64) (extent.Set, error)
}

// Disk is a base with what was written to it. Its methods are safe for
// concurrent use, but for Close. Offsets and lengths are bytes of the disk and
// must lie within it. Errors are those of the base, TargetFull and
// TargetWriteFailed.
type Disk struct {
	base Base
	size int64
	file *os.File // as long as the disk; holds what is marked
	path string   // of the file; empty: it has no name
	keep *ledger  // nil: what is marked is forgotten with the process

	// locks are those of the segments, several to a lock: held shared to read,
	// alone to write or mark.
	locks [64]sync.RWMutex

	mu    sync.Mutex
	marks map[int64]*marks // by segment; &full: all of it
}

// Scratch makes an overlay in a file without a name in a folder: nothing stays,
// however the process ends.
func Scratch(base Base, dir string) (*Disk, error) {
	f, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if err != nil { // a file system that cannot do that
		if f, err = os.CreateTemp(dir, "overlay-"); err == nil {
			err = os.Remove(f.Name())
		}
	}
	if err != nil {
		return nil, problem.Wrap(err, problem.TargetNotWritable, "No file for what is written can be made in %s.", dir)
	}
	d := &Disk{base: base, size: base.Size(), file: f, marks: map[int64]*marks{}}
	if err := f.Truncate(d.size); err != nil {
		f.Close()
		return nil, writeProblem(err, dir)
	}
	return d, nil
}

// Close ends the overlay. What was not flushed may be lost.
func (d *Disk) Close() error {
	err := d.file.Close()
	if d.keep != nil {
		err = errors.Join(err, d.keep.file.Close())
	}
	return err
}

// Size of the disk.
func (d *Disk) Size() int64 { return d.size }

// ReadAt implements io.ReaderAt.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	n := min(int64(len(p)), d.size-off)
	if n <= 0 {
		return 0, io.EOF
	}
	if err := d.Read(context.Background(), p[:n], off); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// Read fills p from off on.
func (d *Disk) Read(ctx context.Context, p []byte, off int64) error {
	for piece := range extent.Between(off, off+int64(len(p))).Windows(segment) {
		if err := d.readPiece(ctx, p[piece.Off-off:piece.End()-off], piece); err != nil {
			return err
		}
	}
	return nil
}

func (d *Disk) readPiece(ctx context.Context, p []byte, r extent.Range) error {
	lock := d.lock(r.Off)
	lock.RLock()
	defer lock.RUnlock()
	for run, marked := range d.runs(r) {
		part := p[run.Off-r.Off : run.End()-r.Off]
		var err error
		if marked {
			err = d.fromFile(part, run.Off)
		} else {
			err = d.base.Read(ctx, part, run.Off)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Disk) fromFile(p []byte, off int64) error {
	if _, err := d.file.ReadAt(p, off); err != nil {
		return problem.Wrap(err, problem.TargetWriteFailed, "What was written at byte %d of the disk cannot be read from %s.", off, d.where())
	}
	return nil
}

// Write writes p from off on.
func (d *Disk) Write(ctx context.Context, p []byte, off int64) error {
	for piece := range extent.Between(off, off+int64(len(p))).Windows(segment) {
		if err := d.writePiece(ctx, p[piece.Off-off:piece.End()-off], piece); err != nil {
			return err
		}
	}
	return nil
}

func (d *Disk) writePiece(ctx context.Context, p []byte, r extent.Range) error {
	lock := d.lock(r.Off)
	lock.Lock()
	defer lock.Unlock()
	if err := d.edges(ctx, r); err != nil {
		return err
	}
	if _, err := d.file.WriteAt(p, r.Off); err != nil {
		return writeProblem(err, d.where())
	}
	d.mark(r.Align(granule, d.size))
	return nil
}

// edges brings in from the base what a write leaves of its first and its last
// granule.
func (d *Disk) edges(ctx context.Context, r extent.Range) error {
	whole := r.Align(granule, d.size)
	ends := []extent.Range{extent.Between(whole.Off, min(whole.Off+granule, d.size))}
	if last := (whole.End() - 1) / granule * granule; last != whole.Off {
		ends = append(ends, extent.Between(last, whole.End()))
	}
	var buffer [granule]byte
	for _, e := range ends {
		if r.Off <= e.Off && e.End() <= r.End() {
			continue // it is covered
		}
		for run, marked := range d.runs(e) {
			if marked {
				continue
			}
			p := buffer[:run.Len]
			if err := d.base.Read(ctx, p, run.Off); err != nil {
				return err
			}
			// A crash before the mark leaves it unmarked, and so without meaning.
			if _, err := d.file.WriteAt(p, run.Off); err != nil {
				return writeProblem(err, d.where())
			}
			d.mark(run)
		}
	}
	return nil
}

// Zero makes a range read as zeros. It takes no room for them: keep is only a
// wish of who writes.
func (d *Disk) Zero(ctx context.Context, r extent.Range, keep bool) error {
	for piece := range r.Windows(segment) {
		if err := d.zeroPiece(ctx, piece); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (d *Disk) zeroPiece(ctx context.Context, r extent.Range) error {
	lock := d.lock(r.Off)
	lock.Lock()
	defer lock.Unlock()
	if err := d.edges(ctx, r); err != nil {
		return err
	}
	if err := d.clear(r); err != nil {
		return err
	}
	d.mark(r.Align(granule, d.size))
	return nil
}

// clear makes a range of the file zeros, within a segment.
func (d *Disk) clear(r extent.Range) error {
	err := unix.Fallocate(int(d.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, r.Off, r.Len)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		_, err = d.file.WriteAt(make([]byte, r.Len), r.Off)
	}
	if err != nil {
		return writeProblem(err, d.where())
	}
	return nil
}

// Trim forgets a range: it reads as zeros from now on.
func (d *Disk) Trim(ctx context.Context, r extent.Range) error { return d.Zero(ctx, r, false) }

// Flush puts what was written on stable storage. Of a scratch nothing would be
// found again, so there it does nothing.
func (d *Disk) Flush(context.Context) error {
	if d.keep == nil {
		return nil
	}
	return d.keep.save(d)
}

// NextData finds where the first byte at or behind off may lie that is not
// zero; ok is false if there is none.
func (d *Disk) NextData(ctx context.Context, off int64) (next int64, ok bool, err error) {
	if next, ok, err = d.base.NextData(ctx, off); err != nil {
		return 0, false, err
	}
	there, err := d.seek(off, seekData)
	if err != nil {
		return 0, false, err
	}
	if there < d.size && (!ok || there < next) {
		return there, true, nil
	}
	return next, ok, nil
}

// Data gives the parts of a stretch that may be other than zeros.
func (d *Disk) Data(ctx context.Context, off, length int64) (extent.Set, error) {
	stretch := extent.Between(off, min(off+length, d.size))
	marked := d.marked(stretch)
	below, err := d.base.Data(ctx, stretch.Off, stretch.Len)
	if err != nil {
		return nil, err
	}
	var written extent.Set
	for at := stretch.Off; at < stretch.End(); {
		from, err := d.seek(at, seekData)
		if err != nil {
			return nil, err
		}
		if from >= stretch.End() {
			break
		}
		if at, err = d.seek(from, seekHole); err != nil {
			return nil, err
		}
		written = append(written, extent.Between(from, min(at, stretch.End())))
	}
	return below.Subtract(marked).Union(written.Intersect(marked)), nil
}

// seek finds the next data or hole of the file; the size if there is none.
func (d *Disk) seek(off int64, what int) (int64, error) {
	at, err := unix.Seek(int(d.file.Fd()), off, what)
	if errors.Is(err, unix.ENXIO) {
		return d.size, nil
	}
	if err != nil {
		return 0, problem.Wrap(err, problem.TargetWriteFailed, "%s cannot be looked through.", d.where())
	}
	return at, nil
}

// Written gives what was written or zeroed, in bytes of the disk.
func (d *Disk) Written() extent.Set { return d.marked(extent.Range{Len: d.size}) }

func (d *Disk) where() string {
	if d.path != "" {
		return d.path
	}
	return "the overlay in " + filepath.Dir(d.file.Name())
}

func writeProblem(err error, where string) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return problem.Wrap(err, problem.TargetFull, "There is no room left for what is written to the disk (%s).", where)
	}
	return problem.Wrap(err, problem.TargetWriteFailed, "What is written to the disk cannot be kept (%s).", where)
}
