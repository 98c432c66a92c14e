package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
)

// MethodReflink clones the file on its own file system and reads the clone.
const MethodReflink Method = "reflink"

// trackingFiemap is the name of change tracking by comparing where two clones
// lie on the storage.
const trackingFiemap = "fiemap"

// DefaultStallBudget is how long the writers of a disk may be held up by its
// capture.
const DefaultStallBudget = time.Second

// stallOfExtent is how long a clone holds up the writers of its source, for each
// extent, by file system. These are the file systems that are known to be
// sound here: a clone is of one moment, and places that are equal hold equal
// bytes while both clones exist.
var stallOfExtent = map[string]time.Duration{
	"xfs":   25 * time.Microsecond,
	"btrfs": 10 * time.Microsecond,
}

// Reflink captures a file on XFS or btrfs by cloning it, whoever writes to it.
// The clone is of one moment; the writers wait while it is made, which takes time
// for each extent. A clone that is kept shows what changed until the next one.
type Reflink struct {
	// Owner ties kept clones to what they are kept for, such as the ID of a
	// backup instance: letters, digits and dashes. Without one none is kept.
	Owner string
	// StallBudget is how long the writers may wait; 0: DefaultStallBudget.
	StallBudget time.Duration
}

func (r Reflink) budget() time.Duration {
	if r.StallBudget > 0 {
		return r.StallBudget
	}
	return DefaultStallBudget
}

// stall is what a clone of so many extents is expected to take.
func stall(src *disk.Source, extents int64) time.Duration {
	return time.Duration(extents) * stallOfExtent[src.FileSystem.Name]
}

// unfit says why a file cannot be cloned at all; "" if it may be.
func (Reflink) unfit(src *disk.Source) string {
	switch {
	case stallOfExtent[src.FileSystem.Name] == 0:
		return fmt.Sprintf("Files on %s cannot be cloned; those on XFS and btrfs can.", src.FileSystem.Name)
	case src.Format.Container():
		return fmt.Sprintf("It is a %s container, not a raw image.", src.Format)
	case src.FileSystem.DAX:
		return "Its file system maps memory straight onto the storage (DAX)."
	case src.Swap:
		return "The kernel swaps to it."
	}
	return ""
}

// weigh says what a clone costs, or why it costs too much.
func (r Reflink) weigh(src *disk.Source, fd int) (extents int64, expected time.Duration, refused string) {
	extents, err := countExtents(fd)
	if err != nil {
		return 0, 0, fmt.Sprintf("The file system does not tell where it lies (%v).", err)
	}
	if expected = stall(src, extents); expected > r.budget() {
		return extents, expected, fmt.Sprintf("It consists of %d extents, so that a clone would hold up its writers for %s; the budget is %s.",
			extents, rounded(expected), rounded(r.budget()))
	}
	return extents, expected, ""
}

func rounded(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "less than 1 ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// Capture implements Capturer.
func (r Reflink) Capture(ctx context.Context, src *disk.Source) (View, error) {
	if src.Kind != disk.File {
		return nil, inapplicable("")
	}
	if reason := r.unfit(src); reason != "" {
		return nil, inapplicable(reason)
	}
	original, err := src.Open(ctx, disk.ReadOptions{})
	if err != nil {
		return nil, err
	}
	defer original.Close()
	// What is cached is written now: the clone would do it while writers wait.
	if err := unix.Fsync(original.Fd()); err != nil {
		return nil, problem.Wrap(err, problem.SourceReadFailed, "What is cached of %s cannot be written to its storage.", src.Path)
	}
	extents, expected, refused := r.weigh(src, original.Fd())
	if refused != "" {
		return nil, inapplicable(refused)
	}
	if onRealtime(original.Fd()) {
		return nil, inapplicable(realtimeReason)
	}
	began := time.Now()
	c, err := newClone(original.Fd(), src.Path)
	if err != nil {
		return nil, inapplicable(whyNoClone(src, err))
	}
	v := &reflinkView{capturer: r, src: src, clone: c, extents: extents, took: time.Since(began)}
	if v.Reader, err = src.OpenCopy(c.file); err != nil {
		return nil, err
	}
	if v.before, err = identify(v.Fd()); err != nil {
		v.Close()
		return nil, problem.Wrap(err, problem.SourceReadFailed, "The clone of %s cannot be looked at.", src.Path)
	}
	if slow := max(expected, v.took); slow > r.budget()/2 {
		v.notice = fmt.Sprintf("Whoever writes to %s was held up for %s or so while it was cloned, since it consists of %d extents; above %s it is not cloned any more. Defragment it at a quiet time, or make it anew with fewer pieces.",
			src.Path, rounded(slow), extents, rounded(r.budget()))
	}
	return v, nil
}

// onRealtime tells whether the data of a file lies on a device of its own,
// whose places may equal those of the other device.
func onRealtime(fd int) bool {
	const realtime = 0x1 // FS_XFLAG_REALTIME
	flags, err := extendedFlags(fd)
	return err == nil && flags&realtime != 0
}

func whyNoClone(src *disk.Source, err error) string {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY):
		return fmt.Sprintf("Its file system (%s) was made without reflinks.", src.FileSystem.Name)
	case errors.Is(err, unix.EROFS):
		return "Its file system is mounted read-only."
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "This user may not make files in its folder."
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return "Its file system has no room for a clone."
	}
	return fmt.Sprintf("The kernel does not clone it (%v).", err)
}

// reflinkView reads a clone.
type reflinkView struct {
	*disk.Reader // of the clone
	capturer     Reflink
	src          *disk.Source
	clone        *clone
	before       identity      // of the clone, when it was made
	extents      int64         // of the source
	took         time.Duration // to clone
	notice       string

	base    *base // what Changed compared with; nil: nothing
	settled bool
}

// base is the kept clone of an earlier point, held open.
type base struct {
	file    *os.File
	folder  string // of the disk at that time
	extents int64
	churn   int64 // bytes that differ
}

// Broken implements View: a clone cannot break.
func (*reflinkView) Broken() <-chan struct{} { return nil }

// Prove implements View.
func (v *reflinkView) Prove(ctx context.Context) (Proof, error) {
	if err := ctx.Err(); err != nil {
		return Proof{}, problem.From(err)
	}
	now, err := identify(v.Fd())
	if err != nil {
		return Proof{}, problem.Wrap(err, problem.SourceReadFailed, "The clone of %s cannot be looked at.", v.src.Path)
	}
	p := Proof{Proven: true, Method: MethodReflink, Reason: "It was cloned on its file system in one step."}
	if now != v.before {
		p = Proof{Method: MethodReflink, Reason: "A program wrote to the clone while it was read.", Retry: true}
	}
	return p, nil
}

// Notices are sentences for the user about the capture.
func (v *reflinkView) Notices() []string {
	if v.notice == "" {
		return nil
	}
	return []string{v.notice}
}

// Changed compares the clone with the one that the token stands for.
func (v *reflinkView) Changed(ctx context.Context, stored []byte) (Changes, error) {
	t, err := parseToken(stored)
	switch {
	case len(stored) == 0:
		return Unknown("no capture of the last recovery point was kept"), nil
	case err != nil:
		return Unknown("the last recovery point was captured in another way"), nil
	case t.Dropped != "":
		return Unknown("the last capture was not kept: " + t.Dropped), nil
	}
	changed, reason, err := v.compare(ctx, t)
	if err != nil {
		return Changes{}, err
	}
	if reason != "" {
		return Unknown(reason), nil
	}
	v.base.churn = changed.Total()
	// Others of this owner are of runs that ended before their points existed.
	// They are removed after the clone was made: it would have waited for that.
	if plain.MatchString(v.capturer.Owner) {
		_ = sweep(v.clone.dir, v.capturer.Owner, t.Name) // the next run tries again
	}
	return Changes{Known: true, Ranges: changed, Method: trackingFiemap, Reason: "compared with the capture of the last recovery point"}, nil
}

// compare gives what differs, or why that cannot be told.
func (v *reflinkView) compare(ctx context.Context, t token) (changed extent.Set, reason string, err error) {
	folder, err := openFolder(t.Folder)
	if err != nil {
		return nil, "the capture of the last recovery point is gone", nil
	}
	defer unix.Close(folder)
	fd, err := unix.Openat(folder, t.Name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "the capture of the last recovery point is gone", nil
	}
	file := os.NewFile(uintptr(fd), t.Name)
	defer func() {
		if v.base == nil {
			file.Close()
		}
	}()
	// Held, so that nobody takes it for a leftover.
	if unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) != nil {
		return nil, "another backup uses the capture of the last recovery point", nil
	}
	if id, err := identify(fd); err != nil || id != t.File {
		return nil, "the capture of the last recovery point was replaced or written to", nil
	}
	if same, err := sameDevice(fd, v.Fd()); err != nil || !same {
		return nil, "the capture of the last recovery point lies on another file system", nil
	}
	changed, extents, err := compareMaps(ctx, fd, v.Fd(), t.File.Size, v.Size())
	if errors.Is(err, errMoving) {
		return nil, "the file system moved the capture of the last recovery point about while it was compared", nil
	}
	if ctx.Err() != nil {
		return nil, "", problem.From(ctx.Err())
	}
	if err != nil {
		return nil, fmt.Sprintf("the file system does not tell where the captures lie (%v)", err), nil
	}
	if id, err := identify(fd); err != nil || id != t.File {
		return nil, "the capture of the last recovery point was replaced or written to", nil
	}
	v.base = &base{file: file, folder: t.Folder, extents: extents}
	return changed, "", nil
}

func sameDevice(a, b int) (bool, error) {
	var sa, sb unix.Stat_t
	err := errors.Join(unix.Fstat(a, &sa), unix.Fstat(b, &sb))
	return sa.Dev == sb.Dev && !onRealtime(a), err
}

// errMoving: the map of a clone changes, though nobody writes to it.
var errMoving = errors.New("its map is another at each look")

// comparisons is how often a comparison is tried while the file system moves
// data about.
const comparisons = 5

// compareMaps gives what may differ between two clones of one file system. The
// map of the first is read again after that of the second: if a balance moved
// the data in between, the two are not of one moment.
func compareMaps(ctx context.Context, a, b int, sizeA, sizeB int64) (changed extent.Set, extents int64, err error) {
	first, err := readMap(ctx, a)
	if err != nil {
		return nil, 0, err
	}
	for range comparisons {
		second, err := readMap(ctx, b)
		if err != nil {
			return nil, 0, err
		}
		again, err := readMap(ctx, a)
		if err != nil {
			return nil, 0, err
		}
		if !sameMap(first, again) {
			first = again
			continue
		}
		changed = differing(first, second, sizeB)
		if sizeA != sizeB {
			// What lies behind the end of a file, in its last place, is anything.
			end := min(sizeA, sizeB)
			if sizeB < sizeA {
				end--
			}
			edge := extent.Range{Off: end, Len: 1}.Align(edgeSize, sizeB)
			changed = changed.Union(extent.Of(edge))
		}
		return changed, int64(len(first)), nil
	}
	return nil, 0, errMoving
}

// edgeSize is at least a block of any file system that is cloned here.
const edgeSize = 64 << 10

// Keep gives the clone a name in the folder of captures beside the disk, if
// that costs no more than it may.
func (v *reflinkView) Keep(_ context.Context, point string) (Kept, error) {
	owner := v.capturer.Owner
	if owner == "" {
		return v.dropped("it has no owner to be kept for"), nil
	}
	if !plain.MatchString(owner) || !plain.MatchString(point) {
		return Kept{}, fmt.Errorf("a clone cannot be named for %q and %q", owner, point)
	}
	reason, err := v.tooDear()
	if err != nil {
		return Kept{}, err
	}
	if reason != "" {
		return v.dropped(reason), nil
	}
	if err := v.clone.keep(cloneName(owner, point)); err != nil {
		return v.dropped(fmt.Sprintf("it could not be given a name (%v)", err)), nil
	}
	id, err := identify(v.Fd())
	if err != nil {
		return Kept{}, err
	}
	return Kept{Token: token{Method: MethodReflink, Folder: v.clone.dir, Name: v.clone.name, File: id}.bytes()}, nil
}

func (v *reflinkView) dropped(reason string) Kept {
	return Kept{Token: token{Method: MethodReflink, Dropped: reason}.bytes(), Dropped: reason}
}

// tooDear says why a clone is not to be kept: a kept one lets each first write
// to a place take new room and may add an extent, and must neither fill the file
// system under a running machine nor make the next clone exceed its budget.
func (v *reflinkView) tooDear() (reason string, err error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(v.Fd(), &fs); err != nil {
		return "", err
	}
	free, all := int64(fs.Bavail)*fs.Bsize, int64(fs.Blocks)*fs.Bsize
	churn, grown := int64(0), int64(0)
	if v.base != nil {
		churn, grown = v.base.churn, max(0, v.extents-v.base.extents)
	}
	if need := max(all/10, 2*churn); free < need {
		return fmt.Sprintf("its file system has %d MiB free, and %d MiB are wanted, so that what the disk writes until the next backup does not fill it", free>>20, need>>20), nil
	}
	if next := stall(v.src, v.extents+grown); next > v.capturer.budget() {
		return fmt.Sprintf("the disk has %d extents, and would have so many more at the next backup that a clone would hold up its writers for %s", v.extents, rounded(next)), nil
	}
	return "", nil
}

// Settle ends the life of earlier clones of the owner.
func (v *reflinkView) Settle(context.Context) error {
	v.settled = true
	if !plain.MatchString(v.capturer.Owner) {
		return nil
	}
	keep := v.clone.name
	if v.base != nil {
		v.base.file.Close() // gives up the lock
		if v.base.folder != v.clone.dir {
			if err := sweep(v.base.folder, v.capturer.Owner, ""); err != nil {
				return err
			}
		}
		v.base = nil
	}
	return sweep(v.clone.dir, v.capturer.Owner, keep)
}

// Close implements View. A clone that was kept for a point that does not exist
// goes.
func (v *reflinkView) Close() error {
	if !v.settled {
		v.clone.drop()
	}
	if v.base != nil {
		v.base.file.Close()
	}
	return v.Reader.Close()
}
