package nbd

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/disk/disktest"
)

var ctx = context.Background()

// socketPath is a short path for a socket, which has room for 107 bytes.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

func unixAddress(socket, export string) Address {
	return Address{Network: "unix", Host: socket, Export: export}
}

// serve runs a server in the foreground until the end of the test; %s in its
// arguments stands for the path of the socket, which is given.
func serve(t testing.TB, program string, args ...string) (socket string) {
	t.Helper()
	disktest.Need(t, program)
	socket = socketPath(t)
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "%s", socket)
	}
	var said strings.Builder
	c := exec.Command(program, args...)
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		_ = c.Wait() // it is killed in the end
		close(gone)
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-gone
	})
	for range 1000 {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return socket
		}
		select {
		case <-gone:
			t.Fatalf("%s %s ended: %s", program, strings.Join(args, " "), said.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatalf("%s does not come up", program)
	return ""
}

// nbdkit serves with a plugin and its parameters.
func nbdkit(t testing.TB, args ...string) (socket string) {
	t.Helper()
	return serve(t, "nbdkit", append([]string{"-f", "-U", "%s"}, args...)...)
}

// qemuNBD serves an image file.
func qemuNBD(t testing.TB, args ...string) (socket string) {
	t.Helper()
	return serve(t, "qemu-nbd", append([]string{"-t", "-e", "8", "-k", "%s"}, args...)...)
}

func dial(t testing.TB, a Address, contexts ...string) *Client {
	t.Helper()
	c, err := Dial(ctx, a, DialOptions{Contexts: contexts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// noise is content that repeats nowhere, the same for the same seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = rng.Read(b)
	return b
}

func writeFile(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
