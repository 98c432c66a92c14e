package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/container"
	"github.com/diskvault/diskvault/disk/nbd"
)

// image is a qcow2 image on its way, written by a process of QEMU. It is always
// made anew: until Commit it has the name of an unfinished file.
type image struct {
	disk    *container.Disk
	replace bool // the finished image takes the place of a file
}

// targetFormat is the format in which a target is written: what the options say,
// or what its name says.
func targetFormat(path string, o TargetOptions) (Format, error) {
	if o.Format == FormatRaw || o.Format == FormatQCOW2 {
		return o.Format, nil
	}
	if o.Format == "" {
		ending := strings.ToLower(filepath.Ext(path))
		if ending == ".qcow2" {
			return FormatQCOW2, nil
		}
		for _, endings := range container.Endings {
			for _, e := range endings {
				if e == ending {
					o.Format = Format(strings.TrimPrefix(ending, "."))
				}
			}
		}
	}
	if o.Format == "" {
		return FormatRaw, nil
	}
	return "", problem.New(problem.TargetNotWritable, "diskvault writes disks as raw and qcow2 images, and %s would be a %s image.", path, o.Format).
		Do("Restore to a file named .qcow2, or .img for a raw one; then make the other of it: qemu-img convert -O FORMAT FILE IMAGE")
}

// openImage begins a qcow2 image, or goes on with an unfinished one. exists says
// that there is a file in its place.
func (t *Target) openImage(ctx context.Context, o TargetOptions, exists bool) error {
	t.image = &image{replace: exists}
	if exists {
		if err := t.claimReplaced(o); err != nil {
			return err
		}
	} else if err := t.refuseLink(); err != nil {
		return err
	}
	if err := t.openPartial(); err != nil {
		return err
	}
	if err := t.prepareImage(ctx, o); err != nil {
		t.end()
		return err
	}
	return nil
}

// claimReplaced makes sure that the file whose place the image will take may go,
// and that nobody uses it.
func (t *Target) claimReplaced(o TargetOptions) error {
	old := Target{path: t.path}
	err := old.openExisting(o) // with a size of zero, so that nothing of it changes
	if err != nil {
		return err
	}
	old.file.Close()
	t.path = old.path
	return nil
}

// prepareImage makes the image, or takes over what an earlier restore of the
// same thing has written, and opens it.
func (t *Target) prepareImage(ctx context.Context, o TargetOptions) error {
	path := t.path + partialEnding
	if o.Token != "" && t.noted() == o.Token && container.Check(ctx, path, true) == nil {
		if err := t.openContainer(ctx, path); err == nil {
			if t.resumed = t.fits(); t.resumed {
				return nil
			}
			t.image.disk.Close() // it is made anew
			t.image.disk = nil
		}
	}
	if err := ctx.Err(); err != nil {
		return problem.From(err)
	}
	t.blank = true
	if err := t.forget(); err != nil {
		return err
	}
	if err := container.Create(ctx, path, t.size, o.Dense); err != nil {
		return t.imageProblem(err, extent.Range{Len: t.size})
	}
	if err := t.openContainer(ctx, path); err != nil {
		return t.imageProblem(err, extent.Range{Len: t.size})
	}
	if !t.fits() {
		return problem.New(problem.TargetWriteFailed, "QEMU made an image of %d bytes for the disk of %d bytes.", t.image.disk.Size(), t.size)
	}
	return t.note(o.Token)
}

func (t *Target) openContainer(ctx context.Context, path string) (err error) {
	direct := false
	if fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0); err == nil {
		unix.Close(fd)
		direct = true
	}
	t.image.disk, err = container.Open(ctx, path, "qcow2", container.Options{Writable: true, Lock: t.file, Direct: direct})
	return err
}

// fits tells whether the image has the size of the disk, in whole sectors, which
// is what qcow2 knows.
func (t *Target) fits() bool {
	const sector = 512
	return t.image.disk.Size() == (t.size+sector-1)/sector*sector
}

// imageProblem is writeProblem, but for what is a problem already, such as a
// missing tool.
func (t *Target) imageProblem(err error, r extent.Range) error {
	if errors.As(err, new(*problem.Error)) && !errors.Is(err, unix.ENOSPC) {
		return err
	}
	return t.writeProblem(err, r)
}

// writeAt is WriteAt. Requests end by themselves; an interrupt is heeded between
// them.
func (i *image) writeAt(p []byte, off int64) error {
	return i.disk.Write(context.Background(), p, off)
}

func (i *image) readAt(p []byte, off int64) error {
	return i.disk.Read(context.Background(), p, off)
}

func (i *image) zero(r extent.Range, dense bool) error {
	return i.disk.Zero(context.Background(), r, dense)
}

// nextData finds the first byte at or after off that may be something else than
// zero, up to size.
func (i *image) nextData(off, size int64) (int64, error) {
	if !i.disk.Has(nbd.ContextAllocation) {
		return off, nil
	}
	for e, err := range i.disk.Extents(context.Background(), nbd.ContextAllocation, extent.Between(off, size)) {
		if err != nil {
			return 0, err
		}
		if e.Flags&nbd.StateZero == 0 {
			return e.Off, nil
		}
	}
	return size, nil
}

// close ends the process that writes the image. A nil image has none.
func (i *image) close() {
	if i != nil && i.disk != nil {
		_ = i.disk.Close() // what could fail was asked for by finish, or is given up
	}
}

// finish ends the writing of the image and looks at the result.
func (i *image) finish(ctx context.Context, path string) error {
	if err := i.disk.Flush(ctx); err != nil {
		return err
	}
	if err := i.disk.Close(); err != nil {
		return err
	}
	return container.Check(ctx, path, false)
}

// publishImage gives the finished image its name, in place of another file if
// that was asked for.
func (t *Target) publishImage() error {
	if !t.image.replace {
		return t.partial.publish(t.path)
	}
	err := os.Rename(t.path+partialEnding, t.path)
	if err == nil {
		err = t.partial.folder.SyncFolder("")
	}
	if err != nil {
		return problem.Wrap(err, problem.TargetWriteFailed, "The restored image cannot take the place of %s.", t.path)
	}
	_ = t.partial.folder.Remove(t.partial.token()) // litter, as in publish
	return nil
}
