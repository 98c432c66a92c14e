package capture

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// folderName is where the captures of the disks of a folder are kept, in that
// folder, so that they lie on the file system of the disks.
const folderName = ".diskvault-captures"

// clone is a file that shares all its extents with a disk, as that was at one
// moment. It has no name at first, so that it is gone with the process whatever
// happens to that; keep gives it one. The process holds a lock on it, from which
// others see that it is in use.
type clone struct {
	file *os.File
	dir  string // the folder of the disk
	name string // in the folder of captures; "" while it has none
}

// newClone clones an open file. The error of a file system that cannot is that
// of the kernel.
func newClone(fd int, path string) (*clone, error) {
	dir := filepath.Dir(path)
	tmp, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o400)
	if err != nil {
		return nil, fmt.Errorf("no file can be made in %s: %w", dir, err)
	}
	c := &clone{file: os.NewFile(uintptr(tmp), path), dir: dir}
	if err := sameCow(fd, tmp); err != nil {
		c.file.Close()
		return nil, err
	}
	if err := unix.IoctlFileClone(tmp, fd); err != nil {
		c.file.Close()
		return nil, err
	}
	if err := unix.Flock(tmp, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		c.file.Close()
		return nil, err
	}
	return c, nil
}

// sameCow gives an empty file the flag of btrfs that the other has: a file that
// is overwritten in place can only be cloned to one of its kind.
func sameCow(fd, empty int) error {
	want, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return nil // a file system without flags
	}
	have, err := unix.IoctlGetUint32(empty, unix.FS_IOC_GETFLAGS)
	if err != nil || (want^have)&flagNoCow == 0 {
		return err
	}
	return unix.IoctlSetPointerInt(empty, unix.FS_IOC_SETFLAGS, int(have^flagNoCow))
}

// extendedFlags are those that chattr(1) and xfs_io(8) know, of FS_IOC_FSGETXATTR.
func extendedFlags(fd int) (uint32, error) {
	var attributes [28]byte // struct fsxattr
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), 0x801C581F, uintptr(unsafe.Pointer(&attributes)))
	if errno != 0 {
		return 0, errno
	}
	return binary.NativeEndian.Uint32(attributes[:]), nil
}

const (
	flagNoCow  = 0x00800000                                       // FS_NOCOW_FL
	getVersion = 0x80007601 | uint(unsafe.Sizeof(uintptr(0)))<<16 // FS_IOC_GETVERSION
)

// keep gives the clone a name, on stable storage.
func (c *clone) keep(name string) error {
	if err := os.Mkdir(filepath.Join(c.dir, folderName), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	folder, err := openFolder(c.dir)
	if err != nil {
		return err
	}
	defer unix.Close(folder)
	var st unix.Stat_t
	if err := unix.Fstat(folder, &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("the folder %s may be written by others", filepath.Join(c.dir, folderName))
	}
	self := fmt.Sprintf("/proc/self/fd/%d", c.file.Fd())
	if err := unix.Linkat(unix.AT_FDCWD, self, folder, name, unix.AT_SYMLINK_FOLLOW); err != nil {
		return err
	}
	c.name = name
	// The file with its first name, the folder, and the folder's own name.
	err = errors.Join(c.file.Sync(), unix.Fsync(folder))
	if parent, openErr := unix.Open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); openErr == nil {
		err = errors.Join(err, unix.Fsync(parent), unix.Close(parent))
	} else {
		err = errors.Join(err, openErr)
	}
	if err != nil {
		c.drop()
	}
	return err
}

// drop takes the name away again.
func (c *clone) drop() {
	if c.name == "" {
		return
	}
	if folder, err := openFolder(c.dir); err == nil {
		_ = unix.Unlinkat(folder, c.name, 0) // what stays is a leftover for the next run
		unix.Close(folder)
	}
	c.name = ""
	removeFolder(c.dir)
}

// openFolder opens the folder of captures, which must be one and no link.
func openFolder(dir string) (int, error) {
	return unix.Open(filepath.Join(dir, folderName), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// removeFolder removes the folder of captures if it is empty.
func removeFolder(dir string) { _ = unix.Rmdir(filepath.Join(dir, folderName)) }

// plain matches what may stand in the name of a clone as it is.
var plain = regexp.MustCompile(`^[0-9A-Za-z-]{1,100}$`)

// cloneName ties a clone to its owner and the point.
func cloneName(owner, point string) string { return owner + "." + point }

// sweep removes the clones of an owner that no process uses, but for the one to
// be kept.
func sweep(dir, owner, keep string) error {
	folder, err := openFolder(dir)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(folder)
	entries, err := os.ReadDir(filepath.Join(dir, folderName))
	if err != nil {
		return err
	}
	for _, e := range entries {
		of, _, _ := strings.Cut(e.Name(), ".")
		if of != owner || e.Name() == keep || !e.Type().IsRegular() {
			continue
		}
		fd, openErr := unix.Openat(folder, e.Name(), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if openErr != nil {
			continue // gone, or not ours
		}
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			err = errors.Join(err, unix.Unlinkat(folder, e.Name(), 0))
		}
		unix.Close(fd)
	}
	removeFolder(dir)
	return err
}

// token stands for a kept clone in a recovery point, or for why none is kept.
// The clone has a name made for its point alone; the numbers and times of its
// file show that it is the same file still, to which nobody wrote.
type token struct {
	Method  Method   `json:"method"`
	Dropped string   `json:"dropped,omitempty"` // why nothing is kept: a clause
	Folder  string   `json:"folder,omitempty"`  // of the disk, at the time
	Name    string   `json:"name,omitempty"`
	File    identity `json:"file,omitzero"`
}

// identity is what changes of a file when somebody writes to it, or when another
// comes to its place. The kernel sets the time of change, nobody else can.
type identity struct {
	Inode      uint64 `json:"inode"`
	Generation uint32 `json:"generation"`
	Size       int64  `json:"size"`
	Modified   int64  `json:"modified"` // nanoseconds
	Changed    int64  `json:"changed"`  // nanoseconds
	Born       int64  `json:"born"`     // nanoseconds
}

func identify(fd int) (identity, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return identity{}, err
	}
	generation, err := unix.IoctlGetUint32(fd, getVersion)
	if err != nil {
		return identity{}, err
	}
	at := func(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }
	return identity{st.Ino, generation, int64(st.Size), at(st.Mtime), at(st.Ctime), at(st.Btime)}, nil
}

func parseToken(b []byte) (token, error) {
	var t token
	err := json.Unmarshal(b, &t)
	if err == nil && (t.Method != MethodReflink || t.Dropped == "" && (t.Name == "" || filepath.Base(t.Name) != t.Name || !filepath.IsAbs(t.Folder))) {
		err = errors.New("it does not name a clone")
	}
	return t, err
}

func (t token) bytes() []byte {
	b, err := json.Marshal(t)
	if err != nil {
		panic(err) // of strings and numbers
	}
	return b
}
