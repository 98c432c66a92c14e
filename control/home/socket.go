package home

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	socketName  = "diskvault.sock"
	elsewhere   = "diskvault.sock.path" // holds the socket's path where the folder cannot hold a socket
	longestPath = 107                   // what fits in sockaddr_un
)

// listener is the owner's socket.
type listener struct {
	net.Listener
	clean func()
}

// listen makes the socket of the folder, which the process must own: what lies
// there is of a dead owner. Connections wait from now on.
func (f Folder) listen() (*listener, error) {
	path := filepath.Join(f.path, socketName)
	os.Remove(filepath.Join(f.path, elsewhere))
	os.Remove(path)
	l, err := listenAt(path)
	if err == nil {
		return l, nil
	}
	// Some file systems hold no sockets. Then it lies in a private folder
	// of its own, and a file says where.
	dir, derr := os.MkdirTemp("", "diskvault-")
	if derr != nil {
		return nil, errors.Join(err, derr)
	}
	path = filepath.Join(dir, socketName)
	l, derr = listenAt(path)
	if derr == nil {
		derr = os.WriteFile(filepath.Join(f.path, elsewhere), []byte(path), 0o600)
	}
	if derr != nil {
		os.RemoveAll(dir)
		return nil, errors.Join(err, derr)
	}
	inner := l.clean
	l.clean = func() {
		inner()
		os.Remove(filepath.Join(f.path, elsewhere))
		os.RemoveAll(dir)
	}
	return l, nil
}

// listenAt listens at a path of any length. Between bind and chmod the folder
// itself, which only its owner can enter, keeps others out.
func listenAt(path string) (*listener, error) {
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		done()
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		done()
		return nil, err
	}
	return &listener{l, func() { os.Remove(path); done() }}, nil
}

// close removes the socket first, so that nobody finds it when the folder has
// a new owner.
func (l *listener) close() {
	l.clean()
	l.Listener.Close()
}

// dial connects to the owner's socket.
func (f Folder) dial(ctx context.Context) (net.Conn, error) {
	path := filepath.Join(f.path, socketName)
	if data, err := os.ReadFile(filepath.Join(f.path, elsewhere)); err == nil {
		path = strings.TrimSpace(string(data))
	}
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	return d.DialContext(ctx, "unix", short)
}

// shorten gives a path to the same place that fits into a socket address: one
// that goes through an open descriptor of the folder.
func shorten(path string) (short string, done func(), err error) {
	if len(path) <= longestPath {
		return path, func() {}, nil
	}
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path)), func() { unix.Close(fd) }, nil
}
