package survival

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/service"
	"github.com/diskvault/diskvault/disk/disktest"
)

// ballast takes room on a file system until it has this many bytes left.
func ballast(t *testing.T, dir string, left int64) (path string) {
	t.Helper()
	path = filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(0)
	for step := int64(mib); step >= 4*kib; {
		switch err := unix.Fallocate(int(f.Fd()), 0, size, step); err {
		case nil:
			size += step
		case unix.ENOSPC:
			step /= 2
		default:
			t.Fatal(err)
		}
	}
	if err := f.Truncate(max(0, size-left)); err != nil {
		t.Fatal(err)
	}
	return path
}

func readOnly(t *testing.T, dir string, on bool) {
	t.Helper()
	flags := uintptr(unix.MS_REMOUNT)
	if on {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("", dir, "", flags, ""); err != nil {
		t.Fatalf("remount of %s: %v", dir, err)
	}
}

// noisy makes a disk that nothing makes smaller.
func noisy(t *testing.T, path string, size int64) *image {
	t.Helper()
	i := &image{t: t, path: path, size: size, r: chance(t)}
	disktest.Sparse(t, path, size)
	data := make([]byte, size)
	i.noise(data)
	i.write(data, 0)
	return i
}

func TestStoreFull(t *testing.T) {
	dir, _ := disktest.FileSystem(t, "ext4", 96*mib)
	m := newMachine(t)
	small := noisy(t, m.path("small.img"), 4*mib)
	m.must("store", "create", filepath.Join(dir, "store"), "--default")
	m.must("backup", "small.img")
	big := noisy(t, m.path("big.img"), 48*mib)
	for _, left := range []int64{24 * mib, mib, 0} { // in the middle, soon, at once
		weight := ballast(t, dir, left)
		m.refuses(failed, problem.StoreFull, "backup", "big.img")
		small.change(1)
		if left == 0 {
			m.refuses(failed, problem.StoreFull, "backup", "small.img")
		}
		m.must("status")
		m.must("verify", "--read-data")
		if n := len(m.points("small")); n != 1 {
			t.Fatalf("%d points", n)
		}
		m.must("restore", "small", "--to", m.path("while-full.img"))
		os.Remove(m.path("while-full.img"))
		if err := os.Remove(weight); err != nil {
			t.Fatal(err)
		}
		m.settled()
	}
	m.must("backup", "big.img")
	m.restores("big", "latest", big.sum())
	m.must("backup", "small.img")
	m.restores("small", "latest", small.sum())
	m.must("verify", "--read-data")
}

func TestTargetFull(t *testing.T) {
	dir, _ := disktest.FileSystem(t, "ext4", 64*mib)
	m := newMachine(t)
	disk := noisy(t, m.path("disk.img"), 40*mib)
	m.must("backup", "disk.img")
	weight := ballast(t, dir, 20*mib)
	to := filepath.Join(dir, "restored.img")
	m.refuses(failed, problem.TargetFull, "restore", "disk", "--to", to)
	if _, err := os.Stat(to); err == nil {
		t.Error("a disk that is not whole has the name of a whole one")
	}
	if err := os.Remove(weight); err != nil {
		t.Fatal(err)
	}
	r := read[service.RestoreResult](m, "restore", "disk", "--to", to)
	if !r.Resumed || r.Bytes.Skipped == 0 {
		t.Errorf("it did not go on where it stopped: %+v", r)
	}
	if sum(t, to) != disk.sum() {
		t.Error("it is not the disk")
	}
	readOnly(t, dir, true)
	m.refuses(refused, problem.TargetNotWritable, "restore", "disk", "--to", filepath.Join(dir, "other.img"))
	m.refuses(refused, problem.TargetNotWritable, "restore", "disk", "--to", to, "--overwrite")
}

// A store that can only be read still gives everything back.
func TestStoreReadOnly(t *testing.T) {
	dir, _ := disktest.FileSystem(t, "ext4", 32*mib)
	m := newMachine(t)
	disk := noisy(t, m.path("disk.img"), 4*mib)
	url := filepath.Join(dir, "store")
	key := m.keyFile(m.must("store", "create", url, "--default"))
	m.must("backup", "disk.img")
	was := disk.sum()
	disk.change(2)
	readOnly(t, dir, true)
	f := m.refuses(refused, problem.StorePermissionDenied, "backup", "disk.img")
	if f.Message == "" {
		t.Error(f)
	}
	m.restores("disk", "latest", was)
	m.must("points", "disk")
	m.must("verify", "--read-data")
	m.must("store", "rebuild-index")
	other := newMachine(t)
	other.must("store", "rebuild-catalog", url, "--key-file", key)
	other.restores("disk", "latest", was, "--key-file", key)
	m.refuses(refused, problem.StorePermissionDenied, "store", "create", filepath.Join(dir, "another"))
	readOnly(t, dir, false)
	m.must("backup", "disk.img")
	m.restores("disk", "latest", disk.sum())
}

func TestHomeFullOrReadOnly(t *testing.T) {
	dir, _ := disktest.FileSystem(t, "ext4", 48*mib)
	m := newMachine(t)
	disk := noisy(t, m.path("disk.img"), 4*mib)
	m.home = filepath.Join(dir, "home")
	weight := ballast(t, dir, 0)
	f := m.refuses(failed, problem.HomeFull, "backup", "disk.img") // at first use
	if f.Message == "" {
		t.Error(f)
	}
	os.Remove(weight)
	m.must("store", "create", m.path("store"), "--default")
	m.must("backup", "disk.img")
	m.must("backup", "disk.img")
	for _, left := range []int64{0, 40 * kib, 150 * kib, 400 * kib, mib} {
		weight = ballast(t, dir, left)
		disk.change(1)
		if o := m.run("backup", "disk.img", "-o", "json"); o.status != done {
			f := o.failure(t)
			plain(t, f)
			if f.Code != problem.HomeFull {
				t.Fatalf("with %d bytes left: %v", left, o)
			}
		}
		os.Remove(weight)
		m.must("status")
	}
	m.must("backup", "disk.img")
	m.restores("disk", "latest", disk.sum())
	m.settled()
	m.must("verify", "--read-data")
	readOnly(t, dir, true)
	for _, args := range [][]string{{"status"}, {"points", "disk"}, {"backup", "disk.img"}, {"restore", "disk", "--to", m.path("x")}} {
		m.refuses(refused, problem.HomeNotUsable, args...)
	}
	readOnly(t, dir, false)
	m.must("backup", "disk.img")
}
