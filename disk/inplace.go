package disk

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/blockdev"
)

// openExisting opens a file to be written in place.
func (t *Target) openExisting(o TargetOptions) error {
	t.kind = ExistingFile
	real, err := filepath.EvalSymlinks(t.path)
	if err != nil {
		return t.unreachable(err)
	}
	t.path = real
	if !o.Overwrite {
		return problem.New(problem.TargetExists, "The file %s exists already.", t.path)
	}
	k := blockdev.Kernel{}
	if loops := k.LoopsOn(t.path); len(loops) > 0 {
		return problem.New(problem.TargetInUse, "The file %s is used by the loop device /dev/%s.", t.path, loops[0].Name)
	}
	if k.SwapFile(t.path) {
		return problem.New(problem.TargetInUse, "The system swaps to the file %s.", t.path)
	}
	fd, err := unix.Open(t.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return t.unreachable(err)
	}
	t.fd, t.file = fd, os.NewFile(uintptr(fd), t.path)
	if err := t.claimExisting(); err != nil {
		t.file.Close()
		return err
	}
	return nil
}

// claimExisting makes sure that nobody else has the file open, as a running
// machine has its disk, and that it can hold the disk.
func (t *Target) claimExisting() error {
	if err := unix.Flock(t.fd, unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK {
		return problem.New(problem.TargetInUse, "Another program holds a lock on the file %s.", t.path)
	}
	if err := t.soleUser(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(t.fd, &st); err != nil {
		return t.unreachable(err)
	}
	t.blank = st.Size == 0
	if st.Size < t.size {
		if err := unix.Ftruncate(t.fd, t.size); err != nil {
			return t.writeProblem(err, extent.Between(st.Size, t.size))
		}
	}
	return nil
}

// soleUser asks the kernel for a write lease, which it grants only if nobody
// else has the file open, and gives it back. A user who may not take a lease
// learns nothing, nor does one on a network file system, which refuses leases
// for reasons of its own.
func (t *Target) soleUser() error {
	if on, err := fileSystemOf(t.fd); err != nil || !on.Local {
		return nil
	}
	switch _, err := unix.FcntlInt(uintptr(t.fd), unix.F_SETLEASE, unix.F_WRLCK); err {
	case nil:
		if _, err := unix.FcntlInt(uintptr(t.fd), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
			return t.unreachable(err)
		}
	case unix.EAGAIN:
		return problem.New(problem.TargetInUse, "Another program has the file %s open.", t.path).
			Do("Stop the program, for example the virtual machine of that disk, or choose another target.")
	}
	return nil
}

// openDevice opens a block device to be written.
func (t *Target) openDevice(ctx context.Context, o TargetOptions) error {
	t.kind = Device
	s, err := Probe(ctx, t.path)
	if problem.Is(err, problem.SourceTooLarge) {
		return problem.Wrap(err, problem.TargetNotWritable, "The device %s is larger than diskvault knows to handle.", t.path)
	}
	if err != nil {
		return problem.Wrap(err, problem.TargetNotWritable, "The device %s cannot be looked at.", t.path)
	}
	t.path, t.sector = s.Path, int64(s.SectorSize)
	switch {
	case s.Size < t.size:
		return problem.New(problem.TargetTooSmall, "The device %s has %s; the disk needs %s.", t.path, sizeText(s.Size), sizeText(t.size)).
			With("size", s.Size).With("needed", t.size)
	case len(s.Mounts) > 0:
		return problem.New(problem.TargetInUse, "The device %s is mounted at %s.", t.path, s.Mounts[0].Dir)
	case s.Swap:
		return problem.New(problem.TargetInUse, "The system swaps to the device %s.", t.path)
	case len(s.Holders) > 0:
		return problem.New(problem.TargetInUse, "The device %s is used by %s.", t.path, strings.Join(s.Holders, ", "))
	case s.ReadOnly:
		return problem.New(problem.TargetNotWritable, "The device %s is read-only.", t.path)
	}
	// With O_EXCL nobody can mount it from now on.
	fd, err := unix.Open(t.path, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err == unix.EBUSY {
		return problem.Wrap(err, problem.TargetInUse, "The device %s is used by something else.", t.path)
	}
	if err != nil {
		return t.unreachable(err)
	}
	t.fd, t.file = fd, os.NewFile(uintptr(fd), t.path)
	if err := t.refuseContent(s, o.Overwrite); err != nil {
		t.file.Close()
		return err
	}
	return nil
}

// What must be zeros for a device to count as empty: its beginning and end,
// where tables, labels and their copies lie, and samples spread over the rest,
// for what has lost those.
const (
	contentSearched = 1 << 20 // bytes at each end
	contentSamples  = 64
	contentSample   = 64 << 10 // bytes
)

// refuseContent refuses a device that holds something, whether or not we know
// what.
func (t *Target) refuseContent(s *Source, overwrite bool) error {
	if overwrite {
		return nil
	}
	blank, err := t.seemsBlank(s.Size)
	if err != nil {
		return problem.Wrap(err, problem.TargetWriteFailed, "The device %s cannot be read.", t.path)
	}
	var labels Identity
	for _, f := range s.Identity {
		if f.Place != deviceLocation {
			labels = append(labels, f)
		}
	}
	switch {
	case len(labels) > 0:
		return problem.New(problem.TargetExists, "The device %s holds data: %s.", t.path, labels)
	case s.Format != FormatRaw:
		return problem.New(problem.TargetExists, "The device %s holds data: %s.", t.path, s.Format)
	case !blank:
		return problem.New(problem.TargetExists, "The device %s holds data of an unknown kind.", t.path)
	}
	return nil
}

// seemsBlank looks for anything but zeros at the ends of a device and in
// samples between.
func (t *Target) seemsBlank(size int64) (bool, error) {
	buffer := make([]byte, contentSearched)
	blank := func(off, length int64) (bool, error) {
		b := buffer[:max(0, min(length, size-off))]
		n, err := preadFull(t.fd, b, off)
		return bytes.Count(b[:n], zeros[:1]) == n, err
	}
	ok, err := blank(0, contentSearched)
	if ok && err == nil {
		ok, err = blank(max(0, size-contentSearched), contentSearched)
	}
	for k := int64(1); k < contentSamples && ok && err == nil; k++ {
		ok, err = blank(size/contentSamples*k&^4095, contentSample)
	}
	return ok, err
}
