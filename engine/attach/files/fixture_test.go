package files

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tool runs a program and returns its output.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func needs(t testing.TB, root bool, programs ...string) {
	t.Helper()
	if root && os.Geteuid() != 0 {
		t.Skip("skip: needs root for loop devices")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip("skip: needs " + p)
		}
	}
}

// blank makes an empty image.
func blank(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// mounted mounts an image by the kernel until the function it returns is called.
func mounted(t testing.TB, image string, options ...string) (dir string, unmount func()) {
	t.Helper()
	dir = t.TempDir()
	tool(t, "mount", "-o", strings.Join(append([]string{"loop"}, options...), ","), image, dir)
	done := false
	unmount = func() {
		if !done {
			done = true
			tool(t, "umount", dir)
		}
	}
	t.Cleanup(unmount)
	return dir, unmount
}

// lone opens the only file system of an image.
func lone(t testing.TB, image string) *FS {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	all, err := Volumes(t.Context(), f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 {
		t.Fatalf("%d volumes, want 1", len(all))
	}
	fs, err := all[0].Files()
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// traits are what a kind of file system can hold.
type traits struct {
	unix    bool // owners, modes, devices
	xattrs  bool
	acls    bool
	links   bool // hard links
	symlink bool
	epoch32 bool // times end in 2038
	values  int  // extended attributes of one file
	huge    bool // attributes of 60,000 bytes
	big     int  // entries of the large folder
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// populate fills a folder with everything that readers get wrong.
func populate(t testing.TB, dir string, has traits) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	data := func(n int) []byte {
		b := make([]byte, n)
		for i := 0; i+8 <= n; i += 8 {
			copy(b[i:], fmt.Sprintf("%08x", r.Uint32()))
		}
		return b
	}
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, b, 0o644))
		return path
	}
	for _, n := range []int{0, 1, 10, 59, 60, 61, 100, 150, 200, 700, 1024, 4095, 4096, 4097, 100_000, 5_000_000} {
		write(fmt.Sprintf("sizes/%d", n), data(n))
	}
	write("names/"+strings.Repeat("long name ", 20)+"end.text", data(30))
	write("names/Grüße, 世界 und 🎈.txt", data(31))
	write("names/UPPER.TXT", data(32))
	write("names/lower.txt", data(33))
	write("names/two.dots.in.it", data(34))

	deep := "deep"
	for i := range 40 {
		deep = filepath.Join(deep, fmt.Sprintf("level%d", i))
	}
	write(deep+"/bottom", data(99))
	for i := range has.big {
		write(fmt.Sprintf("many/entry-%06d-%s", i, strings.Repeat("x", i%60)), []byte(fmt.Sprint(i)))
	}
	for i := range min(300, has.big) {
		if i%3 != 0 {
			continue
		}
		must(t, os.Remove(filepath.Join(dir, fmt.Sprintf("many/entry-%06d-%s", i, strings.Repeat("x", i%60)))))
	}
	// A file in very many pieces, between others, with holes.
	f, err := os.Create(filepath.Join(dir, "holes"))
	must(t, err)
	for i := range 700 {
		_, err := f.WriteAt(data(4096), int64(i)*3*4096)
		must(t, err)
	}
	must(t, f.Truncate(20<<20+123))
	must(t, f.Close())
	write("end", data(10))
	far := int64(40 << 20)
	if has.unix { // what a kernel reads knows of holes
		far = 5 << 30
	}
	must(t, os.Truncate(filepath.Join(dir, "end"), far))
	// Room that is promised and not written reads as zeros.
	if has.unix {
		f, err := os.Create(filepath.Join(dir, "promised"))
		must(t, err)
		if err := unix.Fallocate(int(f.Fd()), 0, 0, 1<<20); !errors.Is(err, unix.ENOTSUP) { // as in ext3
			must(t, err)
		}
		_, err = f.WriteAt(data(5000), 300_000)
		must(t, err)
		must(t, f.Close())
		must(t, os.Chown(write("owned", data(3)), 70_000, 80_000))
		must(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(t, unix.Mknod(filepath.Join(dir, "block"), unix.S_IFBLK|0o600, int(unix.Mkdev(259, 70_000))))
		must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o640))
		must(t, unix.Mknod(filepath.Join(dir, "socket"), unix.S_IFSOCK|0o600, 0))
		must(t, os.Chmod(write("program", data(9)), 0o755|os.ModeSetuid))
		must(t, os.Mkdir(filepath.Join(dir, "sticky"), 0o777))
		must(t, os.Chmod(filepath.Join(dir, "sticky"), 0o777|os.ModeSticky))
		late := time.Unix(1<<31+5, 123456789)
		if has.epoch32 {
			late = time.Unix(1<<31-5, 0)
		}
		for name, when := range map[string]time.Time{"old": time.Unix(-1000, 5e8), "new": late} {
			must(t, os.Chtimes(write("times/"+name, nil), when, when))
		}
	}
	if has.links {
		must(t, os.Link(filepath.Join(dir, "sizes/4097"), filepath.Join(dir, "hard")))
		must(t, os.Link(filepath.Join(dir, "sizes/4097"), filepath.Join(dir, "names/hard too")))
	}
	if has.symlink {
		for i, target := range []string{"sizes/1", "/etc/passwd", "../..", "nowhere", strings.Repeat("a", 59), strings.Repeat("b", 60), strings.Repeat("c/", 400)} {
			must(t, os.MkdirAll(filepath.Join(dir, "links"), 0o755))
			must(t, os.Symlink(target, filepath.Join(dir, "links", fmt.Sprintf("to-%d", i))))
		}
	}
	if has.xattrs {
		path := write("attributes", data(50))
		must(t, unix.Lsetxattr(path, "user.small", []byte("value"), 0))
		must(t, unix.Lsetxattr(path, "user.empty", nil, 0))
		if has.unix {
			must(t, unix.Lsetxattr(path, "trusted.thing", data(100), 0))
			must(t, unix.Lsetxattr(path, "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
		}
		path = write("more attributes", data(51))
		for i := range max(has.values, 4) {
			must(t, unix.Lsetxattr(path, fmt.Sprintf("user.number%d", i), data(8+8*i), 0))
		}
	}
	if has.huge {
		must(t, unix.Lsetxattr(write("huge attribute", data(53)), "user.huge", data(60_000), 0))
	}
	if has.acls {
		path := write("listed", data(52))
		tool(t, "setfacl", "-m", "u:1234:rw,g:77:r", path)
		must(t, os.Mkdir(filepath.Join(dir, "listed folder"), 0o755))
		tool(t, "setfacl", "-d", "-m", "u:99:rwx", filepath.Join(dir, "listed folder"))
	}
}

// face is a file as one sees it, for comparison.
type face struct {
	what string // everything but the content
	sum  string
}

// faces looks at a tree by the system's own means.
func faces(t testing.TB, dir string, has traits) map[string]face {
	t.Helper()
	all := map[string]face{}
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		must(t, err)
		name, _ := filepath.Rel(dir, path)
		if name == "lost+found" {
			return filepath.SkipDir
		}
		st := info.Sys().(*syscall.Stat_t)
		a := Attr{
			Kind: kindOfMode(st.Mode), Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Links: uint32(st.Nlink), Size: st.Size,
			Modified: time.Unix(st.Mtim.Unix()), DeviceMajor: unix.Major(st.Rdev), DeviceMinor: unix.Minor(st.Rdev),
		}
		f := face{}
		link := ""
		if a.Kind == Symlink {
			link, err = os.Readlink(path)
			must(t, err)
		}
		if a.Kind == Regular {
			c, err := os.Open(path)
			must(t, err)
			f.sum = digest(t, c, a.Size, func(off int64) (int64, int64) { return dataOf(c, off, a.Size) })
			c.Close()
		}
		f.what = describe(a, link, xattrsOf(t, path), has)
		all[name] = f
		return nil
	}))
	return all
}

func kindOfMode(mode uint32) Kind {
	return map[uint32]Kind{unix.S_IFREG: Regular, unix.S_IFDIR: Directory, unix.S_IFLNK: Symlink, unix.S_IFCHR: CharDevice,
		unix.S_IFBLK: BlockDevice, unix.S_IFIFO: Pipe, unix.S_IFSOCK: Socket}[mode&unix.S_IFMT]
}

// dataOf finds data in a file of the system, holes left out.
func dataOf(f *os.File, off, size int64) (start, end int64) {
	start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if err != nil {
		return size, size
	}
	end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	if err != nil {
		end = size
	}
	return start, end
}

func xattrsOf(t testing.TB, path string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	b := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, b)
	if errors.Is(err, unix.ENOTSUP) {
		return all
	}
	must(t, err)
	for _, name := range strings.Split(strings.TrimRight(string(b[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		must(t, err)
		all[name] = value[:n]
	}
	delete(all, "trusted.SGI_ACL_FILE") // the same list in the form of XFS
	delete(all, "trusted.SGI_ACL_DEFAULT")
	return all
}

func describe(a Attr, link string, xattrs map[string][]byte, has traits) string {
	text := fmt.Sprintf("kind %d link %q", a.Kind, link)
	if a.Kind == Regular {
		text += fmt.Sprintf(" size %d", a.Size)
	}
	if has.links && a.Kind != Directory {
		text += fmt.Sprintf(" links %d", a.Links)
	}
	if a.Kind != Directory || has.unix {
		text += " modified " + a.Modified.UTC().Format(time.RFC3339Nano)
	}
	if has.unix {
		text += fmt.Sprintf(" mode %o owner %d:%d links %d device %d:%d", a.Mode, a.UID, a.GID, a.Links, a.DeviceMajor, a.DeviceMinor)
	}
	if has.xattrs {
		var rows []string
		for name, value := range xattrs {
			if !strings.HasPrefix(name, "system.ntfs") {
				rows = append(rows, fmt.Sprintf("%s=%x", name, value))
			}
		}
		sort.Strings(rows)
		text += fmt.Sprint(" ", rows)
	}
	return text
}

// digest hashes content with where its data lie.
func digest(t testing.TB, r io.ReaderAt, size int64, next func(int64) (int64, int64)) string {
	t.Helper()
	h := sha256.New()
	zeros := make([]byte, 4096)
	b := make([]byte, 1<<20)
	for off := int64(0); off < size; {
		start, end := next(off)
		end = min((end+4095)/4096*4096, size)
		for at := start / 4096 * 4096; at < end; at += int64(len(b)) {
			n, err := r.ReadAt(b[:min(int64(len(b)), end-at)], at)
			if err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			for k := 0; k < n; k += 4096 {
				if page := b[k:min(k+4096, n)]; !bytes.Equal(page, zeros[:len(page)]) {
					fmt.Fprintf(h, "%d:", at+int64(k))
					h.Write(page)
				}
			}
		}
		off = max(end, off+1)
		if start >= size {
			break
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

// read looks at a tree by the reader.
func read(t testing.TB, fs *FS, has traits) map[string]face {
	t.Helper()
	all := map[string]face{}
	var walk func(ino uint64, name string)
	walk = func(ino uint64, name string) {
		if name == "lost+found" {
			return
		}
		a, err := fs.Attr(ino)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		f := face{}
		link := ""
		if a.Kind == Symlink {
			if link, err = fs.Link(ino); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if a.Kind == Regular {
			c, err := fs.Open(ino)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			f.sum = digest(t, c, a.Size, c.NextData)
		}
		x, err := fs.Xattrs(ino)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.what = describe(a, link, x, has)
		all[name] = f
		if a.Kind == Directory {
			entries, odd, err := fs.List(ino)
			if err != nil || odd > 0 {
				t.Errorf("%s: %v, %d odd names", name, err, odd)
			}
			for _, e := range entries {
				child := filepath.Join(name, e.Name)
				if _, twice := all[child]; twice {
					t.Errorf("%s is listed twice", child)
				}
				walk(e.Ino, child)
			}
		}
	}
	walk(fs.Root(), ".")
	return all
}

// same compares two views of a tree.
func same(t testing.TB, got, want map[string]face) {
	t.Helper()
	wrong := 0
	report := func(format string, args ...any) {
		if wrong++; wrong <= 20 {
			t.Errorf(format, args...)
		}
	}
	for name, w := range want {
		g, ok := got[name]
		switch {
		case !ok:
			report("%s is missing", name)
		case g.what != w.what:
			report("%s\n  is   %s\n  want %s", name, g.what, w.what)
		case g.sum != w.sum:
			report("%s has other content", name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			report("%s should not be there", name)
		}
	}
	if len(want) < 20 {
		t.Errorf("only %d files were compared", len(want))
	}
}
