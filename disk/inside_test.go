package disk_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/disktest"
)

// patchy is a disk with an ext4 label, data here and there, and zeros.
func patchy(t *testing.T, size int) (content []byte, raw string) {
	t.Helper()
	disktest.Need(t, "qemu-img", "qemu-io", "mkfs.ext4")
	raw = disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.raw"), int64(size))
	disktest.Run(t, "mkfs.ext4", "-q", "-U", "01234567-89ab-cdef-0123-456789abcdef", raw)
	f, err := os.OpenFile(raw, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, off := range []int{size / 3, size/2 + 4096, size - 70_000} {
		if _, err := f.WriteAt(noise(uint64(i), 70_000), int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if content, err = os.ReadFile(raw); err != nil {
		t.Fatal(err)
	}
	return content, raw
}

// image makes an image in a container with the content of a raw file.
func image(t *testing.T, raw, name string, options ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	disktest.Run(t, "qemu-img", append(append([]string{"convert", "-f", "raw"}, options...), raw, path)...)
	return path
}

func TestInsideOfEveryFormat(t *testing.T) {
	content, raw := patchy(t, 48<<20)
	for name, path := range map[string]string{
		"qcow2 version 3":            image(t, raw, "d.qcow2", "-O", "qcow2"),
		"qcow2 version 2":            image(t, raw, "d.qcow2", "-O", "qcow2", "-o", "compat=0.10"),
		"qcow2 compressed":           image(t, raw, "d.qcow2", "-O", "qcow2", "-c"),
		"qcow2 compressed with zstd": image(t, raw, "d.qcow2", "-O", "qcow2", "-c", "-o", "compression_type=zstd"),
		"qcow2 small clusters":       image(t, raw, "d.qcow2", "-O", "qcow2", "-o", "cluster_size=512"),
		"qcow2 extended L2":          image(t, raw, "d.qcow2", "-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k"),
		"qcow2 without holes":        image(t, raw, "d.qcow2", "-O", "qcow2", "-S", "0", "-o", "preallocation=full"),
		"qcow2 preallocated":         image(t, raw, "d.qcow2", "-O", "qcow2", "-o", "preallocation=metadata"),
		"qcow2 of external data":     image(t, raw, "d.qcow2", "-O", "qcow2", "-o", "data_file="+filepath.Join(t.TempDir(), "data.raw")),
		"qcow2 by another name":      image(t, raw, "disk.img", "-O", "qcow2"),
		"qcow":                       image(t, raw, "d.qcow", "-O", "qcow"),
		"qed":                        image(t, raw, "d.qed", "-O", "qed"),
		"vmdk":                       image(t, raw, "d.vmdk", "-O", "vmdk"),
		"vmdk in pieces":             image(t, raw, "d.vmdk", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"),
		"vmdk beside a flat file":    image(t, raw, "d.vmdk", "-O", "vmdk", "-o", "subformat=monolithicFlat"),
		"vmdk for streaming":         image(t, raw, "d.vmdk", "-O", "vmdk", "-o", "subformat=streamOptimized"),
		"vhdx":                       image(t, raw, "d.vhdx", "-O", "vhdx"),
		"vhd":                        image(t, raw, "d.vhd", "-O", "vpc", "-o", "force_size=on"),
		"vdi":                        image(t, raw, "d.vdi", "-O", "vdi"),
	} {
		t.Run(name, func(t *testing.T) {
			s := probe(t, path)
			if s.Size != int64(len(content)) || !s.Inside() || s.Kind != disk.File || len(s.Files) == 0 {
				t.Fatalf("the probe gave %+v", s)
			}
			if len(s.Identity) != 1 || s.Identity[0].Kind != disk.ExtUUID {
				t.Errorf("the identity is %v", s.Identity)
			}
			r, err := s.Open(ctx, disk.ReadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(content))
			read := int64(0)
			for at, err := range r.Allocated(ctx) {
				if err != nil {
					t.Fatal(err)
				}
				read += at.Len
				if err := r.Read(ctx, got[at.Off:at.End()], at.Off); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, content) {
				t.Error("what is allocated is not the disk")
			}
			// QEMU does not tell of holes in a vhdx image.
			if most := int64(len(content)) / 2; read > most && !strings.Contains(name, "without") && name != "vhdx" {
				t.Errorf("%d bytes count as allocated", read)
			}
			clear(got)
			if err := r.Read(ctx, got, 0); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the bytes differ (%v)", err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestInsideOfAChain(t *testing.T) {
	content, raw := patchy(t, 16<<20)
	dir := filepath.Dir(raw)
	middle, top := filepath.Join(dir, "middle.qcow2"), filepath.Join(dir, "top.qcow2")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", middle)
	disktest.Run(t, "qemu-io", "-c", "write -P 3 1M 1M", "-c", "write -z 8M 1M", middle)
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", top, "20M") // larger
	disktest.Run(t, "qemu-io", "-c", "write -P 4 1500k 64k", "-c", "write -P 5 19M 1M", top)
	content = append(content, make([]byte, 4<<20)...)
	copy(content[1<<20:], bytes.Repeat([]byte{3}, 1<<20))
	clear(content[8<<20 : 9<<20])
	copy(content[1500<<10:], bytes.Repeat([]byte{4}, 64<<10))
	copy(content[19<<20:], bytes.Repeat([]byte{5}, 1<<20))

	s := probe(t, top)
	var names []string
	for _, f := range s.Files {
		names = append(names, filepath.Base(f.Path))
	}
	if len(names) != 3 || !strings.Contains(fmt.Sprint(names), "disk.raw") {
		t.Errorf("the image consists of %v", names)
	}
	r, err := s.Open(ctx, disk.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, len(content))
	if err := r.Read(ctx, got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the bytes differ (%v)", err)
	}
	var zero extent.Set
	for at, err := range r.Allocated(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		zero = zero.Union(extent.Of(at))
	}
	if len(zero.Within(extent.Range{Off: 8 << 20, Len: 1 << 20})) > 0 {
		t.Error("what the middle image zeroes counts as allocated")
	}

	// Another image came to the base's place.
	disktest.Run(t, "cp", raw, raw+".new")
	disktest.Run(t, "mv", raw+".new", raw)
	_, err = s.Open(ctx, disk.ReadOptions{})
	wantCode(t, err, problem.SourceReplaced, "builds upon")
}

func TestInsideRefuses(t *testing.T) {
	_, raw := patchy(t, 8<<20)
	secret := write(t, filepath.Join(t.TempDir(), "secret"), bytes.Repeat([]byte("secret "), 1000))
	create := func(name string, args ...string) string {
		path := filepath.Join(t.TempDir(), name)
		disktest.Run(t, "qemu-img", append(append([]string{"create", "-q", "-u", "-f", "qcow2"}, args...), path, "8M")...)
		return path
	}
	circle := create("circle.qcow2", "-b", "circle.qcow2", "-F", "qcow2")
	noFormat := create("top.qcow2", "-b", raw, "-F", "raw")
	// Old images do not say of what format they build upon; neither does this
	// one, with that extension of its header made unknown.
	content, err := os.ReadFile(noFormat)
	if err != nil {
		t.Fatal(err)
	}
	content = bytes.Replace(content, []byte("\xe2\x79\x2a\xca"), []byte("\xe2\x79\x2a\xcb"), 1)
	write(t, noFormat, content)
	corrupt := image(t, raw, "corrupt.qcow2", "-O", "qcow2")
	if content, err = os.ReadFile(corrupt); err != nil {
		t.Fatal(err)
	}
	content[79] |= 2
	write(t, corrupt, content)
	encrypted := filepath.Join(t.TempDir(), "e.qcow2")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s", encrypted, "8M")
	for _, c := range []struct {
		name, path string
		code       problem.Code
		words      string
	}{
		{"a guest's words that lead to a file", create("disk.img", "-b", secret, "-F", "raw"), problem.SourceNotSupported, "a guest"},
		{"a guest's words that keep data elsewhere", func() string {
			path := create("disk.qcow2", "-o", "data_file="+filepath.Join(t.TempDir(), "x"))
			disktest.Run(t, "mv", path, path+".img")
			return path + ".img"
		}(), problem.SourceNotSupported, "a guest"},
		{"a base on the network", create("n.qcow2", "-b", "nbd://localhost/x", "-F", "raw"), problem.SourceNotSupported, "no file of this host"},
		{"a base in JSON", create("j.qcow2", "-b", `json:{"driver":"raw","file":{"driver":"file","filename":"`+secret+`"}}`, "-F", "raw"), problem.SourceNotSupported, "no file of this host"},
		{"a base that is missing", create("m.qcow2", "-b", "/nowhere/base.qcow2", "-F", "qcow2"), problem.SourceNotFound, "/nowhere/base.qcow2"},
		{"a base of no format", noFormat, problem.SourceNotSupported, "of what format"},
		{"a vmdk that names any file", write(t, filepath.Join(t.TempDir(), "d.vmdk"), []byte("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\nRW 8 FLAT \""+secret+"\" 0\n\nddb.adapterType = \"ide\"\nddb.geometry.cylinders = \"1\"\nddb.geometry.heads = \"16\"\nddb.geometry.sectors = \"63\"\n")), problem.SourceNotSupported, "no file of this host"},
		{"a raw part of a vmdk that a guest made look so", write(t, filepath.Join(t.TempDir(), "d-flat.vmdk"), []byte("# Disk DescriptorFile\n")), problem.SourceNotSupported, "a guest"},
		{"itself as its base", circle, problem.SourceNotSupported, "circle"},
		{"encrypted", encrypted, problem.SourceNotSupported, "encrypted"},
		{"corrupt", corrupt, problem.SourceReadFailed, "corrupt"},
		{"nothing but a beginning", write(t, filepath.Join(t.TempDir(), "x.qcow2"), []byte("QFI\xfb\x00\x00\x00\x03")), problem.SourceNotSupported, "begins like"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := disk.Probe(ctx, c.path)
			wantCode(t, err, c.code, c.words)
		})
	}
	// By the name that its owner gave it, it is a raw disk all the same.
	if s := probe(t, func() string {
		path := image(t, raw, "x.qcow2", "-O", "qcow2")
		disktest.Run(t, "mv", path, path+".raw")
		return path + ".raw"
	}()); s.Inside() || s.Format != disk.FormatRaw {
		t.Errorf("a file named .raw became %+v", s)
	}
}

func TestInsideOfARunningMachine(t *testing.T) {
	_, raw := patchy(t, 8<<20)
	path := image(t, raw, "d.qcow2", "-O", "qcow2")
	disktest.Serve(t, "qemu-nbd", "-t", "-f", "qcow2", "-k", "%s", path) // holds the image as a machine does
	_, err := disk.Probe(ctx, path)
	wantCode(t, err, problem.SourceInUse, "open for writing")
	if !strings.Contains(strings.Join(problem.From(err).Actions, " "), "qemu+unix") {
		t.Errorf("the advice is %q", problem.From(err).Actions)
	}
}

func TestInsideWithoutTools(t *testing.T) {
	_, raw := patchy(t, 8<<20)
	path := image(t, raw, "d.qcow2", "-O", "qcow2")
	t.Setenv("PATH", t.TempDir())
	_, err := disk.Probe(ctx, path)
	wantCode(t, err, problem.ToolMissing, "QEMU")
}

// No process of QEMU outlives its connection.
func TestInsideLeavesNothing(t *testing.T) {
	_, raw := patchy(t, 8<<20)
	path := image(t, raw, "d.qcow2", "-O", "qcow2")
	t.Setenv("TMPDIR", t.TempDir())
	s := probe(t, path)
	r, err := s.Open(ctx, disk.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if out, err := exec.Command("pgrep", "-f", path).CombinedOutput(); err == nil {
		t.Errorf("processes are left: %s", out)
	}
	if left := listing(t, os.TempDir()); left != "" {
		t.Errorf("files are left: %s", left)
	}
}
