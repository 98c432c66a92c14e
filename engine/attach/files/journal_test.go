package files

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// snapshot copies an image as it is at this moment, the file system in use.
func snapshot(t *testing.T, image string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "snapshot.img")
	tool(t, "cp", "--sparse=always", image, to)
	return to
}

// TestReplaysTheJournal takes images of a file system at work and compares
// what is read with what the kernel makes of them when it replays the journal.
func TestReplaysTheJournal(t *testing.T) {
	for name, args := range map[string][]string{
		"usual": {"-b", "4096"},
		"plain": {"-b", "1024", "-O", "^metadata_csum,^64bit"},
	} {
		t.Run(name, func(t *testing.T) {
			needs(t, true, "mkfs.ext4", "mount")
			image := blank(t, 128<<20)
			tool(t, "mkfs.ext4", append(append([]string{"-q", "-J", "size=8"}, args...), image)...)
			dir, unmount := mounted(t, image, "data=journal")
			has := traits{unix: true, xattrs: true, links: true, symlink: true, big: 200}
			populate(t, dir, has)
			for round := range 3 {
				for i := range 60 {
					must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("round%d-%d", round, i)), []byte(fmt.Sprintf("\xc0\x3b\x39\x98 begins like a block of the journal %d", i)), 0o644))
					if i%2 == 0 && round > 0 {
						must(t, os.Remove(filepath.Join(dir, fmt.Sprintf("round%d-%d", round-1, i))))
					}
				}
				must(t, os.RemoveAll(filepath.Join(dir, fmt.Sprintf("folder%d", round-1))))
				for i := range 30 {
					must(t, os.MkdirAll(filepath.Join(dir, fmt.Sprintf("folder%d/in%d", round, i)), 0o755))
				}
				d, err := os.Open(dir)
				must(t, err)
				must(t, d.Sync())
				d.Close()
				copied := snapshot(t, image)
				fs := lone(t, copied)
				if v := fs.Volume(); !v.Replayed || v.Stale != "" {
					t.Fatalf("the journal was not replayed: %+v", v)
				}
				got := read(t, fs, has)
				replayed, off := mounted(t, copied)
				want := faces(t, replayed, has)
				off()
				same(t, got, want)
			}
			unmount()
		})
	}
}

// TestTellsThatTheLogWasOpen holds that staleness is said where a log is not
// replayed, and only there.
func TestTellsThatTheLogWasOpen(t *testing.T) {
	needs(t, true, "mkfs.xfs", "mount")
	image := blank(t, 320<<20)
	tool(t, "mkfs.xfs", "-q", image)
	if v := lone(t, image).Volume(); v.Stale != "" {
		t.Errorf("new: %s", v.Stale)
	}
	for round := range 3 { // the log goes round
		dir, unmount := mounted(t, image)
		for i := range 200 {
			must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d-%d", round, i)), make([]byte, 5000), 0o644))
		}
		d, err := os.Open(dir)
		must(t, err)
		must(t, d.Sync())
		d.Close()
		tool(t, "sync", "-f", dir)
		if v := lone(t, image).Volume(); v.Stale == "" {
			t.Error("in use, and nothing is said")
		}
		unmount()
		if v := lone(t, image).Volume(); v.Stale != "" {
			t.Errorf("unmounted: %s", v.Stale)
		}
	}
}

// section is a part of a file that ends early or holds garbage.
type section struct {
	io.ReaderAt
	size int64
}

func (s section) ReadAt(p []byte, off int64) (int, error) {
	if off >= s.size {
		return 0, io.EOF
	}
	if int64(len(p)) > s.size-off {
		n, err := s.ReaderAt.ReadAt(p[:s.size-off], off)
		if err == nil {
			err = io.EOF
		}
		return n, err
	}
	return s.ReaderAt.ReadAt(p, off)
}
