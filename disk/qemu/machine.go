package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
)

// Machine is a running QEMU, reached through its monitor. Close it. One Cut at
// a time is taken of it; the methods are safe for concurrent use.
type Machine struct {
	*link
	address Address
	closing sync.Once
}

// link is the connection to a machine. A monitor serves one client at a time, so
// all of this process share it: the disks of a machine can be looked at while
// one of them is backed up, and wait for each other instead of failing.
type link struct {
	monitor  *monitor
	process  int // 0 if it cannot be known
	commands map[string]bool
	version  int // the major one

	cutting chan struct{} // holds an element while a Cut is open
	users   int           // Machines; guarded by links.mu
}

// links are the connections of this process, by socket. One that is being made
// is waited for.
var links = struct {
	mu     sync.Mutex
	open   map[string]*link
	making map[string]chan struct{}
}{open: map[string]*link{}, making: map[string]chan struct{}{}}

// Open connects to a machine. Errors are problems: SourceNotFound if nothing
// listens, SourcePermissionDenied, MachineBusy if another program is connected
// to the monitor, MachineManaged if the machine belongs to libvirt,
// MachineFailed for all else.
func Open(ctx context.Context, a Address) (*Machine, error) {
	for {
		links.mu.Lock()
		if l := links.open[a.Socket]; l != nil && l.monitor.ended() == nil {
			l.users++
			links.mu.Unlock()
			return &Machine{link: l, address: a}, nil
		}
		made := links.making[a.Socket]
		if made == nil {
			break
		}
		links.mu.Unlock()
		select {
		case <-made:
		case <-ctx.Done():
			return nil, problem.From(context.Cause(ctx))
		}
	}
	made := make(chan struct{})
	links.making[a.Socket] = made
	links.mu.Unlock()
	m, err := connect(ctx, a)
	links.mu.Lock()
	defer links.mu.Unlock()
	if err == nil {
		m.users = 1
		links.open[a.Socket] = m.link
	}
	delete(links.making, a.Socket)
	close(made)
	return m, err
}

func connect(ctx context.Context, a Address) (*Machine, error) {
	mon, err := dialMonitor(ctx, a.Socket)
	if err != nil {
		return nil, dialProblem(err, a)
	}
	m := &Machine{link: &link{monitor: mon, process: peer(mon.conn), cutting: make(chan struct{}, 1)}, address: a}
	if err := m.look(ctx); err != nil {
		mon.close()
		return nil, err
	}
	return m, nil
}

func dialProblem(err error, a Address) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOTSOCK):
		return problem.Wrap(err, problem.SourceNotFound, "No machine listens at %s.", a.Socket).
			Do("Check the path of the QMP socket; QEMU makes one with -qmp unix:PATH,server=on,wait=off.", "If the machine is off, back up its image file instead.")
	case errors.Is(err, fs.ErrPermission):
		return problem.Wrap(err, problem.SourcePermissionDenied, "This user (%d) may not connect to %s.", os.Geteuid(), a.Socket)
	case errors.Is(err, errSilent) && libvirtPath(a.Socket):
		return managed(a)
	case errors.Is(err, errSilent):
		return problem.Wrap(err, problem.MachineBusy, "The monitor at %s serves another program.", a.Socket)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), problem.Is(err, problem.OperationInterrupted):
		return problem.From(err)
	}
	return problem.Wrap(err, problem.MachineFailed, "No QMP monitor answers at %s.", a.Socket)
}

func libvirtPath(socket string) bool {
	return strings.Contains(socket, "/libvirt/qemu/")
}

func managed(a Address) error {
	return problem.New(problem.MachineManaged, "The machine behind %s belongs to libvirt, which does not take part when another program changes its disks.", a.Socket)
}

// look learns what the machine can do, and refuses those that have another
// master: libvirt would lose track of nodes that it did not make.
func (m *Machine) look(ctx context.Context) error {
	var commands []struct {
		Name string `json:"name"`
	}
	if err := m.monitor.run(ctx, "query-commands", nil, &commands); err != nil {
		return m.failed(err, "does not say what it can do")
	}
	m.commands = map[string]bool{}
	for _, c := range commands {
		m.commands[c.Name] = true
	}
	for _, need := range []string{"blockdev-reopen", "transaction", "block-export-add", "x-debug-query-block-graph"} {
		if !m.commands[need] {
			return problem.New(problem.SourceNotSupported, "The machine behind %s is too old: it has no command %s.", m.address.Socket, need).
				Do("Use QEMU 7.2 or newer, or back up the machine's image file while it is off.")
		}
	}
	var version struct {
		QEMU struct {
			Major int `json:"major"`
		} `json:"qemu"`
	}
	if err := m.monitor.run(ctx, "query-version", nil, &version); err != nil {
		return m.failed(err, "does not say its version")
	}
	m.version = version.QEMU.Major
	var channels []struct {
		Label string `json:"label"`
		File  string `json:"filename"`
	}
	if m.commands["query-chardev"] {
		if err := m.monitor.run(ctx, "query-chardev", nil, &channels); err != nil {
			return m.failed(err, "does not say what is connected to it")
		}
	}
	for _, c := range channels {
		if libvirtPath(c.File) {
			return managed(m.address)
		}
	}
	return nil
}

// Close gives the connection back, once nobody else in this process uses it. A
// Cut that is open is not ended by it, but cleared away by the next run.
func (m *Machine) Close() error {
	m.closing.Do(func() {
		links.mu.Lock()
		defer links.mu.Unlock()
		if m.users--; m.users > 0 {
			return
		}
		if links.open[m.address.Socket] == m.link {
			delete(links.open, m.address.Socket)
		}
		m.monitor.close()
	})
	return nil
}

// failed turns an error of the monitor into a problem; what completes the
// sentence "The machine at ... ".
func (m *Machine) failed(err error, what string) error {
	if p := (*problem.Error)(nil); err == nil || errors.As(err, &p) {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return problem.From(err)
	}
	return problem.Wrap(err, problem.MachineFailed, "The machine behind %s %s.", m.address.Socket, what)
}

// Disk is one disk of a machine, as it was when it was asked for.
type Disk struct {
	Name string // what the machine calls it: the device's or drive's ID, or the node's name
	Size int64  // bytes
	File string // of its image, as the machine calls it

	// Owner is for whom the record of changes is, set by the caller before a Cut:
	// one owner does not touch the records of another. Any text, such as the ID
	// of a backup instance.
	Owner string

	Allocated int64 // bytes that the image takes on its storage; Size if that is not known

	root       string // the node that the machine's guest or clients use
	node       string // the node whose changes are recorded; root, or a qcow2 below it
	path       string // of the device in the tree of objects; "" in a storage daemon
	top        string // a raw node that the user has put above root; "" if there is none
	persistent bool   // the record of changes survives a restart
}

// switchable tells whether a filter can be put between the disk and those who
// write to it.
func (d Disk) switchable() bool { return d.path != "" || d.top != "" }

// Disk finds the disk that the address names. Errors are problems:
// SourceNotFound, SourceNotSupported, MachineFailed.
func (m *Machine) Disk(ctx context.Context, device string) (Disk, error) {
	g, err := m.graph(ctx)
	if err != nil {
		return Disk{}, m.failed(err, "does not describe its disks")
	}
	drives, err := m.drives(ctx)
	if err != nil {
		return Disk{}, m.failed(err, "does not describe its disks")
	}
	// What a Cut has put above the disks, be it open or left by a killed run, is
	// looked through.
	for n := range drives {
		drives[n].Inserted.Node = g.under(drives[n].Inserted.Node)
	}
	d, err := m.find(g, drives, device)
	if err != nil {
		return Disk{}, err
	}
	root := g.nodes[d.root]
	if root.ReadOnly {
		return Disk{}, problem.New(problem.SourceNotSupported, "The machine has %s for reading only, so it holds nothing that changes.", d.Name).
			Do("Back up its image file instead.")
	}
	if err := m.threadSafe(ctx, d); err != nil {
		return Disk{}, err
	}
	d.Size, d.node = root.Image.Size, d.root
	for g.nodes[d.node].Driver == "raw" && g.nodes[g.below[d.node]["file"]].Driver == "qcow2" {
		d.node = g.below[d.node]["file"]
	}
	recorded := g.nodes[d.node]
	d.persistent = recorded.Driver == "qcow2" && recorded.Image.Detail.Data.Compat != "0.10"
	d.File = recorded.Image.Filename
	if d.Allocated = recorded.Image.Actual; d.Allocated == 0 {
		d.Allocated = d.Size
	}
	return d, nil
}

// find tells what stands where the user's name points to.
func (m *Machine) find(g graph, drives []drive, device string) (Disk, error) {
	var fits []Disk
	for _, d := range drives {
		if n := g.nodes[d.Inserted.Node]; device == "" && !n.ReadOnly || device != "" && (d.called(device) || d.Inserted.Node == device) {
			name := d.ID
			if name == "" {
				name = strings.TrimSuffix(strings.TrimPrefix(d.Path, "/machine/peripheral/"), "/virtio-backend")
			}
			fits = append(fits, Disk{Name: name, root: d.Inserted.Node, path: d.Path})
		}
	}
	if _, ok := g.nodes[device]; ok && len(fits) == 0 {
		fits = append(fits, exported(g, device))
	}
	switch {
	case len(fits) == 1:
		return fits[0], nil
	case len(fits) > 1 && device == "":
		return Disk{}, problem.New(problem.SourceNotSupported, "The machine behind %s has %d disks.", m.address.Socket, len(fits)).
			Do("Say which one is meant: add ?device=NAME to the URL. It has " + strings.Join(names(drives), ", ") + ".")
	case len(fits) > 1:
		return Disk{}, problem.New(problem.SourceNotSupported, "The machine has %d disks that are meant by %q.", len(fits), device).
			Do("Give the device's path in the machine's tree of objects, as `query-block` says it.")
	case device == "" && drives == nil:
		return Disk{}, problem.New(problem.SourceNotSupported, "A storage daemon does not say which of its nodes are disks.").
			Do("Name the node: add ?device=NODE to the URL.")
	}
	return Disk{}, problem.New(problem.SourceNotFound, "The machine behind %s has no disk %q.", m.address.Socket, device).
		Do("Give one of those that it has: " + strings.Join(names(drives), ", ") + ", or the name of a node.")
}

// threadSafeVersion is the major version from which on QEMU can serve a disk
// that an I/O thread drives. 7.2 aborts, and its guest with it, when the reader
// of such an export leaves: an assertion in nbd_blockdev_client_closed.
const threadSafeVersion = 9

// threadSafe refuses a disk of an I/O thread in a machine that would die of
// being read. Where it cannot be told whether the thread is the disk's, it is.
func (m *Machine) threadSafe(ctx context.Context, d Disk) error {
	if m.version >= threadSafeVersion {
		return nil
	}
	var objects []struct {
		Type string `json:"type"`
	}
	if err := m.monitor.run(ctx, "qom-list", map[string]any{"path": "/objects"}, &objects); err != nil && !isRefused(err) {
		return m.failed(err, "does not list its threads")
	} // a daemon without objects has no such list
	threads := 0
	for _, o := range objects {
		if o.Type == "child<iothread>" {
			threads++
		}
	}
	if threads == 0 {
		return nil
	}
	thread := "some"
	if d.path != "" {
		err := m.monitor.run(ctx, "qom-get", map[string]any{"path": d.path, "property": "iothread"}, &thread)
		if err != nil && !isRefused(err) {
			return m.failed(err, "does not say whose thread it is")
		}
	}
	if thread == "" {
		return nil
	}
	return problem.New(problem.SourceNotSupported, "The disk %s is driven by an I/O thread, and QEMU %d ends with its guest when such a disk has been read by a backup.", d.Name, m.version).
		Do(fmt.Sprintf("Run the machine with QEMU %d or newer.", threadSafeVersion), "Or start it without iothread= for this disk.",
			"Or put its image onto XFS or btrfs as a raw file and back up the file: it is captured while it is in use.")
}

func names(drives []drive) []string {
	out := []string{}
	for _, d := range drives {
		if d.ID != "" {
			out = append(out, d.ID)
		} else {
			out = append(out, d.Path)
		}
	}
	return out
}

// exported is a disk that a daemon serves. If the node is raw upon a format, or
// has such a node above it, that one can be switched.
func exported(g graph, name string) Disk {
	d := Disk{Name: name, root: name}
	if below := g.under(g.below[name]["file"]); g.nodes[name].Driver == "raw" && g.below[below] != nil {
		d.root, d.top = below, name
		return d
	}
	if above := g.above[name]; len(above) == 1 && g.nodes[above[0]].Driver == "raw" && !ours(above[0]) {
		d.top = above[0]
	}
	return d
}

// tag tells machines apart in names of files.
func (m *Machine) tag() string {
	sum := sha256.Sum256([]byte(m.address.Socket))
	return hex.EncodeToString(sum[:4])
}

// peer is the process at the other end of a Unix socket; 0 if it is not known
// here.
func peer(conn net.Conn) int {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return 0
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// fleeceFolder is where a disk's fleece goes.
func (m *Machine) fleeceFolder(d Disk) (string, error) {
	if m.address.Fleece != "" {
		return m.address.Fleece, nil
	}
	file := d.File
	if !filepath.IsAbs(file) && m.process != 0 && !strings.Contains(file, ":") {
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", m.process)); err == nil {
			file = filepath.Join(cwd, file)
		}
	}
	if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() {
		return filepath.Dir(file), nil
	}
	return "", problem.New(problem.SourceNotSupported, "The disk %s has no image file on this host, so there is no folder for what the machine overwrites during a backup.", d.Name).
		Do("Name one with room that the machine may write to: add &fleece=/FOLDER to the URL.")
}
