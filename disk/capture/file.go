package capture

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
)

// fileView reads an image file under a read lease.
type fileView struct {
	*disk.Reader
	*doubt
	path   string
	lease  *lease // nil if there is none
	before fileState
}

// fileState is what must not change of a file while it is read. The lease is
// the proof; this is a second look at it.
type fileState struct {
	size         int64
	mtime, ctime unix.Timespec
}

func stateOf(st *unix.Stat_t) fileState { return fileState{st.Size, st.Mtim, st.Ctim} }

// sameContent ignores the time of change of the inode, which chmod moves too.
func (a fileState) sameContent(b fileState) bool { return a.size == b.size && a.mtime == b.mtime }

func captureFile(ctx context.Context, src *disk.Source) (View, error) {
	reader, err := src.Open(ctx, disk.ReadOptions{})
	if err != nil {
		return nil, err
	}
	v := &fileView{Reader: reader, doubt: newDoubt(), path: src.Path}
	if err := v.begin(ctx, src); err != nil {
		reader.Close()
		return nil, err
	}
	return v, nil
}

func (v *fileView) begin(ctx context.Context, src *disk.Source) error {
	if reason := neverProven(src.FileSystem); reason != "" {
		v.raise(reason, false)
		return nil
	}
	if err := unix.Fsync(v.Fd()); err != nil {
		return problem.Wrap(err, problem.SourceReadFailed, "What is cached of %s cannot be written to its storage.", v.path)
	}
	lease, err := takeLease(v.Fd(), func() {
		v.raise("A program opened it for writing, or truncated it, while it was read.", true)
	})
	if err != nil {
		v.refused(ctx, src, err)
		return nil
	}
	v.lease = lease
	var st unix.Stat_t
	if err := unix.Fstat(v.Fd(), &st); err != nil {
		lease.release()
		return problem.Wrap(err, problem.SourceReadFailed, "%s cannot be looked at.", v.path)
	}
	v.before = stateOf(&st)
	return nil
}

// neverProven says why the files of a file system cannot be proven quiet; "" if
// they can.
func neverProven(fs disk.FileSystem) string {
	switch {
	case !fs.Local:
		return fmt.Sprintf("It lies on a file system of the kind %s, where the kernel of this host does not learn of every writer.", fs.Name)
	case fs.DAX:
		return "Its file system maps memory straight onto the storage (DAX), so a writer may go unnoticed."
	}
	return ""
}

// refused records why there is no lease.
func (v *fileView) refused(ctx context.Context, src *disk.Source, err error) {
	switch {
	case errors.Is(err, unix.EAGAIN):
		v.raise(openForWriting(ctx, src), true)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		v.raise("This user neither owns the file nor has the capability CAP_LEASE, so it is not told when somebody writes to it.", false)
	case errors.Is(err, unix.EINVAL):
		v.raise(fmt.Sprintf("Its file system (%s) has no leases, so a writer may go unnoticed.", src.FileSystem.Name), false)
	default:
		v.raise(fmt.Sprintf("The kernel grants no lease on it (%v), so a writer may go unnoticed.", err), false)
	}
}

// openForWriting is the sentence that names who has a file open for writing, as
// far as this user may know.
func openForWriting(ctx context.Context, src *disk.Source) string {
	var who []string
	for _, l := range src.Loops {
		who = append(who, "the loop device /dev/"+l)
	}
	writers, _ := writersOf(ctx, src.Path)
	for _, p := range writers {
		who = append(who, p.String())
	}
	mounted := ""
	if m := src.MountedForWriting(); len(m) > 0 {
		mounted = ", and it is mounted at " + m[0].Dir
	}
	switch len(who) {
	case 0:
		return "A program that this user cannot see has it open for writing."
	case 1:
		return fmt.Sprintf("%s has it open for writing%s.", capital(who[0]), mounted)
	}
	return fmt.Sprintf("%s and %s have it open for writing%s.", capital(strings.Join(who[:len(who)-1], ", ")), who[len(who)-1], mounted)
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// Prove implements View.
func (v *fileView) Prove(ctx context.Context) (Proof, error) {
	if err := ctx.Err(); err != nil {
		return Proof{}, problem.From(err)
	}
	if err := checkSize(v.Reader, v.path); err != nil {
		return Proof{}, err
	}
	if p, ok := v.proof(); ok {
		return p, nil
	}
	// State first, lease second: if the lease is whole now, nobody could have
	// changed the file before now.
	var st unix.Stat_t
	if err := unix.Fstat(v.Fd(), &st); err != nil {
		return Proof{}, problem.Wrap(err, problem.SourceReadFailed, "%s cannot be looked at.", v.path)
	}
	switch {
	case !v.lease.held():
		v.raise("A program opened it for writing, or truncated it, while it was read.", true)
	case !stateOf(&st).sameContent(v.before):
		v.raise("Its time of modification moved while it was read.", true)
	default:
		return proven("No program had it open for writing while it was read."), nil
	}
	p, _ := v.proof()
	return p, nil
}

// checkSize gives SourceResized if the source is not as large as it was.
func checkSize(r *disk.Reader, path string) error {
	now, err := r.CurrentSize()
	if err != nil {
		return err
	}
	if now != r.Size() {
		return problem.New(problem.SourceResized, "%s had %d bytes when its backup began and now has %d.", path, r.Size(), now).
			With("sizeBefore", r.Size()).With("sizeNow", now)
	}
	return nil
}

// Close implements View.
func (v *fileView) Close() error {
	if v.lease != nil {
		v.lease.release()
	}
	return v.Reader.Close()
}
