package capture_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/capture"
	"github.com/diskvault/diskvault/disk/disktest"
)

// qemuNBD serves an image and gives the URL of its export, without query
// parameters beside the socket.
func qemuNBD(t *testing.T, args ...string) string {
	t.Helper()
	return "nbd+unix:///?socket=" + disktest.Serve(t, "qemu-nbd", append([]string{"-t", "-e", "8", "-k", "%s"}, args...)...)
}

// export takes a view of a URL by the whole chain.
func export(t *testing.T, url string) tracking {
	t.Helper()
	v, err := capture.Options{Owner: "owner"}.Capture(ctx, probe(t, url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v.(tracking)
}

func TestExportIsProvenIfReadOnly(t *testing.T) {
	content := make([]byte, 8<<20)
	copy(content[3<<20:], bytes.Repeat([]byte{7}, 1<<20))
	path := disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.img"), int64(len(content)))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(content[3<<20:4<<20], 3<<20)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	readOnly := qemuNBD(t, "-r", "-f", "raw", path)
	v := export(t, readOnly)
	var data extent.Set
	for r, err := range v.Allocated(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		data = data.Union(extent.Of(r))
	}
	if !data.Equal(extent.Of(extent.Range{Off: 3 << 20, Len: 1 << 20})) {
		t.Errorf("allocated is %v", data)
	}
	got := make([]byte, v.Size())
	if err := v.Read(ctx, got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the bytes differ (%v)", err)
	}
	p, err := v.Prove(ctx)
	if err != nil || !p.Proven || p.Method != capture.MethodNBD || !strings.Contains(p.Reason, "read-only") {
		t.Errorf("proof: %+v, %v", p, err)
	}

	writable := qemuNBD(t, "-f", "raw", path)
	src := probe(t, writable)
	if src.Kind != disk.Network || src.ReadOnly || src.Size != 8<<20 {
		t.Errorf("the probe gave %+v", src)
	}
	v = export(t, writable)
	select {
	case <-v.Broken():
	default:
		t.Error("a writable export is not known as such from the start")
	}
	p, err = v.Prove(ctx)
	if err != nil || p.Proven || p.Retry {
		t.Errorf("proof: %+v, %v", p, err)
	}
	refusal := p.Problem(src)
	if !problem.Is(refusal, problem.SourceInUse) || !strings.Contains(refusal.Message, "snapshot=yes") {
		t.Errorf("the refusal is %v", refusal)
	}
	a, err := capture.Options{}.Assess(ctx, src)
	if err != nil || a.Method != capture.MethodNBD || a.Refused == "" || a.Tracking != "none" {
		t.Errorf("the assessment is %+v (%v)", a, err)
	}

	promised := probe(t, writable+"&snapshot=yes")
	if promised.Path == src.Path || !strings.Contains(promised.Path, "snapshot=yes") {
		t.Errorf("what the user promises is not part of the path %s", promised.Path)
	}
	p, err = export(t, writable+"&snapshot=yes").Prove(ctx)
	if err != nil || !p.Proven || !strings.Contains(p.Reason, "URL") {
		t.Errorf("proof: %+v, %v", p, err)
	}
}

func TestExportTracksChangesByBitmaps(t *testing.T) {
	disktest.Need(t, "qemu-img", "qemu-io")
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "64M")
	bitmap := func(what, name string) { disktest.Run(t, "qemu-img", "bitmap", what, path, name) }
	write := func(at string) { disktest.Run(t, "qemu-io", "-c", "write "+at+" 64k", path) }
	serve := func(args ...string) string { // the disk as it is now
		now := filepath.Join(t.TempDir(), "now.qcow2")
		disktest.Run(t, "cp", path, now)
		return qemuNBD(t, append(args, now)...)
	}
	view := func(args []string, query string) tracking {
		return export(t, serve(append([]string{"-r", "-f", "qcow2"}, args...)...)+query)
	}
	keep := func(v tracking) []byte {
		t.Helper()
		kept, err := v.Keep(ctx, "point")
		if err != nil {
			t.Fatal(err)
		}
		return kept.Token
	}
	known := func(v tracking, token []byte, want ...extent.Range) {
		t.Helper()
		c, err := v.Changed(ctx, token)
		if err != nil || !c.Known || !c.Ranges.Equal(extent.Of(want...)) || c.Method != "nbd-bitmap" {
			t.Errorf("got the changes %+v, want %v (%v)", c, want, err)
		}
	}
	unknown := func(v tracking, token []byte, why string) {
		t.Helper()
		c, err := v.Changed(ctx, token)
		if err != nil || c.Known || !strings.Contains(c.Reason, why) {
			t.Errorf("got the changes %+v, want none with the reason %q (%v)", c, why, err)
		}
	}
	write("0")
	bitmap("--add", "b1")
	first := view(nil, "&record=b1")
	unknown(first, nil, "names no dirty bitmap")
	token := keep(first)

	write("8M")
	bitmap("--disable", "b1")
	bitmap("--add", "b2")
	second := view([]string{"-B", "b1"}, "&bitmap=b1&record=b2")
	known(second, token, extent.Range{Off: 8 << 20, Len: 64 << 10})
	next := keep(second)

	// The backup that began b2 failed: b1 alone no longer tells all, and b2 began
	// later than the last point.
	unknown(view([]string{"-B", "b2"}, "&bitmap=b2&record=b3"), token, `"b1"`)
	unknown(view([]string{"-B", "b1"}, "&bitmap=b1&record=b3"), next, `"b2"`)
	// Both together do, whatever the server calls them.
	write("16M")
	both := view([]string{"-B", "b1", "-B", "b2"}, "&bitmap=b1&bitmap=b2&record=b3")
	known(both, token, extent.Range{Off: 8 << 20, Len: 64 << 10}, extent.Range{Off: 16 << 20, Len: 64 << 10})
	// The disk grew.
	known(both, []byte(fmt.Sprintf(`{"method":"nbd","record":"b1","size":%d}`, 60<<20)),
		extent.Range{Off: 8 << 20, Len: 64 << 10}, extent.Range{Off: 16 << 20, Len: 64 << 10}, extent.Range{Off: 60 << 20, Len: 4 << 20})

	unknown(view(nil, "&bitmap=b1"), token, "does not hand out")
	unknown(both, []byte("rubbish"), "another way")
	unknown(both, []byte(`{"method":"reflink"}`), "another way")
	if kept, err := view([]string{"-B", "b1"}, "&bitmap=b1").Keep(ctx, "p"); err != nil || kept.Dropped == "" {
		t.Errorf("no word of a chain of bitmaps that ends: %+v (%v)", kept, err)
	}
	writable := export(t, serve("-f", "raw")+"&bitmap=b1&record=b4")
	unknown(writable, token, "may change")
	if kept, err := writable.Keep(ctx, "p"); err != nil || strings.Contains(string(kept.Token), "b4") {
		t.Errorf("a view that is not proven leaves %s (%v)", kept.Token, err)
	}
}

func TestExportWithUnreadableRanges(t *testing.T) {
	content := bytes.Repeat([]byte{5}, 4<<20)
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	// A program of nbdkit fails reads that touch the byte at 1 MiB.
	script := filepath.Join(t.TempDir(), "disk.sh")
	if err := os.WriteFile(script, []byte(`#!/bin/sh
case "$1" in
	get_size) echo 4194304 ;;
	thread_model) echo parallel ;;
	pread) if [ "$4" -le 1048576 ] && [ $(($4 + $3)) -gt 1048576 ]; then echo "EIO bad sector" >&2; exit 1; fi
		dd if="`+path+`" iflag=skip_bytes,count_bytes skip="$4" count="$3" status=none ;;
	*) exit 2 ;;
esac
`), 0o700); err != nil {
		t.Fatal(err)
	}
	v := export(t, "nbd+unix:///?socket="+disktest.Serve(t, "nbdkit", "-f", "-r", "-U", "%s", "sh", script))
	got := make([]byte, 512<<10)
	err := v.Read(ctx, got, 768<<10)
	failed, ok := err.(*disk.ReadError)
	if !ok || !failed.Ranges.Equal(extent.Of(extent.Range{Off: 1 << 20, Len: 4 << 10})) {
		t.Fatalf("got %v", err)
	}
	copy(content[1<<20:], make([]byte, 4<<10))
	if !bytes.Equal(got, content[768<<10:1280<<10]) {
		t.Error("the rest differs")
	}
}
