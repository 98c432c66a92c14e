package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/nbd"
)

// A machine has one NBD server at most. If it runs one already, the exports go
// there; else one is begun beside the monitor's socket, and ended with the Cut.

// ownServer is the path of the server that diskvault begins, the same in every
// run, so that one that was left behind is known.
func (m *Machine) ownServer() string {
	return filepath.Join(filepath.Dir(m.address.Socket), ".diskvault-"+m.tag()+".nbd")
}

// serve sees to it that a server runs, and gives its socket; "" if it is the
// machine's own and nobody knows where.
func (m *Machine) serve(ctx context.Context) (string, error) {
	own := m.ownServer()
	if len(own) > 107 {
		return "", problem.New(problem.SourceNotSupported, "The path %s is too long for a socket.", own).
			Do("Put the machine's QMP socket into a folder with a shorter path.")
	}
	err := m.monitor.run(ctx, "nbd-server-start", map[string]any{
		"addr": map[string]any{"type": "unix", "data": map[string]any{"path": own}}, "max-connections": 16,
	}, nil)
	if isRefused(err) && strings.Contains(err.Error(), "already running") {
		return m.address.NBD, nil
	}
	return own, err
}

// handshakes is how long clients that came and went may need inside the machine.
const handshakes = 50 * time.Millisecond

// stopServing ends our own server, if it is that which runs. It does not ask by
// connecting, and it waits a moment: QEMU 7.2 aborts, and its guest with it, if
// its server is stopped while a client is between connecting and choosing an
// export (CVE-2024-7409), be it only one that has just gone away.
func (m *Machine) stopServing(ctx context.Context) error {
	own := m.ownServer()
	if _, err := os.Lstat(own); err != nil {
		return nil
	}
	if slices.Contains(listening(m.process, false), own) {
		select {
		case <-time.After(handshakes):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := m.monitor.run(ctx, "nbd-server-stop", nil, nil); err != nil {
			return err
		}
	}
	// A machine that was killed leaves the socket's name behind.
	if err := os.Remove(own); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// servedAt finds the socket where an export is. Where the user did not say,
// those that the machine's process listens at are tried.
func (m *Machine) servedAt(ctx context.Context, socket, export string) (string, error) {
	candidates := []string{socket}
	if socket == "" && m.process != 0 {
		candidates = listening(m.process, true)
	}
	var last error
	for _, path := range candidates {
		if path == m.address.Socket {
			continue
		}
		client, err := nbd.Dial(ctx, nbd.Address{Network: "unix", Host: path, Export: export}, nbd.DialOptions{Timeout: dialLimit})
		if err == nil {
			return path, client.Close()
		}
		last = err
	}
	return "", problem.Wrap(last, problem.SourceNotSupported, "The machine runs an NBD server of its own, and its socket is not known.").
		Do("Say where it is: add &nbd=/PATH/SOCKET to the URL.")
}

// listening are the Unix sockets at which somebody listens, in the network of a
// process; with mine, only those of the process itself.
func listening(process int, mine bool) []string {
	at := "/proc"
	if process != 0 {
		at = fmt.Sprintf("/proc/%d", process)
	}
	table, err := os.Open(at + "/net/unix")
	if err != nil {
		return nil
	}
	defer table.Close()
	inodes := map[string]bool{}
	if mine {
		inodes = sockets(at + "/fd")
	}
	cwd, _ := os.Readlink(at + "/cwd")
	var out []string
	// Num RefCount Protocol Flags Type St Inode Path
	for lines := bufio.NewScanner(table); lines.Scan(); {
		f := strings.Fields(lines.Text())
		const listens = "00010000"
		if len(f) < 8 || f[3] != listens || mine && !inodes[f[6]] || strings.HasPrefix(f[7], "@") {
			continue
		}
		path := f[7]
		if !filepath.IsAbs(path) {
			path = filepath.Join(cwd, path)
		}
		out = append(out, path)
	}
	return out
}

// sockets are the inodes of those that a process has open, by its folder of
// descriptors.
func sockets(fds string) map[string]bool {
	out := map[string]bool{}
	entries, _ := os.ReadDir(fds) // of another user's process: none
	for _, e := range entries {
		if link, err := os.Readlink(filepath.Join(fds, e.Name())); err == nil && strings.HasPrefix(link, "socket:[") {
			out[strings.TrimSuffix(strings.TrimPrefix(link, "socket:["), "]")] = true
		}
	}
	return out
}
