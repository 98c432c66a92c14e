package proof

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/disk/disktest"
	"github.com/diskvault/diskvault/engine/attach/overlay"
)

// image is a file as the base of an overlay.
type image struct {
	*os.File
	size int64
}

func (i image) Size() int64 { return i.size }

func (i image) Read(_ context.Context, p []byte, off int64) error {
	_, err := i.ReadAt(p, off)
	return err
}

func (i image) NextData(_ context.Context, off int64) (int64, bool, error) { return off, true, nil }

func (i image) Data(_ context.Context, off, length int64) (extent.Set, error) {
	return extent.Of(extent.Between(off, off+length)), nil
}

func fsck(t *testing.T, path string) []Volume {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	d, err := overlay.Scratch(image{f, info.Size()}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	found, err := FSCK(t.Context(), d, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestFileSystems(t *testing.T) {
	disktest.Need(t, "fusermount3")
	for kind, make := range map[string]struct {
		args  []string
		check string // the checker's program
	}{
		"ext4":  {[]string{"mkfs.ext4", "-q"}, "e2fsck"},
		"xfs":   {[]string{"mkfs.xfs", "-q"}, "xfs_repair"},
		"btrfs": {[]string{"mkfs.btrfs", "-q"}, "btrfs"},
		"vfat":  {[]string{"mkfs.vfat"}, "fsck.fat"},
		"ntfs":  {[]string{"mkfs.ntfs", "-q", "-F"}, "ntfsfix"},
	} {
		t.Run(kind, func(t *testing.T) {
			disktest.Need(t, make.args[0], make.check)
			path := disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.img"), 320<<20)
			disktest.Run(t, make.args[0], append(make.args[1:], path)...)
			before := disktest.Run(t, "sha256sum", path)
			if got := fsck(t, path); len(got) != 1 || got[0].Verdict != Clean || got[0].Kind != kind || got[0].Checker == "" {
				t.Fatalf("a new file system: %+v", got)
			}
			if disktest.Run(t, "sha256sum", path) != before {
				t.Error("the check changed the disk")
			}
		})
	}
}

// A crash leaves a journal, which is no fault; what lies outside of it is.
func TestExtJournalAndDamage(t *testing.T) {
	disktest.Need(t, "mkfs.ext4", "e2fsck", "debugfs", "fusermount3")
	path := disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.img"), 64<<20)
	disktest.Run(t, "mkfs.ext4", "-q", path)
	commands := filepath.Join(t.TempDir(), "commands")
	if err := os.WriteFile(commands, []byte("jo\njw -b 333 /dev/zero\njc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	disktest.Run(t, "debugfs", "-w", "-f", commands, path)
	out, _ := exec.Command("dumpe2fs", "-h", path).CombinedOutput()
	if !strings.Contains(string(out), "needs_recovery") {
		t.Fatalf("no journal is left:\n%s", out)
	}
	if got := fsck(t, path); got[0].Verdict != Clean {
		t.Errorf("a journal is held against it: %+v", got)
	}
	disktest.Run(t, "debugfs", "-w", "-R", "set_inode_field <2> links_count 77", path)
	if got := fsck(t, path); got[0].Verdict != Damaged || got[0].Output == "" {
		t.Errorf("a wrong count of links was not found: %+v", got)
	}
}

func TestNothingKnown(t *testing.T) {
	disktest.Need(t, "fusermount3")
	path := disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.img"), 1<<20)
	for _, v := range fsck(t, path) {
		if v.Verdict != Unknown || v.Reason == "" {
			t.Errorf("%+v", v)
		}
	}
}
