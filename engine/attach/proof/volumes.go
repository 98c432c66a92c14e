package proof

import (
	"context"
	"log"
	"os"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/engine/attach/files"
)

// Disk is what is checked: it can be written, so that journals are replayed
// into it. It is safe for concurrent use.
type Disk interface {
	Size() int64
	ReadAt(p []byte, off int64) (int, error)
	Read(ctx context.Context, p []byte, off int64) error
	Write(ctx context.Context, p []byte, off int64) error
}

// show makes each volume a file in a folder, for the checkers, until the
// function that it returns is called.
func show(dir string, d Disk, all []*files.Volume) (end func(), err error) {
	root := &folder{disk: d, volumes: all}
	second := time.Second
	server, err := fs.Mount(dir, root, &fs.Options{
		EntryTimeout: &second, AttrTimeout: &second, Logger: log.New(os.Stderr, "verify: ", 0),
		MountOptions: fuse.MountOptions{Name: "diskvault", FsName: "diskvault", DirectMount: os.Geteuid() == 0, MaxWrite: 1 << 20},
	})
	if err != nil {
		return nil, problem.Wrap(err, problem.MountFailed, "The volumes of the recovery point cannot be shown to the checkers at %s.", dir)
	}
	return func() { _ = server.Unmount() }, nil
}

type folder struct {
	fs.Inode
	disk    Disk
	volumes []*files.Volume
}

var _ fs.NodeOnAdder = (*folder)(nil)

// OnAdd implements fs.NodeOnAdder.
func (f *folder) OnAdd(ctx context.Context) {
	for _, v := range f.volumes {
		f.AddChild(v.Name, f.NewPersistentInode(ctx, &file{disk: f.disk, volume: v}, fs.StableAttr{Mode: fuse.S_IFREG}), true)
	}
}

// file is a volume.
type file struct {
	fs.Inode
	disk   Disk
	volume *files.Volume
}

var (
	_ fs.NodeGetattrer = (*file)(nil)
	_ fs.NodeSetattrer = (*file)(nil)
	_ fs.NodeOpener    = (*file)(nil)
	_ fs.NodeReader    = (*file)(nil)
	_ fs.NodeWriter    = (*file)(nil)
	_ fs.NodeFsyncer   = (*file)(nil)
)

func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = 0o600, uint64(f.volume.Size)
	return 0
}

func (f *file) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok && int64(size) != f.volume.Size {
		return syscall.EPERM
	}
	return f.Getattr(ctx, h, out)
}

func (f *file) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *file) Read(ctx context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if off >= f.volume.Size {
		return fuse.ReadResultData(nil), 0
	}
	p = p[:min(int64(len(p)), f.volume.Size-off)]
	if err := f.disk.Read(ctx, p, f.volume.Offset+off); err != nil {
		return nil, syscall.EIO
	}
	return fuse.ReadResultData(p), 0
}

func (f *file) Write(ctx context.Context, _ fs.FileHandle, p []byte, off int64) (uint32, syscall.Errno) {
	if off+int64(len(p)) > f.volume.Size {
		return 0, syscall.ENOSPC
	}
	if err := f.disk.Write(ctx, p, f.volume.Offset+off); err != nil {
		return 0, syscall.EIO
	}
	return uint32(len(p)), 0
}

// Fsync implements fs.NodeFsyncer: nothing outlives the check.
func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return 0 }
