package files

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
)

// Progress of a copy; it may be read while the copy runs.
type Progress struct {
	Files atomic.Int64 // of any kind that are done
	Bytes atomic.Int64 // of content that were written, holes left out
}

// Report tells what a copy did.
type Report struct {
	Target  string `json:"target"`  // what the topmost file or folder is called now
	Files   int64  `json:"files"`   // regular files
	Folders int64  `json:"folders"` // with those that were there
	Others  int64  `json:"others"`  // symbolic links, devices
	Links   int64  `json:"links"`   // further names of files that were copied
	Bytes   int64  `json:"bytes"`   // of content, holes left out
	// Failed are files that could not be copied, the first of them with the reason.
	Failed      []Failure `json:"failed,omitempty"`
	FailedCount int64     `json:"failedCount"`
	// NotKept counts files of which the target did not take the owner, some
	// attribute or the time.
	NotKept int64 `json:"notKept"`
}

// Failure is a file that could not be copied.
type Failure struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

const (
	maxFailures = 100
	maxDepth    = 2000
	temporary   = ".diskvault-"
)

// Copy writes a file, or a folder with all that is in it, to a path of this
// machine: into it if it is a folder, else under its name. Mode, owner, times,
// extended attributes, holes, symbolic and hard links are kept where the
// target and the user can. A file appears only when it is whole. What exists
// is an error, unless overwrite: then files are replaced and folders merged.
//
// Files below a folder that cannot be read are in the report, and the rest is
// copied. Errors: those of Find, TargetExists, TargetFull, TargetNotWritable,
// TargetWriteFailed.
func (f *FS) Copy(ctx context.Context, name, to string, overwrite bool, p *Progress) (Report, error) {
	a, err := f.Find(name)
	if err != nil {
		return Report{}, err
	}
	dir, base := filepath.Dir(to), filepath.Base(to)
	if st, err := os.Stat(to); err == nil && st.IsDir() {
		dir = to
		if base = path.Base(path.Clean("/" + name)); base == "/" {
			base = f.volume.Name
		}
	}
	top, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Report{}, writeProblem(err, dir)
	}
	defer unix.Close(top)
	c := &copier{files: f, ctx: ctx, top: top, overwrite: overwrite, progress: p, first: map[uint64]string{}, above: map[uint64]bool{}, buffer: make([]byte, 1<<20)}
	c.report.Target = filepath.Join(dir, base)
	if err := c.one(top, base, base, a); err != nil {
		return c.report, err
	}
	// All at once, since single syncs of many small files take far longer.
	if err := unix.Syncfs(top); err != nil {
		return c.report, writeProblem(err, dir)
	}
	return c.report, nil
}

// copier is one copy. It is for one goroutine.
type copier struct {
	files     *FS
	ctx       context.Context
	top       int // the folder that all goes into
	overwrite bool
	progress  *Progress
	report    Report
	first     map[uint64]string // by number, where a file with several names was copied to
	above     map[uint64]bool   // the folders on the way down
	buffer    []byte
}

// writeProblem says an error of the target.
func writeProblem(err error, where string) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return problem.Wrap(err, problem.TargetFull, "There is no room left for %s.", where)
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENOTDIR):
		return problem.Wrap(err, problem.TargetExists, "%s exists already.", where)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS), errors.Is(err, unix.ENOENT):
		return problem.Wrap(err, problem.TargetNotWritable, "%s cannot be written.", where)
	}
	return problem.Wrap(err, problem.TargetWriteFailed, "%s cannot be written.", where)
}

// ofTheFile tells whether an error concerns one file only, so that others can
// still be copied.
func ofTheFile(err error) bool {
	for _, code := range []problem.Code{problem.FileSystemDamaged, problem.FileSystemNotSupported, problem.FileNotFound, problem.StoreDamaged, problem.StoreObjectMissing} {
		if problem.Is(err, code) {
			return true
		}
	}
	// A name or an attribute that the file system of the target cannot hold.
	return errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EILSEQ)
}

// one copies a file of any kind to base in the folder dir. where is its path
// below the topmost folder.
func (c *copier) one(dir int, base, where string, a Attr) error {
	if err := c.ctx.Err(); err != nil {
		return context.Cause(c.ctx)
	}
	if a.Kind != Directory && a.Links > 1 {
		if old, ok := c.first[a.Ino]; ok {
			if err := c.link(old, dir, base); err != nil {
				return writeProblem(err, where)
			}
			c.report.Links++
			return nil
		}
	}
	var err error
	switch a.Kind {
	case Regular:
		err = c.regular(dir, base, where, a)
	case Directory:
		return c.folder(dir, base, where, a)
	default:
		err = c.special(dir, base, where, a)
	}
	if err != nil {
		return err
	}
	c.progress.Files.Add(1)
	if a.Links > 1 {
		c.first[a.Ino] = where
	}
	return nil
}

// replacing removes what is in the way, if that is allowed, and tries again.
func (c *copier) replacing(dir int, base string, do func() error) error {
	err := do()
	if c.overwrite && errors.Is(err, unix.EEXIST) && unix.Unlinkat(dir, base, 0) == nil {
		err = do()
	}
	return err
}

func (c *copier) link(old string, dir int, base string) error {
	return c.replacing(dir, base, func() error { return unix.Linkat(c.top, old, dir, base, 0) })
}

func (c *copier) regular(dir int, base, where string, a Attr) error {
	content, err := c.files.Open(a.Ino)
	if err != nil {
		return err
	}
	name := temporary + rand.Text()
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return writeProblem(err, where)
	}
	out := os.NewFile(uintptr(fd), where)
	err = c.content(out, content, where)
	if err == nil {
		c.dress(fd, a)
		if err = out.Close(); err == nil {
			err = c.settle(dir, name, base)
		}
		if err != nil {
			err = writeProblem(err, where)
		}
	}
	if err != nil {
		_ = out.Close()
		_ = unix.Unlinkat(dir, name, 0)
		return err
	}
	c.report.Files++
	return nil
}

// settle gives a file that is whole its name.
func (c *copier) settle(dir int, name, base string) error {
	if c.overwrite {
		return unix.Renameat(dir, name, dir, base)
	}
	err := unix.Renameat2(dir, name, dir, base, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // not known there
		if err = unix.Linkat(dir, name, dir, base, 0); err == nil {
			err = unix.Unlinkat(dir, name, 0)
		}
	}
	return err
}

// content copies bytes, and leaves holes where there are some.
func (c *copier) content(out *os.File, content Content, where string) error {
	size := content.Size()
	if err := out.Truncate(size); err != nil {
		return writeProblem(err, where)
	}
	for off := int64(0); off < size; {
		start, end := content.NextData(off)
		for at := start; at < end; {
			if err := c.ctx.Err(); err != nil {
				return context.Cause(c.ctx)
			}
			// In steps that end at round places, as storage likes it.
			n := min(int64(len(c.buffer))-at%int64(len(c.buffer)), end-at)
			got, err := content.ReadAt(c.buffer[:n], at)
			if int64(got) < n {
				if err == nil || errors.Is(err, io.EOF) {
					err = problem.New(problem.FileSystemDamaged, "The file ends before its size.")
				}
				return err
			}
			if _, err := out.WriteAt(c.buffer[:n], at); err != nil {
				return writeProblem(err, where)
			}
			at += n
			c.report.Bytes += n
			c.progress.Bytes.Add(n)
		}
		off = max(end, off+1)
	}
	return nil
}

func (c *copier) folder(dir int, base, where string, a Attr) error {
	if c.above[a.Ino] || len(c.above) >= maxDepth {
		return problem.New(problem.FileSystemDamaged, "The folder %s is within itself, or too deep.", where)
	}
	entries, odd, err := c.files.List(a.Ino)
	if err != nil {
		return err
	}
	if err := unix.Mkdirat(dir, base, 0o700); err != nil && (!c.overwrite || !errors.Is(err, unix.EEXIST)) {
		return writeProblem(err, where)
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return writeProblem(err, where)
	}
	defer unix.Close(fd)
	c.above[a.Ino] = true
	defer delete(c.above, a.Ino)
	if odd > 0 {
		c.failed(where, fmt.Errorf("%d names in it are none", odd))
	}
	for _, e := range entries {
		child := path.Join(where, e.Name)
		attr, err := c.files.Attr(e.Ino)
		if err == nil {
			err = c.one(fd, e.Name, child, attr)
		}
		if err != nil && !ofTheFile(err) {
			return err
		}
		if err != nil {
			c.failed(child, err)
		}
	}
	c.dress(fd, a)
	c.report.Folders++
	c.progress.Files.Add(1)
	return nil
}

func (c *copier) failed(where string, err error) {
	if c.report.FailedCount++; len(c.report.Failed) < maxFailures {
		c.report.Failed = append(c.report.Failed, Failure{where, err.Error()})
	}
}

// special makes what is neither a file nor a folder.
func (c *copier) special(dir int, base, where string, a Attr) error {
	make := func() error {
		return unix.Mknodat(dir, base, a.Kind.Mode()|0o600, int(unix.Mkdev(a.DeviceMajor, a.DeviceMinor)))
	}
	if a.Kind == Symlink {
		target, err := c.files.Link(a.Ino)
		if err != nil {
			return err
		}
		make = func() error { return unix.Symlinkat(target, dir, base) }
	}
	err := c.replacing(dir, base, make)
	if errors.Is(err, unix.EPERM) && a.Kind != Symlink {
		return problem.Wrap(err, problem.FileSystemNotSupported, "This user may not make a device at %s.", where)
	}
	if err != nil {
		return writeProblem(err, where)
	}
	kept := unix.Fchownat(dir, base, int(a.UID), int(a.GID), unix.AT_SYMLINK_NOFOLLOW) == nil
	if a.Kind != Symlink {
		kept = unix.Fchmodat(dir, base, c.mode(a, kept), 0) == nil && kept
	}
	if !a.Modified.IsZero() {
		kept = unix.UtimesNanoAt(dir, base, times(a), unix.AT_SYMLINK_NOFOLLOW) == nil && kept
	}
	if !kept {
		c.report.NotKept++
	}
	c.report.Others++
	return nil
}

// mode leaves the rights of an owner away that the target does not have.
func (c *copier) mode(a Attr, owned bool) uint32 {
	if !owned {
		return a.Mode &^ (unix.S_ISUID | unix.S_ISGID)
	}
	return a.Mode
}

func times(a Attr) []unix.Timespec {
	accessed := a.Accessed
	if accessed.IsZero() {
		accessed = a.Modified
	}
	return []unix.Timespec{{Sec: accessed.Unix(), Nsec: int64(accessed.Nanosecond())}, {Sec: a.Modified.Unix(), Nsec: int64(a.Modified.Nanosecond())}}
}

// dress gives an open file or folder the owner, attributes, mode and times, in
// this order: each can change those before.
func (c *copier) dress(fd int, a Attr) {
	owned := unix.Fchown(fd, int(a.UID), int(a.GID)) == nil
	kept := owned
	xattrs, err := c.files.Xattrs(a.Ino)
	if err != nil {
		kept = false
	}
	for name, value := range xattrs {
		if !owned && name == "security.capability" {
			kept = false
			continue
		}
		kept = unix.Fsetxattr(fd, name, value, 0) == nil && kept
	}
	kept = unix.Fchmod(fd, c.mode(a, owned)) == nil && kept
	if !a.Modified.IsZero() {
		kept = unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), times(a), 0) == nil && kept
	}
	if !kept {
		c.report.NotKept++
	}
}
