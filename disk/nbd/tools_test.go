package nbd

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskvault/diskvault/disk/disktest"
)

var ctx = context.Background()

func unixAddress(socket, export string) Address {
	return Address{Network: "unix", Host: socket, Export: export}
}

// nbdkit serves with a plugin and its parameters.
func nbdkit(t testing.TB, args ...string) (socket string) {
	t.Helper()
	return disktest.Serve(t, "nbdkit", append([]string{"-f", "-U", "%s"}, args...)...)
}

// qemuNBD serves an image file.
func qemuNBD(t testing.TB, args ...string) (socket string) {
	t.Helper()
	return disktest.Serve(t, "qemu-nbd", append([]string{"-t", "-e", "8", "-k", "%s"}, args...)...)
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
