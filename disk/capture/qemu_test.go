package capture

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/qemu/qemutest"
)

// machine starts a storage daemon and gives its disks as sources.
func machine(t *testing.T, format string, size int64, disks int) (*qemutest.Process, []*disk.Source) {
	t.Helper()
	folder := qemutest.Folder(t)
	for n := range disks {
		qemutest.Image(t, folder, format, size, n)
	}
	p := qemutest.Daemon(t, folder, format, true, disks)
	var sources []*disk.Source
	for n := range disks {
		sources = append(sources, machineDisk(t, p, "disk"+string(rune('0'+n))))
	}
	return p, sources
}

func machineDisk(t *testing.T, p *qemutest.Process, device string) *disk.Source {
	t.Helper()
	src, err := disk.Probe(context.Background(), "qemu+unix://"+p.QMP+"?device="+device)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// take reads what a capture must be asked for onto a copy, and gives the token
// of the capture if good, which is then kept.
func take(t *testing.T, c Capturer, src *disk.Source, token []byte, onto []byte, good bool) (Changes, []byte) {
	t.Helper()
	ctx := context.Background()
	view, err := c.Capture(ctx, src)
	if err != nil {
		t.Fatal(err)
	}
	v := view.(*machineView)
	defer func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}()
	changes, err := v.Changed(ctx, token)
	if err != nil {
		t.Fatal(err)
	}
	var all []extent.Range
	for r, err := range v.Allocated(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	read := extent.Of(all...)
	if changes.Known {
		// What is no longer allocated has become zeros.
		for _, r := range changes.Ranges {
			clear(onto[r.Off:r.End()])
		}
		read = read.Intersect(changes.Ranges)
	} else {
		clear(onto)
	}
	for w := range read.Windows(1 << 20) {
		if err := v.Read(ctx, onto[w.Off:w.End()], w.Off); err != nil {
			t.Fatal(err)
		}
	}
	proof, err := v.Prove(ctx)
	if err != nil || !proof.Proven || proof.Method != MethodQEMU {
		t.Fatalf("%+v %v", proof, err)
	}
	if !good {
		return changes, nil
	}
	kept, err := v.Keep(ctx, "point")
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	return changes, kept.Token
}

func TestMachineDiskIsCapturedWhileItIsWritten(t *testing.T) {
	p, sources := machine(t, "qcow2", 64<<20, 1)
	ring := qemutest.Ring{Size: 64 << 20, Slots: 1024}
	w := ring.Write(t, p.NBD, "live0", 0)
	image := make([]byte, ring.Size)
	var token []byte
	c := Options{Owner: "disk-1"} // the chain finds the way
	for round := range 5 {
		time.Sleep(20 * time.Millisecond)
		before := w.Acknowledged()
		scratch := bytes.Clone(image)
		good := round != 2
		changes, next := take(t, c, sources[0], token, scratch, good)
		if changes.Known != (round > 0) {
			t.Errorf("round %d: %+v", round, changes)
		}
		last, err := ring.Check(scratch)
		if err != nil || last < before {
			t.Errorf("round %d: number %d, at least %d: %v", round, last, before, err)
		}
		if good {
			image, token = scratch, next
		}
	}
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(p.Folder, ".diskvault*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// Tokens that say nothing about this disk lead to a full scan, with the reason.
func TestMachineChangesUnknown(t *testing.T) {
	_, sources := machine(t, "qcow2", 16<<20, 1)
	image := make([]byte, 16<<20)
	_, token := take(t, QEMU{Owner: "a"}, sources[0], nil, image, true)
	for want, stored := range map[string][]byte{
		"no record":               nil,
		"captured in another":     []byte(`{"method":"reflink","name":"x"}`),
		"captured in another way": []byte("nonsense"),
		"no longer has":           []byte(`{"method":"qemu-bitmap","record":"diskvault-0-0","size":16777216}`),
		"was not kept":            []byte(`{"method":"qemu-bitmap","dropped":"reasons"}`),
	} {
		changes, _ := take(t, QEMU{Owner: "a"}, sources[0], stored, image, false)
		if changes.Known || !strings.Contains(changes.Reason, want) {
			t.Errorf("%s: %+v", stored, changes)
		}
	}
	if changes, _ := take(t, QEMU{Owner: "b"}, sources[0], token, image, false); changes.Known {
		t.Error("the record of another owner was used")
	}
	if changes, _ := take(t, QEMU{Owner: "a"}, sources[0], token, image, false); !changes.Known || len(changes.Ranges) > 0 {
		t.Errorf("%+v", changes)
	}
}

func TestMachineForgets(t *testing.T) {
	_, sources := machine(t, "qcow2", 16<<20, 1)
	image := make([]byte, 16<<20)
	_, mine := take(t, QEMU{Owner: "a"}, sources[0], nil, image, true)
	_, others := take(t, QEMU{Owner: "b"}, sources[0], nil, image, true)
	if err := Forget(context.Background(), "a", sources[0].Path, mine); err != nil {
		t.Fatal(err)
	}
	if changes, _ := take(t, QEMU{Owner: "a"}, sources[0], mine, image, false); changes.Known {
		t.Error("the record is still there")
	}
	if changes, _ := take(t, QEMU{Owner: "b"}, sources[0], others, image, false); !changes.Known {
		t.Errorf("the record of another is gone: %s", changes.Reason)
	}
}

// A machine that ends while it is read breaks the view, with a reason, and
// another try is worth it.
func TestMachineEndsWhileRead(t *testing.T) {
	p, sources := machine(t, "qcow2", 16<<20, 1)
	ctx := context.Background()
	v, err := QEMU{Owner: "a"}.Capture(ctx, sources[0])
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	select {
	case <-v.Broken():
	case <-time.After(5 * time.Second):
		t.Fatal("the view does not break")
	}
	if err := v.Read(ctx, make([]byte, 4096), 0); !problem.Is(err, problem.SourceInUse) {
		t.Errorf("the read says %v", err)
	}
	proof, err := v.Prove(ctx)
	if err != nil || proof.Proven || !proof.Retry || !strings.Contains(proof.Reason, "machine ended") {
		t.Errorf("%+v %v", proof, err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

func TestGroupIsOneMoment(t *testing.T) {
	ctx := context.Background()
	_, sources := machine(t, "qcow2", 16<<20, 3)
	_, others := machine(t, "qcow2", 16<<20, 1)
	file := &disk.Source{Path: "/disk.img", Kind: disk.File}
	for what, second := range map[string]*disk.Source{"disks of two machines": others[0], "the same disk twice": sources[0], "a file": file} {
		if _, err := NewGroup(ctx, Member{Source: sources[0]}, Member{Source: second}); !problem.Is(err, problem.GroupRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	tokens := make([][]byte, 3)
	for round := range 2 {
		g, err := NewGroup(ctx, Member{sources[0], "a"}, Member{sources[1], "b"}, Member{sources[2], "c"})
		if err != nil {
			t.Fatal(err)
		}
		// One of them is not asked for in the end.
		for n, src := range sources[:2] {
			changes, token := take(t, g, src, tokens[n], make([]byte, 16<<20), true)
			if changes.Known != (round > 0) {
				t.Errorf("round %d, disk %d: %+v", round, n, changes)
			}
			tokens[n] = token
			if _, err := g.Capture(ctx, src); !problem.Is(err, problem.SourceInUse) {
				t.Errorf("the same moment twice: %v", err)
			}
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if changes, _ := take(t, QEMU{Owner: "c"}, sources[2], tokens[0], make([]byte, 16<<20), false); changes.Known {
		t.Error("a disk that was given up has a record")
	}
}

func TestMachineDisksAreAssessed(t *testing.T) {
	_, sources := machine(t, "raw", 16<<20, 1)
	a, err := Options{Owner: "a"}.Assess(context.Background(), sources[0])
	if err != nil || a.Method != MethodQEMU || a.Tracking != "qemu-bitmap" || len(a.Refusals) > 0 {
		t.Errorf("%+v %v", a, err)
	}
	if !slices.ContainsFunc(Options{}.ways(), func(w way) bool { return w.method() == MethodQEMU }) {
		t.Error("machines are not among the ways")
	}
}
