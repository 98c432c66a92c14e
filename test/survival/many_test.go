package survival

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/diskvault/diskvault/control/resource"
)

const processes = 20

// atOnce runs twenty processes, and beside them kills others of the same kind:
// the first of them most likely owns the data folder then, and has the work of
// others in hand.
func (m *machine) atOnce(t *testing.T, args func(n int) []string, kills int) {
	t.Helper()
	r := chance(t)
	var all sync.WaitGroup
	for n := range kills {
		p := m.start(args(n)...)
		delay := time.Duration(r.IntN(1500)) * time.Millisecond
		all.Go(func() {
			time.Sleep(delay)
			p.cmd.Process.Kill()
			p.cmd.Wait()
		})
	}
	for n := range processes {
		p := m.start(args(n)...)
		all.Go(func() {
			if err := p.cmd.Wait(); err != nil {
				t.Errorf("%v: %v\n%s", p.cmd.Args, err, p.stderr)
			}
		})
	}
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the processes do not end")
	}
	if t.Failed() {
		t.FailNow()
	}
	m.settled()
}

func TestTwentyDisks(t *testing.T) {
	t.Parallel()
	m, r := newMachine(t), chance(t)
	var disks []*image
	for n := range processes {
		disks = append(disks, newImage(t, m.path(fmt.Sprintf("d%02d.img", n)), 2*mib, r))
	}
	args := func(n int) []string { return []string{"backup", fmt.Sprintf("d%02d.img", n)} }
	m.atOnce(t, args, 4)
	for _, d := range disks {
		d.change(1)
	}
	m.atOnce(t, args, 4)
	m.must("verify", "--read-data")
	for n, d := range disks {
		if n%4 == 0 {
			m.restores(fmt.Sprintf("d%02d", n), "latest", d.sum())
		}
	}
	// Restores, verifications and lookups beside each other.
	m.atOnce(t, func(n int) []string {
		switch n % 5 {
		case 0:
			return []string{"restore", fmt.Sprintf("d%02d", n), "--to", fmt.Sprintf("r%02d.img", n), "--overwrite"}
		case 1:
			return []string{"verify", fmt.Sprintf("d%02d", n), "--read-data"}
		case 2:
			return []string{"points", fmt.Sprintf("d%02d", n)}
		case 3:
			return []string{"status"}
		}
		return []string{"backup", fmt.Sprintf("d%02d.img", n)}
	}, 3)
	for n := 0; n < processes; n += 5 {
		if sum(t, m.path(fmt.Sprintf("r%02d.img", n))) != disks[n].sum() {
			t.Errorf("d%02d is restored wrongly", n)
		}
	}
}

func TestTwentyTimesOneDisk(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	disk := newImage(t, m.path("disk.img"), 4*mib, chance(t))
	m.atOnce(t, func(int) []string { return []string{"backup", "disk.img"} }, 3)
	if n := len(m.points("disk")); n < processes || n > processes+3 {
		t.Errorf("%d backups made %d points", processes, n)
	}
	for _, j := range read[[]resource.Job](m, "jobs") {
		if j.Error != nil && (strings.Contains(j.Error.Message, "panic") || j.Error.Code == "InternalError") {
			t.Errorf("%+v", j.Error)
		}
	}
	m.restores("disk", "latest", disk.sum())
	m.must("verify", "--read-data")
}
