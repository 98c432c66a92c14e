package qemutest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// GuestRing is what the guest of StartGuest writes to each of its disks, in
// turns: first to disk 0, then to disk 1.
func GuestRing(size int64) Ring { return Ring{Size: size, Slots: 1024} }

// Guest is an emulated machine with Linux, whose only program writes GuestRing.
type Guest struct {
	*Process
	console string
}

// StartGuest boots a machine with two virtio disks of the given files, "sys" by
// -blockdev with the node "sysdisk", "data" by -drive as old machines have it. It
// waits until the guest writes.
func StartGuest(t testing.TB, folder string, sys, data string) *Guest {
	t.Helper()
	kernel, modules := kernel(t)
	g := &Guest{console: filepath.Join(folder, "console")}
	g.Process = Machine(t, folder, "-m", "256", "-kernel", kernel, "-initrd", initramfs(t, folder, modules),
		"-append", "console=ttyS0 quiet panic=-1", "-serial", "file:"+g.console,
		"-blockdev", "driver=file,node-name=sysfile,discard=unmap,filename="+sys,
		"-blockdev", "driver=qcow2,node-name=sysdisk,discard=unmap,file=sysfile",
		"-device", "virtio-blk-pci,id=sys,drive=sysdisk",
		"-drive", "if=virtio,id=data,format=qcow2,file="+data)
	for began := time.Now(); g.Number() == 0; time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			said, _ := os.ReadFile(g.console)
			t.Fatalf("the guest does not write: %s", said)
		}
	}
	return g
}

var told = regexp.MustCompile(`number (\d+), longest write (\d+) us`)

// Number is the last number that the guest told that it wrote to both disks.
func (g *Guest) Number() uint64 {
	numbers, _ := g.told()
	if len(numbers) == 0 {
		return 0
	}
	return numbers[len(numbers)-1]
}

// told is what the guest told: numbers, and the longest write before each.
func (g *Guest) told() (numbers []uint64, longest []time.Duration) {
	said, _ := os.ReadFile(g.console)
	for _, m := range told.FindAllSubmatch(said, -1) {
		n, _ := strconv.ParseUint(string(m[1]), 10, 64)
		us, _ := strconv.Atoi(string(m[2]))
		numbers, longest = append(numbers, n), append(longest, time.Duration(us)*time.Microsecond)
	}
	return numbers, longest
}

// Longest is the longest write that the guest told of.
func (g *Guest) Longest() time.Duration {
	_, all := g.told()
	var longest time.Duration
	for _, d := range all {
		longest = max(longest, d)
	}
	return longest
}

// Complaint is what made the guest's program end; "" if it runs.
func (g *Guest) Complaint() string {
	said, _ := os.ReadFile(g.console)
	_, after, _ := strings.Cut(string(said), "guest ended:")
	return after
}

// kernel finds a Linux with its modules.
func kernel(t testing.TB) (kernel, modules string) {
	t.Helper()
	found, _ := filepath.Glob("/boot/vmlinuz-*")
	for _, k := range found {
		modules := "/lib/modules/" + strings.TrimPrefix(filepath.Base(k), "vmlinuz-")
		if _, err := os.Stat(filepath.Join(modules, "kernel/drivers/block/virtio_blk.ko")); err == nil {
			return k, modules
		}
	}
	t.Skip("skip: needs a Linux kernel with modules in /boot, such as linux-image-cloud-amd64")
	return "", ""
}

// initramfs makes the file system that the guest runs from: its program, and the
// drivers of its disks.
func initramfs(t testing.TB, folder, modules string) string {
	t.Helper()
	program := filepath.Join(folder, "init")
	build := exec.Command("go", "build", "-o", program, "github.com/diskvault/diskvault/disk/qemu/qemutest/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the guest: %v: %s", err, out)
	}
	var archive cpio
	for _, dir := range []string{"dev", "sys", "modules"} {
		archive.add(dir, 0o40755, nil)
	}
	var names []string
	for _, m := range drivers(t, modules) {
		b, err := os.ReadFile(filepath.Join(modules, m))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Base(m))
		archive.add("modules/"+filepath.Base(m), 0o100644, b)
	}
	archive.add("modules/order", 0o100644, []byte(strings.Join(names, "\n")))
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	archive.add("init", 0o100755, b)
	archive.add("TRAILER!!!", 0, nil)
	path := filepath.Join(folder, "initramfs")
	if err := os.WriteFile(path, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// drivers are the modules for virtio disks, each after those that it needs.
func drivers(t testing.TB, modules string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(modules, "modules.dep"))
	if err != nil {
		t.Fatal(err)
	}
	needs := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		name, all, _ := strings.Cut(line, ":")
		needs[name] = strings.Fields(all)
	}
	var order []string
	for _, want := range []string{"kernel/drivers/virtio/virtio_pci.ko", "kernel/drivers/block/virtio_blk.ko"} {
		all := slices.Clone(needs[want])
		slices.Reverse(all) // the last one named needs nothing
		for _, name := range append(all, want) {
			if !slices.Contains(order, name) {
				order = append(order, name)
			}
		}
	}
	return order
}

// cpio is an archive as the kernel reads it ("newc").
type cpio struct {
	bytes.Buffer
	entries int
}

func (c *cpio) add(name string, mode uint32, content []byte) {
	c.entries++
	fmt.Fprintf(c, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.entries, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	c.WriteString(name + "\x00")
	c.pad()
	c.Write(content)
	c.pad()
}

func (c *cpio) pad() {
	for c.Len()%4 != 0 {
		c.WriteByte(0)
	}
}
