package capture_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/capture"
	"github.com/diskvault/diskvault/disk/disktest"
)

// loop makes a loop device over a file on a file system with leases.
func loop(t *testing.T) (device, file string) {
	t.Helper()
	file = image(t, leaseFolder(t))
	return disktest.Loop(t, file), file
}

func waitBroken(t *testing.T, v capture.View) {
	t.Helper()
	select {
	case <-v.Broken():
	case <-time.After(20 * time.Second):
		t.Fatal("the view does not notice the change before it is asked")
	}
}

func TestQuietDeviceIsProven(t *testing.T) {
	device, _ := loop(t)
	v := take(t, device)
	if d, ok := v.(interface{ Direct() bool }); !ok || !d.Direct() {
		t.Error("the device is not read past the page cache")
	}
	if !bytes.Equal(readAll(t, v), noise(1<<20)) {
		t.Error("the view reads otherwise than the device")
	}
	wantProven(t, v)
}

func TestDeviceWrittenMeanwhile(t *testing.T) {
	disktest.Need(t, "blkdiscard")
	for what, change := range map[string]func(device string, f *os.File) error{
		"write": func(device string, f *os.File) error {
			if _, err := f.WriteAt(noise(4096), 8192); err != nil {
				return err
			}
			return f.Sync()
		},
		"1 discard (8192 bytes) reached": func(device string, f *os.File) error {
			return exec.Command("blkdiscard", "--offset", "8192", "--length", "8192", device).Run()
		},
		"1 flush reached": func(device string, f *os.File) error { return f.Sync() },
	} {
		t.Run(what, func(t *testing.T) {
			device, _ := loop(t)
			v := take(t, device)
			readAll(t, v)
			f, err := os.OpenFile(device, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := change(device, f); err != nil {
				t.Fatal(err)
			}
			wantUnproven(t, v, true, what, "reached "+device, "while it was read")
			if !broken(v) {
				t.Error("Broken is not closed after Prove")
			}
			wantProven(t, take(t, device))
		})
	}
}

func TestDeviceNoticesEarly(t *testing.T) {
	device, _ := loop(t)
	v := take(t, device)
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(noise(4096), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	waitBroken(t, v)
	wantUnproven(t, v, true, "(4096 bytes)")
}

// TestDeviceWithUnwrittenPages has a program write to the device through the
// page cache before the capture: what the view reads must hold it.
func TestDeviceWithUnwrittenPages(t *testing.T) {
	device, _ := loop(t)
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := bytes.Repeat([]byte("new!"), 1024)
	if _, err := f.WriteAt(want, 4096); err != nil {
		t.Fatal(err)
	}
	v := take(t, device)
	got := readAll(t, v)
	if !bytes.Equal(got[4096:8192], want) {
		t.Error("the view lacks what was written before it")
	}
	wantProven(t, v)
}

func TestMountedDevice(t *testing.T) {
	path := filepath.Join(leaseFolder(t), "disk.img")
	disktest.Need(t, "mkfs.ext4")
	disktest.Sparse(t, path, 32<<20)
	// Without lazy initialisation an ext4 that nobody uses is quiet.
	disktest.Run(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", path)
	device := disktest.Loop(t, path)
	dir := disktest.Mount(t, device, "ext4")
	disktest.Run(t, "sync", "-f", dir)

	// Mounting may write a little later, so some tries are allowed, as a backup
	// does.
	var v capture.View
	for try := 0; ; try++ {
		v = take(t, device)
		readAll(t, v)
		if p := prove(t, v); p.Proven {
			break
		} else if try == 10 || !p.Retry {
			t.Fatalf("an idle mounted device is not proven: %s", p.Reason)
		}
		time.Sleep(500 * time.Millisecond)
	}
	if p := wantProven(t, v); !bytes.Contains([]byte(p.Reason), []byte(dir)) {
		t.Errorf("the reason %q does not say where it is mounted", p.Reason)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), noise(4096), 0o600); err != nil {
		t.Fatal(err)
	}
	disktest.Run(t, "sync", "-f", dir)
	wantUnproven(t, v, true, device, dir)
}

func TestDeviceWhoseFileIsWritten(t *testing.T) {
	t.Run("meanwhile", func(t *testing.T) {
		device, file := loop(t)
		v := take(t, device)
		_, stop := start(t, "write", file)
		stop()
		wantUnproven(t, v, true, file, "changed")
	})
	t.Run("mapped before", func(t *testing.T) {
		device, file := loop(t)
		_, stop := start(t, "map", file)
		wantUnproven(t, take(t, device), true, file, "capture.test")
		stop()
	})
}

func TestDeviceWithoutCounters(t *testing.T) {
	device, _ := loop(t)
	setting := filepath.Join("/sys/block", filepath.Base(device), "queue/iostats")
	set := func(value string) {
		t.Helper()
		if err := os.WriteFile(setting, []byte(value), 0o644); err != nil {
			t.Skip("skip: needs to switch the counters of a device off")
		}
	}
	v := take(t, device)
	set("0")
	defer set("1")
	wantUnproven(t, v, true, "stopped counting")
	v = take(t, device)
	if !broken(v) {
		t.Error("Broken is not closed from the start")
	}
	wantUnproven(t, v, false, "iostats")
}

func TestPartitionOfABusyDisk(t *testing.T) {
	disktest.Need(t, "sfdisk")
	path := disktest.Sparse(t, filepath.Join(leaseFolder(t), "disk.img"), 64<<20)
	disktest.Run(t, "sh", "-c", "printf 'label: gpt\nsize=16M\nsize=16M\n' | sfdisk -q "+path)
	device := disktest.Loop(t, path)
	parts := disktest.Partitions(t, device)
	v := take(t, parts[0])
	wantProven(t, v)
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Past the partition, through the whole disk: only the disk counts it.
	if _, err := f.WriteAt(noise(4096), 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	wantUnproven(t, v, true, device)
}

func TestLoopOverALoop(t *testing.T) {
	lower, _ := loop(t)
	upper := disktest.Loop(t, lower, "--read-only")
	v := take(t, upper)
	wantProven(t, v)
	f, err := os.OpenFile(lower, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(noise(4096), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	wantUnproven(t, v, true, lower)
}

func TestDeviceOverARemoteFile(t *testing.T) {
	f := disktest.NewFaulty(t, noise(1<<20), nil)
	wantUnproven(t, take(t, disktest.Loop(t, f.Path, "--read-only")), false, "fuse")
}

func TestDeviceResized(t *testing.T) {
	device, file := loop(t)
	v := take(t, device)
	if err := os.Truncate(file, 2<<20); err != nil {
		t.Fatal(err)
	}
	disktest.Run(t, "losetup", "--set-capacity", device)
	if _, err := v.Prove(ctx); !problem.Is(err, problem.SourceResized) {
		t.Errorf("Prove gave %v", err)
	}
}

func TestDeviceThatBecomesAnother(t *testing.T) {
	const changeFD = 0x4C06 // LOOP_CHANGE_FD; the kernel does it for read-only devices
	device := disktest.Loop(t, image(t, leaseFolder(t)), "--read-only")
	s := probe(t, device)
	v, err := capture.Quiescent{}.Capture(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	// A second file of the same size; the device stays open meanwhile.
	other := filepath.Join(leaseFolder(t), "other.img")
	if err := os.WriteFile(other, noise(1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(device, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	o, err := os.Open(other)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), changeFD, int(o.Fd())); err != nil {
		t.Skip("skip: needs a loop device whose file can be changed")
	}
	wantUnproven(t, v, true, "came under")
}

func TestCaptureOfAMissingDevice(t *testing.T) {
	s := &disk.Source{Path: "/dev/diskvault-none", Kind: disk.Block, Device: "none", Size: 512}
	if _, err := (capture.Quiescent{}).Capture(ctx, s); !problem.Is(err, problem.SourceNotFound) {
		t.Errorf("got %v", err)
	}
}
