package backup

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/disktest"
	"github.com/diskvault/diskvault/disk/nbd"
	"github.com/diskvault/diskvault/engine/restore"
	"github.com/diskvault/diskvault/store"
)

// The same disk has the same root, whatever it lies in and however it is
// reached; and every one of them comes back as every kind of target.
func TestOneDiskInManyFormats(t *testing.T) {
	disktest.Need(t, "qemu-img", "qemu-io", "qemu-nbd", "nbdkit")
	s := newStore(t)
	raw, want := image(t, 24<<20, 77)
	dir := t.TempDir()
	convert := func(name string, options ...string) string {
		path := filepath.Join(dir, name)
		disktest.Run(t, "qemu-img", append(append([]string{"convert", "-f", "raw"}, options...), raw, path)...)
		return path
	}
	// A chain whose base holds something else, in part hidden by zeros.
	base, top := filepath.Join(dir, "base.raw"), filepath.Join(dir, "top.qcow2")
	if err := os.WriteFile(base, bytes.Repeat([]byte{0xAA}, 24<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	disktest.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-B", base, "-F", "raw", raw, top)

	offer := disktest.Socket(t)
	l, err := net.Listen("unix", offer)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := options(t, s, raw).Source.Open(t.Context(), disk.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- (&nbd.Server{Offers: []nbd.Offer{{Name: "d", Disk: reader}}}).Serve(serving, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		reader.Close()
	})
	url := func(socket string) string { return "nbd+unix:///?socket=" + socket }

	first := again(t, s, raw, nil, nil)
	if !bytes.Equal(content(t, s, first.Point), want) {
		t.Fatal("the raw disk did not come back")
	}
	for name, path := range map[string]string{
		"qcow2":               convert("a.qcow2", "-O", "qcow2"),
		"qcow2, version 2":    convert("b.qcow2", "-O", "qcow2", "-o", "compat=0.10"),
		"qcow2, compressed":   convert("c.qcow2", "-O", "qcow2", "-c"),
		"qcow2, preallocated": convert("d.qcow2", "-O", "qcow2", "-o", "preallocation=falloc"),
		"qcow2 upon a base":   top,
		"vmdk":                convert("e.vmdk", "-O", "vmdk"),
		"vhdx":                convert("f.vhdx", "-O", "vhdx"),
		"vdi":                 convert("g.vdi", "-O", "vdi"),
		"NBD from qemu-nbd":   url(disktest.Serve(t, "qemu-nbd", "-r", "-t", "-e", "8", "-k", "%s", "-f", "qcow2", convert("h.qcow2", "-O", "qcow2"))),
		"NBD from nbdkit":     url(disktest.Serve(t, "nbdkit", "-f", "-r", "-U", "%s", "file", raw)),
		"NBD from diskvault":  url(offer),
	} {
		t.Run(name, func(t *testing.T) {
			result := again(t, s, path, nil, nil)
			if result.Point.Root != first.Point.Root {
				t.Errorf("the root is %s, want %s", result.Point.Root, first.Point.Root)
			}
			if result.Point.Consistency != store.CrashConsistent || result.Point.Bytes.New != 0 {
				t.Errorf("the point is %s and has %d new bytes", result.Point.Consistency, result.Point.Bytes.New)
			}
		})
	}

	for _, name := range []string{"back.img", "back.qcow2"} {
		to := filepath.Join(dir, name)
		result, err := restore.New(restore.Options{Store: s, Point: first.Point, To: to, Meter: meter.New("restore")}).Do(t.Context())
		if err != nil || !result.Verified {
			t.Fatalf("restore to %s: %+v, %v", name, result, err)
		}
		disktest.Run(t, "qemu-img", "compare", raw, to)
	}
	disktest.Run(t, "qemu-img", "check", "-q", filepath.Join(dir, "back.qcow2"))
}
