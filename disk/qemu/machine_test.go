package qemu

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/disktest"
	"github.com/diskvault/diskvault/disk/qemu/qemutest"
)

// A machine of every way to attach a disk; it stands still.
func TestDisksOfAMachine(t *testing.T) {
	folder := qemutest.Folder(t)
	for n := range 4 {
		qemutest.Image(t, folder, "qcow2", 16<<20, n)
	}
	raw := qemutest.Image(t, folder, "raw", 16<<20, 0)
	p := qemutest.Machine(t, folder, "-S", "-object", "iothread,id=io0",
		"-drive", "if=virtio,id=drive0,file="+filepath.Join(folder, "disk0.qcow2"),
		"-blockdev", "driver=qcow2,node-name=node1,file.driver=file,file.filename="+filepath.Join(folder, "disk1.qcow2"),
		"-device", "virtio-blk-pci,id=dev1,drive=node1",
		"-blockdev", "driver=qcow2,node-name=node2,file.driver=file,file.filename="+filepath.Join(folder, "disk2.qcow2"),
		"-device", "virtio-blk-pci,id=dev2,drive=node2,iothread=io0",
		"-blockdev", "driver=raw,node-name=node3,file.driver=file,file.filename="+raw,
		"-device", "virtio-blk-pci,id=dev3,drive=node3",
		"-drive", "if=none,id=ro,readonly=on,file="+filepath.Join(folder, "disk3.qcow2"),
		"-device", "virtio-blk-pci,id=dev4,drive=ro")
	m := open(t, p)
	for _, name := range []string{"drive0", "dev1", "node1", "dev3", "/machine/peripheral/dev3/virtio-backend"} {
		before := mustDisk(t, m, name)
		if before.Size != 16<<20 || before.persistent == strings.Contains(name, "dev3") {
			t.Errorf("%s: %+v", name, before)
		}
		cut, err := m.Cut(ctx, CutOptions{}, before)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if during := mustDisk(t, m, name); during != before {
			t.Errorf("%s while it is captured: %+v and not %+v", name, during, before)
		}
		pull(t, cut.Slices[0], "", make([]byte, 16<<20))
		if err := cut.Slices[0].Settle(ctx, false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		clean(t, m, folder, 0)
		if after := mustDisk(t, m, name); after != before {
			t.Errorf("%s after it was captured: %+v and not %+v", name, after, before)
		}
	}
	for name, want := range map[string]problem.Code{
		"dev2":  problem.SourceNotSupported, // of a thread
		"dev4":  problem.SourceNotSupported, // for reading only
		"":      problem.SourceNotSupported, // which of them?
		"other": problem.SourceNotFound,
	} {
		if _, err := m.Disk(ctx, name); !problem.Is(err, want) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestMonitorsThatCannotBeUsed(t *testing.T) {
	folder := qemutest.Folder(t)
	managed := filepath.Join(folder, "libvirt", "qemu")
	if err := os.MkdirAll(managed, 0o700); err != nil {
		t.Fatal(err)
	}
	socket := func(path string, serve func(net.Conn)) string {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go serve(c)
			}
		}()
		return path
	}
	plain := filepath.Join(folder, "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	for name, c := range map[string]struct {
		path string
		want problem.Code
	}{
		"nothing":    {filepath.Join(folder, "none"), problem.SourceNotFound},
		"a file":     {plain, problem.SourceNotFound},
		"not QMP":    {socket(filepath.Join(folder, "a"), func(c net.Conn) { c.Write([]byte("220 mail\n")) }), problem.MachineFailed},
		"other JSON": {socket(filepath.Join(folder, "b"), func(c net.Conn) { c.Write([]byte("{\"hello\":1}\n")) }), problem.MachineFailed},
		"then gone": {socket(filepath.Join(folder, "d"), func(c net.Conn) {
			c.Write([]byte("{\"QMP\":{}}\n"))
			c.Read(make([]byte, 1))
			c.Close()
		}), problem.MachineFailed},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Open(ctx, Address{Socket: c.path}); !problem.Is(err, c.want) {
				t.Errorf("%v", err)
			}
		})
	}
	busy := socket(filepath.Join(folder, "c"), func(net.Conn) {})
	if _, err := Open(short, Address{Socket: busy}); err == nil || problem.Is(err, problem.MachineFailed) {
		t.Errorf("interrupted: %v", err)
	}
	// What a monitor that greets nobody is taken for, by where it is.
	for path, want := range map[string]problem.Code{
		busy: problem.MachineBusy,
		"/var/lib/libvirt/qemu/domain-1-vm/monitor.sock": problem.MachineManaged,
	} {
		if err := dialProblem(errSilent, Address{Socket: path}); !problem.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// A second monitor does not make libvirt's machine ours.
func TestMachineOfLibvirtIsRefused(t *testing.T) {
	folder := qemutest.Folder(t)
	dir := filepath.Join(folder, "libvirt", "qemu")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p := qemutest.Machine(t, folder, "-S", "-chardev", "socket,id=charmonitor,server=on,wait=off,path="+filepath.Join(dir, "monitor.sock"),
		"-mon", "chardev=charmonitor,id=monitor,mode=control")
	if _, err := Open(ctx, Address{Socket: p.QMP}); !problem.Is(err, problem.MachineManaged) {
		t.Errorf("%v", err)
	}
}

func TestAddress(t *testing.T) {
	for text, want := range map[string]Address{
		"qemu+unix:///run/vm/qmp":                                  {Socket: "/run/vm/qmp"},
		"qemu+unix:///run/vm/qmp?device=disk0":                     {Socket: "/run/vm/qmp", Device: "disk0"},
		"qemu+unix:///a%20b/qmp?agent=/ga&nbd=/n&fleece=/f&device": {Socket: "/a b/qmp", Agent: "/ga", NBD: "/n", Fleece: "/f"},
	} {
		a, err := ParseAddress(text)
		if err != nil || a != want {
			t.Errorf("%s: %+v %v", text, a, err)
		}
		if again, err := ParseAddress(a.String()); err != nil || again != a {
			t.Errorf("%s: written %s, read %+v %v", text, a, again, err)
		}
	}
	for _, text := range []string{"qemu+unix://host/qmp", "qemu+unix:", "qemu+unix:///dir/", "qemu+unix:///q?disk=a", "qemu+unix:///q?device=a&device=b",
		"qemu+unix:///q?agent=relative", "qemu+tcp://host:1/", "qemu+unix:///q?%zz"} {
		if a, err := ParseAddress(text); !problem.Is(err, problem.InvalidArgument) {
			t.Errorf("%s: %+v %v", text, a, err)
		}
	}
}

func FuzzAddress(f *testing.F) {
	f.Add("qemu+unix:///run/vm/qmp?device=disk0&agent=/a")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAddress(text)
		if err != nil {
			if !problem.Is(err, problem.InvalidArgument) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if again, err := ParseAddress(a.String()); err != nil || again != a {
			t.Errorf("%q: %+v, written %s, read %+v %v", text, a, a, again, err)
		}
	})
}

// The machine's own NBD server is left as it is, and found without being told.
func TestOwnServerIsFound(t *testing.T) {
	folder := qemutest.Folder(t)
	qemutest.Image(t, folder, "raw", 1<<20, 0)
	p := qemutest.Daemon(t, folder, "raw", true, 1)
	m := open(t, p)
	byTop, byNode := mustDisk(t, m, "top0"), mustDisk(t, m, "disk0")
	if byTop.root != byNode.root || byTop.top != byNode.top || byNode.top != "top0" {
		t.Errorf("%+v is not %+v", byTop, byNode)
	}
	cut, err := m.Cut(ctx, CutOptions{}, byTop)
	if err != nil {
		t.Fatal(err)
	}
	if got := cut.Slices[0].Socket; got != p.NBD {
		t.Errorf("the socket is %s, not %s", got, p.NBD)
	}
	if err := cut.Slices[0].Settle(ctx, false); err != nil {
		t.Error(err)
	}
	// Nobody may look into the process: then it must be said.
	m.process = 0
	if _, err := m.Cut(ctx, CutOptions{}, mustDisk(t, m, "disk0")); !problem.Is(err, problem.SourceNotSupported) {
		t.Errorf("%v", err)
	}
	clean(t, m, folder, 0)
	m.address.NBD = p.NBD
	cut, err = m.Cut(ctx, CutOptions{}, mustDisk(t, m, "disk0"))
	if err != nil {
		t.Fatal(err)
	}
	if err := cut.Slices[0].Settle(ctx, false); err != nil {
		t.Error(err)
	}
	disktest.Run(t, "nbdinfo", "nbd+unix:///live0?socket="+p.NBD)
}

// Within a process the disks of a machine wait for each other.
func TestTwoBackupsOfOneMachine(t *testing.T) {
	folder := qemutest.Folder(t)
	for n := range 2 {
		qemutest.Image(t, folder, "raw", 1<<20, n)
	}
	p := qemutest.Daemon(t, folder, "raw", true, 2)
	first, second := open(t, p), open(t, p)
	cut, err := first.Cut(ctx, CutOptions{}, mustDisk(t, first, "disk0"))
	if err != nil {
		t.Fatal(err)
	}
	d := mustDisk(t, second, "disk1") // can be looked at meanwhile
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := second.Cut(short, CutOptions{}, d); err == nil {
		t.Fatal("two cuts of one machine are open")
	}
	got := make(chan error)
	go func() {
		other, err := second.Cut(ctx, CutOptions{}, d)
		if err == nil {
			err = other.Slices[0].Settle(ctx, false)
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Errorf("it did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if doubt := cut.Doubt(ctx); doubt != "" {
		t.Error(doubt)
	}
	if err := cut.Slices[0].Settle(ctx, false); err != nil {
		t.Error(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	clean(t, first, folder, 0)
	// The last one ends the connection, and closing twice is no second time.
	first.Close()
	first.Close()
	if second.monitor.ended() != nil {
		t.Error("the connection was closed under another user")
	}
	second.Close()
	if second.monitor.ended() == nil {
		t.Error("the connection is still open")
	}
}

// A refused command is told apart from a machine that is gone.
func TestCommands(t *testing.T) {
	folder := qemutest.Folder(t)
	p := qemutest.Machine(t, folder, "-S")
	m := open(t, p)
	refused := (*commandError)(nil)
	if err := m.monitor.run(ctx, "no-such", nil, nil); !errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
	p.Kill()
	if err := m.monitor.run(ctx, "query-version", nil, nil); err == nil || errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
	if m.monitor.ended() == nil {
		t.Error("the connection is taken to be alive")
	}
}
