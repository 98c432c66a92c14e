package fuse

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
)

// plain is a file that stands for a point.
type plain struct {
	*os.File
	size int64
}

func (p plain) Size() int64 { return p.size }

func (p plain) Read(_ context.Context, b []byte, off int64) error {
	_, err := p.ReadAt(b, off)
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func needs(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip("skip: needs " + p)
		}
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skip("skip: needs /dev/fuse")
	}
	f.Close()
}

// opened is an image as a disk.
func opened(t testing.TB, path string) plain {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	must(t, err)
	return plain{f, st.Size()}
}

// source is a folder with some of everything that needs no privilege.
func source(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755))
	for name, n := range map[string]int{"empty": 0, "a/small": 100, "a/b/large": 3 << 20, "a/b/c/odd": 70_001} {
		must(t, os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte(name), n/len(name)), 0o640))
	}
	must(t, os.Link(filepath.Join(dir, "a/small"), filepath.Join(dir, "a/hard")))
	must(t, os.Symlink("a/b", filepath.Join(dir, "link")))
	f, err := os.Create(filepath.Join(dir, "holes"))
	must(t, err)
	_, err = f.WriteAt([]byte("data"), 5<<20)
	must(t, err)
	must(t, f.Truncate(10<<20))
	must(t, f.Close())
	return dir
}

// disk has a partition with ext4, one with XFS and one with nothing known.
func makeDisk(t testing.TB, src string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk.img")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 512<<20))
	cmd := exec.Command("sfdisk", "-q", image)
	cmd.Stdin = strings.NewReader("label: gpt\nsize=64MiB, name=\"system\"\nsize=320MiB\nsize=8MiB\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	tool(t, "mkfs.ext4", "-q", "-d", src, "-E", "offset=1048576", image, "64M")
	second := filepath.Join(t.TempDir(), "xfs")
	must(t, os.WriteFile(second, nil, 0o600))
	must(t, os.Truncate(second, 320<<20))
	tool(t, "mkfs.xfs", "-q", second)
	tool(t, "dd", "if="+second, "of="+image, "bs=1M", "seek=65", "conv=notrunc,sparse", "status=none")
	return image
}

func mount(t testing.TB, o Options) *Mount {
	t.Helper()
	m, err := New(o)
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

func TestAMountShowsTheDiskAndItsFiles(t *testing.T) {
	needs(t, "mkfs.ext4", "mkfs.xfs", "sfdisk", "fusermount3", "e2fsck", "xfs_repair")
	src := source(t)
	image := makeDisk(t, src)
	dir := filepath.Join(t.TempDir(), "made by the mount")
	when := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	m := mount(t, Options{Dir: dir, Disk: opened(t, image), Time: when})

	tool(t, "cmp", image, filepath.Join(dir, "disk.img"))
	tool(t, "diff", "-r", "--no-dereference", "--exclude=lost+found", src, filepath.Join(dir, "files/p1"))
	for _, name := range []string{"a/small", "holes", "link"} {
		want, err := os.Lstat(filepath.Join(src, name))
		must(t, err)
		got, err := os.Lstat(filepath.Join(dir, "files/p1", name))
		must(t, err)
		if got.Mode() != want.Mode() || got.Size() != want.Size() || !got.ModTime().Equal(want.ModTime().Truncate(time.Second)) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	a, err := os.Stat(filepath.Join(dir, "files/p1/a/small"))
	must(t, err)
	b, err := os.Stat(filepath.Join(dir, "files/p1/a/hard"))
	must(t, err)
	if !os.SameFile(a, b) || a.Sys().(*syscall.Stat_t).Nlink != 2 {
		t.Error("hard links are two files")
	}
	if out := tool(t, "du", "-k", "--apparent-size", filepath.Join(dir, "files/p1/holes")); !strings.HasPrefix(out, "10240") {
		t.Errorf("du: %s", out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "files/volumes.txt"))
	must(t, err)
	for _, want := range []string{"p1: ext4", `named "system"`, "p2: xfs", "p3: unknown, 8388608 bytes", "nothing that is known"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("volumes.txt does not say %q:\n%s", want, text)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "files/p1/new"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a file was made: %v", err)
	}
	if _, err := os.OpenFile(filepath.Join(dir, "disk.img"), os.O_RDWR, 0); err == nil {
		t.Error("the disk can be written")
	}
	tool(t, "e2fsck", "-fn", filepath.Join(dir, "disk.img")+"?offset=1048576")
	if st, err := os.Stat(filepath.Join(dir, "disk.img")); err != nil || !st.ModTime().Equal(when) {
		t.Errorf("disk.img is of %v", st.ModTime())
	}
	must(t, m.Close())
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder stayed: %v", err)
	}
}

func TestClosingDoesNotWaitForThoseWhoLook(t *testing.T) {
	needs(t, "mkfs.ext4", "fusermount3", "mkfs.xfs", "sfdisk")
	dir := t.TempDir()
	m := mount(t, Options{Dir: dir, Disk: opened(t, makeDisk(t, source(t)))})
	f, err := os.Open(filepath.Join(dir, "disk.img"))
	must(t, err)
	defer f.Close()
	must(t, m.Close())
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("still mounted: %v, %v", entries, err)
	}
}

func TestUnmountedBySomebodyElse(t *testing.T) {
	needs(t, "fusermount3")
	dir := t.TempDir()
	image := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(image, make([]byte, 1<<20), 0o600))
	m := mount(t, Options{Dir: dir, Disk: opened(t, image)})
	tool(t, "fusermount3", "-u", dir)
	select {
	case <-m.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told")
	}
	must(t, m.Close())
}

func TestAFolderThatDoesNotFit(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "something"), nil, 0o600))
	for _, dir := range []string{dir, filepath.Join(dir, "something")} {
		if _, err := New(Options{Dir: dir}); !problem.Is(err, problem.InvalidArgument) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// TestSweepUnmountsWhatAKilledProcessLeft kills one that serves a mount.
func TestSweepUnmountsWhatAKilledProcessLeft(t *testing.T) {
	needs(t, "fusermount3")
	if dir := os.Getenv("DISKVAULT_TEST_MOUNT"); dir != "" {
		_, err := New(Options{Dir: dir, Disk: opened(t, os.Args[0])})
		must(t, err)
		_, _ = os.Stdout.WriteString("mounted\n")
		time.Sleep(time.Minute)
		return
	}
	dir, alive := filepath.Join(t.TempDir(), "with space"), t.TempDir()
	must(t, os.Mkdir(dir, 0o700))
	mount(t, Options{Dir: alive, Disk: opened(t, os.Args[0])})
	child := exec.Command(os.Args[0], "-test.run=^TestSweepUnmountsWhatAKilledProcessLeft$")
	child.Env = append(os.Environ(), "DISKVAULT_TEST_MOUNT="+dir)
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	defer func() { _ = child.Process.Kill() }()
	if n, err := out.Read(make([]byte, 100)); n == 0 {
		t.Fatal(err)
	}
	must(t, child.Process.Kill())
	_ = child.Wait()
	if _, err := os.ReadDir(dir); !errors.Is(err, syscall.ENOTCONN) {
		t.Fatalf("the mount did not stay behind: %v", err)
	}
	swept, err := Sweep()
	must(t, err)
	if !strings.Contains(strings.Join(swept, "\n"), dir) || strings.Contains(strings.Join(swept, "\n"), alive) {
		t.Errorf("swept %q", swept)
	}
	if _, err := os.ReadDir(dir); err != nil {
		t.Errorf("after: %v", err)
	}
	if _, err := os.Stat(filepath.Join(alive, "disk.img")); err != nil {
		t.Errorf("one that is served was disturbed: %v", err)
	}
}

// TestCheckersAcceptTheDisk runs the checker of each file system on disk.img.
func TestCheckersAcceptTheDisk(t *testing.T) {
	for _, c := range []struct{ mkfs, check string }{
		{"mkfs.ext4 -q", "e2fsck -fn"},
		{"mkfs.xfs -q", "xfs_repair -n -f"},
		{"mkfs.vfat", "fsck.vfat -n"},
		{"mkfs.ntfs -Q -F", "ntfsfix -n"},
	} {
		mkfs, check := strings.Fields(c.mkfs), strings.Fields(c.check)
		t.Run(check[0], func(t *testing.T) {
			needs(t, mkfs[0], check[0], "fusermount3")
			image := filepath.Join(t.TempDir(), "disk")
			must(t, os.WriteFile(image, nil, 0o600))
			must(t, os.Truncate(image, 320<<20))
			tool(t, mkfs[0], append(mkfs[1:], image)...)
			dir := t.TempDir()
			mount(t, Options{Dir: dir, Disk: opened(t, image)})
			tool(t, check[0], append(check[1:], filepath.Join(dir, "disk.img"))...)
			if _, err := os.ReadDir(filepath.Join(dir, "files/whole")); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestMountsWithoutPrivilege mounts as a user who is nobody.
func TestMountsWithoutPrivilege(t *testing.T) {
	needs(t, "mkfs.ext4", "fusermount3")
	if os.Getuid() != 0 {
		t.Skip("skip: needs root to become somebody else; the other tests ran without privilege")
	}
	if image := os.Getenv("DISKVAULT_TEST_IMAGE"); image != "" {
		t.Fatal("still root")
	}
	image := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 16<<20))
	tool(t, "mkfs.ext4", "-q", "-d", source(t), image)
	place, err := os.MkdirTemp("", "diskvault-nobody") // t.TempDir is closed to others
	must(t, err)
	defer os.RemoveAll(place)
	self, err := os.ReadFile(os.Args[0])
	must(t, err)
	program, disk := filepath.Join(place, "test"), filepath.Join(place, "disk")
	must(t, os.WriteFile(program, self, 0o755))
	b, err := os.ReadFile(image)
	must(t, err)
	must(t, os.WriteFile(disk, b, 0o644))
	dir := filepath.Join(place, "mnt")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.Chmod(place, 0o755))
	for _, path := range []string{dir, disk} {
		must(t, os.Chown(path, 65534, 65534))
	}
	child := exec.Command(program, "-test.run=^TestAsNobody$", "-test.v")
	child.Dir = place
	child.Env = []string{"PATH=" + os.Getenv("PATH"), "DISKVAULT_TEST_IMAGE=" + disk, "DISKVAULT_TEST_MOUNT=" + dir, "TMPDIR=" + place}
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := child.CombinedOutput(); err != nil || !strings.Contains(string(out), "read as nobody") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestAsNobody is the part of TestMountsWithoutPrivilege that runs as nobody.
func TestAsNobody(t *testing.T) {
	image := os.Getenv("DISKVAULT_TEST_IMAGE")
	if image == "" {
		return
	}
	m, err := New(Options{Dir: os.Getenv("DISKVAULT_TEST_MOUNT"), Disk: opened(t, image)})
	must(t, err)
	b, err := os.ReadFile(filepath.Join(os.Getenv("DISKVAULT_TEST_MOUNT"), "files/whole/a/small"))
	must(t, err)
	if strings.HasPrefix(string(b), "a/small") {
		t.Log("read as nobody")
	}
	must(t, m.Close())
}
