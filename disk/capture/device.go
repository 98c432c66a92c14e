package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/blockdev"
)

const (
	lookEvery  = 500 * time.Millisecond // how often the counters are looked at during the read
	quietLimit = 2 * time.Second        // how long to wait for writes that were under way at the start
	// settle is how long the kernel may take from the hardware's word that a
	// write has ended until it counts it; in between, the write is neither under
	// way nor counted. Microseconds in fact.
	settle = 20 * time.Millisecond
)

// deviceView reads a block device past the page cache, and compares what the
// kernel has counted of writes before and after.
type deviceView struct {
	*disk.Reader
	*doubt
	src     *disk.Source
	watched []watched
	backing *backing // nil but for a loop device
	stop    chan struct{}
	watch   sync.WaitGroup
}

// watched is a device in the path of a write: the source itself, its
// partitions, and all that lies below.
type watched struct {
	device   blockdev.Device
	before   blockdev.Counters
	sequence string
}

// backing is the file under a loop device, to which somebody could write past
// the device.
type backing struct {
	path   string
	before fileState
}

func captureDevice(ctx context.Context, k blockdev.Kernel, src *disk.Source) (View, error) {
	reader, err := src.Open(ctx, disk.ReadOptions{Direct: true})
	direct := err == nil
	if errors.Is(err, unix.EINVAL) {
		reader, err = src.Open(ctx, disk.ReadOptions{})
	}
	if err != nil {
		return nil, err
	}
	v := &deviceView{Reader: reader, doubt: newDoubt(), src: src, stop: make(chan struct{})}
	if !direct {
		v.raise("It cannot be read past the page cache, so what is read need not be what it holds.", false)
		return v, nil
	}
	if err := v.begin(ctx, k); err != nil {
		reader.Close()
		return nil, err
	}
	return v, nil
}

func (v *deviceView) begin(ctx context.Context, k blockdev.Kernel) error {
	d, err := k.ByName(v.src.Device)
	if err != nil {
		return problem.Wrap(err, problem.SourceNotFound, "The kernel knows no device behind %s.", v.src.Path)
	}
	below := d.Below()
	for _, at := range append([]blockdev.Device{d}, below...) {
		if reason := v.beyondSight(at); reason != "" {
			v.raise(reason, false)
			return nil
		}
	}
	// What programs wrote to the device through the page cache must be on it;
	// the flush itself is counted, so it comes before the first look.
	if err := unix.Fsync(v.Fd()); err != nil && !errors.Is(err, unix.EROFS) {
		return problem.Wrap(err, problem.SourceReadFailed, "What is cached of %s cannot be written to it.", v.src.Path)
	}
	devices := append([]blockdev.Device{d}, d.Partitions()...)
	if err := v.firstLook(ctx, append(devices, below...)); err != nil {
		return err
	}
	if file := d.BackingFile(); file != "" {
		v.watchBacking(ctx, file)
	}
	if _, doubted := v.proof(); !doubted {
		v.watch.Go(v.look)
	}
	return nil
}

// beyondSight says why the counters of a device do not tell of all writes to
// it; "" if they do.
func (v *deviceView) beyondSight(at blockdev.Device) string {
	if why := at.Elsewhere(); why != "" {
		if at.Name == v.src.Device {
			return capital(why) + "."
		}
		return fmt.Sprintf("It stores on %s, and of that, %s.", at.Name, why)
	}
	return ""
}

// firstLook notes the counters of all devices, at a moment when no write is
// under way on any.
func (v *deviceView) firstLook(ctx context.Context, devices []blockdev.Device) error {
	deadline := time.Now().Add(quietLimit)
	for {
		v.watched = v.watched[:0]
		busy := ""
		for _, d := range devices {
			c, err := d.Counters()
			if err != nil {
				v.raise(fmt.Sprintf("The kernel keeps no count of writes to %s (its setting queue/iostats is off), so a writer may go unnoticed.", d.Name), false)
				return nil
			}
			if c.WritesInFlight > 0 {
				busy = d.Name
			}
			v.watched = append(v.watched, watched{d, c, d.Sequence()})
		}
		if busy == "" {
			return nil
		}
		if time.Now().After(deadline) {
			v.raise(fmt.Sprintf("Something writes to %s%s.", devName(busy), v.mounted()), true)
			return nil
		}
		if err := pause(ctx, settle); err != nil {
			return problem.From(err)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// watchBacking notes the state of the file under a loop device. Its times tell
// of every write but one: a store through a mapping to a page that was dirty
// already. For that somebody must have had it open before, who is looked for.
func (v *deviceView) watchBacking(ctx context.Context, file string) {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		v.raise(fmt.Sprintf("The file under it, %s, cannot be looked at.", file), false)
		return
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return // a device, which is watched itself
	}
	under, err := disk.Probe(ctx, file)
	if err != nil {
		v.raise(fmt.Sprintf("The file under it, %s, cannot be looked at.", file), false)
		return
	}
	if reason := neverProven(under.FileSystem); reason != "" {
		v.raise(fmt.Sprintf("The file under it, %s, cannot be proven quiet. %s", file, reason), false)
		return
	}
	// After the stat above: who opens it from now on moves its times when
	// storing to it.
	switch others, all := writersOf(ctx, file); {
	case len(others) > 0:
		v.raise(fmt.Sprintf("%s has the file under it, %s, open for writing.", capital(others[0].String()), file), true)
		return
	case !all:
		v.raise(fmt.Sprintf("Whether a program has the file under it, %s, open for writing, only the user root can see.", file), false)
		return
	}
	v.backing = &backing{file, stateOf(&st)}
}

// look compares the counters now and then, so that a reader of a long disk
// learns early that it has lost.
func (v *deviceView) look() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-v.stop:
			return
		case <-tick.C:
			if v.compare(); v.doubted() {
				return
			}
		}
	}
}

func (v *deviceView) doubted() bool {
	_, ok := v.proof()
	return ok
}

// compare raises a doubt if anything has moved since the first look. It gives
// the number of writes that are under way.
func (v *deviceView) compare() (inFlight uint64) {
	for _, w := range v.watched {
		if seq := w.device.Sequence(); seq != w.sequence {
			v.raise(fmt.Sprintf("Another medium or file came under %s while it was read.", devName(w.device.Name)), true)
			return 0
		}
		now, err := w.device.Counters()
		if err != nil {
			v.raise(fmt.Sprintf("The kernel stopped counting writes to %s while it was read.", devName(w.device.Name)), true)
			return 0
		}
		if what := difference(w.before, now); what != "" {
			v.raise(fmt.Sprintf("%s reached %s%s while it was read.", capital(what), devName(w.device.Name), v.mounted()), true)
			return 0
		}
		inFlight += now.WritesInFlight
	}
	if b := v.backing; b != nil {
		var st unix.Stat_t
		if err := unix.Stat(b.path, &st); err != nil || stateOf(&st) != b.before {
			v.raise(fmt.Sprintf("The file under it, %s, changed while it was read.", b.path), true)
		}
	}
	return inFlight
}

// difference says in words what was counted between two looks; "" if nothing.
// A flush may come without a write, and would then do no harm; but it is rare
// that a file system flushes for nothing, so it counts.
func difference(before, now blockdev.Counters) string {
	var parts []string
	add := func(n uint64, one, more string, sectors uint64) {
		if n == 0 {
			return
		}
		text := fmt.Sprintf("%d %s", n, more)
		if n == 1 {
			text = "1 " + one
		}
		if sectors > 0 {
			text += fmt.Sprintf(" (%d bytes)", sectors*512)
		}
		parts = append(parts, text)
	}
	add(now.Writes-before.Writes, "write", "writes", now.WrittenSectors-before.WrittenSectors)
	add(now.Discards-before.Discards, "discard", "discards", now.DiscardSectors-before.DiscardSectors)
	add(now.Flushes-before.Flushes, "flush", "flushes", 0)
	return strings.Join(parts, " and ")
}

// mounted says where the source is mounted for writing, for the end of a
// sentence.
func (v *deviceView) mounted() string {
	m := v.src.MountedForWriting()
	if len(m) == 0 {
		return ""
	}
	return " (mounted at " + m[0].Dir + ")"
}

func devName(name string) string {
	path := "/dev/" + name
	if _, err := os.Stat(path); err != nil {
		return name
	}
	return path
}

// Prove implements View.
func (v *deviceView) Prove(ctx context.Context) (Proof, error) {
	if err := checkSize(v.Reader, v.src.Path); err != nil {
		return Proof{}, err
	}
	if v.doubted() {
		p, _ := v.proof()
		return p, nil
	}
	inFlight := v.compare()
	if err := pause(ctx, settle); err != nil {
		return Proof{}, problem.From(err)
	}
	v.compare()
	if inFlight > 0 {
		v.raise(fmt.Sprintf("Something writes to %s%s.", v.src.Path, v.mounted()), true)
	}
	if p, ok := v.proof(); ok {
		return p, nil
	}
	if m := v.mounted(); m != "" {
		return proven(fmt.Sprintf("No write, discard or flush reached it%s while it was read.", m)), nil
	}
	return proven("No write, discard or flush reached it while it was read."), nil
}

// Close implements View.
func (v *deviceView) Close() error {
	close(v.stop)
	v.watch.Wait()
	return v.Reader.Close()
}
