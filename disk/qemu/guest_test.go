package qemu

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/diskvault/diskvault/disk/qemu/qemutest"
)

// A real Linux on an emulated machine writes to two disks in turns. Each cut of
// both is one moment; killed runs leave the guest alone.
func TestGuest(t *testing.T) {
	if os.Getenv("DISKVAULT_LONG") == "" {
		t.Skip("left out: it boots a Linux; DISKVAULT_LONG=1 runs it")
	}
	folder := qemutest.Folder(t)
	const size = 64 << 20
	ring := qemutest.GuestRing(size)
	g := qemutest.StartGuest(t, folder, qemutest.Image(t, folder, "qcow2", size, 0), qemutest.Image(t, folder, "qcow2", size, 1))
	names := []string{"sys", "data"}
	images := [][]byte{make([]byte, size), make([]byte, size)}
	bases := make([]string, 2)
	for round := range rounds(4) {
		// One run that is killed at any moment.
		m := open(t, g.Process)
		time.AfterFunc(time.Duration(rand.Int64N(int64(60*time.Millisecond))), func() { m.monitor.conn.Close() })
		if d, err := m.Disk(ctx, names[round%2]); err == nil {
			if cut, err := m.Cut(ctx, CutOptions{}, d); err == nil {
				<-m.monitor.done
				cut.guard.stop()
			}
		}
		<-m.monitor.done
		m.Close()

		before := g.Number()
		m = open(t, g.Process)
		cut, err := m.Cut(ctx, CutOptions{}, mustDisk(t, m, names[0]), mustDisk(t, m, names[1]))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		var last [2]uint64
		for n, s := range cut.Slices {
			if round > 0 && !s.Has(bases[n]) {
				t.Errorf("round %d: the record of %s is lost", round, s.Name)
			}
			pull(t, s, bases[n], images[n])
			if last[n], err = ring.Check(images[n]); err != nil || last[n] < before {
				t.Fatalf("round %d: %s holds %d, at least %d: %v", round, s.Name, last[n], before, err)
			}
			bases[n] = s.Base()
		}
		if last[0] != last[1] && last[0] != last[1]+1 {
			t.Errorf("round %d: the disks hold %v, which they never held together", round, last)
		}
		if doubt := cut.Doubt(ctx); doubt != "" {
			t.Error(doubt)
		}
		for _, s := range cut.Slices {
			if err := s.Settle(ctx, true); err != nil {
				t.Error(err)
			}
		}
		clean(t, m, folder, 2)
		t.Logf("round %d: numbers %v, cut in %v", round, last, cut.Took)
		m.Close()
	}
	for began, now := time.Now(), g.Number(); g.Number() == now; time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatal("the guest no longer writes")
		}
	}
	if complaint := g.Complaint(); complaint != "" {
		t.Errorf("the guest's program ended: %s", complaint)
	}
	t.Logf("longest write of the guest: %v", g.Longest())
}
