package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The way of file systems that cannot rename without replacing.
func TestRelink(t *testing.T) {
	path := t.TempDir()
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(path, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.relink("a", "b"); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("a taken name gives %v", err)
	}
	if err := r.relink("a", "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Stat("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the old name is still there: %v", err)
	}
	// A repeated request finds its own success.
	if err := os.Link(filepath.Join(path, "c"), filepath.Join(path, "d")); err != nil {
		t.Fatal(err)
	}
	if err := r.relink("c", "d"); err != nil {
		t.Fatalf("the same file under both names gives %v", err)
	}
	if got, _ := os.ReadFile(filepath.Join(path, "d")); string(got) != "a" {
		t.Fatalf("the file holds %q", got)
	}
}

func TestLackingRename(t *testing.T) {
	for err, want := range map[error]bool{unix.EINVAL: true, unix.ENOSYS: true, unix.EOPNOTSUPP: true, unix.EEXIST: false, unix.EIO: false, nil: false} {
		if lacking(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
}
