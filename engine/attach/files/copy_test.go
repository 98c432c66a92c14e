package files

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskvault/diskvault/base/problem"
)

// TestCopyKeepsEverything copies trees out of images and compares them with
// what the kernel shows.
func TestCopyKeepsEverything(t *testing.T) {
	for _, c := range []struct {
		name string
		mkfs []string
	}{
		{"ext4", []string{"mkfs.ext4", "-q", "-b", "4096"}},
		{"xfs", []string{"mkfs.xfs", "-q"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			needs(t, true, c.mkfs[0], "mount", "setfacl")
			image := blank(t, 320<<20)
			tool(t, c.mkfs[0], append(c.mkfs[1:], image)...)
			dir, unmount := mounted(t, image)
			has := traits{unix: true, xattrs: true, acls: true, links: true, symlink: true, big: 300, values: 10}
			populate(t, dir, has)
			want := faces(t, dir, has)
			unmount()
			fs := lone(t, image)
			to := filepath.Join(t.TempDir(), "copy")
			var p Progress
			r, err := fs.Copy(t.Context(), "/", to, false, &p)
			must(t, err)
			if r.FailedCount != 0 || r.NotKept != 0 || r.Target != to || p.Bytes.Load() != r.Bytes || r.Links != 2 || r.Bytes > 40<<20 {
				t.Errorf("%+v", r)
			}
			must(t, os.RemoveAll(filepath.Join(to, "lost+found")))
			got := faces(t, to, has)
			same(t, withoutRoot(got), withoutRoot(want))

			// Once more onto it is refused, or replaces.
			if _, err := fs.Copy(t.Context(), "/sizes", to, false, &p); !problem.Is(err, problem.TargetExists) {
				t.Errorf("onto what exists: %v", err)
			}
			must(t, os.WriteFile(filepath.Join(to, "sizes/100"), []byte("other"), 0o600))
			if _, err := fs.Copy(t.Context(), "/sizes", to, true, &p); err != nil {
				t.Errorf("overwriting: %v", err)
			}
			if b, err := os.ReadFile(filepath.Join(to, "sizes/100")); err != nil || len(b) != 100 {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := fs.Copy(ctx, "/sizes/5000000", filepath.Join(to, "never"), false, &p); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
			if all, _ := filepath.Glob(filepath.Join(to, "*"+temporary+"*")); len(all) > 0 {
				t.Errorf("left behind: %v", all)
			}
		})
	}
}

// withoutRoot leaves away the topmost folder, whose number of links changes
// with lost+found.
func withoutRoot(all map[string]face) map[string]face {
	delete(all, ".")
	return all
}

// TestCopyGoesOnBehindDamage damages one inode.
func TestCopyGoesOnBehindDamage(t *testing.T) {
	needs(t, false, "mkfs.ext4", "debugfs")
	src := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		must(t, os.WriteFile(filepath.Join(src, name), []byte(strings.Repeat(name, 5000)), 0o644))
	}
	image := blank(t, 16<<20)
	tool(t, "mkfs.ext4", "-q", "-d", src, image)
	fs := lone(t, image)
	a, err := fs.Find("b")
	must(t, err)
	where := tool(t, "debugfs", "-R", "imap b", image)
	if a.Size != 5000 || !strings.Contains(where, "located at block") {
		t.Fatalf("%+v\n%s", a, where)
	}
	tool(t, "debugfs", "-w", "-R", "set_inode_field b checksum 1", image)
	fs = lone(t, image)
	to := t.TempDir()
	var p Progress
	r, err := fs.Copy(t.Context(), "/", to, false, &p)
	must(t, err)
	if r.Files != 2 || r.FailedCount != 1 || !strings.HasSuffix(r.Failed[0].Path, "/b") || !strings.Contains(r.Failed[0].Reason, "checksum") || r.Target != filepath.Join(to, Whole) {
		t.Errorf("%+v", r)
	}
	if _, err := fs.Copy(t.Context(), "/b", to, false, &p); !problem.Is(err, problem.FileSystemDamaged) {
		t.Errorf("alone: %v", err)
	}
	if _, err := fs.Copy(t.Context(), "/nothing", to, false, &p); !problem.Is(err, problem.FileNotFound) {
		t.Errorf("what is not there: %v", err)
	}
}

// TestFindFollowsLinksWithinTheVolume leads paths over symbolic links.
func TestFindFollowsLinksWithinTheVolume(t *testing.T) {
	needs(t, false, "mkfs.ext4")
	src := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(src, "a/b"), 0o755))
	must(t, os.WriteFile(filepath.Join(src, "a/b/file"), []byte("12345"), 0o644))
	for name, target := range map[string]string{"rel": "a/b", "abs": "/a/b", "up": "../../../a", "a/b/back": "../../rel", "loop": "loop", "out": "/etc", "tofile": "tofile2", "tofile2": "a/b/file"} {
		must(t, os.Symlink(target, filepath.Join(src, name)))
	}
	image := blank(t, 16<<20)
	tool(t, "mkfs.ext4", "-q", "-d", src, image)
	fs := lone(t, image)
	for path, size := range map[string]int64{"a/b/file": 5, "rel/file": 5, "/abs/file": 5, "up/b/file": 5, "rel/back/back/file": 5,
		"a/../../a/b/./file": 5, "tofile/": 5, "loop/x": -1, "loop/": -1, "out/passwd": -1, "a/b/file/": -1, "a/none": -1} {
		a, err := fs.Find(path)
		if size < 0 && !problem.Is(err, problem.FileNotFound) || size >= 0 && (err != nil || a.Size != size) {
			t.Errorf("%s: %+v, %v", path, a, err)
		}
	}
	if a, err := fs.Find("rel"); err != nil || a.Kind != Symlink {
		t.Errorf("a link itself: %+v, %v", a, err)
	}
	if a, err := fs.Find("rel/"); err != nil || a.Kind != Directory {
		t.Errorf("what it leads to: %+v, %v", a, err)
	}
}
