package capture

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
)

// insideView reads the disk in a container while leases are held on all files of
// which the image consists.
type insideView struct {
	*disk.Reader
	*doubt
	path string
	held []heldFile
}

// heldFile is one file of an image.
type heldFile struct {
	file   *os.File
	path   string
	lease  *lease // nil if there is none
	before fileState
}

// captureInside takes the leases first, and opens the image then: what is known
// of it at the beginning is read under them, too. While another program writes to
// the image it is not read at all: what QEMU would make of a container that
// changes is neither the disk of one time nor of another.
func captureInside(ctx context.Context, src *disk.Source) (_ View, err error) {
	v := &insideView{doubt: newDoubt(), path: src.Path}
	defer func() {
		if err != nil {
			v.release()
		}
	}()
	if err := v.holdAll(ctx, src); err != nil {
		return nil, err
	}
	if v.Reader, err = src.Open(ctx, disk.ReadOptions{}); err != nil {
		return nil, err
	}
	return v, nil
}

// assessInside tells how an image would fare, by leases held for a moment.
func assessInside(ctx context.Context, src *disk.Source) Assessment {
	a := Assessment{
		Cost:   "All that the image holds is read at each backup, and nothing may write to it meanwhile.",
		Better: []string{"While its machine runs, qemu+unix:///PATH/qmp.sock?device=NAME reads only what changed."},
	}
	v := &insideView{doubt: newDoubt(), path: src.Path}
	defer v.release()
	if err := v.holdAll(ctx, src); err != nil {
		a.Refused = problem.From(err).Message
	} else if p, doubted := v.proof(); doubted {
		a.Refused = p.Reason
	}
	return a
}

func (v *insideView) holdAll(ctx context.Context, src *disk.Source) error {
	for _, f := range src.Files {
		if err := v.hold(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// hold takes a lease on a file of the image.
func (v *insideView) hold(ctx context.Context, f disk.ImageFile) error {
	if f.Device {
		v.raise(fmt.Sprintf("It builds upon the device %s, whose being quiet is not proven.", f.Path), false)
		return nil
	}
	if reason := neverProven(f.FileSystem); reason != "" {
		v.raise(fmt.Sprintf("Of its file %s: %s", f.Path, reason), false)
	}
	file, err := os.Open(f.Path)
	if err != nil {
		return problem.Wrap(err, problem.SourceReadFailed, "%s, of which the image %s consists, cannot be opened.", f.Path, v.path)
	}
	h := heldFile{file: file, path: f.Path}
	v.held = append(v.held, h)
	fd := int(file.Fd())
	if !f.Is(fd) {
		return problem.New(problem.SourceReplaced, "At %s there is now something else than a moment ago.", f.Path).Do("Run again.")
	}
	lease, err := takeLease(fd, func() {
		v.raise(fmt.Sprintf("A program opened %s for writing, or truncated it, while it was read.", f.Path), true)
	})
	if errors.Is(err, unix.EAGAIN) {
		return writtenInside(ctx, v.path, f.Path)
	}
	if err != nil {
		v.raise(fmt.Sprintf("The kernel grants no lease on %s (%v), so a writer may go unnoticed.", f.Path, err), false)
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		lease.release()
		return problem.Wrap(err, problem.SourceReadFailed, "%s cannot be looked at.", f.Path)
	}
	h.lease, h.before = lease, stateOf(&st)
	v.held[len(v.held)-1] = h
	return nil
}

// writtenInside is the refusal of an image that somebody has open for writing.
func writtenInside(ctx context.Context, image, file string) error {
	who := "a program that this user cannot see"
	if writers, _ := writersOf(ctx, file); len(writers) > 0 {
		who = writers[0].String()
	}
	return problem.New(problem.SourceInUse, "%s has %s open for writing, so the disk in %s cannot be read.", capital(who), file, image).
		Do("Back the disk up through the running machine: qemu+unix:///PATH/qmp.sock?device=NAME.", "Or stop whatever writes to it and run again.").
		With("path", image).With("file", file)
}

// Prove implements View.
func (v *insideView) Prove(ctx context.Context) (Proof, error) {
	if err := ctx.Err(); err != nil {
		return Proof{}, problem.From(err)
	}
	// As of a file: state first, lease second.
	for _, h := range v.held {
		var st unix.Stat_t
		if err := unix.Fstat(int(h.file.Fd()), &st); err != nil {
			return Proof{}, problem.Wrap(err, problem.SourceReadFailed, "%s cannot be looked at.", h.path)
		}
		switch {
		case h.lease == nil:
		case !h.lease.held():
			v.raise(fmt.Sprintf("A program opened %s for writing, or truncated it, while it was read.", h.path), true)
		case !stateOf(&st).sameContent(h.before):
			v.raise(fmt.Sprintf("The time of modification of %s moved while it was read.", h.path), true)
		}
	}
	if p, ok := v.proof(); ok {
		return p, nil
	}
	if n := len(v.held); n > 1 {
		return proven(fmt.Sprintf("No program had any of its %d files open for writing while they were read.", n)), nil
	}
	return proven("No program had it open for writing while it was read."), nil
}

// Untracked says why nothing tells what has changed: a clause.
func (v *insideView) Untracked() string {
	return "an image file that no machine runs from records no changes, so all that it holds was read and compared"
}

// release gives the leases and files back.
func (v *insideView) release() {
	for _, h := range v.held {
		if h.lease != nil {
			h.lease.release()
		}
		h.file.Close() // only read from
	}
}

// Close implements View.
func (v *insideView) Close() error {
	v.release()
	return v.Reader.Close()
}
