package survival

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/disktest"
)

func TestInterruptedBackup(t *testing.T) {
	t.Parallel()
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		m := newMachine(t)
		disk := noisy(t, m.path("disk.img"), 64*mib)
		p := m.start("backup", "disk.img", "--limit-rate", "24M", "-o", "json")
		for m.running().Detail.Done < 40*mib { // more than one pack
			time.Sleep(10 * time.Millisecond)
		}
		p.cmd.Process.Signal(signal)
		o := m.finish(p)
		if o.status != interrupted {
			t.Fatalf("%v", o)
		}
		f := o.failure(t)
		plain(t, f)
		if f.Code != problem.OperationInterrupted || !strings.Contains(f.Message, "kept") {
			t.Errorf("%+v", f)
		}
		m.settled()
		r := m.backup("disk.img")
		if r.ResumedBytes == 0 && r.Bytes.Known == 0 {
			t.Errorf("nothing was kept: %+v", r.Bytes)
		}
		m.restores("disk", "latest", disk.sum())
	}
}

func TestInterruptedRestore(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	disk := noisy(t, m.path("disk.img"), 128*mib)
	m.must("backup", "disk.img")
	to := m.path("new.img")
	for range 20 {
		os.Remove(to)
		p := m.start("restore", "disk", "--to", to, "-o", "json")
		for range 2000 {
			if _, err := os.Lstat(to + ".diskvault-partial"); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		p.cmd.Process.Signal(os.Interrupt)
		o := m.finish(p)
		if o.status == done {
			continue // it was faster
		}
		if o.status != interrupted {
			t.Fatalf("%v", o)
		}
		f := o.failure(t)
		plain(t, f)
		if f.Code != problem.OperationInterrupted || !strings.Contains(f.Message, "goes on") {
			t.Errorf("%+v", f)
		}
		if _, err := os.Lstat(to); err == nil {
			t.Error("an interrupted restore left a file under the name of a whole one")
		}
		m.must("restore", "disk", "--to", to)
		if sum(t, to) != disk.sum() {
			t.Error("what went on is not the disk")
		}
		return
	}
	t.Error("no restore could be interrupted")
}

// The demo works for anybody and leaves nothing behind.
func TestDemo(t *testing.T) {
	t.Parallel()
	disktest.Need(t, "mke2fs", "debugfs", "e2fsck")
	t.Run("as this user", func(t *testing.T) { demo(t, newMachine(t)) })
	t.Run("as nobody", func(t *testing.T) { demo(t, newMachineOf(t, nobody)) })
}

func demo(t *testing.T, m *machine) {
	t.Helper()
	m.env = append(m.env, "TMPDIR="+m.dir)
	o := m.must("demo")
	if strings.Count(o.stdout, "e2fsck finds the file system clean") != 2 {
		t.Errorf("%v", o)
	}
	left, err := os.ReadDir(m.dir)
	if err != nil || len(left) != 0 {
		t.Errorf("the demo left %v (%v)", left, err)
	}
	p := m.start("demo")
	time.Sleep(700 * time.Millisecond)
	p.cmd.Process.Signal(os.Interrupt)
	if o := m.finish(p); o.status != interrupted && o.status != done {
		t.Errorf("%v", o)
	}
	if left, err = os.ReadDir(m.dir); err != nil || len(left) != 0 {
		t.Errorf("an interrupted demo left %v (%v)", left, err)
	}
}
