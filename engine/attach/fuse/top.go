package fuse

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/diskvault/diskvault/engine/attach/files"
)

// The names in the topmost folder, and the numbers of what the mount adds.
const (
	imageName   = "disk.img"
	filesName   = "files"
	volumesName = "volumes.txt"

	imageNumber   = 2
	filesNumber   = 3
	volumesNumber = 4
)

// top is the topmost folder.
type top struct {
	fs.Inode
	disk Disk
	time time.Time

	once sync.Once // of volumes
	all  []*files.Volume
	err  error
}

func newTop(o Options) *top { return &top{disk: o.Disk, time: o.Time} }

// OnAdd implements fs.NodeOnAdder.
func (t *top) OnAdd(ctx context.Context) {
	t.AddChild(imageName, t.NewPersistentInode(ctx, &whole{top: t}, fs.StableAttr{Mode: syscall.S_IFREG, Ino: imageNumber}), false)
	t.AddChild(filesName, t.NewPersistentInode(ctx, &volumes{top: t}, fs.StableAttr{Mode: syscall.S_IFDIR, Ino: filesNumber}), false)
}

// Getattr implements fs.NodeGetattrer.
func (t *top) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	t.own(&out.Attr, 0o555|syscall.S_IFDIR, 0)
	return 0
}

// own fills in the attributes of what the mount adds.
func (t *top) own(a *fuse.Attr, mode uint32, size int64) {
	a.Mode, a.Size, a.Nlink = mode, uint64(size), 1
	a.Blocks, a.Blksize = uint64(size+511)/512, 1<<20
	a.SetTimes(&t.time, &t.time, &t.time)
}

// whole is the disk as one file.
type whole struct {
	fs.Inode
	top *top
}

// Getattr implements fs.NodeGetattrer.
func (w *whole) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	w.top.own(&out.Attr, 0o400|syscall.S_IFREG, w.top.disk.Size())
	return 0
}

// Open implements fs.NodeOpener.
func (w *whole) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, readOnly(flags)
}

// Read implements fs.NodeReader.
func (w *whole) Read(ctx context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	p = p[:max(0, min(int64(len(p)), w.top.disk.Size()-off))]
	if err := w.top.disk.Read(ctx, p, off); err != nil {
		return nil, errnoOf(err)
	}
	return fuse.ReadResultData(p), 0
}

func readOnly(flags uint32) syscall.Errno {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return syscall.EROFS
	}
	return 0
}

// volumes is the folder of the file systems.
type volumes struct {
	fs.Inode
	top *top
}

// Getattr implements fs.NodeGetattrer.
func (v *volumes) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	v.top.own(&out.Attr, 0o555|syscall.S_IFDIR, 0)
	return 0
}

// Readdir implements fs.NodeReaddirer.
func (v *volumes) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	all, err := v.top.volumes()
	if err != nil {
		return nil, errnoOf(err)
	}
	entries := []fuse.DirEntry{{Name: volumesName, Mode: syscall.S_IFREG, Ino: volumesNumber}}
	for n, x := range all {
		if f, err := x.Files(); err == nil {
			entries = append(entries, fuse.DirEntry{Name: x.Name, Mode: syscall.S_IFDIR, Ino: number(n, f.Root())})
		}
	}
	return fs.NewListDirStream(entries), 0
}

// Lookup implements fs.NodeLookuper.
func (v *volumes) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	all, err := v.top.volumes()
	if err != nil {
		return nil, errnoOf(err)
	}
	if name == volumesName {
		text := list(all)
		v.top.own(&out.Attr, 0o444|syscall.S_IFREG, int64(len(text)))
		return v.NewInode(ctx, &fs.MemRegularFile{Data: text, Attr: out.Attr}, fs.StableAttr{Mode: syscall.S_IFREG, Ino: volumesNumber}), 0
	}
	for n, x := range all {
		if x.Name != name {
			continue
		}
		f, err := x.Files()
		if err != nil {
			return nil, syscall.ENOENT
		}
		a, err := f.Attr(f.Root())
		if err != nil {
			return nil, errnoOf(err)
		}
		fill(&out.Attr, a)
		return v.NewInode(ctx, &file{volume: n, files: f, ino: a.Ino}, fs.StableAttr{Mode: syscall.S_IFDIR, Ino: number(n, a.Ino)}), 0
	}
	return nil, syscall.ENOENT
}

// list tells what is on the disk, also what cannot be read and why.
func list(all []*files.Volume) []byte {
	text := ""
	for _, v := range all {
		kind := v.Kind
		if kind == "" {
			kind = "unknown"
		}
		text += fmt.Sprintf("%s: %s, %d bytes at %d", v.Name, kind, v.Size, v.Offset)
		for _, named := range []struct{ what, name string }{{"label", v.Label}, {"named", v.Title}, {"UUID", v.UUID}} {
			if named.name != "" {
				text += fmt.Sprintf(", %s %q", named.what, named.name)
			}
		}
		text += "\n"
		for _, note := range []string{v.Note, v.Stale} {
			if note != "" {
				text += "    " + note + "\n"
			}
		}
		if v.Replayed {
			text += "    its journal was replayed in memory\n"
		}
	}
	return []byte(text)
}
