package disk

import (
	"context"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/container"
)

// ImageFile is one of the files, or block devices, of which an image in a
// container consists.
type ImageFile struct {
	inode inode // as Probe found it; zero in one that came from JSON

	Path       string     `json:"path"`
	Device     bool       `json:"device,omitempty"` // it is a block device
	FileSystem FileSystem `json:"fileSystem,omitzero"`
}

// Is tells whether an open file is the one that Probe found.
func (f ImageFile) Is(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && inodeOf(&st) == f.inode
}

// Inside tells whether the source is an image file in a container, of which the
// disk inside is read: what a guest would see, rather than the bytes of the file.
// Size and Identity are those of that disk.
func (s *Source) Inside() bool { return s.Kind == File && s.Format.Container() }

// qemuFormat is QEMU's word for a format.
func (s *Source) qemuFormat(head []byte) string {
	switch {
	case s.Format == FormatVHD:
		return "vpc"
	case s.Format == FormatQCOW2 && len(head) >= 8 && binary.BigEndian.Uint32(head[4:]) == 1:
		return "qcow"
	}
	return string(s.Format)
}

// leadsElsewhere tells whether the first bytes of an image may name other files.
func (s *Source) leadsElsewhere(head []byte) bool {
	const externalData = 1 << 2 // an incompatible feature of qcow2
	switch {
	case s.Format != FormatQCOW2:
		return s.Format == FormatVMDK || s.Format == FormatQED
	case len(head) < 80:
		return true
	}
	version, backing := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint64(head[8:])
	return backing != 0 || version >= 3 && binary.BigEndian.Uint64(head[72:])&externalData != 0
}

// probeInside looks at the disk in a container and gives its first bytes. That
// the file begins like a container is the word of whoever wrote to it, and that
// may be the guest of a raw disk; its name is the word of its owner. Where only
// the content speaks, no other file of this host is opened.
func (s *Source) probeInside(ctx context.Context, head []byte) ([]byte, error) {
	format := s.qemuFormat(head)
	alone := !container.Named(s.Path, format)
	if alone && s.leadsElsewhere(head) {
		return nil, container.NotAlone(s.Path, format)
	}
	if _, err := container.Chain(ctx, s.Path, format, alone); err != nil {
		return nil, err
	}
	d, err := container.Open(ctx, s.Path, format, container.Options{})
	if err != nil {
		return nil, err
	}
	defer d.Close() // only read from
	if s.Files, s.Allocated, err = filesOf(d); err != nil {
		return nil, readFailed(err, s.Path)
	}
	s.Size = d.Size()
	s.Allocated = min(s.Allocated, s.Size)
	inner := make([]byte, min(s.Size, headSize))
	if err := d.Read(ctx, inner, 0); err != nil {
		if ctx.Err() != nil {
			return nil, problem.From(context.Cause(ctx))
		}
		return nil, nil // as in Probe
	}
	return inner, nil
}

// filesOf looks at the files of an open image, and at how much room they take.
func filesOf(d *container.Disk) (files []ImageFile, allocated int64, err error) {
	paths, err := d.Files()
	if err != nil {
		return nil, 0, err
	}
	for _, path := range paths {
		f := ImageFile{Path: path}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, 0, err
		}
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil {
			f.inode, f.Device = inodeOf(&st), st.Mode&unix.S_IFMT == unix.S_IFBLK
			allocated += st.Blocks * 512
			if !f.Device {
				f.FileSystem, err = fileSystemOf(fd)
			}
		}
		unix.Close(fd)
		if err != nil {
			return nil, 0, err
		}
		files = append(files, f)
	}
	return files, allocated, nil
}

// openInside opens the disk in a container, past the page cache where that can
// be.
func (s *Source) openInside(ctx context.Context) (*Reader, error) {
	f, err := openSource(s.Path, s.Path)
	if err != nil {
		return nil, err
	}
	head, err := readHead(f)
	f.Close()
	if err != nil {
		return nil, readFailed(err, s.Path)
	}
	d, err := container.Open(ctx, s.Path, s.qemuFormat(head), container.Options{Direct: s.direct()})
	if err != nil {
		return nil, err
	}
	files, _, err := filesOf(d)
	switch {
	case err != nil:
		err = readFailed(err, s.Path)
	case !sameFiles(files, s.Files):
		err = problem.New(problem.SourceReplaced, "%s, or an image that it builds upon, is now another than a moment ago.", s.Path).
			Do("Run again.")
	case d.Size() != s.Size:
		err = resized(s.Path, s.Size, d.Size())
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return &Reader{path: s.Path, fd: -1, kind: File, size: s.Size, sector: 512, export: d.Client, inside: d}, nil
}

// direct tells whether all files of an image can be read past the page cache.
func (s *Source) direct() bool {
	for _, f := range s.Files {
		fd, err := unix.Open(f.Path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_DIRECT, 0)
		if err != nil {
			return false
		}
		unix.Close(fd)
	}
	return true
}

// sameFiles tells whether an image opened now consists of the files that Probe
// found. Files that came from JSON are compared by their paths.
func sameFiles(now, found []ImageFile) bool {
	if len(now) != len(found) {
		return false
	}
	for i, f := range found {
		if f.Path != now[i].Path || f.inode != (inode{}) && f.inode != now[i].inode {
			return false
		}
	}
	return true
}
