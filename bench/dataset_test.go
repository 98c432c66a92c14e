package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tree makes a folder of files to fill a system disk with: 80 folders of 4
// files of 16 KiB to 64 KiB.
func tree(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	for i := range 80 {
		folder := filepath.Join(root, fmt.Sprintf("folder %02d", i))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		for j := range 4 {
			content := bytes.Repeat([]byte{byte(i), byte(j), 'x', 'y'}, (j+1)<<12)
			if err := os.WriteFile(filepath.Join(folder, string(rune('0'+j))+" file"), content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func needTools(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := find(sbin(p)); err != nil {
			t.Skip("skip: needs " + p)
		}
	}
}

func TestSystemDiskHoldsTheFiles(t *testing.T) {
	needTools(t, "mke2fs", "debugfs", "e2fsck")
	root, folder := tree(t), t.TempDir()
	base, changed := filepath.Join(folder, "base.img"), filepath.Join(folder, "changed.img")
	first, second, err := pick(t.Context(), []string{root}, 8<<20, 2<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := makeSystem(t.Context(), folder, base, 32<<20, first); err != nil {
		t.Fatal(err)
	}
	if err := place(t.Context(), base, changed); err != nil {
		t.Fatal(err)
	}
	if err := updateSystem(t.Context(), folder, changed, first, second, 1<<20); err != nil {
		t.Fatal(err)
	}
	read := func(image, path string) []byte {
		out, err := exec.Command(sbin("debugfs"), "-R", "cat \""+path+"\"", image).Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	replaced := 0
	for _, f := range first {
		want, err := os.ReadFile(f.path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(base, f.path), want) {
			t.Errorf("%s is not on the disk as it is here", f.path)
		}
		got := read(changed, f.path)
		if len(got) != len(want) {
			t.Errorf("%s has %d bytes after the update, want %d", f.path, len(got), len(want))
		}
		if !bytes.Equal(got, want) {
			replaced++
		}
	}
	if replaced == 0 {
		t.Error("the update replaced nothing")
	}
	if want, _ := os.ReadFile(second[0].path); !bytes.Equal(read(changed, "/update/000000"), want) {
		t.Error("the first added file is not on the changed disk")
	}
	difference, err := compare(t.Context(), base, changed, 4<<10)
	if err != nil {
		t.Fatal(err)
	}
	if difference.differing < 1<<20 {
		t.Errorf("only %d bytes differ after the update", difference.differing)
	}
}

func TestPickIsDisjointAndRepeatable(t *testing.T) {
	root := tree(t)
	first, second, err := pick(t.Context(), []string{root}, 8<<20, 2<<20)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range append(append([]hostFile{}, first...), second...) {
		if seen[f.path] {
			t.Errorf("%s was picked twice", f.path)
		}
		seen[f.path] = true
	}
	again, _, err := pick(t.Context(), []string{root}, 8<<20, 2<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i := range first {
		if first[i] != again[i] {
			t.Fatalf("the second pick differs at %d: %v, %v", i, first[i], again[i])
		}
	}
	if _, _, err := pick(t.Context(), []string{root}, 1<<30, 1<<20); err == nil || !strings.Contains(err.Error(), "--tree") {
		t.Errorf("too small a tree gave %v", err)
	}
}

func TestDatabaseIsTheSameEveryTime(t *testing.T) {
	l := library{folder: t.TempDir(), scale: 8.0 / 2048}
	d, err := l.database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	difference, err := compare(t.Context(), d.image(0), d.image(1), pageBytes)
	if err != nil {
		t.Fatal(err)
	}
	// One page in a hundred of 1024.
	if difference.size != 8<<20 || difference.differing != 10*pageBytes {
		t.Errorf("%d bytes, %d bytes of pages differ; want %d and %d", difference.size, difference.differing, 8<<20, 10*pageBytes)
	}
	other := library{folder: t.TempDir(), scale: l.scale}
	o, err := other.database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range d.Images {
		if c, err := compare(t.Context(), d.image(i), o.image(i), 1); err != nil || c.differing != 0 {
			t.Errorf("%s came out differently the second time: %d bytes, %v", d.Images[i], c.differing, err)
		}
	}
}

func TestSpreadKeepsEveryPiece(t *testing.T) {
	folder := t.TempDir()
	from, alone, wide := filepath.Join(folder, "from"), filepath.Join(folder, "alone"), filepath.Join(folder, "wide")
	if err := writeDatabase(t.Context(), from, 512); err != nil { // 4 MiB
		t.Fatal(err)
	}
	const span = 8 << 30
	if err := spread(t.Context(), from, alone, wide, 2<<20, span); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(wide)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, _ := f.Stat(); info.Size() != span {
		t.Errorf("the wide image has %d bytes", info.Size())
	}
	var gathered []byte
	spans := 0
	for s, err := range dataSpans(f) {
		if err != nil {
			t.Fatal(err)
		}
		spans++
		part := make([]byte, s.len)
		if _, err := f.ReadAt(part, s.off); err != nil {
			t.Fatal(err)
		}
		gathered = append(gathered, part...)
	}
	want, err := os.ReadFile(alone)
	if err != nil {
		t.Fatal(err)
	}
	if spans != 8 || !bytes.Equal(gathered, want) {
		t.Errorf("%d spans with %d bytes; want 8 that together are the %d bytes alone", spans, len(gathered), len(want))
	}
	if err := spread(t.Context(), from, alone, wide, 8<<20, span); err == nil {
		t.Error("more was spread than there is")
	}
}

func TestUnfinishedDatasetIsMadeAnew(t *testing.T) {
	l := library{folder: t.TempDir(), scale: 1}
	builds := 0
	build := func(folder string) (string, error) {
		builds++
		if builds == 1 {
			return "", errors.Join(os.WriteFile(filepath.Join(folder, "a.img"), nil, 0o644), errors.New("interrupted"))
		}
		return "about", os.WriteFile(filepath.Join(folder, "a.img"), nil, 0o644)
	}
	get := func(recipe string) error {
		_, err := l.get(context.Background(), "x", recipe, []string{"a.img"}, build)
		return err
	}
	if get("one") == nil {
		t.Fatal("a failed build was no error")
	}
	for range 2 {
		if err := get("one"); err != nil {
			t.Fatal(err)
		}
	}
	if builds != 2 {
		t.Errorf("%d builds, want the failed one and one more", builds)
	}
	if err := get("another"); err != nil || builds != 3 {
		t.Errorf("another recipe: %v after %d builds", err, builds)
	}
}

func TestCompareTellsLengthAndBytes(t *testing.T) {
	folder := t.TempDir()
	a, b := filepath.Join(folder, "a"), filepath.Join(folder, "b")
	content := bytes.Repeat([]byte("0123456789abcdef"), 3<<16) // 3 MiB
	if err := os.WriteFile(a, append(content, 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := compare(t.Context(), a, b, 4096); err == nil {
		t.Error("different lengths compare")
	}
	content[2<<20] ^= 1
	if err := os.WriteFile(b, append(content, 2), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := compare(t.Context(), a, b, 4096)
	if err != nil || c.differing != 4096+1 {
		t.Errorf("%d bytes differ (%v), want one page and the one byte at the end", c.differing, err)
	}
}
