package capture

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/blockdev"
)

// Assessment is how a source is captured, and how its changes are found: what a
// backup now would do.
type Assessment struct {
	Method       Method    `json:"method"`
	Tracking     string    `json:"tracking"` // how changes are found; "none": everything is read
	Cost         string    `json:"cost"`     // what that means for the disk: a sentence
	Extents      int64     `json:"extents,omitempty"`
	StallSeconds float64   `json:"stallSeconds"`       // how long the disk's writers are expected to wait
	Refused      string    `json:"refused,omitempty"`  // why a backup now would be refused: a sentence
	Refusals     []Refusal `json:"refusals,omitempty"` // ways that would have come first
	Better       []string  `json:"better,omitempty"`   // what would make it better: sentences
}

// Assess tells how Capture would capture the source. It changes nothing.
// The error is that of the context, or of Source.Open.
func (o Options) Assess(ctx context.Context, src *disk.Source) (Assessment, error) {
	var refusals []Refusal
	var better []string
	for _, w := range o.ways() {
		a, refusal := w.assess(ctx, src)
		if err := ctx.Err(); err != nil {
			return Assessment{}, err
		}
		if refusal != (Refusal{}) {
			if refusal.Reason != "" {
				refusals = append(refusals, refusal)
			}
			better = append(better, a.Better...)
			continue
		}
		a.Method, a.Refusals, a.Better = w.method(), refusals, append(better, a.Better...)
		if a.Tracking == "" {
			a.Tracking = "none"
		}
		return a, nil
	}
	return Assessment{Refusals: refusals, Refused: sentences(refusals), Better: better}, nil
}

func (Reflink) method() Method { return MethodReflink }

func (r Reflink) assess(ctx context.Context, src *disk.Source) (a Assessment, refusal Refusal) {
	refuse := func(reason string) (Assessment, Refusal) { return a, Refusal{MethodReflink, reason} }
	if src.Kind != disk.File {
		return refuse("")
	}
	if reason := r.unfit(src); reason != "" {
		if stallOfExtent[src.FileSystem.Name] == 0 && !src.Format.Container() {
			a.Better = []string{"On XFS or btrfs the file could be backed up while it is in use, and only what changed would be read."}
		}
		return refuse(reason)
	}
	reader, err := src.Open(ctx, disk.ReadOptions{})
	if err != nil {
		return refuse(fmt.Sprintf("It cannot be opened (%v).", err))
	}
	defer reader.Close()
	var expected time.Duration
	var refused string
	a.Extents, expected, refused = r.weigh(src, reader.Fd())
	a.StallSeconds = expected.Seconds()
	switch {
	case refused != "":
		a.Better = []string{"Defragment the file at a quiet time, or allow a longer stall with --stall-budget."}
		return refuse(refused)
	case onRealtime(reader.Fd()):
		return refuse(realtimeReason)
	}
	if err := canClone(src.Path); err != nil {
		return refuse(whyNoClone(src, err))
	}
	a.Tracking = trackingFiemap
	a.Cost = fmt.Sprintf("It is cloned on its file system, which holds up its writers for %s; then the clone is read. A kept clone shows what changes until the next backup.", rounded(expected))
	if compressed(ctx, reader.Fd()) {
		a.Better = []string{"Compressed parts of the file always count as changed. Without compression of the file system only what changed would be read."}
	}
	if expected > r.budget()/2 {
		a.Better = append(a.Better, "The file is in many pieces; defragment it at a quiet time, before a clone takes longer than it may.")
	}
	return a, Refusal{}
}

const realtimeReason = "It lies on the realtime device of its file system."

// canClone tries a clone of nothing between two files without names.
func canClone(path string) error {
	var fds [2]int
	for i := range fds {
		fd, err := unix.Open(filepath.Dir(path), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o400)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	return unix.IoctlFileClone(fds[1], fds[0])
}

// compressed tells whether any part of a file is compressed.
func compressed(ctx context.Context, fd int) bool {
	m, err := readMap(ctx, fd)
	if err != nil {
		return false
	}
	for _, e := range m {
		if e.flags&fiemapEncoded != 0 {
			return true
		}
	}
	return false
}

func (Quiescent) method() Method { return MethodQuiescent }

func (Quiescent) assess(ctx context.Context, src *disk.Source) (Assessment, Refusal) {
	if src.Inside() {
		return assessInside(ctx, src), Refusal{}
	}
	a := Assessment{Cost: "All that is allocated is read at each backup, and nothing may write to the disk meanwhile."}
	if src.Kind == disk.Block {
		a.Refused = deviceOutOfSight(src)
		if m := src.MountedForWriting(); len(m) > 0 && a.Refused == "" {
			a.Cost += fmt.Sprintf(" It is mounted at %s.", m[0].Dir)
		}
		return a, Refusal{}
	}
	if a.Refused = neverProven(src.FileSystem); a.Refused == "" {
		if writers, _ := writersOf(ctx, src.Path); len(writers) > 0 || len(src.Loops) > 0 {
			a.Refused = openForWriting(ctx, src)
		}
	}
	return a, Refusal{}
}

// deviceOutOfSight says why a device's counters do not tell of all writes to it.
func deviceOutOfSight(src *disk.Source) string {
	d, err := (blockdev.Kernel{}).ByName(src.Device)
	if err != nil {
		return fmt.Sprintf("The kernel knows no device behind %s.", src.Path)
	}
	v := &deviceView{src: src}
	for _, at := range append([]blockdev.Device{d}, d.Below()...) {
		if reason := v.beyondSight(at); reason != "" {
			return reason
		}
	}
	return ""
}
