package disk_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/disktest"
)

func target(t *testing.T, path string, o disk.TargetOptions) *disk.Target {
	t.Helper()
	to, err := disk.OpenTarget(ctx, path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := to.Abort(true); err != nil {
			t.Error(err)
		}
	})
	return to
}

// put writes a range of content to its place.
func put(t *testing.T, to *disk.Target, content []byte, r extent.Range) {
	t.Helper()
	if _, err := to.WriteAt(content[r.Off:r.End()], r.Off); err != nil {
		t.Fatal(err)
	}
}

func commit(t *testing.T, to *disk.Target) {
	t.Helper()
	if err := to.Commit(ctx); err != nil {
		t.Fatal(err)
	}
}

func holds(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes and not the content wanted", path, len(got))
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestNewFileAppearsWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.img")
	const size = 8<<20 + 77
	content := make([]byte, size)
	copy(content[3<<20:], noise(1, 1<<20))
	copy(content[size-50:], noise(2, 50))
	to := target(t, path, disk.TargetOptions{Size: size, Token: "point 1"})
	if to.Kind() != disk.NewFile || !to.Blank() || to.Resumed() || to.Size() != size || to.Path() != path {
		t.Errorf("got %s, blank %v, resumed %v", to.Kind(), to.Blank(), to.Resumed())
	}
	var wait sync.WaitGroup
	for w := range (extent.Range{Off: 3 << 20, Len: 1 << 20}).Windows(64 << 10) {
		wait.Go(func() { put(t, to, content, w) })
	}
	wait.Wait()
	put(t, to, content, extent.Between(size-50, size))
	if err := to.Zero(ctx, extent.Range{Len: 3 << 20}); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir); got != "disk.img.diskvault-partial disk.img.diskvault-partial.token" {
		t.Errorf("before Commit there is %s", got)
	}
	commit(t, to)
	if got := listing(t, dir); got != "disk.img" {
		t.Errorf("after Commit there is %s", got)
	}
	holds(t, path, content)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode&0o777 != 0o600 {
		t.Errorf("a disk that may hold secrets has the mode %o", st.Mode&0o777)
	}
	if st.Blocks*512 > 2<<20 {
		t.Errorf("the file takes %d bytes: it is not sparse", st.Blocks*512)
	}
	if err := to.Commit(ctx); err == nil {
		t.Error("a second Commit was taken")
	}
	if _, err := disk.OpenTarget(ctx, path, disk.TargetOptions{Size: size}); true {
		wantCode(t, err, problem.TargetExists, path)
	}
}

func TestNewFileOfNoBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	commit(t, target(t, path, disk.TargetOptions{}))
	holds(t, path, nil)
}

func TestNewFileIsGoneOnWith(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	content := noise(3, 1<<20)
	o := disk.TargetOptions{Size: 1 << 20, Token: "point 1"}

	first := target(t, path, o)
	put(t, first, content, extent.Range{Len: 512 << 10})
	_, err := disk.OpenTarget(ctx, path, o)
	wantCode(t, err, problem.TargetInUse, "Another restore")
	if err := first.Abort(true); err != nil {
		t.Fatal(err)
	}

	second := target(t, path, o)
	if !second.Resumed() || second.Blank() {
		t.Fatalf("resumed %v, blank %v", second.Resumed(), second.Blank())
	}
	got := make([]byte, 512<<10)
	if _, err := second.ReadAt(got, 0); err != nil || !bytes.Equal(got, content[:512<<10]) {
		t.Errorf("what was written is not there (%v)", err)
	}
	// What was written wrongly, or for nothing, must go.
	if err := second.Zero(ctx, extent.Range{Len: 256 << 10}); err != nil {
		t.Fatal(err)
	}
	if _, err := second.ReadAt(got, 0); err != nil || bytes.Count(got[:256<<10], []byte{0}) != 256<<10 {
		t.Errorf("a range that was zeroed is not zero (%v)", err)
	}
	if err := second.Abort(true); err != nil {
		t.Fatal(err)
	}

	for _, token := range []string{"point 2", ""} {
		o.Token = token
		other := target(t, path, o)
		if other.Resumed() || !other.Blank() {
			t.Errorf("with the token %q: resumed %v, blank %v", token, other.Resumed(), other.Blank())
		}
		if _, err := other.ReadAt(got, 0); err != nil || bytes.Count(got, []byte{0}) != len(got) {
			t.Errorf("a file begun anew is not empty (%v)", err)
		}
		if err := other.Abort(true); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	to := target(t, filepath.Join(dir, "disk.img"), disk.TargetOptions{Size: 1 << 20, Token: "x"})
	put(t, to, noise(4, 4096), extent.Range{Len: 4096})
	if err := to.Abort(false); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir); got != "" {
		t.Errorf("there is %s", got)
	}
	if err := to.Abort(false); err != nil {
		t.Error(err)
	}
}

func TestCommitDoesNotReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	to := target(t, path, disk.TargetOptions{Size: 4096, Token: "x"})
	write(t, path, []byte("somebody else's"))
	wantCode(t, to.Commit(ctx), problem.TargetExists, path)
	holds(t, path, []byte("somebody else's"))
	if _, err := os.Stat(path + ".diskvault-partial"); err != nil {
		t.Errorf("the restored file is gone: %v", err)
	}
}

func TestTargetRefuses(t *testing.T) {
	dir := t.TempDir()
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink("nowhere", dangling); err != nil {
		t.Fatal(err)
	}
	file := write(t, filepath.Join(dir, "file"), []byte("x"))
	for _, c := range []struct {
		name, path string
		o          disk.TargetOptions
		code       problem.Code
		words      string
	}{
		{"empty path", "", disk.TargetOptions{}, problem.InvalidArgument, "empty"},
		{"folder", dir, disk.TargetOptions{}, problem.TargetNotWritable, "a folder"},
		{"missing folder", filepath.Join(dir, "a/b"), disk.TargetOptions{}, problem.TargetNotWritable, "does not exist"},
		{"below a file", filepath.Join(file, "b"), disk.TargetOptions{}, problem.TargetNotWritable, "cannot be written"},
		{"character device", "/dev/null", disk.TargetOptions{}, problem.TargetNotWritable, "neither"},
		{"link to nowhere", dangling, disk.TargetOptions{}, problem.TargetNotWritable, "nowhere"},
		{"existing file", file, disk.TargetOptions{}, problem.TargetExists, "exists"},
		{"long name", filepath.Join(dir, strings.Repeat("n", 250)), disk.TargetOptions{}, problem.TargetNotWritable, ".diskvault-partial"},
		{"too large", filepath.Join(dir, "new"), disk.TargetOptions{Size: disk.MaxSize + 1}, problem.InvalidArgument, "cannot be restored"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := disk.OpenTarget(ctx, c.path, c.o)
			wantCode(t, err, c.code, c.words)
		})
	}
	if got := listing(t, dir); got != "dangling file" {
		t.Errorf("the refusals left %s", got)
	}
}

func TestTargetWithoutPermission(t *testing.T) {
	disktest.NeedRoot(t)
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := write(t, filepath.Join(dir, "file"), []byte("x"))
	asNobody(t, func() {
		_, err := disk.OpenTarget(ctx, filepath.Join(dir, "new"), disk.TargetOptions{})
		wantCode(t, err, problem.TargetNotWritable, "65534")
		_, err = disk.OpenTarget(ctx, file, disk.TargetOptions{Overwrite: true})
		wantCode(t, err, problem.TargetNotWritable, "65534")
	})
}

func TestExistingFileInPlace(t *testing.T) {
	for _, before := range []int{1 << 20, 5000, 3 << 20, 0} {
		path := write(t, filepath.Join(t.TempDir(), "disk.img"), noise(5, before))
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		const size = 1<<20 + 3
		content := noise(6, size)
		clear(content[100_000:300_001])
		to := target(t, link, disk.TargetOptions{Size: size, Overwrite: true})
		if to.Kind() != disk.ExistingFile || to.Blank() != (before == 0) {
			t.Errorf("got %s, blank %v", to.Kind(), to.Blank())
		}
		put(t, to, content, extent.Range{Len: 100_000})
		if err := to.Zero(ctx, extent.Between(100_000, 300_001)); err != nil {
			t.Fatal(err)
		}
		put(t, to, content, extent.Between(300_001, size))
		commit(t, to)
		holds(t, path, content)
	}
}

func TestExistingFileInUse(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "disk.img"), noise(7, 1<<20))
	o := disk.TargetOptions{Size: 1 << 20, Overwrite: true}

	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.OpenTarget(ctx, path, o); err == nil {
		t.Error("a file that a program has open was taken")
	} else {
		wantCode(t, err, problem.TargetInUse, "open")
	}
	f.Close()

	device := disktest.Loop(t, path)
	_, err = disk.OpenTarget(ctx, path, o)
	wantCode(t, err, problem.TargetInUse, device)
}

func TestDense(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	to := target(t, path, disk.TargetOptions{Size: 4 << 20, Dense: true})
	if err := to.Zero(ctx, extent.Range{Len: 4 << 20}); err != nil {
		t.Fatal(err)
	}
	commit(t, to)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Blocks*512 < 4<<20 {
		t.Errorf("a dense file of 4 MiB takes %d bytes (%v)", st.Blocks*512, err)
	}
	holds(t, path, make([]byte, 4<<20))
}

func TestTargetFull(t *testing.T) {
	dir, _ := disktest.FileSystem(t, "ext4", 16<<20)
	path := filepath.Join(dir, "disk.img")
	to := target(t, path, disk.TargetOptions{Size: 64 << 20, Token: "x"})
	chunk := noise(8, 1<<20)
	var err error
	for off := int64(0); off < to.Size() && err == nil; off += 1 << 20 {
		_, err = to.WriteAt(chunk, off)
	}
	if err == nil {
		err = to.Commit(ctx)
	}
	wantCode(t, err, problem.TargetFull, path, "64.0 MiB")
	if _, ok := problem.From(err).Details["free"]; !ok {
		t.Error("it does not say what is free")
	}
	if err := to.Abort(true); err != nil {
		t.Fatal(err)
	}
	if again := target(t, path, disk.TargetOptions{Size: 64 << 20, Token: "x"}); !again.Resumed() {
		t.Error("after room was made the restore cannot go on")
	}
}

func TestTargetOnAReadOnlyFileSystem(t *testing.T) {
	dir, _ := disktest.FileSystem(t, "ext4", 16<<20)
	file := write(t, filepath.Join(dir, "file"), []byte("x"))
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err := disk.OpenTarget(ctx, filepath.Join(dir, "new"), disk.TargetOptions{})
	wantCode(t, err, problem.TargetNotWritable, "read-only")
	_, err = disk.OpenTarget(ctx, file, disk.TargetOptions{Overwrite: true})
	wantCode(t, err, problem.TargetNotWritable, "read-only")
}

func TestTargetFileTooLargeForItsFileSystem(t *testing.T) {
	dir, _ := disktest.FileSystem(t, "ext4", 16<<20)
	_, err := disk.OpenTarget(ctx, filepath.Join(dir, "disk.img"), disk.TargetOptions{Size: disk.MaxSize})
	wantCode(t, err, problem.TargetTooSmall, "32.0 TiB")
}

// A device is not empty because its beginning is.
func TestDeviceWithDataFurtherOn(t *testing.T) {
	const size = 32 << 20
	for _, at := range []int64{1<<20 - 1, 9 << 20, 20 << 20, size - 4096, size - 1} {
		image := disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.img"), size)
		f, err := os.OpenFile(image, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		data := bytes.Repeat([]byte("data"), 128<<10)
		if _, err := f.WriteAt(data[:min(int64(len(data)), size-at)], at); err != nil {
			t.Fatal(err)
		}
		f.Close()
		_, err = disk.OpenTarget(ctx, disktest.Loop(t, image), disk.TargetOptions{Size: size})
		wantCode(t, err, problem.TargetExists, "unknown kind")
	}
}

func TestDeviceTarget(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 5))
	const room, size = 8 << 20, 6<<20 + 100 // the disk ends within a sector
	image := disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.img"), room)
	device := disktest.Loop(t, image)

	_, err := disk.OpenTarget(ctx, device, disk.TargetOptions{Size: room + 1})
	wantCode(t, err, problem.TargetTooSmall, "8388608", "8388609")

	model := make([]byte, room)
	for round := range 3 {
		o := disk.TargetOptions{Size: size, Overwrite: round > 0}
		if round == 1 {
			_, err := disk.OpenTarget(ctx, device, disk.TargetOptions{Size: size})
			wantCode(t, err, problem.TargetExists, "unknown kind")
		}
		to := target(t, device, o)
		if to.Kind() != disk.Device || to.Blank() {
			t.Errorf("got %s, blank %v", to.Kind(), to.Blank())
		}
		// It is ours alone: nobody else can claim it, nor mount it.
		_, err := disk.OpenTarget(ctx, device, disk.TargetOptions{Size: size, Overwrite: true})
		wantCode(t, err, problem.TargetInUse, device)

		content := noise(seed+uint64(round), size)
		put(t, to, content, extent.Range{Len: size})
		copy(model, content)
		for range 20 {
			off := rng.Int64N(size)
			r := extent.Range{Off: off, Len: rng.Int64N(min(200_000, size-off) + 1)}
			if err := to.Zero(ctx, r); err != nil {
				t.Fatalf("seed %d: zero of %v: %v", seed, r, err)
			}
			clear(model[r.Off:r.End()])
		}
		got := make([]byte, size)
		if _, err := to.ReadAt(got, 0); err != nil || !bytes.Equal(got, model[:size]) {
			t.Fatalf("seed %d: the device does not hold what was written (%v)", seed, err)
		}
		commit(t, to)
		holds(t, device, model)
	}
	disktest.Run(t, "sync")
	holds(t, image, model)
}

func TestDeviceTargetRefuses(t *testing.T) {
	disktest.Need(t, "mkfs.ext4", "mkswap")
	image := disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.img"), 16<<20)
	disktest.Run(t, "mkfs.ext4", "-q", "-U", "01234567-89ab-cdef-0123-456789abcdef", image)
	device := disktest.Loop(t, image)
	over := disk.TargetOptions{Size: 1 << 20, Overwrite: true}

	_, err := disk.OpenTarget(ctx, device, disk.TargetOptions{Size: 1 << 20})
	wantCode(t, err, problem.TargetExists, "ext file system UUID 01234567-89ab-cdef-0123-456789abcdef")

	t.Run("mounted", func(t *testing.T) {
		dir := disktest.Mount(t, device, "ext4")
		_, err := disk.OpenTarget(ctx, device, over)
		wantCode(t, err, problem.TargetInUse, "mounted at "+dir)
	})
	t.Run("under a loop device", func(t *testing.T) {
		upper := disktest.Loop(t, device)
		_, err := disk.OpenTarget(ctx, device, over)
		wantCode(t, err, problem.TargetInUse, filepath.Base(upper))
	})
	t.Run("claimed", func(t *testing.T) {
		f, err := os.OpenFile(device, os.O_RDONLY|unix.O_EXCL, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, err = disk.OpenTarget(ctx, device, over)
		wantCode(t, err, problem.TargetInUse, device)
	})
	t.Run("read-only", func(t *testing.T) {
		other := disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.img"), 1<<20)
		_, err := disk.OpenTarget(ctx, disktest.Loop(t, other, "--read-only"), over)
		wantCode(t, err, problem.TargetNotWritable, "read-only")
	})
	t.Run("partition mounted", func(t *testing.T) {
		disktest.Need(t, "sfdisk")
		whole := disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.img"), 64<<20)
		disktest.Run(t, "sh", "-c", "printf 'label: gpt\nsize=32M\n' | sfdisk -q "+whole)
		device := disktest.Loop(t, whole)
		part := disktest.Partitions(t, device)[0]
		disktest.Run(t, "mkfs.ext4", "-q", part)
		dir := disktest.Mount(t, part, "ext4")
		_, err := disk.OpenTarget(ctx, device, over)
		wantCode(t, err, problem.TargetInUse, dir)
	})
}

func TestTargetKeepsToItsSize(t *testing.T) {
	to := target(t, filepath.Join(t.TempDir(), "disk.img"), disk.TargetOptions{Size: 4096})
	if _, err := to.WriteAt(make([]byte, 2), 4095); err == nil {
		t.Error("a write beyond the end was taken")
	}
	if _, err := to.ReadAt(make([]byte, 2), 4095); err == nil {
		t.Error("a read beyond the end was taken")
	}
	if err := to.Zero(ctx, extent.Range{Off: 4095, Len: 2}); err == nil {
		t.Error("a zero beyond the end was taken")
	}
	var p *problem.Error
	if _, err := to.WriteAt(nil, -1); err == nil || errors.As(err, &p) {
		t.Errorf("a negative place gave %v", err)
	}
}
