package qemu

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/disk/nbd"
	"github.com/diskvault/diskvault/disk/qemu/qemutest"
)

var ctx = context.Background()

func open(t testing.TB, p *qemutest.Process) *Machine {
	t.Helper()
	m, err := Open(ctx, Address{Socket: p.QMP})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func mustDisk(t testing.TB, m *Machine, name string) Disk {
	t.Helper()
	d, err := m.Disk(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pull reads what a slice says has changed onto a copy, or all if base is not
// known; it gives the number of bytes read.
func pull(t testing.TB, s *Slice, base string, onto []byte) int64 {
	t.Helper()
	c, err := nbd.Dial(ctx, nbd.Address{Network: "unix", Host: s.Socket, Export: s.Export}, nbd.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all := extent.Range{Len: s.Size}
	want := extent.Set{all}
	if s.Has(base) {
		want = dirty(t, s)
	}
	for r := range want.Windows(1 << 20) {
		if err := c.Read(ctx, onto[r.Off:r.End()], r.Off); err != nil {
			t.Fatalf("read of %v: %v", r, err)
		}
	}
	return want.Total()
}

// dirty is what a slice says has changed.
func dirty(t testing.TB, s *Slice) extent.Set {
	t.Helper()
	c, err := nbd.Dial(ctx, nbd.Address{Network: "unix", Host: s.Socket, Export: s.Export}, nbd.DialOptions{Contexts: s.Older})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var ranges []extent.Range
	for _, name := range s.Older {
		for e, err := range c.Extents(ctx, name, extent.Range{Len: s.Size}) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Flags&nbd.StateDirty != 0 {
				ranges = append(ranges, extent.Range{Off: e.Off, Len: e.Len})
			}
		}
	}
	return extent.Of(ranges...)
}

// whole reads a disk through the machine's own export.
func whole(t testing.TB, p *qemutest.Process, size int64) []byte {
	t.Helper()
	c, err := nbd.Dial(ctx, nbd.Address{Network: "unix", Host: p.NBD, Export: "live0"}, nbd.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, size)
	if err := c.Read(ctx, b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// clean fails the test if something of ours is left in a machine or beside it,
// but the records of changes.
func clean(t testing.TB, m *Machine, folder string, records int) {
	t.Helper()
	g, err := m.graph(ctx)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for name, n := range g.nodes {
		if ours(name) {
			t.Errorf("the node %s is left", name)
		}
		for _, b := range n.Bitmaps {
			found++
			if !b.Recording || b.Busy {
				t.Errorf("the bitmap %+v of %s does not record", b, name)
			}
		}
	}
	if found != records {
		t.Errorf("%d bitmaps are left, not %d", found, records)
	}
	var exports []struct {
		ID string `json:"id"`
	}
	if err := m.monitor.run(ctx, "query-block-exports", nil, &exports); err != nil {
		t.Fatal(err)
	}
	for _, e := range exports {
		if ours(e.ID) {
			t.Errorf("the export %s is left", e.ID)
		}
	}
	left, err := filepath.Glob(filepath.Join(folder, ".diskvault*"))
	if err != nil || len(left) > 0 {
		t.Errorf("files are left: %v %v", left, err)
	}
}

// Whatever can be switched and whatever cannot: each point in time is a
// beginning of what was written, read by what the machine says has changed.
func TestCutsAreBeginningsOfTheWrites(t *testing.T) {
	for name, c := range map[string]struct {
		format string
		top    bool
		device string
	}{
		"filter, qcow2": {"qcow2", true, "disk0"},
		"filter, raw":   {"raw", true, "disk0"},
		"job, qcow2":    {"qcow2", false, "disk0"},
		"job, raw":      {"raw", false, "disk0"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := qemutest.Folder(t)
			ring := qemutest.Ring{Size: 32 << 20, Slots: 512}
			qemutest.Image(t, folder, c.format, ring.Size, 0)
			p := qemutest.Daemon(t, folder, c.format, c.top, 1)
			m := open(t, p)
			w := ring.Write(t, p.NBD, "live0", 0)
			image := make([]byte, ring.Size)
			base, kept := "", []byte(nil)
			for round := range 4 {
				time.Sleep(20 * time.Millisecond)
				before := w.Acknowledged()
				cut, err := m.Cut(ctx, CutOptions{}, mustDisk(t, m, c.device))
				if err != nil {
					t.Fatal(err)
				}
				after := w.Acknowledged()
				s := cut.Slices[0]
				if s.Has(base) != (round > 0) {
					t.Errorf("round %d: the record %q is known: %v", round, base, s.Has(base))
				}
				time.Sleep(10 * time.Millisecond)
				read := pull(t, s, base, image)
				last, err := ring.Check(image)
				if err != nil {
					t.Errorf("round %d: %v", round, err)
				}
				if last < before || last > after+1 {
					t.Errorf("round %d: the point holds %d, and was taken between %d and %d", round, last, before, after)
				}
				if doubt := cut.Doubt(ctx); doubt != "" {
					t.Errorf("round %d: %s", round, doubt)
				}
				// Every second one fails; what it knew must not be lost.
				good := round%2 == 0
				if good {
					base = s.Base()
				} else if !s.Has(base) {
					t.Errorf("round %d: the base is gone", round)
				}
				if err := cut.Slices[0].Settle(ctx, good); err != nil {
					t.Fatal(err)
				}
				if good {
					kept = bytes.Clone(image)
				} else {
					// Nothing became of it: the next round begins from the last good copy,
					// and must be told what changed before the failed round too.
					copy(image, kept)
				}
				t.Logf("round %d: %d bytes read, number %d, cut in %v", round, read, last, cut.Took)
				clean(t, m, folder, 1)
			}
			if err := w.Stop(); err != nil {
				t.Fatal(err)
			}
			cut, err := m.Cut(ctx, CutOptions{}, mustDisk(t, m, c.device))
			if err != nil {
				t.Fatal(err)
			}
			pull(t, cut.Slices[0], base, image)
			if err := cut.Slices[0].Settle(ctx, true); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(image, whole(t, p, ring.Size)) {
				t.Error("the last copy is not what the disk holds")
			}
			clean(t, m, folder, 1)
			if _, err := os.Stat(p.NBD); err != nil {
				t.Errorf("the machine's own server is gone: %v", err)
			}
		})
	}
}
