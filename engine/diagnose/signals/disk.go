package signals

import (
	"bufio"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func diskNames(side string) []string {
	names := []string{"depth", "busy", "bytesPerSecond", "othersShare", "rotational"}
	if side == "src" {
		names = append(names, "rAwaitMs", "rSizeBytes", "othersCorrelation")
	} else {
		names = append(names, "wAwaitMs", "fAwaitMs")
	}
	for i := range names {
		names[i] = "D." + side + "." + names[i]
	}
	return names
}

// disk reads the counters of a device.
func (s *Sampler) disk(c map[string]float64, side, device string) {
	if device == "" {
		s.missing("it lies on no block device of this host", diskNames(side)...)
		return
	}
	text, ok := s.read("proc/diskstats", diskNames(side)...)
	if !ok {
		return
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 14 || f[2] != device {
			continue
		}
		at := func(i int) float64 { // as the kernel's documentation counts: 1 is the first after the name
			if i+2 >= len(f) {
				return 0
			}
			v, _ := strconv.ParseFloat(f[i+2], 64)
			return v
		}
		for name, v := range map[string]float64{
			"reads": at(1), "readBytes": 512 * at(3), "readMs": at(4), "writes": at(5), "writeBytes": 512 * at(7), "writeMs": at(8),
			"busyMs": at(10), "queueMs": at(11), "flushes": at(16), "flushMs": at(17),
		} {
			c[side+"."+name] = v
		}
		if v, err := os.ReadFile(s.path("sys/block", device, "queue/rotational")); err == nil {
			s.now["D."+side+".rotational"] = number(string(v))
		}
		return
	}
	s.missing("the device "+device+" is not in /proc/diskstats", diskNames(side)...)
}

// own reads what this process moved to and from block devices.
func (s *Sampler) own(c map[string]float64) {
	text, ok := s.read("proc/self/io", "D.src.othersShare", "D.dst.othersShare", "D.src.othersCorrelation")
	if !ok {
		return
	}
	for line := range strings.Lines(text) {
		name, v, _ := strings.Cut(line, ":")
		switch name {
		case "read_bytes":
			c["own.read"] = number(v)
		case "write_bytes":
			c["own.write"] = number(v)
		}
	}
}

// idle is the rate below which a disk says nothing about shares.
const idle = 64 << 10

func (s *Sampler) diskSignals(out map[string]float64, side string) {
	g := func(name string) float64 { return s.grown[side+"."+name] }
	if _, ok := s.before[side+".reads"]; !ok {
		return
	}
	put := func(name string, v float64) { out["D."+side+"."+name] = v }
	put("busy", min(1, g("busyMs")/1000/s.wall))
	put("depth", g("queueMs")/1000/s.wall)
	moved := g("readBytes") + g("writeBytes")
	put("bytesPerSecond", moved/s.wall)
	_, own := s.before["own.read"]
	if side == "src" {
		if n := g("reads"); n > 0 {
			put("rAwaitMs", g("readMs")/n)
			put("rSizeBytes", g("readBytes")/n)
		}
		// On one disk for both, what we write to the store is not others' either.
		ours := s.grown["own.read"]
		if s.o.Source == s.o.Store {
			ours += s.grown["own.write"]
		}
		if own && moved/s.wall > idle {
			put("othersShare", share(moved-ours, moved))
			if r, ok := s.pair.value(); ok {
				put("othersCorrelation", r)
			}
		}
		return
	}
	if n := g("writes"); n > 0 {
		put("wAwaitMs", g("writeMs")/n)
	}
	if n := g("flushes"); n > 0 {
		put("fAwaitMs", g("flushMs")/n)
	}
	ours := s.grown["own.write"]
	if s.o.Source == s.o.Store {
		ours += s.grown["own.read"]
	}
	if own && moved/s.wall > idle {
		put("othersShare", share(moved-ours, moved))
	}
}

// room is what the store's file system has free.
func (s *Sampler) room() {
	names := []string{"R.freeShare", "R.freeInodeShare"}
	if s.o.Folder == "" {
		s.missing("the store is not a folder of this host", names...)
		return
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.o.Folder, &st); err != nil {
		s.missing(reason(err), names...)
		return
	}
	if st.Blocks > 0 {
		s.now["R.freeShare"] = float64(st.Bavail) / float64(st.Blocks)
	}
	if st.Files > 0 {
		s.now["R.freeInodeShare"] = float64(st.Ffree) / float64(st.Files)
	} else {
		s.missing("the file system has no table of inodes", "R.freeInodeShare")
	}
}

// array looks whether the source lies on an array that is checked or rebuilt.
func (s *Sampler) array() {
	if s.o.Source == "" {
		s.missing("it lies on no block device of this host", "X.md.active", "X.md.degraded")
		return
	}
	s.now["X.md.active"], s.now["X.md.degraded"] = 0, 0
	for _, device := range s.below(s.o.Source, 0) {
		if text, err := os.ReadFile(s.path("sys/block", device, "md/sync_action")); err == nil && strings.TrimSpace(string(text)) != "idle" {
			s.now["X.md.active"] = 1
		}
		if text, err := os.ReadFile(s.path("sys/block", device, "md/degraded")); err == nil {
			s.now["X.md.degraded"] += number(string(text))
		}
	}
}

// below lists a device and those that it is made of.
func (s *Sampler) below(device string, depth int) []string {
	all := []string{device}
	entries, err := os.ReadDir(s.path("sys/block", device, "slaves"))
	if err != nil || depth > 8 {
		return all
	}
	for _, e := range entries {
		all = append(all, s.below(e.Name(), depth+1)...)
	}
	return all
}

// Device names the whole disk on which a file, folder or block device lies;
// empty: on none that the kernel counts.
func Device(path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return ""
	}
	number := st.Dev
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		number = st.Rdev
	}
	major, minor := unix.Major(number), unix.Minor(number)
	if major == 0 { // a file system of its own number, as btrfs
		return mounted(minor)
	}
	return whole(strconv.Itoa(int(major)) + ":" + strconv.Itoa(int(minor)))
}

// whole names the disk of a device number: that of a partition's disk.
func whole(number string) string {
	real, err := filepath.EvalSymlinks("/sys/dev/block/" + number)
	if err != nil {
		return ""
	}
	if _, err := os.Stat(filepath.Join(real, "partition")); err == nil {
		real = filepath.Dir(real)
	}
	return filepath.Base(real)
}

// mounted finds the device of a file system that has no device number.
func mounted(minor uint32) string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[2] != "0:"+strconv.Itoa(int(minor)) {
			continue
		}
		for i, x := range fields {
			if x == "-" && i+2 < len(fields) && strings.HasPrefix(fields[i+2], "/dev/") {
				return Device(fields[i+2])
			}
		}
	}
	return ""
}

func number(text string) float64 {
	v, _ := strconv.ParseFloat(strings.TrimSpace(text), 64)
	return v
}

func share(part, of float64) float64 {
	if of <= 0 {
		return 0
	}
	return min(1, max(0, part/of))
}

// correlation of two series, after Pearson.
type correlation struct{ n, x, y, xx, yy, xy float64 }

func (c *correlation) add(x, y float64) {
	c.n, c.x, c.y, c.xx, c.yy, c.xy = c.n+1, c.x+x, c.y+y, c.xx+x*x, c.yy+y*y, c.xy+x*y
}

// value is known after thirty pairs, if both series move.
func (c *correlation) value() (float64, bool) {
	a, b := c.n*c.xx-c.x*c.x, c.n*c.yy-c.y*c.y
	if c.n < 30 || a <= 0 || b <= 0 {
		return 0, false
	}
	return (c.n*c.xy - c.x*c.y) / math.Sqrt(a*b), true
}
