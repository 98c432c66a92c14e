package index

import (
	"errors"
	"io"
	"io/fs"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// gate is the file system that the engine writes through. The engine's own
// answer to a disk that is full or fails is to end the process, to panic, or to
// try again for ever. Behind a gate it never sees such an error: the goroutine
// that met it stops there for good, with every later writer, while callers of
// the index get the error at once (see failure). From then on the abandoned
// engine cannot change a file, so the folder may be opened again.
type gate struct {
	vfs.FS
	failure *failure
	writing *sync.RWMutex // read-locked during each write
}

func newGate(under vfs.FS, f *failure) *gate { return &gate{under, f, &sync.RWMutex{}} }

// pass does a write, or stops.
func (g *gate) pass(write func() error) error {
	g.writing.RLock()
	if g.failure.happened() != nil {
		g.writing.RUnlock()
		select {}
	}
	err := write()
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		g.writing.RUnlock()
		return err
	}
	g.failure.set(err)
	g.writing.RUnlock()
	select {}
}

// shut waits for writes that are under way when the engine has failed.
func (g *gate) shut() {
	g.writing.Lock()
	//lint:ignore SA2001 to wait is all
	g.writing.Unlock()
}

func (g *gate) file(open func() (vfs.File, error)) (f vfs.File, err error) {
	err = g.pass(func() error {
		f, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &gatedFile{f, g}, nil
}

func (g *gate) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return g.file(func() (vfs.File, error) { return g.FS.Create(name, c) })
}

func (g *gate) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return g.file(func() (vfs.File, error) { return g.FS.OpenReadWrite(name, c, opts...) })
}

func (g *gate) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return g.file(func() (vfs.File, error) { return g.FS.ReuseForWrite(old, name, c) })
}

func (g *gate) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &gatedFile{f, g}, nil
}

func (g *gate) Link(old, name string) error {
	return g.pass(func() error { return g.FS.Link(old, name) })
}

func (g *gate) Rename(old, name string) error {
	return g.pass(func() error { return g.FS.Rename(old, name) })
}

func (g *gate) Remove(name string) error {
	return g.pass(func() error { return g.FS.Remove(name) })
}

func (g *gate) RemoveAll(name string) error {
	return g.pass(func() error { return g.FS.RemoveAll(name) })
}

func (g *gate) MkdirAll(dir string, perm fs.FileMode) error {
	return g.pass(func() error { return g.FS.MkdirAll(dir, perm) })
}

// Lock does nothing: the folder is locked by Open, in a way that ends before
// the process does.
func (g *gate) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

func (g *gate) Unwrap() vfs.FS { return g.FS }

// gatedFile is a file behind a gate.
type gatedFile struct {
	vfs.File
	gate *gate
}

func (f *gatedFile) Write(p []byte) (n int, err error) {
	err = f.gate.pass(func() error {
		n, err = f.File.Write(p)
		return err
	})
	return n, err
}

func (f *gatedFile) WriteAt(p []byte, offset int64) (n int, err error) {
	err = f.gate.pass(func() error {
		n, err = f.File.WriteAt(p, offset)
		return err
	})
	return n, err
}

func (f *gatedFile) Sync() error     { return f.gate.pass(f.File.Sync) }
func (f *gatedFile) SyncData() error { return f.gate.pass(f.File.SyncData) }

func (f *gatedFile) SyncTo(length int64) (full bool, err error) {
	err = f.gate.pass(func() error {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

// Preallocate is a wish that not every file system can grant; a disk that is
// full will say so again when the file is written.
func (f *gatedFile) Preallocate(offset, length int64) error {
	_ = f.File.Preallocate(offset, length)
	return nil
}
