// Package fuse shows a recovery point as a folder: the whole disk as the file
// disk.img, and below files/ the file systems on it, all read-only. It needs
// no loop device, and no privilege where the system lets users mount.
package fuse

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/engine/attach/files"
)

// Disk is what is shown. It must be safe for concurrent use.
type Disk interface {
	Size() int64
	ReadAt(p []byte, off int64) (int, error)
	Read(ctx context.Context, p []byte, off int64) error
}

// Options say what is mounted.
type Options struct {
	Dir    string // an empty folder; made if it is not there, and then removed in the end
	Disk   Disk
	Time   time.Time // of the point: that of what the mount itself adds
	Others bool      // let other users in, by the permissions in the files
}

// Mount is a mount that is being served. Its methods are safe for concurrent use.
type Mount struct {
	dir    string
	made   bool
	server *fuse.Server
	gone   chan struct{} // closed when it is no longer mounted
}

// kind is the type of our mounts in /proc/self/mountinfo, behind "fuse.".
const kind = "diskvault"

// New mounts a point. Errors: MountFailed, InvalidArgument for a folder that
// does not fit.
func New(o Options) (*Mount, error) {
	made, err := prepare(o.Dir)
	if err != nil {
		return nil, err
	}
	hour := time.Hour // nothing ever changes
	server, err := fs.Mount(o.Dir, newTop(o), &fs.Options{
		EntryTimeout: &hour, AttrTimeout: &hour, NegativeTimeout: &hour, NullPermissions: true,
		Logger: log.New(os.Stderr, "mount: ", 0),
		MountOptions: fuse.MountOptions{
			Name: kind, FsName: kind, Options: mountOptions(o), DirectMount: os.Geteuid() == 0, DirectMountFlags: unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV,
			MaxWrite: 1 << 20, MaxReadAhead: 1 << 20, AllowOther: o.Others,
		},
	})
	if err != nil {
		if made {
			_ = os.Remove(o.Dir)
		}
		return nil, problem.Wrap(err, problem.MountFailed, "The recovery point cannot be mounted at %s.", o.Dir)
	}
	m := &Mount{o.Dir, made, server, make(chan struct{})}
	go func() {
		server.Wait()
		close(m.gone)
	}()
	return m, nil
}

func mountOptions(o Options) []string {
	options := []string{"ro"}
	if o.Others {
		options = append(options, "default_permissions")
	}
	return options
}

// prepare holds that the folder can be mounted on, and tells whether it was made.
func prepare(dir string) (made bool, err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := os.Mkdir(dir, 0o700); err != nil {
			return false, problem.Wrap(err, problem.MountFailed, "The folder %s cannot be made.", dir)
		}
		return true, nil
	case err != nil:
		return false, problem.Wrap(err, problem.InvalidArgument, "%s is not a folder that can be mounted on.", dir)
	case len(entries) > 0:
		return false, problem.New(problem.InvalidArgument, "The folder %s is not empty.", dir).Do("Choose an empty folder, or one that does not exist yet.")
	}
	return false, nil
}

// Done is closed when somebody has unmounted it.
func (m *Mount) Done() <-chan struct{} { return m.gone }

// Close unmounts, even if somebody still looks at it: who has a file open gets
// errors from now on.
func (m *Mount) Close() error {
	var err error
	select {
	case <-m.gone:
	default:
		if err = m.server.Unmount(); err != nil {
			err = detach(m.dir)
		}
	}
	if m.made && err == nil {
		_ = os.Remove(m.dir) // it stays if somebody has put something there
	}
	return err
}

// detach takes a mount out of the tree although it is in use.
func detach(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH)
	if err == nil || os.Geteuid() == 0 {
		return err
	}
	for _, program := range []string{"fusermount3", "fusermount"} {
		out, e := exec.Command(program, "-u", "-z", "--", dir).CombinedOutput()
		if e == nil {
			return nil
		}
		err = fmt.Errorf("%s: %w: %s", program, e, out)
	}
	return err
}

// volumes looks for file systems when somebody first asks for them, so that
// disk.img is there at once.
func (t *top) volumes() ([]*files.Volume, error) {
	t.once.Do(func() { t.all, t.err = files.Volumes(context.Background(), t.disk, t.disk.Size()) })
	return t.all, t.err
}
