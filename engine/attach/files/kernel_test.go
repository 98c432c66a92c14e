package files

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// long is the thorough form of the tests.
var long = os.Getenv("DISKVAULT_LONG") != ""

// TestReadsAsTheKernelDoes compares every file, attribute and hole with the
// kernel's own view of the same image.
func TestReadsAsTheKernelDoes(t *testing.T) {
	full := traits{unix: true, xattrs: true, acls: true, links: true, symlink: true, big: 700, values: 20}
	if long {
		full.big = 5000
	}
	few, old, huge := full, full, full
	few.values = 4
	old.epoch32, old.values = true, 4
	huge.huge = true
	type variant struct {
		name string
		size int64
		mkfs []string
		has  traits
	}
	variants := []variant{
		{"ext4", 256 << 20, []string{"mkfs.ext4", "-q", "-b", "4096"}, full},
		{"ext4 with inline data", 128 << 20, []string{"mkfs.ext4", "-q", "-b", "4096", "-O", "inline_data,ea_inode,large_dir"}, huge},
		{"ext2", 128 << 20, []string{"mkfs.ext2", "-q", "-b", "1024"}, few},
		{"xfs", 320 << 20, []string{"mkfs.xfs", "-q"}, huge},
	}
	if long {
		variants = append(variants,
			variant{"ext4 of 1 KiB blocks", 128 << 20, []string{"mkfs.ext4", "-q", "-b", "1024", "-O", "^metadata_csum"}, few},
			variant{"ext4 of 32 bits", 256 << 20, []string{"mkfs.ext4", "-q", "-O", "^64bit,^flex_bg,^has_journal", "-I", "128"}, old},
			variant{"ext4 with groups of descriptors", 256 << 20, []string{"mkfs.ext4", "-q", "-b", "1024", "-O", "meta_bg,^resize_inode"}, few},
			variant{"ext4 with big clusters", 768 << 20, []string{"mkfs.ext4", "-q", "-O", "bigalloc", "-C", "65536"}, few},
			variant{"ext3", 256 << 20, []string{"mkfs.ext3", "-q"}, few},
			variant{"xfs of 1 KiB blocks", 320 << 20, []string{"mkfs.xfs", "-q", "-b", "size=1024", "-n", "size=4096", "-i", "size=512"}, huge},
			variant{"xfs without big times", 320 << 20, []string{"mkfs.xfs", "-q", "-m", "bigtime=0,rmapbt=1", "-n", "size=16384"}, old},
		)
	}
	for _, c := range variants {
		t.Run(c.name, func(t *testing.T) {
			needs(t, true, "mount", "setfacl", c.mkfs[0])
			image := blank(t, c.size)
			tool(t, c.mkfs[0], append(c.mkfs[1:], image)...)
			has := c.has
			dir, unmount := mounted(t, image)
			populate(t, dir, has)
			want := faces(t, dir, has)
			unmount()
			fs := lone(t, image)
			if v := fs.Volume(); v.Stale != "" || v.Kind != strings.Fields(c.name)[0] {
				t.Errorf("%+v", v)
			}
			same(t, read(t, fs, has), want)
		})
	}
}

// TestReadsAsMtoolsDo compares FAT with what mtools copy out of it.
func TestReadsAsMtoolsDo(t *testing.T) {
	for _, c := range []struct {
		name string
		size int64
		args []string
	}{
		{"FAT12", 4 << 20, []string{"-F", "12"}},
		{"FAT16", 64 << 20, []string{"-F", "16", "-n", "A LABEL"}},
		{"FAT32", 300 << 20, []string{"-F", "32"}},
		{"FAT32 of 4 KiB sectors", 600 << 20, []string{"-F", "32", "-S", "4096"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			needs(t, false, "mkfs.vfat", "mcopy", "mmd", "mdel")
			t.Setenv("MTOOLS_SKIP_CHECK", "1")
			t.Setenv("TZ", "UTC")
			image := blank(t, c.size)
			tool(t, "mkfs.vfat", append(c.args, image)...)
			src := t.TempDir()
			write := func(name string, n int) {
				path := filepath.Join(src, name)
				must(t, os.MkdirAll(filepath.Dir(path), 0o755))
				must(t, os.WriteFile(path, []byte(strings.Repeat(name, n/len(name)+1))[:n], 0o644))
			}
			for _, name := range []string{"SHORT.TXT", "lower.txt", "A long name with spaces.text", "Grüße 世界.txt", "no extension", strings.Repeat("n", 200)} {
				write("names/"+name, 1000)
			}
			for i := range 300 {
				write("many/an entry with a long name "+strings.Repeat("y", i%30)+string(rune('a'+i%26))+".bin"+strings.Repeat("0", i/26), i*7)
			}
			write("deep/a/b/c/d/e/f/g/h/file", 77)
			write("large.bin", 1_500_000)
			write("empty", 0)
			tool(t, "sh", "-c", "cd '"+src+"' && LC_ALL=C.UTF-8 mcopy -s -m -i '"+image+"' * ::/")
			tool(t, "mdel", "-i", image, "::/large.bin")
			tool(t, "sh", "-c", "cd '"+src+"' && mcopy -m -i '"+image+"' names/lower.txt ::/'again, in freed room.txt' && mcopy -m -i '"+image+"' large.bin ::/large.bin")
			out := t.TempDir()
			tool(t, "sh", "-c", "cd '"+out+"' && LC_ALL=C.UTF-8 mcopy -s -m -n -i '"+image+"' '::/*' .")
			fs := lone(t, image)
			got := read(t, fs, traits{})
			want := faces(t, out, traits{})
			same(t, withoutTimes(got), withoutTimes(want))
			if c.name == "FAT16" && fs.Volume().Label != "A LABEL" {
				t.Errorf("label %q", fs.Volume().Label)
			}
		})
	}
}

// withoutTimes leaves times away, which mtools round in their own way.
func withoutTimes(all map[string]face) map[string]face {
	out := map[string]face{}
	for name, f := range all {
		f.what, _, _ = strings.Cut(f.what, " modified")
		out[name] = f
	}
	return out
}

// TestReadsAsNTFS3GDoes compares NTFS with ntfs-3g.
func TestReadsAsNTFS3GDoes(t *testing.T) {
	has := traits{links: true, symlink: true, xattrs: true, big: 500}
	if long {
		has.big = 5000
	}
	for _, c := range []struct {
		name string
		long bool
		args []string
	}{
		{"usual", false, nil},
		{"small clusters", true, []string{"-c", "512"}},
		{"large clusters", true, []string{"-c", "65536"}},
		{"compressed", false, []string{"-C"}},
	} {
		if c.long && !long {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			needs(t, true, "mkfs.ntfs", "ntfs-3g", "fusermount3")
			image := blank(t, 300<<20)
			tool(t, "mkfs.ntfs", append(append([]string{"-Q", "-F", "-L", "a label"}, c.args...), image)...)
			dir := t.TempDir()
			tool(t, "ntfs-3g", "-o", "compression", image, dir)
			mounted := true
			unmount := func() {
				if mounted {
					mounted = false
					tool(t, "umount", dir)
				}
			}
			t.Cleanup(unmount)
			populate(t, dir, has)
			unmount()
			tool(t, "ntfs-3g", "-o", "ro", image, dir)
			mounted = true
			want := faces(t, dir, has)
			unmount()
			fs := lone(t, image)
			if v := fs.Volume(); v.Label != "a label" || v.Kind != "ntfs" || v.Stale != "" {
				t.Errorf("%+v", v)
			}
			same(t, read(t, fs, has), want)
		})
	}
}

// TestReadsOldXFS reads version 4, which kernels no longer mount.
func TestReadsOldXFS(t *testing.T) {
	needs(t, false, "mkfs.xfs")
	dir := t.TempDir()
	proto := "/stand\n0 0\nd--755 3 1\n"
	for i := range 200 {
		path := filepath.Join(dir, "f")
		must(t, os.WriteFile(path+strings.Repeat("x", i), []byte(strings.Repeat("content ", i*i)), 0o644))
		proto += "file" + strings.Repeat("x", i) + " ---644 7 8 " + path + strings.Repeat("x", i) + "\n"
	}
	proto += "link l--777 1 2 file\nfolder d--755 0 0\ninner ---600 9 9 " + dir + "/fxx\n$\n$\n"
	must(t, os.WriteFile(filepath.Join(dir, "proto"), []byte(proto), 0o600))
	image := blank(t, 320<<20)
	tool(t, "mkfs.xfs", "-q", "-m", "crc=0", "-n", "ftype=0", "-p", filepath.Join(dir, "proto"), image)
	fs := lone(t, image)
	if fs.Volume().Stale != "" {
		t.Errorf("stale: %s", fs.Volume().Stale)
	}
	for i := range 200 {
		a, err := fs.Find("file" + strings.Repeat("x", i))
		must(t, err)
		c, err := fs.Open(a.Ino)
		must(t, err)
		b := make([]byte, a.Size)
		if n, _ := c.ReadAt(b, 0); n < len(b) || string(b) != strings.Repeat("content ", i*i) || a.UID != 7 || a.GID != 8 {
			t.Fatalf("file %d: %d bytes, %+v", i, n, a)
		}
	}
	if a, err := fs.Find("folder/inner"); err != nil || a.Size != 32 || a.Mode != 0o600 {
		t.Errorf("inner: %+v, %v", a, err)
	}
	a, err := fs.Find("link")
	must(t, err)
	if to, err := fs.Link(a.Ino); err != nil || to != "file" {
		t.Errorf("link to %q, %v", to, err)
	}
}
