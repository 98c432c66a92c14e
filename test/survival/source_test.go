package survival

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
	"github.com/diskvault/diskvault/disk/disktest"
)

// newMachineOf makes a machine on which another user works, in a folder that
// this user owns and can reach.
func newMachineOf(t *testing.T, user uint32) *machine {
	t.Helper()
	disktest.NeedRoot(t)
	m := newMachine(t)
	dir, err := os.MkdirTemp("", "survival-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chown(dir, int(user), int(user)); err != nil {
		t.Fatal(err)
	}
	m.dir, m.home = dir, dir+"/home"
	m.as = &syscall.Credential{Uid: user, Gid: user, NoSetGroups: true}
	m.env = append(m.env, "HOME="+dir)
	return m
}

const nobody = 65534

func TestNoDisk(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.refuses(notFound, problem.SourceNotFound, "backup", "missing.img")
	m.refuses(notFound, problem.SourceNotFound, "backup", "/dev/no-such-disk")
	m.refuses(refused, problem.SourceNotSupported, "backup", m.dir)
	m.refuses(refused, problem.SourceNotSupported, "backup", "/dev/null")
	if err := unix.Mkfifo(m.path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.refuses(refused, problem.SourceNotSupported, "backup", "pipe") // and it does not wait for a writer
	if err := os.Symlink("nowhere", m.path("link")); err != nil {
		t.Fatal(err)
	}
	m.refuses(notFound, problem.SourceNotFound, "backup", "link")
	if _, err := os.Stat(m.home + "/store"); err == nil {
		t.Error("a refused backup made a store")
	}
	m.settled()
}

func TestNoPermission(t *testing.T) {
	t.Parallel()
	m := newMachineOf(t, nobody)
	newImage(t, m.path("disk.img"), 2*mib, chance(t))
	if err := os.Chmod(m.path("disk.img"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.refuses(refused, problem.SourcePermissionDenied, "backup", "disk.img")
	if err := os.Chown(m.path("disk.img"), nobody, nobody); err != nil {
		t.Fatal(err)
	}
	m.must("backup", "disk.img")
	m.restores("disk", "latest", sum(t, m.path("disk.img")))
	m.refuses(refused, problem.TargetNotWritable, "restore", "disk", "--to", "/new.img")
	m.home = "/proc/nobody"
	m.refuses(refused, problem.HomeNotUsable, "status")
	m.home = "/root/home-of-nobody"
	m.refuses(refused, problem.HomeNotUsable, "status")
}

func TestResizedBetweenBackups(t *testing.T) {
	t.Parallel()
	m, r := newMachine(t), chance(t)
	disk := newImage(t, m.path("disk.img"), 3*mib, r)
	m.must("backup", "disk.img")
	for _, size := range []int64{5*mib + 513, 70001, 0, 1, 2 * mib} {
		before := sizeOf(t, disk.path)
		if err := os.Truncate(disk.path, size); err != nil {
			t.Fatal(err)
		}
		o := m.run("backup", "disk.img")
		if o.status != warnings || !strings.Contains(o.stderr, "bytes at the last backup") {
			t.Fatalf("from %d to %d bytes: %v", before, size, o)
		}
		m.restores("disk", "latest", disk.sum())
	}
	m.must("backup", "disk.img")
}

// running waits until the backup of a disk reads it, and gives its job.
func (m *machine) running() resource.Job {
	m.t.Helper()
	for range 2000 {
		s := read[service.StatusResult](m, "status")
		if len(s.Running) == 1 && s.Running[0].Detail != nil && s.Running[0].Detail.Phase == "transfer" {
			return s.Running[0]
		}
		time.Sleep(2 * time.Millisecond)
	}
	m.t.Fatal("no job came to run")
	return resource.Job{}
}

// A disk that somebody resizes or writes while it is read is never stored as if
// it were of one moment.
func TestChangedDuringBackup(t *testing.T) {
	t.Parallel()
	m, r := newMachine(t), chance(t)
	disk := newImage(t, m.path("disk.img"), 6*mib, r)
	noise := make([]byte, disk.size)
	disk.noise(noise)
	disk.write(noise, 0)
	for _, change := range []func(){
		func() { disk.write([]byte("written meanwhile"), 4*mib) },
		func() { os.Truncate(disk.path, 8*mib) },
		func() { os.Truncate(disk.path, 5*mib) },
	} {
		p := m.start("backup", "disk.img", "--limit-rate", "3M", "--full-scan", "-o", "json")
		m.running()
		change()
		o := m.finish(p)
		if o.status != done && o.status != warnings {
			f := o.failure(t)
			plain(t, f)
			if f.Code != problem.SourceInUse && f.Code != problem.SourceResized {
				t.Fatalf("%v", o)
			}
			m.backup("disk.img")
		}
		m.restores("disk", "latest", disk.sum())
		for _, p := range m.points("disk") {
			if p.Consistency != "crashConsistent" {
				t.Fatalf("a point is marked inconsistent, which nobody allowed: %+v", p)
			}
		}
	}
}

func TestOpenForWriting(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	disk := newImage(t, m.path("disk.img"), 2*mib, chance(t))
	writer, err := os.OpenFile(disk.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	f := m.refuses(refused, problem.SourceInUse, "backup", "disk.img")
	if !strings.Contains(f.Message, "survival.test") {
		t.Errorf("who writes is not named: %s", f.Message)
	}
	o := m.run("backup", "disk.img", "--allow-inconsistent")
	if o.status != warnings || !strings.Contains(o.stdout, "inconsistent") || !strings.Contains(o.stderr, "survival.test") {
		t.Fatalf("%v", o)
	}
	if p := m.points("disk"); len(p) != 1 || p[0].Consistency != "inconsistent" {
		t.Fatalf("%+v", p)
	}
	writer.Close()
	m.must("backup", "disk.img")
	if p := m.points("disk"); len(p) != 2 || p[0].Consistency != "crashConsistent" {
		t.Fatalf("%+v", p)
	}
	m.restores("disk", "latest", disk.sum())
}

func TestAnotherDisk(t *testing.T) {
	t.Parallel()
	disktest.Need(t, "mkfs.ext4")
	m := newMachine(t)
	make := func() string {
		os.Remove(m.path("disk.img"))
		disktest.Sparse(t, m.path("disk.img"), 8*mib)
		disktest.Run(t, "mkfs.ext4", "-q", "-F", m.path("disk.img"))
		return sum(t, m.path("disk.img"))
	}
	first := make()
	m.must("backup", "disk.img")
	second := make()
	f := m.refuses(refused, problem.SourceReplaced, "backup", "disk.img")
	if !strings.Contains(f.Message, "UUID") {
		t.Errorf("what differs is not named: %s", f.Message)
	}
	if n := len(m.points("disk")); n != 1 {
		t.Fatalf("%d points after a refusal", n)
	}
	m.must("backup", "disk.img", "--accept-replaced")
	m.restores("disk", "latest", second)
	m.restores("disk", m.points("disk")[1].ID, first)
	m.must("backup", "disk.img") // accepted is accepted
	third := make()
	m.refuses(refused, problem.SourceReplaced, "backup", "disk.img")
	m.must("backup", "disk.img", "--name", "other")
	m.restores("other", "latest", third)
}

func TestUnreadableRanges(t *testing.T) {
	r := chance(t)
	content := make([]byte, 4*mib)
	(&image{t: t, r: r}).noise(content)
	bad := extent.Of(extent.Between(mib, mib+4*kib), extent.Between(3*mib+128*kib, 3*mib+256*kib))
	source := disktest.NewFaulty(t, content, bad)
	m := newMachine(t)
	// Nobody can prove that a file of this file system is quiet.
	m.refuses(refused, problem.SourceInUse, "backup", source.Path)
	f := m.refuses(failed, problem.SourceReadFailed, "backup", source.Path, "--allow-inconsistent")
	if len(f.Details) == 0 {
		t.Errorf("the ranges are not told: %+v", f)
	}
	if p := m.points("disk"); len(p) != 0 {
		t.Fatalf("a point was made of a disk that could not be read: %+v", p)
	}
	o := m.run("backup", source.Path, "--allow-inconsistent", "--allow-unreadable", "-o", "json")
	if o.status != warnings {
		t.Fatalf("%v", o)
	}
	to := m.path("restored.img")
	m.must("restore", "disk", "--to", to)
	got, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(content)
	for _, x := range bad {
		copy(want[x.Off:x.End()], make([]byte, x.Len))
	}
	if !bytes.Equal(got, want) {
		t.Error("what could be read is not there, or what could not is not zeros")
	}
}

func TestDevices(t *testing.T) {
	m, r := newMachine(t), chance(t)
	disk := newImage(t, m.path("backing.img"), 12*mib, r)
	device := disktest.Loop(t, disk.path)
	o := m.must("backup", device, "--name", "volume", "-o", "json")
	if !strings.Contains(o.stdout, `"crashConsistent"`) {
		t.Errorf("%v", o)
	}
	m.restores("volume", "latest", disk.sum())

	small := disktest.Loop(t, disktest.Sparse(t, m.path("small.img"), 4*mib))
	m.refuses(refused, problem.TargetTooSmall, "restore", "volume", "--to", small, "--overwrite")
	other := newImage(t, m.path("target.img"), 12*mib, r)
	other.write([]byte("not empty"), other.size-100)
	target := disktest.Loop(t, other.path)
	m.refuses(refused, problem.TargetExists, "restore", "volume", "--to", target)
	m.must("restore", "volume", "--to", target, "--overwrite")
	if sum(t, target) != sum(t, device) {
		t.Error("the device does not hold what the other held")
	}
	m.must("restore", "volume", "--to", target, "--overwrite") // nothing differs now

	m.refuses(refused, problem.SourceInUse, "backup", "backing.img") // the device may write it
}

// A mounted disk is one moment only as long as nothing reaches it.
func TestMountedDisk(t *testing.T) {
	dir, device := disktest.FileSystem(t, "ext4", 16*mib)
	m := newMachine(t)
	m.must("backup", device, "--name", "quiet")
	m.refuses(refused, problem.TargetInUse, "restore", "quiet", "--to", device, "--overwrite")
	end := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-end:
				return
			default:
			}
			f, err := os.Create(filepath.Join(dir, fmt.Sprint("file", n%8)))
			if err != nil {
				t.Error(err)
				return
			}
			f.Write(make([]byte, 8*kib))
			f.Sync()
			f.Close()
		}
	})
	defer writer.Wait()
	defer close(end)
	f := m.refuses(refused, problem.SourceInUse, "backup", device)
	if !strings.Contains(f.Message, dir) {
		t.Errorf("where it is mounted is not told: %s", f.Message)
	}
	if o := m.run("backup", device, "--allow-inconsistent"); o.status != warnings {
		t.Errorf("%v", o)
	}
}
