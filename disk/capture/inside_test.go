package capture_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/capture"
	"github.com/diskvault/diskvault/disk/disktest"
)

// onImage makes a base and an image upon it on ext4, where leases tell of every
// writer.
func onImage(t *testing.T) (base, top string) {
	t.Helper()
	disktest.Need(t, "qemu-img", "qemu-io")
	dir, _ := disktest.FileSystem(t, "ext4", 128<<20)
	base, top = filepath.Join(dir, "base.qcow2"), filepath.Join(dir, "top.qcow2")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", base, "32M")
	disktest.Run(t, "qemu-io", "-c", "write -P 1 0 8M", base)
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
	disktest.Run(t, "qemu-io", "-c", "write -P 2 4M 8M", top)
	return base, top
}

func TestInsideIsProvenByLeasesOnAllFiles(t *testing.T) {
	_, top := onImage(t)
	v, err := capture.Options{Owner: "owner"}.Capture(ctx, probe(t, top))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	want := append(bytes.Repeat([]byte{1}, 4<<20), bytes.Repeat([]byte{2}, 8<<20)...)
	want = append(want, make([]byte, 20<<20)...)
	got := make([]byte, v.Size())
	if err := v.Read(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the bytes differ (%v)", err)
	}
	p, err := v.Prove(ctx)
	if err != nil || !p.Proven || p.Method != capture.MethodQuiescent || !strings.Contains(p.Reason, "2 files") {
		t.Errorf("proof: %+v, %v", p, err)
	}
	a, err := capture.Options{}.Assess(ctx, probe(t, top))
	if err != nil || a.Refused != "" || a.Method != capture.MethodQuiescent || a.Tracking != "none" {
		t.Errorf("the assessment is %+v (%v)", a, err)
	}
}

func TestInsideBreaksWhenAnyFileIsOpenedForWriting(t *testing.T) {
	base, top := onImage(t)
	for _, file := range []string{base, top} {
		v, err := capture.Options{}.Capture(ctx, probe(t, top))
		if err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(before); took > 2*time.Second {
			t.Errorf("who opened %s for writing waited for %v", file, took)
		}
		f.Close()
		select {
		case <-v.Broken():
		case <-time.After(5 * time.Second):
			t.Errorf("nobody noticed that %s was opened for writing", file)
		}
		p, err := v.Prove(ctx)
		if err != nil || p.Proven || !p.Retry || !strings.Contains(p.Reason, filepath.Base(file)) {
			t.Errorf("proof: %+v, %v", p, err)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestInsideIsRefusedWhileWritten(t *testing.T) {
	base, top := onImage(t)
	for _, file := range []string{base, top} {
		src := probe(t, top)
		f, err := os.OpenFile(file, os.O_WRONLY, 0) // as somebody without QEMU's locks
		if err != nil {
			t.Fatal(err)
		}
		v, err := capture.Options{}.Capture(ctx, src)
		if !problem.Is(err, problem.SourceInUse) || !strings.Contains(err.Error(), filepath.Base(file)) {
			t.Errorf("with %s open for writing the capture gave %v, %v", file, v, err)
		}
		if a, err := (capture.Options{}).Assess(ctx, src); err != nil || a.Refused == "" {
			t.Errorf("the assessment is %+v (%v)", a, err)
		}
		f.Close()
	}
	// After a refusal nothing holds up a writer.
	before := time.Now()
	disktest.Run(t, "qemu-io", "-c", "write -P 3 0 64k", base)
	if took := time.Since(before); took > 5*time.Second {
		t.Errorf("a writer waited for %v", took)
	}
}

func TestInsideOnForeignFileSystemIsNotProven(t *testing.T) {
	disktest.Need(t, "qemu-img")
	dir := disktest.Mount(t, "tmpfs", "tmpfs")
	path := filepath.Join(dir, "disk.qcow2")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "32M")
	v, err := capture.Options{}.Capture(ctx, probe(t, path))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if p, err := v.Prove(ctx); err != nil || p.Proven || !strings.Contains(p.Reason, "tmpfs") {
		t.Errorf("proof: %+v, %v", p, err)
	}
}
