package fuse

import (
	"context"
	"errors"
	"io"
	"sort"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/engine/attach/files"
)

// file is a file or folder of a file system on the disk.
type file struct {
	fs.Inode
	volume int // number of the volume
	files  *files.FS
	ino    uint64
}

// number is that of a file of a volume within the mount: hard links keep
// having the same.
func number(volume int, ino uint64) uint64 { return uint64(volume+1)<<56 | ino&(1<<56-1) }

// fill writes attributes in the form of FUSE.
func fill(out *fuse.Attr, a files.Attr) {
	out.Mode = a.Kind.Mode() | a.Mode
	out.Size, out.Nlink = uint64(a.Size), a.Links
	out.Blocks, out.Blksize = uint64(a.Allocated+511)/512, 128<<10
	out.Uid, out.Gid = a.UID, a.GID
	out.Rdev = uint32(unix.Mkdev(a.DeviceMajor, a.DeviceMinor))
	out.SetTimes(&a.Accessed, &a.Modified, &a.Changed)
}

// errnoOf says an error as the system would.
func errnoOf(err error) syscall.Errno {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return syscall.EINTR
	case problem.Is(err, problem.FileNotFound):
		return syscall.ENOENT
	case problem.Is(err, problem.FileSystemDamaged):
		return syscall.EUCLEAN
	case problem.Is(err, problem.FileSystemNotSupported):
		return syscall.EOPNOTSUPP
	}
	return syscall.EIO
}

// Getattr implements fs.NodeGetattrer.
func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	a, err := f.files.Attr(f.ino)
	if err != nil {
		return errnoOf(err)
	}
	fill(&out.Attr, a)
	return 0
}

// Lookup implements fs.NodeLookuper.
func (f *file) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	e, err := f.files.Lookup(f.ino, name)
	if err != nil {
		return nil, errnoOf(err)
	}
	a, err := f.files.Attr(e.Ino)
	if err != nil {
		return nil, errnoOf(err)
	}
	fill(&out.Attr, a)
	return f.NewInode(ctx, &file{volume: f.volume, files: f.files, ino: e.Ino}, fs.StableAttr{Mode: a.Kind.Mode(), Ino: number(f.volume, e.Ino)}), 0
}

// Readdir implements fs.NodeReaddirer.
func (f *file) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	all, _, err := f.files.List(f.ino)
	if err != nil {
		return nil, errnoOf(err)
	}
	entries := make([]fuse.DirEntry, len(all))
	for n, e := range all {
		entries[n] = fuse.DirEntry{Name: e.Name, Mode: e.Kind.Mode(), Ino: number(f.volume, e.Ino)}
	}
	return fs.NewListDirStream(entries), 0
}

// Readlink implements fs.NodeReadlinker.
func (f *file) Readlink(context.Context) ([]byte, syscall.Errno) {
	target, err := f.files.Link(f.ino)
	if err != nil {
		return nil, errnoOf(err)
	}
	return []byte(target), 0
}

// handle is an open file.
type handle struct{ content files.Content }

// Open implements fs.NodeOpener.
func (f *file) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if errno := readOnly(flags); errno != 0 {
		return nil, 0, errno
	}
	c, err := f.files.Open(f.ino)
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	return &handle{c}, fuse.FOPEN_KEEP_CACHE, 0
}

// Read implements fs.FileReader.
func (h *handle) Read(_ context.Context, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, err := h.content.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errnoOf(err)
	}
	return fuse.ReadResultData(p[:n]), 0
}

// Lseek implements fs.FileLseeker: holes stay holes for those who copy.
func (h *handle) Lseek(_ context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	if off >= uint64(h.content.Size()) {
		return 0, syscall.ENXIO
	}
	start, _ := h.content.NextData(int64(off))
	switch {
	case whence == unix.SEEK_DATA && start >= h.content.Size():
		return 0, syscall.ENXIO
	case whence == unix.SEEK_DATA:
		return uint64(start), 0
	case whence != unix.SEEK_HOLE:
		return 0, syscall.EINVAL
	}
	for at := int64(off); ; {
		start, end := h.content.NextData(at)
		if start > at || end <= at {
			return uint64(at), 0
		}
		at = end
	}
}

// Getxattr implements fs.NodeGetxattrer.
func (f *file) Getxattr(_ context.Context, name string, p []byte) (uint32, syscall.Errno) {
	all, err := f.files.Xattrs(f.ino)
	if err != nil {
		return 0, errnoOf(err)
	}
	value, ok := all[name]
	if !ok {
		return 0, syscall.ENODATA
	}
	if len(p) < len(value) {
		return uint32(len(value)), syscall.ERANGE
	}
	return uint32(copy(p, value)), 0
}

// Listxattr implements fs.NodeListxattrer.
func (f *file) Listxattr(_ context.Context, p []byte) (uint32, syscall.Errno) {
	all, err := f.files.Xattrs(f.ino)
	if err != nil {
		return 0, errnoOf(err)
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	sort.Strings(names)
	var b []byte
	for _, name := range names {
		b = append(append(b, name...), 0)
	}
	if len(p) < len(b) {
		return uint32(len(b)), syscall.ERANGE
	}
	return uint32(copy(p, b)), 0
}
