package qemu

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/disk/disktest"
	"github.com/diskvault/diskvault/disk/nbd"
	"github.com/diskvault/diskvault/disk/qemu/qemutest"
)

// What a writer feels of a backup: nothing, ours while all is pulled, and QEMU's
// own push of the same disk. It prints, and holds only what must never be.
func TestWriteLatency(t *testing.T) {
	if os.Getenv("DISKVAULT_LONG") == "" {
		t.Skip("left out: it measures; DISKVAULT_LONG=1 runs it")
	}
	folder := qemutest.Folder(t)
	ring := qemutest.Ring{Size: 1 << 30, Slots: 8192}
	path := qemutest.Image(t, folder, "qcow2", ring.Size, 0)
	disktest.Run(t, "qemu-io", "-c", "write -P 5 0 1G", path)
	p := qemutest.Daemon(t, folder, "qcow2", true, 1)
	m := open(t, p)
	last := uint64(0)
	during := func(what string, work func()) {
		w := ring.Write(t, p.NBD, "live0", last)
		time.Sleep(100 * time.Millisecond)
		began := time.Now()
		work()
		took := time.Since(began)
		if err := w.Stop(); err != nil {
			t.Errorf("%s: a write failed: %v", what, err)
		}
		last = w.Acknowledged()
		all := w.Latencies()
		n := len(all)
		t.Logf("%-28s %6d writes in %5.2f s: p50 %v, p99 %v, maximum %v", what, n, took.Seconds(),
			all[n/2].Round(time.Microsecond), all[n*99/100].Round(time.Microsecond), all[n-1].Round(time.Microsecond))
		if all[n-1] > stallLimit*time.Second {
			t.Errorf("%s: a write took %v", what, all[n-1])
		}
	}
	during("nothing", func() { time.Sleep(2 * time.Second) })
	during("filter, all of it pulled", func() {
		cut, err := m.Cut(ctx, CutOptions{}, mustDisk(t, m, "disk0"))
		if err != nil {
			t.Fatal(err)
		}
		s := cut.Slices[0]
		c, err := nbd.Dial(ctx, nbd.Address{Network: "unix", Host: s.Socket, Export: s.Export}, nbd.DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		b := make([]byte, 4<<20)
		for r := range (extent.Range{Len: s.Size}).Windows(4 << 20) {
			if err := c.Read(ctx, b[:r.Len], r.Off); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Settle(ctx, true); err != nil {
			t.Error(err)
		}
	})
	during("QEMU's own push of all", func() {
		target := filepath.Join(folder, "target.qcow2")
		disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", target, "1G")
		if err := m.add(ctx, map[string]any{"driver": "qcow2", "node-name": "target", "file": map[string]any{"driver": "file", "filename": target}}); err != nil {
			t.Fatal(err)
		}
		if err := m.monitor.run(ctx, "blockdev-backup", map[string]any{"device": "disk0", "target": "target", "sync": "full", "job-id": "push"}, nil); err != nil {
			t.Fatal(err)
		}
		if err := m.until(ctx, func() (bool, error) {
			var jobs []struct{}
			err := m.monitor.run(ctx, "query-jobs", nil, &jobs)
			return len(jobs) == 0, err
		}); err != nil {
			t.Fatal(err)
		}
	})
	clean(t, m, folder, 1)
}
