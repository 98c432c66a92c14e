package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
)

// TargetKind is what a restore writes to.
type TargetKind string

const (
	NewFile      TargetKind = "newFile"      // comes under its name at Commit, whole
	ExistingFile TargetKind = "existingFile" // is written in place
	Device       TargetKind = "device"       // a block device, written in place
)

// TargetOptions says what is to be written. Size is required; every other zero
// value works.
type TargetOptions struct {
	// Size of the disk in bytes. A file gets exactly this size; a device must
	// have at least it, and keeps what lies beyond.
	Size int64
	// Overwrite allows an existing file, or a device that is not blank.
	Overwrite bool
	// Token names what is restored, on one line. A new file that was left
	// unfinished with the same token is gone on with; with another token, or
	// none, it is begun anew.
	Token string
	// Format is FormatRaw or FormatQCOW2; empty: by the ending of the name. A
	// device takes no format. A qcow2 image is always made anew, and has whole
	// sectors: a disk that ends within a sector gets zeros to its end.
	Format Format
	// Dense gives zeros room on the file system, too; otherwise they become
	// holes.
	Dense bool
}

// Target is a file or device that a restore writes. WriteAt, ReadAt and Zero
// are safe for concurrent use on ranges that do not overlap. End it with Commit
// or Abort.
type Target struct {
	path    string
	kind    TargetKind
	size    int64
	dense   bool
	blank   bool
	resumed bool
	file    *os.File
	fd      int
	direct  int      // the same, past the page cache; -1 where that cannot be
	sector  int64    // in which a device is zeroed
	partial *partial // of a new file
	image   *image   // what is written instead of the file itself; nil if raw
	done    bool

	noPunch atomic.Bool // the file system or device refused to make holes
	noZero  atomic.Bool // or to zero a range by itself

	noDirect atomic.Bool // or to be written past the page cache
}

// OpenTarget opens path to be written by a restore; nothing of an existing file
// or device is changed yet, but that a file smaller than the disk grows. Errors
// are problems: TargetExists, TargetTooSmall, TargetInUse, TargetNotWritable,
// TargetFull, TargetWriteFailed.
func OpenTarget(ctx context.Context, path string, o TargetOptions) (*Target, error) {
	if err := ctx.Err(); err != nil {
		return nil, problem.From(err)
	}
	if path == "" {
		return nil, problem.New(problem.InvalidArgument, "The path of the target is empty.")
	}
	if o.Size < 0 || o.Size > MaxSize {
		return nil, problem.New(problem.InvalidArgument, "A disk of %d bytes cannot be restored.", o.Size)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, problem.Wrap(err, problem.TargetNotWritable, "The path %s cannot be made absolute.", path)
	}
	t := &Target{path: abs, size: o.Size, dense: o.Dense, direct: -1}
	st, err := os.Stat(abs)
	missing := errors.Is(err, fs.ErrNotExist)
	format := FormatRaw
	if missing || err == nil && st.Mode().IsRegular() {
		if format, err = targetFormat(path, o); err != nil {
			return nil, err
		}
	}
	switch {
	case format == FormatQCOW2:
		err = t.openImage(ctx, o, !missing)
	case missing:
		err = t.openNew(o)
	case err != nil:
		err = t.unreachable(err)
	case st.Mode().IsRegular():
		err = t.openExisting(o)
	case st.Mode()&fs.ModeDevice != 0 && st.Mode()&fs.ModeCharDevice == 0:
		err = t.openDevice(ctx, o)
	case st.IsDir():
		err = problem.New(problem.TargetNotWritable, "%s is a folder.", path).
			Do("Name a file in it, such as " + filepath.Join(path, "disk.img") + ".")
	default:
		err = problem.New(problem.TargetNotWritable, "%s is neither a file nor a block device.", path)
	}
	if err != nil {
		return nil, err
	}
	if t.image == nil {
		t.openDirect()
	}
	return t, nil
}

// unreachable explains why the target could not be looked at or opened.
func (t *Target) unreachable(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return problem.Wrap(err, problem.TargetNotWritable, "This user (%d) may not write %s.", os.Geteuid(), t.path)
	case errors.Is(err, unix.EROFS):
		return problem.Wrap(err, problem.TargetNotWritable, "%s is read-only.", t.path)
	case errors.Is(err, unix.ETXTBSY):
		return problem.Wrap(err, problem.TargetInUse, "%s is used by the system.", t.path)
	case errors.Is(err, unix.ENAMETOOLONG):
		return problem.Wrap(err, problem.TargetNotWritable, "The name of the target, with the ending %s that it has while it is written, is longer than its file system allows.", partialEnding)
	}
	return problem.Wrap(err, problem.TargetNotWritable, "%s cannot be written.", t.path)
}

// Path is the absolute path of the target.
func (t *Target) Path() string { return t.path }

// Kind tells what the target is.
func (t *Target) Kind() TargetKind { return t.kind }

// Size is the number of bytes to write: that of the options, also on a device
// that is larger.
func (t *Target) Size() int64 { return t.size }

// Blank tells whether the whole target read as zero when it was opened: then
// there is nothing to compare with, and zeros need not be written.
func (t *Target) Blank() bool { return t.blank }

// Resumed tells whether a restore with the same token has written to the target
// before: comparing will find much of it done.
func (t *Target) Resumed() bool { return t.resumed }

func (t *Target) check(r extent.Range) error {
	if r.Off < 0 || r.End() > t.size {
		return fmt.Errorf("range %v lies beyond the %d bytes of %s", r, t.size, t.path)
	}
	return nil
}

// WriteAt writes all of p, or gives the problem TargetFull or
// TargetWriteFailed.
func (t *Target) WriteAt(p []byte, off int64) (int, error) {
	if err := t.check(extent.Range{Off: off, Len: int64(len(p))}); err != nil {
		return 0, err
	}
	if t.image != nil {
		if err := t.image.writeAt(p, off); err != nil {
			return 0, t.writeProblem(err, extent.Range{Off: off, Len: int64(len(p))})
		}
		return len(p), nil
	}
	n := 0
	for n < len(p) {
		fd, part := t.descriptor(p[n:], off+int64(n))
		m, err := unix.Pwrite(fd, part, off+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err == unix.EINVAL && fd != t.fd && !t.noDirect.Swap(true) {
			continue // a file system that takes the flag and not the write
		}
		if err != nil {
			return n, t.writeProblem(err, extent.Between(off+int64(n), off+int64(len(p))))
		}
		n += m
	}
	return n, nil
}

// ReadAt reads what the target holds, for comparing. All of p must lie within
// Size. An error is the problem TargetWriteFailed: a target that cannot be read
// cannot hold the disk.
func (t *Target) ReadAt(p []byte, off int64) (int, error) {
	r := extent.Range{Off: off, Len: int64(len(p))}
	if err := t.check(r); err != nil {
		return 0, err
	}
	var n int
	var err error
	if t.image != nil {
		err = t.image.readAt(p, off)
		n = len(p)
	} else if n, err = preadFull(t.fd, p, off); err == nil && n < len(p) {
		err = unix.EIO // it ends before Size: somebody has cut it
	}
	if err != nil {
		return n, problem.Wrap(err, problem.TargetWriteFailed, "The target %s cannot be read back at bytes %v.", t.path, r)
	}
	return n, nil
}

func (t *Target) writeProblem(err error, r extent.Range) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		e := problem.Wrap(err, problem.TargetFull, "There is no room left for %s, a disk of %s.", t.path, sizeText(t.size)).
			With("offset", r.Off)
		var vfs unix.Statfs_t
		if unix.Fstatfs(t.fd, &vfs) == nil {
			e = e.With("free", int64(vfs.Bavail)*vfs.Bsize)
		}
		return e
	case errors.Is(err, unix.EFBIG):
		return problem.Wrap(err, problem.TargetTooSmall, "The file system under %s takes no file of %s.", t.path, sizeText(t.size))
	}
	return problem.Wrap(err, problem.TargetWriteFailed, "The target %s cannot be written at bytes %v.", t.path, r).With("offset", r.Off)
}

// zeroStep bounds how long one system call zeroes, so that an interrupt is
// heeded on devices that do it slowly.
const zeroStep = 256 << 20

// zeros is written where nothing better is on offer. It is never written to.
var zeros = make([]byte, 1<<20)

// Zero makes a range read as zero: by a hole where that can be, unless the
// target is dense. On a blank target that is not dense it does nothing, so a
// range must not be zeroed there after it was written. Errors are those of
// WriteAt, and the context's.
func (t *Target) Zero(ctx context.Context, r extent.Range) error {
	if err := t.check(r); err != nil {
		return err
	}
	if t.blank && !t.dense {
		return ctx.Err()
	}
	for step := range r.Windows(zeroStep) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.zero(step); err != nil {
			return err
		}
	}
	return nil
}

func (t *Target) zero(r extent.Range) error {
	if t.image != nil {
		if err := t.image.zero(r, t.dense); err != nil {
			return t.writeProblem(err, r)
		}
		return nil
	}
	inner := r
	if t.kind == Device {
		// A device zeroes whole sectors; the ends are written.
		start := (r.Off + t.sector - 1) / t.sector * t.sector
		inner = extent.Between(start, max(start, r.End()/t.sector*t.sector))
		if inner.Empty() {
			return t.writeZeros(r)
		}
		if err := t.writeZeros(extent.Between(r.Off, inner.Off)); err != nil {
			return err
		}
		if err := t.writeZeros(extent.Between(inner.End(), r.End())); err != nil {
			return err
		}
	}
	ways := []struct {
		mode    uint32
		refused *atomic.Bool
	}{
		{unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, &t.noPunch},
		{unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE, &t.noZero},
	}
	if t.dense {
		ways = ways[1:]
	}
	for _, way := range ways {
		if way.refused.Load() {
			continue
		}
		err := fallocate(t.fd, way.mode, inner)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENODEV) {
			return t.writeProblem(err, inner)
		}
		way.refused.Store(true)
	}
	return t.writeZeros(inner)
}

func fallocate(fd int, mode uint32, r extent.Range) error {
	for {
		if err := unix.Fallocate(fd, mode, r.Off, r.Len); err != unix.EINTR {
			return err
		}
	}
}

func (t *Target) writeZeros(r extent.Range) error {
	for part := range r.Windows(int64(len(zeros))) {
		if _, err := t.WriteAt(zeros[:part.Len], part.Off); err != nil {
			return err
		}
	}
	return nil
}

// Commit puts everything written on stable storage and ends the target. A new
// file appears under its name now, and only now; if that was taken meanwhile the
// error is TargetExists and the unfinished file stays beside it.
//
// After an error the target is not ended: Abort it.
func (t *Target) Commit(ctx context.Context) error {
	if t.done {
		return errors.New("the target is ended already")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	all := extent.Range{Len: t.size}
	if t.kind == ExistingFile {
		// It may have been larger than the disk.
		if err := unix.Ftruncate(t.fd, t.size); err != nil {
			return t.writeProblem(err, all)
		}
	}
	if t.image != nil {
		if err := t.image.finish(ctx, t.path+partialEnding); err != nil {
			return t.imageProblem(err, all)
		}
	}
	if err := unix.Fsync(t.fd); err != nil {
		return t.writeProblem(err, all)
	}
	switch t.kind {
	case NewFile:
		publish := func() error { return t.partial.publish(t.path) }
		if t.image != nil {
			publish = t.publishImage
		}
		if err := publish(); err != nil {
			return err
		}
	case Device:
		// For the partitions that came with the disk; devices that have none
		// refuse, which is right.
		_ = unix.IoctlSetInt(t.fd, unix.BLKRRPART, 0)
	}
	t.end()
	return nil
}

// Abort ends the target without the disk being whole. Of a new file, what is
// written stays beside its name for a later restore with the same token if keep
// says so, else nothing stays. Existing files and devices stay as they are,
// partly written. After Commit it does nothing.
func (t *Target) Abort(keep bool) error {
	if t.done {
		return nil
	}
	t.image.close()
	var err error
	if t.kind == NewFile && !keep {
		err = t.partial.remove()
	}
	t.end()
	if err != nil {
		return problem.Wrap(err, problem.TargetWriteFailed, "The unfinished file %s cannot be removed.", t.path+partialEnding)
	}
	return nil
}

func (t *Target) end() {
	t.done = true
	t.image.close()
	t.file.Close() // synced, or given up: what it could still say does not matter
	if t.direct >= 0 {
		unix.Close(t.direct)
	}
	if t.partial != nil {
		t.partial.folder.Close()
	}
}

// NextData finds the first byte at or after off that may be something else
// than zero; it is Size if there is none. On a device it is off.
func (t *Target) NextData(off int64) (int64, error) {
	if t.kind == Device {
		return off, nil
	}
	if t.image != nil {
		at, err := t.image.nextData(off, t.size)
		if err != nil {
			return 0, problem.Wrap(err, problem.TargetWriteFailed, "The target %s does not tell what it holds.", t.path)
		}
		return at, nil
	}
	at, err := unix.Seek(t.fd, off, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO:
		return t.size, nil
	case err != nil:
		return off, nil // a file system that knows no holes
	}
	return min(at, t.size), nil
}
