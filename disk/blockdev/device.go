// Package blockdev tells what the kernel knows about block devices: how they
// stand on one another, who uses them, whether other hosts can write to them,
// and how much has been written. It reads sysfs and procfs only; it opens no
// device.
package blockdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Kernel is where the kernel describes itself. The zero value is this host;
// tests point it at a made-up tree.
type Kernel struct {
	Sys  string // "" is /sys
	Proc string // "" is /proc
}

func (k Kernel) sys(parts ...string) string {
	root := k.Sys
	if root == "" {
		root = "/sys"
	}
	return filepath.Join(append([]string{root}, parts...)...)
}

func (k Kernel) proc(parts ...string) string {
	root := k.Proc
	if root == "" {
		root = "/proc"
	}
	return filepath.Join(append([]string{root}, parts...)...)
}

// Device is one block device: a whole disk or a partition. It holds no
// resources and may be copied.
type Device struct {
	Name   string // the kernel's name, such as "sda1"
	kernel Kernel
	dir    string // its folder in sysfs, free of links
}

// ByNumber finds a device by the number that stat(2) gives in st_rdev or
// st_dev. The error is fs.ErrNotExist if no block device has it, as is the case
// for the st_dev of btrfs, overlay and network file systems.
func (k Kernel) ByNumber(number uint64) (Device, error) {
	link := k.sys("dev/block", fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number)))
	return k.at(link)
}

// ByName finds a device by the kernel's name for it.
func (k Kernel) ByName(name string) (Device, error) {
	// sysfs writes a slash in a device's name as an exclamation mark.
	return k.at(k.sys("class/block", strings.ReplaceAll(name, "/", "!")))
}

// ByPath finds the device that a device node (or a link to one) stands for.
func (k Kernel) ByPath(path string) (Device, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Device{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Device{}, fmt.Errorf("%s is not a block device: %w", path, fs.ErrNotExist)
	}
	return k.ByNumber(st.Rdev)
}

func (k Kernel) at(path string) (Device, error) {
	dir, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Device{}, err
	}
	return Device{Name: strings.ReplaceAll(filepath.Base(dir), "!", "/"), kernel: k, dir: dir}, nil
}

// Attribute reads one file of the device's folder in sysfs, without the line
// end; "" if it is not there or not readable.
func (d Device) Attribute(name string) string {
	text, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(text), "\n")
}

func (d Device) exists(name string) bool {
	_, err := os.Stat(filepath.Join(d.dir, name))
	return err == nil
}

// IsPartition tells whether the device is a part of another.
func (d Device) IsPartition() bool { return d.exists("partition") }

// Whole is the disk that a partition is part of; a whole disk is its own.
func (d Device) Whole() Device {
	if !d.IsPartition() {
		return d
	}
	dir := filepath.Dir(d.dir)
	return Device{Name: strings.ReplaceAll(filepath.Base(dir), "!", "/"), kernel: d.kernel, dir: dir}
}

// Partitions are the parts of a whole disk.
func (d Device) Partitions() []Device {
	entries, _ := os.ReadDir(d.dir)
	var parts []Device
	for _, e := range entries {
		part := Device{Name: strings.ReplaceAll(e.Name(), "!", "/"), kernel: d.kernel, dir: filepath.Join(d.dir, e.Name())}
		if e.IsDir() && part.IsPartition() {
			parts = append(parts, part)
		}
	}
	return parts
}

func (d Device) linked(folder string) []Device {
	entries, _ := os.ReadDir(filepath.Join(d.dir, folder))
	var out []Device
	for _, e := range entries {
		if other, err := d.kernel.at(filepath.Join(d.dir, folder, e.Name())); err == nil {
			out = append(out, other)
		}
	}
	return out
}

// Slaves are the devices that this one stores its data on (device mapper, md).
func (d Device) Slaves() []Device { return d.linked("slaves") }

// Holders are the devices that store their data on this one.
func (d Device) Holders() []Device { return d.linked("holders") }

// BackingFile is the file or device under a loop device; "" for other devices
// and for a loop device that is not in use.
func (d Device) BackingFile() string { return d.Whole().Attribute("loop/backing_file") }

// Below are all devices that a write to this one goes through to storage: the
// whole disk of a partition, slaves, and devices under a loop device, down to
// the ground, in order of name. The device itself is not among them.
func (d Device) Below() []Device {
	return d.closure(func(at Device) []Device {
		next := at.Slaves()
		if at.IsPartition() {
			next = append(next, at.Whole())
		}
		if file := at.BackingFile(); file != "" {
			if under, err := at.kernel.ByPath(file); err == nil {
				next = append(next, under)
			}
		}
		return next
	})
}

// Above are all devices whose writes arrive at this one: its partitions, its
// holders and loop devices on it, and theirs, in order of name. The device
// itself is not among them.
func (d Device) Above() []Device {
	loops := d.kernel.Loops()
	return d.closure(func(at Device) []Device {
		next := append(at.Partitions(), at.Holders()...)
		for _, l := range loops {
			if under, err := at.kernel.ByPath(l.BackingFile()); err == nil && under.Name == at.Name {
				next = append(next, l)
			}
		}
		return next
	})
}

func (d Device) closure(step func(Device) []Device) []Device {
	seen := map[string]bool{d.Name: true}
	var out []Device
	for waiting := []Device{d}; len(waiting) > 0; waiting = waiting[1:] {
		for _, next := range step(waiting[0]) {
			if !seen[next.Name] {
				seen[next.Name] = true
				out = append(out, next)
				waiting = append(waiting, next)
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Disks are the whole disks at the ground of this device: those that store on
// no other device. A loop device is followed to the disk of its backing file.
func (d Device) Disks() []Device {
	var out []Device
	seen := map[string]bool{}
	var walk func(Device)
	walk = func(at Device) {
		at = at.Whole()
		if seen[at.Name] {
			return
		}
		seen[at.Name] = true
		under := at.Slaves()
		if file := at.BackingFile(); file != "" {
			under = append(under, at.kernel.Holding(file)...)
		}
		if len(under) == 0 {
			out = append(out, at)
		}
		for _, u := range under {
			walk(u)
		}
	}
	walk(d)
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Holding gives the devices on which path is stored: the device itself if it is
// one, else those of the file system that it lies on. It is empty where the
// file system is on no block device of this host.
func (k Kernel) Holding(path string) []Device {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return nil
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		if d, err := k.ByNumber(st.Rdev); err == nil {
			return []Device{d}
		}
		return nil
	}
	if d, err := k.ByNumber(st.Dev); err == nil {
		return []Device{d}
	}
	// btrfs gives its files a number that no device has; the mount table tells
	// what it lies on.
	var stx unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &stx) != nil || stx.Mask&unix.STATX_MNT_ID == 0 {
		return nil
	}
	mounts, err := k.Mounts()
	if err != nil {
		return nil
	}
	for _, m := range mounts {
		if m.id == fmt.Sprint(stx.Mnt_id) && strings.HasPrefix(m.Source, "/") {
			if d, err := k.ByPath(m.Source); err == nil {
				return append([]Device{d}, k.btrfsSiblings(d)...)
			}
		}
	}
	return nil
}

// btrfsSiblings are the other devices of the mounted btrfs that d belongs to.
func (k Kernel) btrfsSiblings(d Device) []Device {
	members, _ := filepath.Glob(k.sys("fs/btrfs/*/devices", strings.ReplaceAll(d.Name, "/", "!")))
	var out []Device
	for _, member := range members {
		entries, _ := os.ReadDir(filepath.Dir(member))
		for _, e := range entries {
			if other, err := k.ByName(e.Name()); err == nil && other.Name != d.Name {
				out = append(out, other)
			}
		}
	}
	return out
}

// Loops are the loop devices that have a backing file.
func (k Kernel) Loops() []Device {
	dirs, _ := filepath.Glob(k.sys("block/loop*"))
	var out []Device
	for _, dir := range dirs {
		if d, err := k.at(dir); err == nil && d.BackingFile() != "" {
			out = append(out, d)
		}
	}
	return out
}

// LoopsOn are the loop devices whose backing file is the file at path, by
// whatever name they opened it.
func (k Kernel) LoopsOn(path string) []Device {
	want, err := os.Stat(path)
	if err != nil {
		return nil
	}
	var out []Device
	for _, l := range k.Loops() {
		have, err := os.Stat(l.BackingFile())
		if err == nil && os.SameFile(want, have) {
			out = append(out, l)
		}
	}
	return out
}

// ReadOnly tells whether the kernel refuses writes to the device.
func (d Device) ReadOnly() bool { return d.Attribute("ro") == "1" }

// Rotational tells whether the device says that it is a spinning disk.
func (d Device) Rotational() bool { return d.queue("rotational") == "1" }

// queue reads a limit of the request queue, which a partition shares with its
// disk.
func (d Device) queue(name string) string { return d.Whole().Attribute("queue/" + name) }

// LogicalSector is the smallest unit of a direct read in bytes, 512 if the
// kernel does not say.
func (d Device) LogicalSector() int { return d.sector("logical_block_size") }

// PhysicalSector is the unit in which the device itself writes, in bytes.
func (d Device) PhysicalSector() int { return d.sector("physical_block_size") }

func (d Device) sector(name string) int {
	if n, err := strconv.Atoi(d.queue(name)); err == nil && n >= 512 {
		return n
	}
	return 512
}

// Sequence is a number that changes whenever other media or another backing
// file comes under the same device name; "" on kernels without it.
func (d Device) Sequence() string { return d.Whole().Attribute("diskseq") }

// Model is the maker's name of the device; "" if it has none.
func (d Device) Model() string { return strings.TrimSpace(d.Whole().Attribute("device/model")) }

// ErrNoCounters says that the kernel gives no usable statistics for a device.
var ErrNoCounters = errors.New("the kernel keeps no statistics of the device")
