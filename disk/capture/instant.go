package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CloneKept makes a new file of the capture that a recovery point left on the
// source's own storage (its CaptureBase): a clone, so at once and without room.
// It is what the point shows unless the storage has damaged it; nothing is read.
// why is a clause if that cannot be done, and then there is no file; the error
// is for a target that cannot be made although there is a capture.
func CloneKept(stored []byte, size int64, to string) (why string, err error) {
	t, err := parseToken(stored)
	switch {
	case len(stored) == 0 || err != nil:
		return "no clone was kept for the recovery point", nil
	case t.Dropped != "":
		return "the capture was not kept: " + t.Dropped, nil
	case t.File.Size != size:
		return "the capture has another size", nil
	}
	folder, err := openFolder(t.Folder)
	if err != nil {
		return "the capture is gone", nil
	}
	defer unix.Close(folder)
	fd, err := unix.Openat(folder, t.Name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "the capture is gone", nil
	}
	defer unix.Close(fd)
	if id, err := identify(fd); err != nil || id != t.File {
		return "the capture was replaced or written to", nil
	}
	tmp, err := unix.Open(filepath.Dir(to), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "the target lies where no clone can be made", nil
	}
	target := os.NewFile(uintptr(tmp), to)
	defer target.Close()
	if err := sameCow(fd, tmp); err != nil {
		return "the target lies where no clone can be made", nil
	}
	if err := unix.IoctlFileClone(tmp, fd); err != nil {
		return "the target lies on another file system than the capture", nil
	}
	if id, err := identify(fd); err != nil || id != t.File {
		return "the capture was written to while it was cloned", nil
	}
	err = target.Sync()
	if err == nil {
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", tmp), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
	}
	if err != nil {
		return "", err
	}
	parent, err := os.Open(filepath.Dir(to))
	if err != nil {
		return "", err
	}
	return "", errors.Join(parent.Sync(), parent.Close())
}
