package blockdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// tree builds a sysfs in a temporary folder: files by path, "-> target" for a
// link.
func tree(t *testing.T, files map[string]string) Kernel {
	t.Helper()
	root := t.TempDir()
	for path, content := range files {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(filepath.Join(root, target), full)
		} else {
			err = os.WriteFile(full, []byte(content+"\n"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return Kernel{Sys: filepath.Join(root, "sys"), Proc: filepath.Join(root, "proc")}
}

const idle = "10 0 80 5 20 1 160 9 0 10 14 3 0 30 1 7 2"

// disks is a host with a disk sda of two partitions, a disk sdb, and an LVM
// volume dm-0 over sda2 and sdb.
func disks() map[string]string {
	files := map[string]string{}
	add := func(name, dir, number string, more ...string) {
		files[dir+"/dev"] = number
		files[dir+"/stat"] = idle
		files[dir+"/inflight"] = "0 0"
		files["sys/class/block/"+name] = "-> " + dir
		files["sys/dev/block/"+number] = "-> " + dir
		for i := 0; i < len(more); i += 2 {
			files[dir+"/"+more[i]] = more[i+1]
		}
	}
	const sda, sdb, dm = "sys/devices/pci0/ata1/sda", "sys/devices/pci0/ata2/sdb", "sys/devices/virtual/block/dm-0"
	add("sda", sda, "8:0", "queue/iostats", "1", "queue/rotational", "1", "queue/logical_block_size", "4096", "ro", "0", "diskseq", "3")
	add("sda1", sda+"/sda1", "8:1", "partition", "1", "ro", "1")
	add("sda2", sda+"/sda2", "8:2", "partition", "2", "holders/dm-0", "-> "+dm)
	add("sdb", sdb, "8:16", "queue/iostats", "0", "holders/dm-0", "-> "+dm)
	add("dm-0", dm, "253:0", "slaves/sda2", "-> "+sda+"/sda2", "slaves/sdb", "-> "+sdb, "queue/iostats", "1", "dm/uuid", "LVM-xyz")
	files["sys/block/unrelated/dev"] = "1:0"
	return files
}

func names(devices []Device) string {
	var out []string
	for _, d := range devices {
		out = append(out, d.Name)
	}
	return strings.Join(out, " ")
}

func byName1(t *testing.T, k Kernel, name string) Device {
	t.Helper()
	d, err := k.ByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestChains(t *testing.T) {
	k := tree(t, disks())
	for _, c := range []struct{ name, whole, partitions, below, above, disks string }{
		{"sda", "sda", "sda1 sda2", "", "dm-0 sda1 sda2", "sda"},
		{"sda1", "sda", "", "sda", "", "sda"},
		{"sda2", "sda", "", "sda", "dm-0", "sda"},
		{"sdb", "sdb", "", "", "dm-0", "sdb"},
		{"dm-0", "dm-0", "", "sda sda2 sdb", "", "sda sdb"},
	} {
		d := byName1(t, k, c.name)
		got := [5]string{d.Whole().Name, names(d.Partitions()), names(d.Below()), names(d.Above()), names(d.Disks())}
		if want := [5]string{c.whole, c.partitions, c.below, c.above, c.disks}; got != want {
			t.Errorf("%s: got %q, want %q", c.name, got, want)
		}
	}
	d := byName1(t, k, "sda1")
	if !d.Rotational() || d.LogicalSector() != 4096 || d.PhysicalSector() != 512 || d.Sequence() != "3" || !d.ReadOnly() {
		t.Errorf("the attributes of sda1 are not read right")
	}
	if d.Elsewhere() != "" {
		t.Errorf("a local disk is called remote: %s", d.Elsewhere())
	}
	if _, err := k.ByName("sdz"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing device gave %v", err)
	}
	if d, err := k.ByNumber(8<<8 | 16); err != nil || d.Name != "sdb" {
		t.Errorf("8:16 is %s (%v)", d.Name, err)
	}
}

func TestCounters(t *testing.T) {
	files := disks()
	files["sys/devices/pci0/ata1/sda/sda2/inflight"] = "4 2"
	k := tree(t, files)
	c, err := byName1(t, k, "sda2").Counters()
	want := Counters{Writes: 20, WrittenSectors: 160, Discards: 3, DiscardSectors: 30, Flushes: 7, WritesInFlight: 2}
	if err != nil || c != want {
		t.Errorf("got %+v (%v), want %+v", c, err, want)
	}
	if _, err := byName1(t, k, "sdb").Counters(); !errors.Is(err, ErrNoCounters) {
		t.Errorf("with iostats off: %v", err)
	}
	for _, stat := range []string{"", "1 2 3", "10 0 80 5 20 1 160 9 0 10 14 3 0 30 1", strings.Replace(idle, "7", "x", 1)} {
		if _, err := parseCounters(stat, "0 0"); !errors.Is(err, ErrNoCounters) {
			t.Errorf("the statistics %q gave %v", stat, err)
		}
	}
	if _, err := parseCounters(idle, ""); !errors.Is(err, ErrNoCounters) {
		t.Errorf("without inflight: %v", err)
	}
}

func TestElsewhere(t *testing.T) {
	add := func(files map[string]string, name, dir string, more ...string) {
		files["sys/class/block/"+name] = "-> " + dir
		files[dir+"/dev"] = "9:9"
		for i := 0; i < len(more); i += 2 {
			files[dir+"/"+more[i]] = more[i+1]
		}
	}
	for _, c := range []struct {
		name, dir string
		more      []string
		want      string
	}{
		{"nbd0", "sys/devices/virtual/block/nbd0", nil, "network block device"},
		{"rbd1", "sys/devices/rbd/1/block/rbd1", nil, "Ceph RBD"},
		{"drbd2", "sys/devices/virtual/block/drbd2", nil, "DRBD"},
		{"ublkb0", "sys/devices/virtual/block/ublkb0", nil, "ublk"},
		{"dm-1", "sys/devices/virtual/block/dm-1", []string{"dm/uuid", "mpath-36001405"}, "multipath"},
		{"dm-2", "sys/devices/virtual/block/dm-2", []string{"dm/uuid", "LVM-abc"}, ""},
		{"md0", "sys/devices/virtual/block/md0", []string{"md/bitmap/metadata", "clustered"}, "clustered"},
		{"pmem0", "sys/devices/ndbus0/block/pmem0", []string{"queue/dax", "1"}, "DAX"},
		{"sdc", "sys/devices/platform/host5/session1/target5:0:0/5:0:0:1/block/sdc",
			[]string{"device", "-> sys/devices/platform/host5/session1/target5:0:0/5:0:0:1", "size", "1"}, "iSCSI"},
		{"sdd", "sys/devices/pci0/host6/rport-6:0-1/target6:0:1/6:0:1:0/block/sdd",
			[]string{"device", "-> sys/devices/pci0/host6/rport-6:0-1/target6:0:1/6:0:1:0"}, "Fibre Channel"},
		{"nvme0n1", "sys/devices/pci0/nvme/nvme0/nvme0n1", []string{"device", "-> sys/devices/pci0/nvme/nvme0", "../transport", "pcie"}, ""},
		{"nvme1n1", "sys/devices/virtual/nvme-fabrics/ctl/nvme1/nvme1n1",
			[]string{"device", "-> sys/devices/virtual/nvme-fabrics/ctl/nvme1", "../transport", "tcp"}, "remote NVMe device (tcp)"},
		{"nvme2n1", "sys/devices/virtual/nvme-subsystem/nvme-subsys2/nvme2n1",
			[]string{"device", "-> sys/devices/virtual/nvme-subsystem/nvme-subsys2", "../nvme2/transport", "rdma", "../nvme3/transport", "rdma"}, "several paths"},
		{"nvme4n1", "sys/devices/virtual/nvme-subsystem/nvme-subsys4/nvme4n1",
			[]string{"device", "-> sys/devices/virtual/nvme-subsystem/nvme-subsys4", "../nvme4/transport", "pcie"}, ""},
		{"vda", "sys/devices/pci0/virtio2/block/vda", []string{"device", "-> sys/devices/pci0/virtio2"}, ""},
	} {
		files := map[string]string{}
		add(files, c.name, c.dir, c.more...)
		got := byName1(t, tree(t, files), c.name).Elsewhere()
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want something on %q", c.name, got, c.want)
		}
	}
}

func TestMountTable(t *testing.T) {
	files := disks()
	files["proc/self/mountinfo"] = strings.Join([]string{
		`22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,discard`,
		`23 22 253:0 / /srv/my\040disk ro,nosuid - xfs /dev/mapper/vg-lv ro,attr2`,
		`24 22 0:30 / /proc rw shared:5 master:2 - proc proc rw`,
		`25 22 8:16 /sub /a\134b rw - ext4 /dev/sdb rw`,
	}, "\n")
	files["proc/swaps"] = "Filename\t\t\t\tType\t\tSize\tUsed\tPriority\n/swap\\040file  file 1 0 -2"
	k := tree(t, files)
	all, err := k.Mounts()
	if err != nil || len(all) != 4 {
		t.Fatalf("got %v (%v)", all, err)
	}
	for name, want := range map[string]string{
		"sda":  `[/ rw] [/srv/my disk ro]`,
		"sda1": `[/ rw]`,
		"dm-0": `[/srv/my disk ro]`,
		"sdb":  `[/srv/my disk ro] [/a\b rw]`,
	} {
		mounts, err := byName1(t, k, name).Mounts()
		var got []string
		for _, m := range mounts {
			got = append(got, fmt.Sprintf("[%s %s]", m.Dir, map[bool]string{true: "ro", false: "rw"}[m.ReadOnly]))
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: got %q (%v), want %q", name, got, err, want)
		}
	}
	if swaps, err := k.Swaps(); err != nil || !reflect.DeepEqual(swaps, []string{"/swap file"}) {
		t.Errorf("got the swaps %q (%v)", swaps, err)
	}
	if _, err := parseMounts("22 1 8:1 / / rw\n"); err == nil {
		t.Error("a line without a dash was taken")
	}
}

func TestThisHost(t *testing.T) {
	if _, err := os.Stat("/sys/dev/block"); err != nil {
		t.Skip("skip: needs sysfs")
	}
	mounts, err := Kernel{}.Mounts()
	if err != nil || len(mounts) == 0 {
		t.Fatalf("the mount table of this host: %v (%v)", mounts, err)
	}
	for _, d := range (Kernel{}).Holding("/") {
		if _, err := d.Counters(); err != nil {
			t.Logf("%s: %v", d.Name, err)
		}
		on, err := d.Mounts()
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, m := range on {
			found = found || m.Dir == "/"
		}
		if !found {
			t.Errorf("the root lies on %s, whose mounts are %v", d.Name, on)
		}
	}
}

func FuzzKernelText(f *testing.F) {
	f.Add("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n")
	f.Add(idle)
	f.Add(`1 2 3:4 / /a\04 rw - x y`)
	f.Fuzz(func(t *testing.T, text string) {
		mounts, err := parseMounts(text)
		if err != nil && len(mounts) > 0 {
			t.Error("a table that cannot be read gave mounts")
		}
		if _, err := parseCounters(text, text); err != nil && !errors.Is(err, ErrNoCounters) {
			t.Error(err)
		}
	})
}
