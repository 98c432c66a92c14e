package durable

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Folder is a Root on the file systems of this machine. It holds the folder
// open, so that all names keep their meaning if it is moved, and nothing is
// written into an empty folder below if what was mounted there goes away.
type Folder struct {
	path string
	dir  *os.File
}

var _ Root = (*Folder)(nil)

// Open opens an existing folder as a Root.
func Open(path string) (*Folder, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &Folder{path, os.NewFile(uintptr(fd), path)}, nil
}

// Path is the path that the folder was opened by.
func (r *Folder) Path() string { return r.path }

// Close releases the folder.
func (r *Folder) Close() error { return r.dir.Close() }

func (r *Folder) fd() int { return int(r.dir.Fd()) }

// Create is described at Root.
func (r *Folder) Create(name string, perm fs.FileMode) (File, error) {
	return r.open("create", name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, perm)
}

// Open is described at Root.
func (r *Folder) Open(name string) (File, error) {
	return r.open("open", name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
}

func (r *Folder) open(op, name string, flags int, perm fs.FileMode) (*file, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(r.fd(), orSelf(name), flags|unix.O_CLOEXEC, uint32(perm.Perm()))
	})
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return &file{fd: fd, name: name}, nil
}

// Rename is described at Root. Where the file system cannot rename without
// replacing (NFS among them) it links the new name and removes the old one.
func (r *Folder) Rename(from, to string) error {
	err := again(func() error {
		return unix.Renameat2(r.fd(), from, r.fd(), to, unix.RENAME_NOREPLACE)
	})
	if lacking(err) {
		err = r.relink(from, to)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func (r *Folder) relink(from, to string) error {
	err := again(func() error { return unix.Linkat(r.fd(), from, r.fd(), to, 0) })
	if err != nil && !(errors.Is(err, unix.EEXIST) && r.same(from, to)) {
		return err
	}
	// The file has its name; if the temporary one stays, it is cleaned up
	// later, when it is old.
	again(func() error { return unix.Unlinkat(r.fd(), from, 0) })
	return nil
}

// same tells whether two names are of one file. A network file system that
// repeats a lost request answers EEXIST to its own success.
func (r *Folder) same(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Fstatat(r.fd(), a, &x, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		unix.Fstatat(r.fd(), b, &y, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		x.Dev == y.Dev && x.Ino == y.Ino
}

func lacking(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP)
}

// Remove is described at Root.
func (r *Folder) Remove(name string) error {
	if err := again(func() error { return unix.Unlinkat(r.fd(), name, 0) }); err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

// Mkdir is described at Root.
func (r *Folder) Mkdir(name string, perm fs.FileMode) error {
	if err := again(func() error { return unix.Mkdirat(r.fd(), name, uint32(perm.Perm())) }); err != nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return nil
}

// Rmdir is described at Root.
func (r *Folder) Rmdir(name string) error {
	if err := again(func() error { return unix.Unlinkat(r.fd(), name, unix.AT_REMOVEDIR) }); err != nil {
		return &fs.PathError{Op: "rmdir", Path: name, Err: err}
	}
	return nil
}

// SyncFolder is described at Root.
func (r *Folder) SyncFolder(name string) error {
	f, err := r.open("open", name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Stat is described at Root.
func (r *Folder) Stat(name string) (Info, error) {
	var st unix.Stat_t
	if err := again(func() error { return unix.Fstatat(r.fd(), orSelf(name), &st, 0) }); err != nil {
		return Info{}, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return Info{
		Size:   st.Size,
		Time:   time.Unix(st.Mtim.Unix()),
		Folder: st.Mode&unix.S_IFMT == unix.S_IFDIR,
	}, nil
}

// ReadFolder is described at Root.
func (r *Folder) ReadFolder(name string) ([]Entry, error) {
	f, err := r.open("open", name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(f.fd), name)
	defer dir.Close()
	found, err := dir.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, len(found))
	for i, e := range found {
		entries[i] = Entry{e.Name(), e.IsDir()}
	}
	return entries, nil
}

func orSelf(name string) string {
	if name == "" {
		return "."
	}
	return name
}

// retry repeats a system call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

func again(call func() error) error {
	_, err := retry(func() (int, error) { return 0, call() })
	return err
}
