// Package disktest makes real things for tests of disks: loop devices, small
// file systems, and a file with unreadable ranges. What a test makes goes away
// at its end. Tests that lack the rights or a program are skipped.
package disktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// NeedRoot skips the test unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skip: needs root")
	}
}

// Need skips the test unless the programs are installed.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip("skip: needs " + p)
		}
	}
}

// Run runs a program that must succeed and gives its output.
func Run(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// Sparse makes a file of a size without content, and gives its path.
func Sparse(t testing.TB, path string, size int64) string {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(size)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Loop puts a loop device over a file, with options of losetup(8), and gives the
// path of the device.
func Loop(t testing.TB, file string, options ...string) string {
	t.Helper()
	NeedRoot(t)
	Need(t, "losetup")
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("skip: needs loop devices")
	}
	device := Run(t, "losetup", append(append([]string{"--find", "--show"}, options...), file)...)
	t.Cleanup(func() { Run(t, "losetup", "--detach", device) })
	return device
}

// FileSystem makes a file system of a kind that mkfs(8) knows, of a size in
// bytes, mounts it, and gives the folder and the device.
func FileSystem(t testing.TB, kind string, size int64) (dir, device string) {
	t.Helper()
	NeedRoot(t)
	Need(t, "mkfs."+kind)
	image := Sparse(t, filepath.Join(t.TempDir(), kind+".img"), size)
	Run(t, "mkfs."+kind, "-q", image)
	device = Loop(t, image)
	return Mount(t, device, kind), device
}

// Mount mounts a device with options of mount(2) and gives the folder.
func Mount(t testing.TB, device, kind string) string {
	t.Helper()
	dir := t.TempDir()
	switch err := unix.Mount(device, dir, kind, 0, ""); err {
	case nil:
	case unix.ENODEV:
		t.Skip("skip: needs a kernel with " + kind)
	default:
		t.Fatalf("mount of %s at %s: %v", device, dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount of %s: %v", dir, err)
		}
	})
	return dir
}

// Partitions makes the kernel see the partition table on a device, whether or
// not it reads tables itself, and gives the paths of the partitions.
func Partitions(t testing.TB, device string) []string {
	t.Helper()
	Need(t, "partx")
	Run(t, "partx", "--add", device)
	t.Cleanup(func() { Run(t, "partx", "--delete", device) })
	parts, err := filepath.Glob(device + "p*")
	if err != nil || len(parts) == 0 {
		t.Fatalf("no partition of %s came up (%v)", device, err)
	}
	return parts
}
