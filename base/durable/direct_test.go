package durable

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever way a write takes, past the page cache or through it, the file must
// hold exactly the bytes.
func TestLargeWritesOfAnyLengthAndPlaceInMemory(t *testing.T) {
	memory, err := unix.Mmap(-1, 0, 4<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range memory {
		memory[i] = byte(r.Uint32())
	}
	dir := t.TempDir()
	root, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for i, c := range []struct{ skip, length int }{
		{0, directFrom - 1}, {0, directFrom}, {0, directFrom + 1}, {0, directFrom + directAlign - 1},
		{0, 3<<20 + 12345}, {8, directFrom + 77}, {directAlign, 2 << 20},
	} {
		want := memory[c.skip : c.skip+c.length]
		name := fmt.Sprintf("file-%d", i)
		if err := WriteFile(root, name, 0o600, [][]byte{want}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes from %d: came back different (%v)", c.length, c.skip, err)
		}
	}
}
