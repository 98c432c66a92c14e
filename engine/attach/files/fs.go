package files

import (
	"errors"
	"io"
	"path"
	"strings"
	"sync"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

// The words of the readers, which are those of this package, too.
type (
	Attr    = node.Attr
	Entry   = node.Entry
	Kind    = node.Kind
	Content = node.Content
)

// The kinds of files.
const (
	Unknown     = node.Unknown
	Regular     = node.Regular
	Directory   = node.Directory
	Symlink     = node.Symlink
	CharDevice  = node.CharDevice
	BlockDevice = node.BlockDevice
	Pipe        = node.Pipe
	Socket      = node.Socket
)

// FS is the files of a volume. It is safe for concurrent use.
type FS struct {
	volume *Volume
	system node.System
	names  names
}

// Volume is what the files lie on.
func (f *FS) Volume() *Volume { return f.volume }

// Root is the number of the topmost folder.
func (f *FS) Root() uint64 { return f.system.Root() }

// Attr tells what is known of a file.
func (f *FS) Attr(ino uint64) (a Attr, err error) {
	err = contain(func() (err error) { a, err = f.system.Attr(ino); return err })
	return a, explain(err)
}

// List gives the entries of a folder in the order of the disk. Names that no
// file can have are left out; odd counts them.
func (f *FS) List(ino uint64) (all []Entry, odd int, err error) {
	err = contain(func() error {
		return f.system.List(ino, func(e Entry) error {
			if e.Name == "" || e.Name == "." || e.Name == ".." || len(e.Name) > 1024 || strings.ContainsAny(e.Name, "/\x00") {
				odd++
				return nil
			}
			if len(all) >= node.MaxEntries {
				return node.Unsupportedf("a folder of more than %d entries", node.MaxEntries)
			}
			all = append(all, e)
			return nil
		})
	})
	return all, odd, explain(err)
}

// Lookup finds an entry of a folder by its name.
func (f *FS) Lookup(ino uint64, name string) (Entry, error) {
	e, known, ok := f.names.find(ino, name)
	if !known {
		all, _, err := f.List(ino)
		if err != nil {
			return Entry{}, err
		}
		e, ok = f.names.keep(ino, all, name)
	}
	if !ok {
		return Entry{}, problem.New(problem.FileNotFound, "There is no file %q there.", name)
	}
	return e, nil
}

// Open gives the content of a regular file.
func (f *FS) Open(ino uint64) (c Content, err error) {
	err = contain(func() (err error) { c, err = f.system.Content(ino); return err })
	if err != nil {
		return nil, explain(err)
	}
	return contained{c}, nil
}

// Link gives the target of a symbolic link.
func (f *FS) Link(ino uint64) (target string, err error) {
	err = contain(func() (err error) { target, err = f.system.Link(ino); return err })
	if err == nil && strings.Contains(target, "\x00") {
		err = node.Damagedf("a symbolic link is none")
	}
	return target, explain(err)
}

// Xattrs gives the extended attributes of a file by their names in Linux.
func (f *FS) Xattrs(ino uint64) (all map[string][]byte, err error) {
	err = contain(func() (err error) { all, err = f.system.Xattrs(ino); return err })
	return all, explain(err)
}

// maxLinks is how many symbolic links a path may lead over.
const maxLinks = 40

// Find gives the file at a path. Symbolic links on the way are followed within
// the volume; the last one only if the path ends with a slash.
func (f *FS) Find(name string) (Attr, error) {
	missing := func() error {
		return problem.New(problem.FileNotFound, "There is no file %s in volume %s.", path.Clean("/"+name), f.volume.Name)
	}
	rest := strings.Split(name, "/")
	follow := strings.HasSuffix(name, "/")
	followed := false
	at := []uint64{f.Root()} // the folders on the way
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		e, err := f.Lookup(at[len(at)-1], part)
		if problem.Is(err, problem.FileNotFound) {
			return Attr{}, missing()
		}
		if err != nil {
			return Attr{}, err
		}
		a, err := f.Attr(e.Ino)
		if err != nil {
			return Attr{}, err
		}
		last := strings.Trim(strings.Join(rest, "/"), "/") == ""
		switch {
		case a.Kind == Symlink && (!last || follow):
			if links++; links > maxLinks {
				return Attr{}, problem.New(problem.FileNotFound, "The path %s leads over too many symbolic links.", name)
			}
			target, err := f.Link(e.Ino)
			if err != nil {
				return Attr{}, err
			}
			if strings.HasPrefix(target, "/") {
				at = at[:1]
			}
			followed = last
			rest = append(strings.Split(target, "/"), rest...)
		case a.Kind == Directory:
			at = append(at, e.Ino)
		case last && (!follow || followed):
			return a, nil
		default:
			return Attr{}, missing()
		}
	}
	return f.Attr(at[len(at)-1])
}

// contained is content whose reader may panic.
type contained struct{ Content }

func (c contained) ReadAt(p []byte, off int64) (n int, err error) {
	err = contain(func() (err error) { n, err = c.Content.ReadAt(p, off); return err })
	if err != nil && !errors.Is(err, io.EOF) {
		err = explain(err)
	}
	return n, err
}

// NextData implements Content; what lies behind the end has none.
func (c contained) NextData(off int64) (start, end int64) {
	size := c.Size()
	if off >= size || off < 0 {
		return size, size
	}
	start, end = size, size
	if contain(func() error { start, end = c.Content.NextData(off); return nil }) != nil {
		return off, size // what it is, reading says
	}
	return start, end
}

// maxNames bounds how many names of folders are kept.
const maxNames = 1 << 18

// names are those of folders that were listed lately.
type names struct {
	mu      sync.Mutex
	folders map[uint64]map[string]Entry
	order   []uint64 // oldest first
	count   int
}

// find looks a name up; known is false if the folder is not kept.
func (n *names) find(ino uint64, name string) (e Entry, known, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	folder, known := n.folders[ino]
	e, ok = folder[name]
	return e, known, ok
}

// keep takes a folder over, if it is not too large, and looks a name up in it.
func (n *names) keep(ino uint64, all []Entry, name string) (found Entry, ok bool) {
	folder := make(map[string]Entry, min(len(all), maxNames))
	for _, e := range all {
		if _, twice := folder[e.Name]; !twice && len(folder) < maxNames {
			folder[e.Name] = e
		}
		if e.Name == name && !ok {
			found, ok = e, true
		}
	}
	if len(all) > maxNames/2 {
		return found, ok
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.folders == nil {
		n.folders = map[uint64]map[string]Entry{}
	}
	if _, known := n.folders[ino]; known {
		return found, ok
	}
	n.folders[ino] = folder
	n.order = append(n.order, ino)
	for n.count += len(folder) + 1; n.count > maxNames; n.order = n.order[1:] {
		n.count -= len(n.folders[n.order[0]]) + 1
		delete(n.folders, n.order[0])
	}
	return found, ok
}
