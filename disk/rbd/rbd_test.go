package rbd

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
)

func TestAddress(t *testing.T) {
	for text, want := range map[string]Address{
		"rbd:pool/image":                          {Pool: "pool", Image: "image"},
		"rbd://pool/image":                        {Pool: "pool", Image: "image"},
		"rbd:pool/space/vm-1.disk":                {Pool: "pool", Namespace: "space", Image: "vm-1.disk"},
		"rbd:p/i?conf=/etc/ceph/b.conf&user=back": {Pool: "p", Image: "i", Conf: "/etc/ceph/b.conf", User: "back"},
	} {
		a, err := ParseAddress(text)
		if err != nil || a != want {
			t.Errorf("%s: %+v %v", text, a, err)
		}
		if again, err := ParseAddress(a.String()); err != nil || again != a {
			t.Errorf("%s: written %s, read %+v %v", text, a, again, err)
		}
	}
	// Nothing may be taken for an option, another snapshot or another setting.
	for _, text := range []string{"rbd:image", "rbd:a/b/c/d", "rbd:/image", "rbd:pool/", "rbd:pool/image@snap", "rbd:pool/--help", "rbd:-p/x",
		"rbd:pool/a b", "rbd:pool/i,driver=file", "rbd:pool/i:conf=x", "rbd:pool/i?conf=relative", "rbd:pool/i?conf=/a:b", "rbd:p/i?user=a&user=b", "rbd:p/i?key=x", "nbd:p/i", "rbd:p//i"} {
		if a, err := ParseAddress(text); !problem.Is(err, problem.InvalidArgument) {
			t.Errorf("%s: %+v %v", text, a, err)
		}
	}
}

func FuzzAddress(f *testing.F) {
	f.Add("rbd:pool/space/image?conf=/a&user=b")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAddress(text)
		if err != nil {
			return
		}
		if again, err := ParseAddress(a.String()); err != nil || again != a {
			t.Errorf("%q: %+v, written %s, read %+v %v", text, a, a, again, err)
		}
	})
}

// What Ceph 16.2.15 printed.
const diffOutput = `[{"offset":0,"length":3506176,"exists":"true"},{"offset":4194304,"length":1024000,"exists":"true"},{"offset":58720256,"length":1347584,"exists":"false"}]`

func TestDiffOutput(t *testing.T) {
	got, err := parseDiff([]byte(diffOutput), 64<<20)
	want := extent.Set{{Off: 0, Len: 3506176}, {Off: 4194304, Len: 1024000}, {Off: 58720256, Len: 1347584}}
	if err != nil || !got.Equal(want) {
		t.Errorf("%v %v", got, err)
	}
	if got, err := parseDiff([]byte(diffOutput), 4<<20); err != nil || got.Total() != 3506176 {
		t.Errorf("cut at the size: %v %v", got, err)
	}
	for _, bad := range []string{"", "{}", `[{"offset":1}]`, `[{"offset":-1,"length":2}]`, `[{"offset":9223372036854775807,"length":9223372036854775807}]`, `[{"offset":"1","length":2}]`} {
		if got, err := parseDiff([]byte(bad), 64<<20); err == nil {
			t.Errorf("%s: %v", bad, got)
		}
	}
}

func FuzzDiffOutput(f *testing.F) {
	f.Add([]byte(diffOutput))
	f.Fuzz(func(t *testing.T, out []byte) {
		set, err := parseDiff(out, 64<<20)
		if err == nil && set.Subtract(extent.Set{{Len: 64 << 20}}) != nil {
			t.Errorf("%v lies beyond the image", set)
		}
	})
}

// A program in the place of `rbd` that ends as it does for each of these.
func TestWhatRbdSays(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if _, err := Open(context.Background(), Address{Pool: "p", Image: "i"}); !problem.Is(err, problem.ToolMissing) {
		t.Errorf("no program: %v", err)
	}
	for script, want := range map[string]problem.Code{
		"exit 2":            problem.SourceNotFound,
		"exit 1":            problem.SourcePermissionDenied,
		"exit 13":           problem.SourcePermissionDenied,
		"exit 110":          problem.SourceReadFailed,
		"echo nonsense":     problem.SourceReadFailed,
		"echo '{\"size\":'": problem.SourceReadFailed,
	} {
		if err := os.WriteFile(filepath.Join(dir, "rbd"), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(context.Background(), Address{Pool: "p", Image: "i"}); !problem.Is(err, want) {
			t.Errorf("%s: %v", script, err)
		}
	}
}
