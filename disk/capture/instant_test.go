package capture

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/disktest"
)

func TestCloneOfAKeptCapture(t *testing.T) {
	dir, _ := disktest.FileSystem(t, "xfs", 400<<20)
	path := filepath.Join(dir, "disk.img")
	content := bytes.Repeat([]byte("as it was. "), 1<<20)
	content = content[:8<<20]
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := disk.Probe(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	view, err := Options{Owner: "owner"}.Capture(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := view.(*reflinkView).Keep(t.Context(), "point")
	if err != nil || kept.Dropped != "" {
		t.Fatal(err, kept.Dropped)
	}
	if err := view.(*reflinkView).Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := view.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("as it is. "), 1<<19), 0o600); err != nil {
		t.Fatal(err)
	}

	to := filepath.Join(dir, "new.img")
	if why, err := CloneKept(kept.Token, int64(len(content)), to); why != "" || err != nil {
		t.Fatal(why, err)
	}
	got, err := os.ReadFile(to)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("the clone is not the capture (%v)", err)
	}
	if _, err := CloneKept(kept.Token, int64(len(content)), to); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	// Whoever writes to the clone does not write to the capture.
	if err := os.WriteFile(to, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(dir, "again.img")
	if why, err := CloneKept(kept.Token, int64(len(content)), again); why != "" || err != nil {
		t.Fatal(why, err)
	}
	if got, _ := os.ReadFile(again); !bytes.Equal(got, content) {
		t.Error("the capture was changed through a clone")
	}
	for name, why := range map[string]func() (string, error){
		"another size": func() (string, error) { return CloneKept(kept.Token, 1, filepath.Join(dir, "a")) },
		"another file system": func() (string, error) {
			return CloneKept(kept.Token, int64(len(content)), filepath.Join(t.TempDir(), "a"))
		},
		"no token": func() (string, error) { return CloneKept(nil, int64(len(content)), filepath.Join(dir, "a")) },
		"written to": func() (string, error) {
			names, _ := filepath.Glob(filepath.Join(dir, folderName, "*"))
			if err := os.Chmod(names[0], 0o600); err != nil {
				t.Fatal(err)
			}
			return CloneKept(kept.Token, int64(len(content)), filepath.Join(dir, "a"))
		},
	} {
		if reason, err := why(); reason == "" || err != nil {
			t.Errorf("%s: %q, %v", name, reason, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "a")); err == nil {
			t.Errorf("%s: there is a file", name)
		}
	}
}
