package disk_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/disktest"
)

var ctx = context.Background()

func write(t *testing.T, path string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
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

// wantCode checks that an error is a problem of a code, and that its sentence is
// one that a person can read.
func wantCode(t *testing.T, err error, code problem.Code, words ...string) {
	t.Helper()
	if !problem.Is(err, code) {
		t.Fatalf("got the error %v, want %s", err, code)
	}
	message := problem.From(err).Message
	for _, w := range words {
		if !strings.Contains(message, w) {
			t.Errorf("the message %q does not say %q", message, w)
		}
	}
	if !strings.HasSuffix(message, ".") || len(problem.From(err).Actions) == 0 {
		t.Errorf("the message %q is no sentence, or has no advice", message)
	}
}

func TestProbeRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	file := write(t, filepath.Join(dir, "file"), nil)
	for _, c := range []struct {
		name, path string
		code       problem.Code
		words      string
	}{
		{"missing", filepath.Join(dir, "nothing"), problem.SourceNotFound, "nothing"},
		{"below a file", filepath.Join(file, "x"), problem.SourceNotFound, "There is no disk"},
		{"folder", dir, problem.SourceNotSupported, "a folder"},
		{"named pipe", fifo, problem.SourceNotSupported, "a named pipe"},
		{"socket", socket, problem.SourceNotSupported, "a socket"},
		{"character device", "/dev/zero", problem.SourceNotSupported, "a character device"},
		{"links in a circle", loop, problem.SourceNotFound, "circle"},
		{"nbd, no server", "nbd+unix:///export?socket=" + dir + "/no", problem.SourceNotFound, "No NBD server"},
		{"nbd, no socket", "nbd+unix:///export", problem.InvalidArgument, "socket"},
		{"nbd, relative socket", "nbd+unix:///export?socket=s", problem.InvalidArgument, "absolute"},
		{"nbd, unknown parameter", "nbd://localhost/?speed=9", problem.InvalidArgument, `"speed"`},
		{"nbd, a record of itself", "nbd://localhost/?bitmap=b&record=b", problem.InvalidArgument, "a name of its own"},
		{"nbd, a snapshot perhaps", "nbd://localhost/?snapshot=maybe", problem.InvalidArgument, "yes"},
		{"zfs", "zfs:pool/volume", problem.SourceNotSupported, `"zfs"`},
		{"missing by URL", "file://" + dir + "/nothing", problem.SourceNotFound, "nothing"},
		{"name too long", strings.Repeat("x", 5000), problem.SourceNotFound, "longer"},
		{"empty", "", problem.InvalidArgument, "empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := disk.Probe(ctx, c.path)
			wantCode(t, err, c.code, c.words)
		})
	}
}

func TestProbeWithoutPermission(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "disk.img"), []byte("x"))
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		// root may read it all the same; look with other eyes.
		for _, d := range []string{dir, filepath.Dir(dir)} {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		asNobody(t, func() {
			_, err := disk.Probe(ctx, path)
			wantCode(t, err, problem.SourcePermissionDenied, "65534", path)
		})
		return
	}
	_, err := disk.Probe(ctx, path)
	wantCode(t, err, problem.SourcePermissionDenied, path)
}

func TestProbeFile(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, filepath.Join(dir, "disk.img"), bytes.Repeat([]byte{7}, 1000))
	link := filepath.Join(dir, "link")
	if err := os.Symlink("disk.img", link); err != nil {
		t.Fatal(err)
	}
	for _, given := range []string{path, link, "file:" + path, "file://" + path} {
		s := probe(t, given)
		if s.Path != path || s.Given != given || s.Kind != disk.File || s.Size != 1000 || s.Format != disk.FormatRaw {
			t.Errorf("probe of %s gave %+v", given, s)
		}
		if s.FileSystem.Name == "" {
			t.Errorf("the file system of %s is not known", given)
		}
	}
	t.Chdir(dir)
	if s := probe(t, "disk.img"); s.Path != path {
		t.Errorf("a relative path became %s, want %s", s.Path, path)
	}
	colon := write(t, filepath.Join(dir, "rbd:x"), nil)
	if s := probe(t, "rbd:x"); s.Path != colon || s.Size != 0 {
		t.Errorf("a file whose name looks like a URL became %+v", s)
	}
}

func TestProbeSparseFileOfTheLargestSize(t *testing.T) {
	dir, _ := disktest.FileSystem(t, "xfs", 400<<20)
	path := disktest.Sparse(t, filepath.Join(dir, "disk.img"), disk.MaxSize)
	s := probe(t, path)
	if s.Size != disk.MaxSize || s.Allocated > 1<<20 || s.FileSystem.Name != "xfs" || !s.FileSystem.Local {
		t.Errorf("got %+v", s)
	}
	if err := os.Truncate(path, disk.MaxSize+1); err != nil {
		t.Fatal(err)
	}
	_, err := disk.Probe(ctx, path)
	wantCode(t, err, problem.SourceTooLarge, "32.0 TiB")
}

func TestProbeFormats(t *testing.T) {
	head := func(off int, magic string) []byte {
		b := make([]byte, 4096)
		copy(b[off:], magic)
		return b
	}
	for want, content := range map[disk.Format][]byte{
		disk.FormatLUKS: head(0, "LUKS\xba\xbe\x00\x02"),
		disk.FormatRaw:  head(0, "anything"),
	} {
		s := probe(t, write(t, filepath.Join(t.TempDir(), "disk.img"), content))
		if s.Format != want {
			t.Errorf("got the format %s, want %s", s.Format, want)
		}
		if s.Format.Container() != (want != disk.FormatRaw && want != disk.FormatLUKS) {
			t.Errorf("%s: Container is %v", want, s.Format.Container())
		}
	}
}

func TestProbeDevice(t *testing.T) {
	dir := t.TempDir()
	image := disktest.Sparse(t, filepath.Join(dir, "disk.img"), 64<<20)
	disktest.Need(t, "mkfs.ext4")
	disktest.Run(t, "mkfs.ext4", "-q", "-U", "01234567-89ab-cdef-0123-456789abcdef", image)
	device := disktest.Loop(t, image)

	s := probe(t, device)
	if s.Kind != disk.Block || s.Size != 64<<20 || s.Device != filepath.Base(device) || s.Backing != image {
		t.Errorf("got %+v", s)
	}
	if len(s.Mounts) != 0 || s.ReadOnly || s.Swap || len(s.Holders) != 0 {
		t.Errorf("an idle device seems used: %+v", s)
	}
	want := disk.Fact{Kind: disk.ExtUUID, Place: "1128", Value: "01234567-89ab-cdef-0123-456789abcdef"}
	if len(s.Identity) != 1 || s.Identity[0] != want {
		t.Errorf("got the identity %v, want %v", s.Identity, want)
	}

	mounted := disktest.Mount(t, device, "ext4")
	s = probe(t, device)
	if len(s.Mounts) != 1 || s.Mounts[0].Dir != mounted || s.Mounts[0].ReadOnly || len(s.MountedForWriting()) != 1 {
		t.Errorf("mounted at %s, but got %+v", mounted, s.Mounts)
	}
	if f := probe(t, image); len(f.Loops) != 1 || f.Loops[0] != s.Device || len(f.Mounts) != 1 {
		t.Errorf("the file under the device does not know it: %+v", f)
	}
	if name, shared := s.SharesDisk(image); !shared {
		t.Errorf("the device and its backing file share no disk; the device lies on %v", s.Disks)
	} else if len(s.Disks) == 0 || s.Disks[0] != name {
		t.Errorf("they share %s, but the device lies on %v", name, s.Disks)
	}

	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var again disk.Source
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(again.Identity, s.Identity) || again.Size != s.Size || again.Mounts[0].Dir != mounted {
		t.Errorf("JSON lost something: %s", text)
	}
}

func TestProbeReadOnlyDevice(t *testing.T) {
	image := disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.img"), 1<<20)
	if s := probe(t, disktest.Loop(t, image, "--read-only")); !s.ReadOnly {
		t.Errorf("a read-only device seems writable: %+v", s)
	}
}

func TestProbePartitions(t *testing.T) {
	disktest.Need(t, "sfdisk")
	image := disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.img"), 64<<20)
	script := write(t, filepath.Join(t.TempDir(), "script"), []byte("label: gpt\nlabel-id: AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE\nsize=16M\nsize=16M\n"))
	disktest.Run(t, "sh", "-c", "sfdisk -q "+image+" < "+script)
	device := disktest.Loop(t, image)
	parts := disktest.Partitions(t, device)
	s := probe(t, device)
	if len(s.Partitions) != 2 || len(s.Holders) != 0 {
		t.Errorf("got partitions %v and holders %v", s.Partitions, s.Holders)
	}
	want := disk.Fact{Kind: disk.GPTDisk, Place: "568", Value: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"}
	if len(s.Identity) != 1 || s.Identity[0] != want {
		t.Errorf("got the identity %v, want %v", s.Identity, want)
	}
	if p := probe(t, parts[1]); p.Size != 16<<20 || len(p.Disks) != 1 {
		t.Errorf("got the partition %+v", p)
	}
}

func TestProbeBtrfs(t *testing.T) {
	dir, device := disktest.FileSystem(t, "btrfs", 256<<20)
	path := disktest.Sparse(t, filepath.Join(dir, "disk.img"), 1<<20)
	s := probe(t, path)
	if s.FileSystem.Name != "btrfs" || !s.FileSystem.Local {
		t.Errorf("got the file system %+v", s.FileSystem)
	}
	if _, shared := s.SharesDisk(device); !shared {
		t.Errorf("a file on btrfs does not know its disk; it has %v", s.Disks)
	}
	if d := probe(t, device); len(d.Mounts) != 1 || d.Mounts[0].Dir != dir || d.Identity[0].Kind != disk.BtrfsUUID {
		t.Errorf("the device of a mounted btrfs: %+v", d)
	}
}
