package disk_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/disktest"
)

// sameImage checks with QEMU's own eyes that an image is whole and holds the
// content.
func sameImage(t *testing.T, path string, content []byte) {
	t.Helper()
	disktest.Run(t, "qemu-img", "check", "-q", "-f", "qcow2", path)
	raw := write(t, filepath.Join(t.TempDir(), "wanted.raw"), content)
	disktest.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, path)
}

func TestImageTarget(t *testing.T) {
	disktest.Need(t, "qemu-img", "qemu-nbd")
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.qcow2")
	const size = 64 << 20
	content := make([]byte, size)
	copy(content[3<<20:], noise(1, 1<<20))
	copy(content[size-5000:], noise(2, 5000))
	to := target(t, path, disk.TargetOptions{Size: size, Token: "point 1"})
	if to.Kind() != disk.NewFile || !to.Blank() || to.Resumed() || to.Size() != size || to.Path() != path {
		t.Errorf("got %s, blank %v, resumed %v, at %s", to.Kind(), to.Blank(), to.Resumed(), to.Path())
	}
	put(t, to, content, extent.Range{Off: 3 << 20, Len: 1 << 20})
	put(t, to, content, extent.Between(size-5000, size))
	if err := to.Zero(ctx, extent.Range{Len: 3 << 20}); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir); got != "disk.qcow2.diskvault-partial disk.qcow2.diskvault-partial.token" {
		t.Errorf("before Commit there is %s", got)
	}
	commit(t, to)
	if got := listing(t, dir); got != "disk.qcow2" {
		t.Errorf("after Commit there is %s", got)
	}
	sameImage(t, path, content)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode&0o777 != 0o600 || st.Blocks*512 > 3<<20 || st.Size > 3<<20 {
		t.Errorf("the image has the mode %o, takes %d bytes and has %d", st.Mode&0o777, st.Blocks*512, st.Size)
	}
	var info struct {
		Format  string `json:"format"`
		Virtual int64  `json:"virtual-size"`
	}
	if err := json.Unmarshal([]byte(disktest.Run(t, "qemu-img", "info", "--output=json", path)), &info); err != nil || info.Format != "qcow2" || info.Virtual != size {
		t.Errorf("the image is %+v (%v)", info, err)
	}
	if _, err := disk.OpenTarget(ctx, path, disk.TargetOptions{Size: size}); true {
		wantCode(t, err, problem.TargetExists, path)
	}
	// What was restored can be backed up again, as the same disk.
	if s := probe(t, path); s.Size != size || !s.Inside() {
		t.Errorf("the probe gave %+v", s)
	}
}

func TestImageTargetByOption(t *testing.T) {
	disktest.Need(t, "qemu-img", "qemu-nbd")
	dir := t.TempDir()
	content := noise(3, 1<<20)
	as := func(name string, format disk.Format, dense bool) string {
		path := filepath.Join(dir, name)
		to := target(t, path, disk.TargetOptions{Size: 1 << 20, Format: format, Dense: dense})
		put(t, to, content, extent.Range{Len: 1 << 20})
		commit(t, to)
		return path
	}
	sameImage(t, as("a.img", disk.FormatQCOW2, false), content)
	sameImage(t, as("dense.qcow2", "", true), content)
	holds(t, as("raw.qcow2", disk.FormatRaw, false), content)
	for _, name := range []string{"a.vmdk", "a.VHDX", "a.vdi"} {
		_, err := disk.OpenTarget(ctx, filepath.Join(dir, name), disk.TargetOptions{Size: 1 << 20})
		wantCode(t, err, problem.TargetNotWritable, "raw and qcow2")
	}
	// A disk that ends within a sector.
	path := filepath.Join(dir, "odd.qcow2")
	to := target(t, path, disk.TargetOptions{Size: 1000_001})
	put(t, to, content[:1000_001], extent.Range{Len: 1000_001})
	commit(t, to)
	sameImage(t, path, append(bytes.Clone(content[:1000_001]), make([]byte, 1000_448-1000_001)...))
}

func TestImageTargetIsGoneOnWith(t *testing.T) {
	disktest.Need(t, "qemu-img", "qemu-nbd")
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.qcow2")
	content := noise(4, 1<<20)
	clear(content[:256<<10])
	o := disk.TargetOptions{Size: 1 << 20, Token: "point 1"}
	first := target(t, path, o)
	wrong := bytes.Repeat([]byte{9}, 512<<10)
	put(t, first, wrong, extent.Range{Len: 512 << 10})
	_, err := disk.OpenTarget(ctx, path, o)
	wantCode(t, err, problem.TargetInUse, "Another restore")
	if err := first.Abort(true); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir); strings.Contains(got, "disk.qcow2 ") {
		t.Errorf("an interrupted restore left %s", got)
	}

	second := target(t, path, o)
	if !second.Resumed() || second.Blank() {
		t.Fatalf("resumed %v, blank %v", second.Resumed(), second.Blank())
	}
	got := make([]byte, 512<<10)
	if _, err := second.ReadAt(got, 0); err != nil || !bytes.Equal(got, wrong) {
		t.Errorf("what was written is not there (%v)", err)
	}
	if at, err := second.NextData(0); err != nil || at != 0 {
		t.Errorf("the first data is at %d (%v)", at, err)
	}
	if at, err := second.NextData(512 << 10); err != nil || at != 1<<20 {
		t.Errorf("there is data at %d (%v)", at, err)
	}
	if err := second.Zero(ctx, extent.Range{Len: 256 << 10}); err != nil {
		t.Fatal(err)
	}
	put(t, second, content, extent.Between(256<<10, 1<<20))
	commit(t, second)
	sameImage(t, path, content)

	// Of another point, or of none, nothing is gone on with.
	other := filepath.Join(dir, "other.qcow2")
	third := target(t, other, o)
	if err := third.Abort(true); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"point 2", ""} {
		again := target(t, other, disk.TargetOptions{Size: 1 << 20, Token: token})
		if again.Resumed() || !again.Blank() {
			t.Errorf("with the token %q it is resumed %v, blank %v", token, again.Resumed(), again.Blank())
		}
		if err := again.Abort(false); err != nil {
			t.Fatal(err)
		}
	}
	if got := listing(t, dir); got != "disk.qcow2" {
		t.Errorf("left is %s", got)
	}
}

// Damage to the unfinished image is found, and it is made anew.
func TestImageTargetDamagedMeanwhile(t *testing.T) {
	disktest.Need(t, "qemu-img", "qemu-nbd")
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	o := disk.TargetOptions{Size: 1 << 20, Token: "point 1"}
	first := target(t, path, o)
	put(t, first, noise(5, 1<<20), extent.Range{Len: 1 << 20})
	if err := first.Abort(true); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path+".diskvault-partial", 200<<10); err != nil {
		t.Fatal(err)
	}
	second := target(t, path, o)
	if second.Resumed() || !second.Blank() {
		t.Errorf("resumed %v, blank %v", second.Resumed(), second.Blank())
	}
	commit(t, second)
	sameImage(t, path, make([]byte, 1<<20))
}

func TestImageTargetReplacesWhole(t *testing.T) {
	disktest.Need(t, "qemu-img", "qemu-nbd")
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "disk.qcow2"), []byte("what was there before"))
	to := target(t, path, disk.TargetOptions{Size: 1 << 20, Overwrite: true})
	content := noise(6, 1<<20)
	put(t, to, content, extent.Range{Len: 1 << 20})
	holds(t, path, []byte("what was there before")) // until the new one is whole
	commit(t, to)
	sameImage(t, path, content)

	disktest.Serve(t, "qemu-nbd", "-t", "-f", "qcow2", "-k", "%s", path) // as a machine that runs
	_, err := disk.OpenTarget(ctx, path, disk.TargetOptions{Size: 1 << 20, Overwrite: true})
	wantCode(t, err, problem.TargetInUse, path)
}

func TestImageTargetFull(t *testing.T) {
	disktest.Need(t, "qemu-img", "qemu-nbd")
	dir, _ := disktest.FileSystem(t, "ext4", 16<<20)
	to := target(t, filepath.Join(dir, "disk.qcow2"), disk.TargetOptions{Size: 64 << 20})
	var err error
	for at := int64(0); at < 64<<20 && err == nil; at += 1 << 20 {
		_, err = to.WriteAt(noise(uint64(at>>20), 1<<20), at)
	}
	wantCode(t, err, problem.TargetFull, "no room")
	if err := to.Abort(false); err != nil {
		t.Error(err)
	}
	if got := listing(t, dir); got != "lost+found" {
		t.Errorf("left is %s", got)
	}
}

// A restore that is killed leaves nothing that looks finished, no process, and
// something to go on with.
func TestImageTargetKilled(t *testing.T) {
	if os.Getenv("DISKVAULT_RESTORE_TO") != "" {
		to, err := disk.OpenTarget(ctx, os.Getenv("DISKVAULT_RESTORE_TO"), disk.TargetOptions{Size: 64 << 20, Token: "point 1"})
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(0); ; at = (at + 1<<20) % (32 << 20) {
			if _, err := to.WriteAt(noise(7, 1<<20), at); err != nil {
				t.Fatal(err)
			}
			if at == 31<<20 {
				os.Stdout.WriteString("written\n")
			}
		}
	}
	disktest.Need(t, "qemu-img", "qemu-nbd", "pgrep")
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	c := exec.Command(os.Args[0], "-test.run=^TestImageTargetKilled$")
	c.Env = append(os.Environ(), "DISKVAULT_RESTORE_TO="+path)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // it was killed
	if _, err := os.Stat(path); err == nil {
		t.Error("a killed restore left something that looks finished")
	}
	var to *disk.Target
	for to == nil { // the process of QEMU may still be writing what it was given
		to, err = disk.OpenTarget(ctx, path, disk.TargetOptions{Size: 64 << 20, Token: "point 1"})
		if err != nil && !problem.Is(err, problem.TargetInUse) {
			t.Fatal(err)
		}
	}
	if !to.Resumed() {
		t.Error("nothing was left to go on with")
	}
	want := make([]byte, 64<<20)
	for at := 0; at < 32<<20; at += 1 << 20 {
		copy(want[at:], noise(7, 1<<20))
	}
	commit(t, to)
	sameImage(t, path, want)
	if out, err := exec.Command("pgrep", "-f", path).CombinedOutput(); err == nil {
		t.Errorf("processes are left: %s", out)
	}
}
