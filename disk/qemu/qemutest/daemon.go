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

	t       testing.TB
	program string
	args    []string
	command *exec.Cmd
	said    *strings.Builder
	gone    chan struct{}
}

// Image makes an image file of a format and size with qemu-img.
func Image(t testing.TB, folder, format string, size int64) string {
	t.Helper()
	disktest.Need(t, "qemu-img")
	path := filepath.Join(folder, "disk."+format)
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", format, path, fmt.Sprint(size)).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img create: %v: %s", err, out)
	}
	return path
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

// Daemon starts a storage daemon that serves an image of folder as the export
// "live" of its node "disk0", or of a raw node "top" above it. format is that
// of the image.
func Daemon(t testing.TB, folder, format string, top bool) *Process {
	t.Helper()
	disktest.Need(t, "qemu-storage-daemon")
	p := &Process{Folder: folder, QMP: filepath.Join(folder, "qmp"), NBD: filepath.Join(folder, "nbd"), t: t, program: "qemu-storage-daemon"}
	p.args = []string{
		"--chardev", "socket,path=" + p.QMP + ",server=on,wait=off,id=c", "--monitor", "chardev=c",
		"--blockdev", "driver=file,node-name=f0,discard=unmap,filename=" + filepath.Join(folder, "disk."+format),
		"--blockdev", "driver=" + format + ",node-name=disk0,file=f0,discard=unmap",
		"--nbd-server", "addr.type=unix,max-connections=16,addr.path=" + p.NBD,
	}
	node := "disk0"
	if top {
		p.args = append(p.args, "--blockdev", "driver=raw,node-name=top,file=disk0,discard=unmap")
		node = "top"
	}
	p.args = append(p.args, "--export", "type=nbd,id=live,name=live,writable=on,node-name="+node)
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
