package capture_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/capture"
	"github.com/diskvault/diskvault/disk/disktest"
)

var ctx = context.Background()

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func image(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(path, noise(1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func probe(t *testing.T, path string) *disk.Source {
	t.Helper()
	s, err := disk.Probe(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func take(t *testing.T, path string) capture.View {
	t.Helper()
	v, err := capture.Quiescent{}.Capture(ctx, probe(t, path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func prove(t *testing.T, v capture.View) capture.Proof {
	t.Helper()
	p, err := v.Prove(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if p.Method != capture.MethodQuiescent || !strings.HasSuffix(p.Reason, ".") {
		t.Errorf("the proof %+v has no method, or no sentence", p)
	}
	return p
}

func broken(v capture.View) bool {
	select {
	case <-v.Broken():
		return true
	default:
		return false
	}
}

func wantProven(t *testing.T, v capture.View) capture.Proof {
	t.Helper()
	p := prove(t, v)
	if !p.Proven || broken(v) || p.Problem(&disk.Source{}) != nil {
		t.Fatalf("not proven: %s", p.Reason)
	}
	return p
}

func wantUnproven(t *testing.T, v capture.View, retry bool, words ...string) {
	t.Helper()
	p := prove(t, v)
	if p.Proven || p.Retry != retry {
		t.Fatalf("got %+v", p)
	}
	for _, w := range words {
		if !strings.Contains(p.Reason, w) {
			t.Errorf("the reason %q does not say %q", p.Reason, w)
		}
	}
	if err := p.Problem(&disk.Source{Path: "/x"}); err == nil || err.Code != problem.SourceInUse || !strings.Contains(err.Message, p.Reason) {
		t.Errorf("the refusal is %v", err)
	}
}

// readAll reads a view as a backup does.
func readAll(t *testing.T, v capture.View) []byte {
	t.Helper()
	b := make([]byte, v.Size())
	for e, err := range v.Allocated(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		for w := range e.Windows(256 << 10) {
			if err := v.Read(ctx, b[w.Off:w.End()], w.Off); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b
}

// leaseFolder is a folder on a file system with leases.
func leaseFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if s := probe(t, image(t, dir)); !s.FileSystem.Local {
		t.Skip("skip: needs temporary files on ext4, XFS or btrfs")
	}
	return dir
}

func TestQuietFileIsProven(t *testing.T) {
	dirs := map[string]func(t *testing.T) string{
		"here":  leaseFolder,
		"ext4":  func(t *testing.T) string { d, _ := disktest.FileSystem(t, "ext4", 64<<20); return d },
		"xfs":   func(t *testing.T) string { d, _ := disktest.FileSystem(t, "xfs", 400<<20); return d },
		"btrfs": func(t *testing.T) string { d, _ := disktest.FileSystem(t, "btrfs", 256<<20); return d },
	}
	for name, dir := range dirs {
		t.Run(name, func(t *testing.T) {
			path := image(t, dir(t))
			v := take(t, path)
			if !bytes.Equal(readAll(t, v), noise(1<<20)) {
				t.Error("the view reads otherwise than the file")
			}
			// Readers and their files do no harm.
			if _, err := os.ReadFile(path); err != nil {
				t.Fatal(err)
			}
			wantProven(t, v)

			// A writer that comes meanwhile is let in, and found out.
			_, stop := start(t, "write", path)
			stop()
			wantUnproven(t, v, true, "opened it for writing")
			if !broken(v) {
				t.Error("Broken is not closed")
			}
			// The copy can be made all the same.
			readAll(t, v)
			// It is unproven for good, though the writer has ended.
			wantUnproven(t, v, true)
			// The next view is proven again.
			wantProven(t, take(t, path))
			v.Close()
		})
	}
}

// TestWritersAreNotHeldUp opens the file under lease for writing: without our
// giving it up, each open would last 45 seconds. The bound only tells the two
// apart.
func TestWritersAreNotHeldUp(t *testing.T) {
	dir := leaseFolder(t)
	var views []capture.View
	var paths []string
	for i := range 5 {
		path := filepath.Join(dir, fmt.Sprint("disk", i))
		if err := os.WriteFile(path, noise(8192), 0o600); err != nil {
			t.Fatal(err)
		}
		paths, views = append(paths, path), append(views, take(t, path))
	}
	opened := make(chan error, len(paths))
	for i, path := range paths[:4] {
		go func() {
			if i%2 == 0 {
				opened <- os.Truncate(path, 4096)
				return
			}
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err == nil {
				f.Close()
			}
			opened <- err
		}()
	}
	for range 4 {
		select {
		case err := <-opened:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a writer still waits for the lease")
		}
	}
	for i, v := range views[:4] {
		select {
		case <-v.Broken():
		case <-time.After(20 * time.Second):
			t.Fatalf("the view %d does not know that its lease is broken", i)
		}
	}
	wantUnproven(t, views[1], true)
	if _, err := views[0].Prove(ctx); !problem.Is(err, problem.SourceResized) {
		t.Errorf("after a truncation Prove gave %v", err)
	}
	wantProven(t, views[4])
}

func TestFileOpenForWriting(t *testing.T) {
	path := image(t, leaseFolder(t))
	for _, role := range []string{"hold", "map"} {
		t.Run(role, func(t *testing.T) {
			pid, stop := start(t, role, path)
			v := take(t, path)
			if !broken(v) {
				t.Error("Broken is not closed from the start")
			}
			wantUnproven(t, v, true, "capture.test", fmt.Sprintf("(process %d)", pid), "open for writing")
			readAll(t, v)
			stop()
			wantProven(t, take(t, path))
		})
	}
}

func TestFileUnderALoopDevice(t *testing.T) {
	path := filepath.Join(leaseFolder(t), "disk.img")
	disktest.Need(t, "mkfs.ext4")
	disktest.Sparse(t, path, 32<<20)
	disktest.Run(t, "mkfs.ext4", "-q", path)
	device := disktest.Loop(t, path)
	dir := disktest.Mount(t, device, "ext4")
	wantUnproven(t, take(t, path), true, device, dir)
}

func TestFileOnAFileSystemWithoutProof(t *testing.T) {
	t.Run("tmpfs", func(t *testing.T) {
		dir, err := os.MkdirTemp("/dev/shm", "diskvault")
		if err != nil {
			t.Skip("skip: needs /dev/shm")
		}
		defer os.RemoveAll(dir)
		path := image(t, dir)
		if probe(t, path).FileSystem.Name != "tmpfs" {
			t.Skip("skip: needs /dev/shm on tmpfs")
		}
		v := take(t, path)
		if !broken(v) {
			t.Error("Broken is not closed from the start")
		}
		wantUnproven(t, v, false, "tmpfs")
		if !bytes.Equal(readAll(t, v), noise(1<<20)) {
			t.Error("the view reads otherwise than the file")
		}
	})
	t.Run("FUSE", func(t *testing.T) {
		f := disktest.NewFaulty(t, noise(8192), nil)
		wantUnproven(t, take(t, f.Path), false, "fuse")
	})
}

func TestFileOfAnotherUser(t *testing.T) {
	disktest.NeedRoot(t)
	dir := leaseFolder(t)
	path := image(t, dir)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	s := probe(t, path)
	// The thread keeps all rights but those over the files of others.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := setEffectiveCapabilities(func(c uint32) uint32 { return c &^ (1 << unix.CAP_LEASE) }); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := setEffectiveCapabilities(func(uint32) uint32 { return ^uint32(0) }); err != nil {
			panic(err)
		}
	}()
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	v, err := capture.Quiescent{}.Capture(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	wantUnproven(t, v, false, "CAP_LEASE")
}

// setEffectiveCapabilities changes the lower half of the effective capabilities
// of this thread, within those permitted.
func setEffectiveCapabilities(change func(uint32) uint32) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective = change(data[0].Permitted) & data[0].Permitted
	return unix.Capset(&header, &data[0])
}

func TestFileResized(t *testing.T) {
	for _, to := range []int64{1000, 2 << 20} {
		path := image(t, leaseFolder(t))
		v := take(t, path)
		if err := os.Truncate(path, to); err != nil {
			t.Fatal(err)
		}
		_, err := v.Prove(ctx)
		if !problem.Is(err, problem.SourceResized) || !strings.Contains(err.Error(), fmt.Sprint(to)) {
			t.Errorf("resized to %d: Prove gave %v", to, err)
		}
	}
}

func TestFileWhoseTimeMoves(t *testing.T) {
	path := image(t, leaseFolder(t))
	v := take(t, path)
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	wantUnproven(t, v, true, "modification")
}

func TestEmptyFile(t *testing.T) {
	path := filepath.Join(leaseFolder(t), "empty")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	v := take(t, path)
	if len(readAll(t, v)) != 0 {
		t.Error("an empty file has bytes")
	}
	wantProven(t, v)
}

func TestCloseFreesTheFile(t *testing.T) {
	path := image(t, leaseFolder(t))
	for range 50 {
		v := take(t, path)
		wantProven(t, v)
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatalf("the file is still held: %v", err)
		}
		f.Close()
	}
}

func TestUnreadableRangesOfAView(t *testing.T) {
	bad := extent.Of(extent.Range{Off: 512 << 10, Len: 4096})
	f := disktest.NewFaulty(t, noise(1<<20), bad)
	v := take(t, f.Path)
	err := v.Read(ctx, make([]byte, 1<<20), 0)
	e, ok := err.(*disk.ReadError)
	if !ok || !e.Ranges.Equal(bad) {
		t.Errorf("got %v", err)
	}
}
