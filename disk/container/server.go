package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/nbd"
)

// Disk is a disk inside a container, served by a process of QEMU for this one
// connection. The process ends with the connection, also if this program is
// killed, and leaves nothing behind.
type Disk struct {
	*nbd.Client
	process *exec.Cmd
	said    *bounded
	ended   chan struct{} // closed when the process has ended
	exit    error         // why; read it after ended

	closing sync.Once
	closed  error
}

// Options say how a disk inside a container is opened. The zero value reads.
type Options struct {
	Writable bool
	// Lock is a file that the process holds open, so that a lock on it lasts as
	// long as the process may write. May be nil.
	Lock *os.File
	// Direct goes past the page cache; all files must allow it.
	Direct bool
}

// Open opens the disk inside an image of a format, in QEMU's word. Errors are
// problems: SourceInUse if another program has it open for writing, those of
// Chain.
func Open(ctx context.Context, path, format string, o Options) (*Disk, error) {
	listener, conn, err := connection()
	if err != nil {
		return nil, problem.Wrap(err, problem.SourceReadFailed, "No connection to QEMU's tools can be made.")
	}
	defer listener.Close()
	args := []string{"-f", format, "--aio=threads", "--cache=writeback"}
	if o.Direct {
		args[3] = "--cache=none"
	}
	if o.Writable {
		args = append(args, "--discard=unmap")
	} else {
		args = append(args, "--read-only")
	}
	// The socket is handed over as systemd does, so that there is no moment at
	// which somebody else could come first; the shell is for the process's own
	// number, which is not known before.
	c := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh", "qemu-nbd"}, append(args, path)...)...)
	if _, err := exec.LookPath("qemu-nbd"); err != nil {
		conn.Close()
		return nil, toolMissing(err)
	}
	d := &Disk{process: c, said: &bounded{}, ended: make(chan struct{})}
	c.Env = environment()
	c.Stderr = d.said
	c.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // an interrupt at the terminal is for this program alone
	c.ExtraFiles = []*os.File{listener}
	if o.Lock != nil {
		c.ExtraFiles = append(c.ExtraFiles, o.Lock)
	}
	if err := c.Start(); err != nil {
		conn.Close()
		return nil, problem.Wrap(err, problem.SourceReadFailed, "QEMU's tools cannot be started.")
	}
	go func() {
		d.exit = c.Wait()
		close(d.ended)
	}()
	listener.Close() // or the connection would wait for a process that failed
	d.Client, err = nbd.NewClient(ctx, conn, nbd.Address{}, nbd.DialOptions{Contexts: []string{nbd.ContextAllocation}})
	if err == nil {
		return d, nil
	}
	if ctx.Err() != nil {
		d.kill()
		return nil, problem.From(context.Cause(ctx))
	}
	select {
	case <-d.ended: // it has said why
	case <-time.After(5 * time.Second):
		d.kill()
	}
	return nil, refusal(&toolError{d.said.line(), err}, path, format)
}

// connection makes both ends of a socket that nobody else can reach: one to
// listen on, and one that waits to be accepted there.
func connection() (listener *os.File, conn net.Conn, err error) {
	dir, err := os.MkdirTemp("", "diskvault-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "nbd")
	if len(path) > 100 { // the kernel takes 107
		short, err := os.MkdirTemp("/tmp", "diskvault-")
		if err != nil {
			return nil, nil, err
		}
		defer os.RemoveAll(short)
		path = filepath.Join(short, "nbd")
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if listener, err = l.(*net.UnixListener).File(); err != nil {
		return nil, nil, err
	}
	if conn, err = net.Dial("unix", path); err != nil {
		listener.Close()
		return nil, nil, err
	}
	return listener, conn, nil
}

func (d *Disk) kill() {
	_ = d.process.Process.Kill() // it may have ended
	<-d.ended
}

// Files are all files and block devices that the process has open: those that
// the disk consists of, whatever its format.
func (d *Disk) Files() ([]string, error) {
	dir := fmt.Sprintf("/proc/%d/fd", d.process.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	seen := map[[2]uint64]bool{}
	for _, e := range entries {
		if n, _ := strconv.Atoi(e.Name()); n < 3 {
			continue // standard input and outputs
		}
		at := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		if err := unix.Stat(at, &st); errors.Is(err, unix.ENOENT) {
			continue // closed meanwhile
		} else if err != nil {
			return nil, err
		}
		kind := st.Mode & unix.S_IFMT
		if kind != unix.S_IFREG && kind != unix.S_IFBLK || seen[[2]uint64{st.Dev, st.Ino}] {
			continue
		}
		seen[[2]uint64{st.Dev, st.Ino}] = true
		path, err := os.Readlink(at)
		if err != nil {
			return nil, err
		}
		files = append(files, path)
	}
	return files, nil
}

// closeLimit is how long the process may take to end.
const closeLimit = time.Minute

// Close ends the connection and waits for the process. After writing, call
// Flush before.
func (d *Disk) Close() error {
	d.closing.Do(func() {
		d.Client.Close()
		select {
		case <-d.ended:
			if d.exit != nil {
				d.closed = &toolError{d.said.line(), d.exit}
			}
		case <-time.After(closeLimit):
			d.kill()
			d.closed = errors.New("qemu-nbd did not end and was killed")
		}
	})
	return d.closed
}
