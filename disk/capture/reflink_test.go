package capture_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/disk/capture"
	"github.com/diskvault/diskvault/disk/disktest"
)

// tracking is what a view of a clone can do.
type tracking interface {
	capture.View
	Changed(ctx context.Context, token []byte) (capture.Changes, error)
	Keep(ctx context.Context, point string) (capture.Kept, error)
	Settle(ctx context.Context) error
}

// onClones runs a test on each file system that clones files.
func onClones(t *testing.T, test func(t *testing.T, dir string)) {
	for _, kind := range []string{"xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			dir, _ := disktest.FileSystem(t, kind, 512<<20)
			test(t, dir)
		})
	}
}

var reflink = capture.Reflink{Owner: "owner"}

func clone(t *testing.T, r capture.Reflink, path string) tracking {
	t.Helper()
	v, err := r.Capture(ctx, probe(t, path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v.(tracking)
}

func all(t *testing.T, v capture.View) []byte {
	t.Helper()
	b := make([]byte, v.Size())
	if err := v.Read(ctx, b, 0); err != nil {
		t.Fatal(err)
	}
	p, err := v.Prove(ctx)
	if err != nil || !p.Proven || p.Method != capture.MethodReflink {
		t.Fatalf("proof: %+v, %v", p, err)
	}
	return b
}

// keep settles the clone as that of a point.
func keep(t *testing.T, v tracking, point string) (token []byte) {
	t.Helper()
	k, err := v.Keep(ctx, point)
	if err != nil || k.Dropped != "" {
		t.Fatalf("it was not kept: %+v, %v", k, err)
	}
	if err := v.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return k.Token
}

func kept(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, ".diskvault-captures"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func write(t *testing.T, path string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		_, err = f.WriteAt(b, off)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestACloneShowsTheDiskAsItWas(t *testing.T) {
	onClones(t, func(t *testing.T, dir string) {
		path := image(t, dir)
		want := noise(1 << 20)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() // open for writing all the while
		v := clone(t, reflink, path)
		write(t, path, 5000, []byte("changed"))
		if !bytes.Equal(all(t, v), want) {
			t.Error("the view shows something else")
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, ".diskvault-captures")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a view that was not kept left something behind: %v", err)
		}
	})
}

func TestAClonedFileOverwrittenInPlace(t *testing.T) {
	dir, _ := disktest.FileSystem(t, "btrfs", 512<<20)
	disktest.Need(t, "chattr")
	path := disktest.Sparse(t, filepath.Join(dir, "disk.img"), 0)
	disktest.Run(t, "chattr", "+C", path)
	write(t, path, 0, noise(1<<20))
	if !bytes.Equal(all(t, clone(t, reflink, path)), noise(1<<20)) {
		t.Error("the view shows something else")
	}
}

func TestChangesBetweenTwoClones(t *testing.T) {
	onClones(t, func(t *testing.T, dir string) {
		path := disktest.Sparse(t, filepath.Join(dir, "disk.img"), 64<<20)
		write(t, path, 0, noise(8<<20))
		token := keep(t, clone(t, reflink, path), "p1")
		if names := kept(t, dir); len(names) != 1 || names[0] != "owner.p1" {
			t.Fatalf("kept: %v", names)
		}
		write(t, path, 3<<20, noise(8192))
		write(t, path, 40<<20, noise(4096))
		punch(t, path, 6<<20, 64<<10)
		v := clone(t, reflink, path)
		c, err := v.Changed(ctx, token)
		if err != nil || !c.Known || c.Method != "fiemap" {
			t.Fatalf("%+v, %v", c, err)
		}
		want := extent.Of(extent.Range{Off: 3 << 20, Len: 8192}, extent.Range{Off: 40 << 20, Len: 4096}, extent.Range{Off: 6 << 20, Len: 64 << 10})
		if !c.Ranges.Equal(want) {
			t.Errorf("changed: %v, want %v", c.Ranges, want)
		}
		keep(t, v, "p2")
		if names := kept(t, dir); len(names) != 1 || names[0] != "owner.p2" {
			t.Errorf("kept: %v", names)
		}
	})
}

func punch(t *testing.T, path string, off, length int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// The place that btrfs tells of a compressed extent is that of its beginning,
// wherever in it a piece lies: two pieces look the same and are not.
func TestPiecesOfOneCompressedExtentCountAsChanged(t *testing.T) {
	dir, _ := disktest.FileSystem(t, "btrfs", 512<<20)
	disktest.Run(t, "mount", "-o", "remount,compress-force=zstd", dir)
	from, path := filepath.Join(dir, "from"), filepath.Join(dir, "disk.img")
	content := make([]byte, 128<<10)
	for i := range content {
		content[i] = 'A' + byte(i/4096)
	}
	write(t, from, 0, content)
	disktest.Run(t, "sync", "-f", dir)
	disktest.Sparse(t, path, 8192)
	cloneRange(t, from, 0, path)
	first := clone(t, reflink, path)
	before := all(t, first)
	token := keep(t, first, "p1")
	cloneRange(t, from, 4096, path)
	v := clone(t, reflink, path)
	if bytes.Equal(all(t, v), before) {
		t.Fatal("the content is the same")
	}
	c, err := v.Changed(ctx, token)
	if err != nil || !c.Known || !c.Ranges.Covers(extent.Range{Len: 4096}) {
		t.Errorf("%+v, %v: the change was missed", c, err)
	}
}

// cloneRange makes the first 4096 bytes of a file share a piece of another.
func cloneRange(t *testing.T, from string, off uint64, to string) {
	t.Helper()
	a, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	r := unix.FileCloneRange{Src_fd: int64(a.Fd()), Src_offset: off, Src_length: 4096}
	if err := unix.IoctlFileCloneRange(int(b.Fd()), &r); err != nil {
		t.Fatal(err)
	}
	if err := b.Sync(); err != nil {
		t.Fatal(err)
	}
}

// A small file of btrfs lies with its metadata, and its place is told as zero.
func TestAFileKeptWithItsMetadataCountsAsChanged(t *testing.T) {
	dir, _ := disktest.FileSystem(t, "btrfs", 512<<20)
	path := filepath.Join(dir, "disk.img")
	write(t, path, 0, noise(1000))
	token := keep(t, clone(t, reflink, path), "p1")
	write(t, path, 0, make([]byte, 1000))
	c, err := clone(t, reflink, path).Changed(ctx, token)
	if err != nil || !c.Known || !c.Ranges.Covers(extent.Range{Len: 1000}) {
		t.Errorf("%+v, %v: the change was missed", c, err)
	}
}

func TestACloneThatIsNoLongerTheSameIsNotComparedWith(t *testing.T) {
	onClones(t, func(t *testing.T, dir string) {
		hidden := filepath.Join(dir, ".diskvault-captures")
		for _, c := range []struct{ what, reason string }{
			{"nothing", ""},
			{"empty", "no capture"},
			{"garbage", "in another way"},
			{"dropped", "was not kept: why"},
			{"remove", "is gone"},
			{"link", "is gone"},
			{"write", "written to"},
			{"truncate", "written to"},
			{"touch", "written to"},
			{"replace", "written to"},
			{"mount", ""},
		} {
			t.Run(c.what, func(t *testing.T) {
				path := filepath.Join(dir, "disk.img")
				write(t, path, 0, noise(1<<20))
				token := keep(t, clone(t, reflink, path), c.what)
				at := filepath.Join(hidden, "owner."+c.what)
				switch c.what {
				case "empty":
					token = nil
				case "garbage":
					token = []byte(`{"method":"lvm","name":"x"}`)
				case "dropped":
					token = []byte(`{"method":"reflink","dropped":"why"}`)
				case "remove":
					disktest.Run(t, "rm", at)
				case "link":
					disktest.Run(t, "mv", hidden, hidden+"2")
					disktest.Run(t, "ln", "-s", hidden+"2", hidden)
					defer disktest.Run(t, "rm", "-rf", hidden+"2", hidden)
				case "write":
					write(t, at, 77, []byte("x"))
				case "truncate":
					disktest.Run(t, "truncate", "-s", "1000", at)
				case "touch":
					disktest.Run(t, "touch", "-d", "2001-01-01", at)
				case "replace":
					disktest.Run(t, "sh", "-c", fmt.Sprintf("cp -p --reflink=always %s %s.2 && mv %s.2 %s", at, at, at, at))
				case "mount":
					other, _ := disktest.FileSystem(t, "xfs", 512<<20)
					disktest.Run(t, "sh", "-c", fmt.Sprintf("cp -a %s/. %s", hidden, other))
					disktest.Run(t, "mount", "--bind", other, hidden)
					defer disktest.Run(t, "umount", hidden)
				}
				v := clone(t, reflink, path)
				got, err := v.Changed(ctx, token)
				if err != nil {
					t.Fatal(err)
				}
				if known := c.what == "nothing"; got.Known != known || got.Ranges != nil || !strings.Contains(got.Reason, c.reason) {
					t.Errorf("%+v, want a reason with %q", got, c.reason)
				}
				if err := v.Close(); err != nil {
					t.Fatal(err)
				}
			})
		}
	})
}

func TestClonesOfPointsThatDoNotExistAreRemoved(t *testing.T) {
	onClones(t, func(t *testing.T, dir string) {
		path := image(t, dir)
		token := keep(t, clone(t, reflink, path), "p1")
		hidden := filepath.Join(dir, ".diskvault-captures")
		for _, name := range []string{"owner.killed", "other.p7"} {
			if err := os.WriteFile(filepath.Join(hidden, name), nil, 0o400); err != nil {
				t.Fatal(err)
			}
		}
		held, err := os.Create(filepath.Join(hidden, "owner.inuse"))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		v := clone(t, reflink, path)
		if _, err := v.Changed(ctx, token); err != nil {
			t.Fatal(err)
		}
		if names := kept(t, dir); fmt.Sprint(names) != "[other.p7 owner.inuse owner.p1]" {
			t.Errorf("after a comparison: %v", names)
		}
		if k, err := v.Keep(ctx, "p2"); err != nil || k.Dropped != "" {
			t.Fatal(k, err)
		}
		v.Close() // no point came of it
		if names := kept(t, dir); fmt.Sprint(names) != "[other.p7 owner.inuse owner.p1]" {
			t.Errorf("after a backup that failed: %v", names)
		}
		held.Close()
		keep(t, clone(t, reflink, path), "p3")
		if names := kept(t, dir); fmt.Sprint(names) != "[other.p7 owner.p3]" {
			t.Errorf("after a backup: %v", names)
		}
	})
}

// scatter makes a file of many extents.
func scatter(t *testing.T, path string, extents int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(extents) * 8192); err != nil {
		t.Fatal(err)
	}
	b := noise(4096)
	for i := range extents {
		if _, err := f.WriteAt(b, int64(i)*8192); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func TestAFileOfTooManyExtentsIsNotCloned(t *testing.T) {
	onClones(t, func(t *testing.T, dir string) {
		path := filepath.Join(dir, "disk.img")
		scatter(t, path, 2000)
		o := capture.Options{Owner: "owner", StallBudget: 10 * time.Millisecond}
		a, err := o.Assess(ctx, probe(t, path))
		if err != nil || a.Method != capture.MethodQuiescent || a.Tracking != "none" || len(a.Refusals) != 1 || len(a.Better) == 0 ||
			!strings.Contains(a.Refusals[0].Reason, "2000 extents") {
			t.Errorf("%+v, %v", a, err)
		}
		_, stop := start(t, "hold", path)
		defer stop()
		v, err := o.Capture(ctx, probe(t, path))
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		p, err := v.Prove(ctx)
		if err != nil || p.Proven || !strings.Contains(p.Reason, "open for writing") || !strings.Contains(p.Reason, "2000 extents") {
			t.Errorf("%+v, %v", p, err)
		}

		o.StallBudget = 0
		if a, err = o.Assess(ctx, probe(t, path)); err != nil || a.Method != capture.MethodReflink || a.Extents != 2000 || a.Tracking != "fiemap" || a.Refused != "" {
			t.Errorf("%+v, %v", a, err)
		}
		r := capture.Reflink{Owner: "owner", StallBudget: 60 * time.Millisecond}
		n, ok := clone(t, r, path).(interface{ Notices() []string })
		if notices := n.Notices(); !ok || strings.HasSuffix(dir, "xfs") && len(notices) == 0 {
			t.Errorf("no warning: %v", notices)
		}
	})
}

func TestACloneThatCostsTooMuchIsNotKept(t *testing.T) {
	onClones(t, func(t *testing.T, dir string) {
		path := filepath.Join(dir, "disk.img")
		write(t, path, 0, noise(1<<20))
		token := keep(t, clone(t, reflink, path), "p1")

		// So many extents came that as many again would be too many.
		scatter(t, path, 1500)
		budget := map[string]time.Duration{"xfs": 25, "btrfs": 10}[probe(t, path).FileSystem.Name] * 2000 * time.Microsecond
		v := clone(t, capture.Reflink{Owner: "owner", StallBudget: budget}, path)
		if _, err := v.Changed(ctx, token); err != nil {
			t.Fatal(err)
		}
		k, err := v.Keep(ctx, "p2")
		if err != nil || !strings.Contains(k.Dropped, "1500 extents") {
			t.Errorf("%+v, %v", k, err)
		}
		v.Close()

		// No room.
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		fill := filepath.Join(dir, "fill")
		f, err := os.Create(fill)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-30<<20); err != nil {
			t.Fatal(err)
		}
		v = clone(t, reflink, path)
		if k, err = v.Keep(ctx, "p3"); err != nil || !strings.Contains(k.Dropped, "MiB free") {
			t.Fatalf("%+v, %v", k, err)
		}
		if err := v.Settle(ctx); err != nil {
			t.Fatal(err)
		}
		v.Close()
		if names := kept(t, dir); names != nil {
			t.Errorf("kept: %v", names)
		}
		c, err := clone(t, reflink, path).Changed(ctx, k.Token)
		if err != nil || c.Known || !strings.Contains(c.Reason, "MiB free") {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

func TestWhatCannotBeClonedSaysWhy(t *testing.T) {
	old := disktest.Sparse(t, filepath.Join(t.TempDir(), "old.img"), 512<<20)
	disktest.NeedRoot(t)
	disktest.Need(t, "mkfs.xfs")
	disktest.Run(t, "mkfs.xfs", "-q", "-m", "reflink=0", old)
	without := disktest.Mount(t, disktest.Loop(t, old), "xfs")
	with, _ := disktest.FileSystem(t, "xfs", 512<<20)
	qcow := filepath.Join(with, "q.img")
	disktest.Need(t, "qemu-img")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", qcow, "1M")
	for _, c := range []struct{ path, reason string }{
		{image(t, without), "without reflinks"},
		{qcow, "qcow2 container"},
	} {
		_, err := reflink.Capture(ctx, probe(t, c.path))
		if err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v, want %q", c.path, err, c.reason)
		}
		a, err := capture.Options{}.Assess(ctx, probe(t, c.path))
		if err != nil || a.Method != capture.MethodQuiescent || len(a.Refusals) != 1 || !strings.Contains(a.Refusals[0].Reason, c.reason) {
			t.Errorf("%+v, %v", a, err)
		}
	}
}

func TestNothingOfAnAssessmentStays(t *testing.T) {
	onClones(t, func(t *testing.T, dir string) {
		path := image(t, dir)
		if _, err := (capture.Options{Owner: "o"}).Assess(ctx, probe(t, path)); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("%v, %v", entries, err)
		}
	})
}

func TestClonesAreForgotten(t *testing.T) {
	onClones(t, func(t *testing.T, dir string) {
		path := filepath.Join(dir, "disk.img")
		write(t, path, 0, make([]byte, 1<<20))
		var tokens [][]byte
		for _, owner := range []string{"gone", "stays"} {
			tokens = append(tokens, keep(t, clone(t, capture.Reflink{Owner: owner}, path), "p1"))
		}
		moved := filepath.Join(t.TempDir(), "disk.img") // where it is now, its capture is not
		if err := capture.Forget(t.Context(), "gone", moved, tokens[0]); err != nil {
			t.Fatal(err)
		}
		if got := kept(t, dir); len(got) != 1 || got[0] != "stays.p1" {
			t.Errorf("kept %v", got)
		}
		if err := capture.Forget(t.Context(), "stays", path, nil); err != nil {
			t.Fatal(err)
		}
		if got := kept(t, dir); len(got) != 0 {
			t.Errorf("kept %v", got)
		}
	})
}
