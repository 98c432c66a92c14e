// Package qemutest starts real QEMU machines and storage daemons for tests, and
// writes to their disks in an order that can be checked.
package qemutest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/disk/disktest"
)

// Process is a QEMU that runs. It is killed at the end of the test.
type Process struct {
	Folder string // short, since sockets have room for 107 bytes
	QMP    string // socket of the monitor
	NBD    string // socket of a storage daemon's own NBD server

	t       testing.TB // whose end is the process's, too
	program string
	args    []string
	command *exec.Cmd
	said    *strings.Builder
	gone    chan struct{}
}

// Image makes an image file "disk0.FORMAT", or with another number, with
// qemu-img.
func Image(t testing.TB, folder, format string, size int64, number int) string {
	t.Helper()
	disktest.Need(t, "qemu-img")
	path := imagePath(folder, format, number)
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", format, path, fmt.Sprint(size)).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img create: %v: %s", err, out)
	}
	return path
}

func imagePath(folder, format string, number int) string {
	return filepath.Join(folder, fmt.Sprintf("disk%d.%s", number, format))
}

// Folder is a short-named folder for a test.
func Folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "qemu")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Daemon starts a storage daemon that serves images of folder as the exports
// "live0", "live1" and so on of its nodes "disk0"..., or of raw nodes "top0"...
// above them. format is that of the images.
func Daemon(t testing.TB, folder, format string, top bool, disks int) *Process {
	t.Helper()
	disktest.Need(t, "qemu-storage-daemon")
	p := &Process{Folder: folder, QMP: filepath.Join(folder, "qmp"), NBD: filepath.Join(folder, "nbd"), t: t, program: "qemu-storage-daemon"}
	p.args = []string{
		"--chardev", "socket,path=" + p.QMP + ",server=on,wait=off,id=c", "--monitor", "chardev=c",
		"--nbd-server", "addr.type=unix,max-connections=16,addr.path=" + p.NBD,
	}
	for n := range disks {
		add := func(option, format string, args ...any) {
			p.args = append(p.args, option, fmt.Sprintf(format, args...))
		}
		node := fmt.Sprintf("disk%d", n)
		add("--blockdev", "driver=file,node-name=f%d,discard=unmap,filename=%s", n, imagePath(folder, format, n))
		add("--blockdev", "driver=%s,node-name=%s,file=f%d,discard=unmap", format, node, n)
		if top {
			add("--blockdev", "driver=raw,node-name=top%d,file=%s,discard=unmap", n, node)
			node = fmt.Sprintf("top%d", n)
		}
		add("--export", "type=nbd,id=live%d,name=live%d,writable=on,node-name=%s", n, n, node)
	}
	p.Start()
	t.Cleanup(p.Kill)
	return p
}

// Machine starts an emulated machine with the given arguments, besides a
// monitor.
func Machine(t testing.TB, folder string, args ...string) *Process {
	t.Helper()
	disktest.Need(t, "qemu-system-x86_64")
	p := &Process{Folder: folder, QMP: filepath.Join(folder, "qmp"), t: t, program: "qemu-system-x86_64"}
	p.args = append([]string{"-machine", "q35,accel=tcg", "-nodefaults", "-display", "none", "-qmp", "unix:" + p.QMP + ",server=on,wait=off"}, args...)
	p.Start()
	t.Cleanup(p.Kill)
	return p
}

// Start starts the process, again if it has ended, and waits until its monitor
// listens.
func (p *Process) Start() {
	p.t.Helper()
	p.said, p.gone = &strings.Builder{}, make(chan struct{})
	p.command = exec.Command(p.program, p.args...)
	p.command.Dir = p.Folder
	p.command.Stdout, p.command.Stderr = p.said, p.said
	os.Remove(p.QMP)
	if err := p.command.Start(); err != nil {
		p.t.Fatal(err)
	}
	command, gone := p.command, p.gone
	go func() {
		_ = command.Wait()
		close(gone)
	}()
	wait := []string{p.QMP}
	if p.NBD != "" {
		wait = append(wait, p.NBD)
	}
	for _, socket := range wait {
		p.listens(socket)
	}
}

func (p *Process) listens(socket string) {
	p.t.Helper()
	for range 2000 {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return
		}
		select {
		case <-p.gone:
			p.t.Fatalf("%s ended: %s", p.program, p.said.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
	p.t.Fatalf("%s does not listen at %s", p.program, socket)
}

// Kill ends the process at once, as a crash would.
func (p *Process) Kill() {
	select {
	case <-p.gone:
		p.t.Logf("%s had ended: %v %s", p.program, p.command.ProcessState, p.said)
	default:
	}
	_ = p.command.Process.Kill()
	<-p.gone
}

// Quit ends the process as its user would.
func (p *Process) Quit() {
	p.t.Helper()
	_ = p.command.Process.Signal(os.Interrupt)
	select {
	case <-p.gone:
	case <-time.After(10 * time.Second):
		p.t.Fatalf("%s does not end", p.program)
	}
}

// PID is the number of the process.
func (p *Process) PID() int { return p.command.Process.Pid }

// Said is what the process wrote so far; ask after it has ended.
func (p *Process) Said() string { return p.said.String() }
