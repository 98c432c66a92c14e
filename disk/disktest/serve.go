package disktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Socket is a path for a socket, which has room for 107 bytes only.
func Socket(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// Serve runs a program that stays in the foreground and listens on a socket,
// until the end of the test. In its arguments %s stands for the path of the
// socket, which is given.
func Serve(t testing.TB, program string, args ...string) (socket string) {
	t.Helper()
	Need(t, program)
	socket = Socket(t)
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
		// Not by connecting: QEMU's server can abort when a client leaves while
		// they shake hands. Between the name and its use there are microseconds.
		if _, err := os.Stat(socket); err == nil {
			time.Sleep(20 * time.Millisecond)
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
