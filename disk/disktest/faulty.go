package disktest

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/diskvault/diskvault/base/extent"
)

// Faulty is a file of a FUSE file system that cannot be read in some ranges.
type Faulty struct {
	Path  string
	Reads atomic.Int64 // read requests of the kernel so far

	content []byte
	bad     extent.Set
}

// NewFaulty mounts a file with the content, of which the ranges cannot be read:
// any read that touches one fails with EIO.
func NewFaulty(t testing.TB, content []byte, bad extent.Set) *Faulty {
	t.Helper()
	NeedRoot(t)
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("skip: needs /dev/fuse")
	}
	dir := t.TempDir()
	f := &Faulty{Path: filepath.Join(dir, "disk.img"), content: content, bad: bad}
	server, err := fs.Mount(dir, &faultyRoot{file: f}, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMount: true, FsName: "faulty", Name: "faulty"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Errorf("unmount of %s: %v", dir, err)
		}
	})
	return f
}

type faultyRoot struct {
	fs.Inode
	file *Faulty
}

// OnAdd puts the one file into the root.
func (r *faultyRoot) OnAdd(ctx context.Context) {
	node := r.NewPersistentInode(ctx, &faultyNode{file: r.file}, fs.StableAttr{Mode: syscall.S_IFREG})
	r.AddChild("disk.img", node, true)
}

type faultyNode struct {
	fs.Inode
	file *Faulty
}

func (n *faultyNode) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = 0o600, uint64(len(n.file.content))
	return 0
}

func (n *faultyNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, 0, 0
}

func (n *faultyNode) Read(ctx context.Context, f fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n.file.Reads.Add(1)
	end := min(off+int64(len(dest)), int64(len(n.file.content)))
	if len(n.file.bad.Within(extent.Between(off, end))) > 0 {
		return nil, syscall.EIO
	}
	return fuse.ReadResultData(n.file.content[off:end]), 0
}
