package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/control/service"
	"github.com/diskvault/diskvault/disk/nbd"
	"github.com/diskvault/diskvault/disk/qemu/qemutest"
)

// machineRounds is how often something is killed; the long form alone tries it.
func machineRounds(t *testing.T) int {
	t.Helper()
	if n, err := strconv.Atoi(os.Getenv("DISKVAULT_SEEDS")); err == nil {
		return n
	}
	if os.Getenv("DISKVAULT_LONG") == "" {
		t.Skip("left out: it kills a hundred processes; DISKVAULT_LONG=1 runs it, DISKVAULT_SEEDS=N so many")
	}
	return 100
}

// killed runs a backup that is killed at some moment of its usual time, or has
// the machine killed under it.
func (p program) killed(t *testing.T, kill func(), args ...string) {
	t.Helper()
	victim := p.command(args...)
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	if kill == nil {
		kill = func() { _ = victim.Process.Kill() }
	}
	time.Sleep(time.Duration(rand.Int64N(int64(600 * time.Millisecond))))
	kill()
	_ = victim.Wait() // whatever became of it
}

// content restores the newest point of the machine's disk.
func (p program) content(t *testing.T, instance string) []byte {
	t.Helper()
	to := filepath.Join(p.dir, "restored.img")
	defer os.Remove(to)
	run[service.RestoreResult](t, p, "restore", instance, "--to", to)
	b, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// nothingLeft wants no export, node or file of a backup in a machine.
func nothingLeft(t *testing.T, m *qemutest.Process) {
	t.Helper()
	if left, err := filepath.Glob(filepath.Join(m.Folder, ".diskvault*")); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v %v", left, err)
	}
	conn, err := net.Dial("unix", m.QMP)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	for _, command := range []string{"", "qmp_capabilities", "query-block-exports", "query-named-block-nodes"} {
		if command != "" {
			fmt.Fprintf(conn, "{\"execute\":%q}\n", command)
		}
		answer, err := lines.ReadString('\n')
		if err != nil || strings.Contains(answer, `"error"`) {
			t.Fatalf("%s: %v %s", command, err, answer)
		}
		for _, mark := range []string{`"id": "diskvault`, `"node-name": "diskvault`} {
			if strings.Contains(answer, mark) {
				t.Errorf("%s: %s is left: %s", command, mark, answer)
			}
		}
	}
}

// The command is killed at random while a guest writes on: the next point holds a
// beginning of the writes, only what changed is read for it, and nothing is left.
func TestBackupsOfAMachineAreKilledAtAnyTime(t *testing.T) {
	rounds := machineRounds(t)
	p, folder := newProgram(t), qemutest.Folder(t)
	ring := qemutest.Ring{Size: 32 << 20, Slots: 512}
	qemutest.Image(t, folder, "qcow2", ring.Size, 0)
	m := qemutest.Daemon(t, folder, "qcow2", true, 1)
	disk := "qemu+unix://" + m.QMP + "?device=disk0"
	w := ring.Write(t, m.NBD, "live0", 0)
	for round := range rounds {
		p.killed(t, nil, "backup", disk)
		before := w.Acknowledged()
		r := run[service.BackupResult](t, p, "backup", disk)
		if round > 0 && r.ChangeTracking.Method != "qemu-bitmap" {
			t.Errorf("round %d: %+v", round, r.ChangeTracking)
		}
		if last, err := ring.Check(p.content(t, "disk0")); err != nil || last < before {
			t.Fatalf("round %d: number %d, at least %d: %v", round, last, before, err)
		}
		nothingLeft(t, m)
	}
	if err := w.Stop(); err != nil {
		t.Errorf("a write of the guest failed: %v", err)
	}
	noJobLeft(t, p)
}

// The machine is killed at random while it is backed up: once it runs again, the
// next point is what its disk then holds.
func TestMachinesAreKilledWhileBackedUp(t *testing.T) {
	rounds := machineRounds(t)
	p, folder := newProgram(t), qemutest.Folder(t)
	ring := qemutest.Ring{Size: 32 << 20, Slots: 512}
	qemutest.Image(t, folder, "qcow2", ring.Size, 0)
	m := qemutest.Daemon(t, folder, "qcow2", true, 1)
	disk := "qemu+unix://" + m.QMP + "?device=disk0"
	last := uint64(0)
	for round := range rounds {
		w := ring.Write(t, m.NBD, "live0", last)
		p.killed(t, m.Kill, "backup", disk)
		_ = w.Stop() // its machine is gone
		last = w.Acknowledged()
		m.Start()
		run[service.BackupResult](t, p, "backup", disk)
		if got := p.content(t, "disk0"); !bytes.Equal(got, live(t, m, ring.Size)) {
			t.Fatalf("round %d: the point is not what the disk holds", round)
		}
		nothingLeft(t, m)
	}
	noJobLeft(t, p)
}

// live reads the disk of a machine.
func live(t *testing.T, m *qemutest.Process, size int64) []byte {
	t.Helper()
	c, err := nbd.Dial(t.Context(), nbd.Address{Network: "unix", Host: m.NBD, Export: "live0"}, nbd.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, size)
	for at := int64(0); at < size; at += 1 << 20 {
		if err := c.Read(t.Context(), b[at:at+1<<20], at); err != nil {
			t.Fatal(err)
		}
	}
	return b
}
