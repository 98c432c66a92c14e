package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/durable"
)

// recorder writes down each operation, so that a missing sync is a visible
// difference.
type recorder struct {
	durable.Root
	mu   sync.Mutex
	ops  []string
	fail string // the operation that fails
}

var errTold = errors.New("told to fail")

func (r *recorder) note(format string, args ...any) error {
	op := fmt.Sprintf(format, args...)
	// Random names would make each run different.
	if at := strings.Index(op, ".tmp-"); at >= 0 {
		op = op[:at] + "TEMP" + op[at+len(".tmp-")+16:]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op)
	if op == r.fail {
		return errTold
	}
	return nil
}

func (r *recorder) Create(name string, perm fs.FileMode) (durable.File, error) {
	if err := r.note("create %s %o", name, perm); err != nil {
		return nil, err
	}
	f, err := r.Root.Create(name, perm)
	return &recordedFile{f, r}, err
}

func (r *recorder) Rename(from, to string) error {
	return errors.Join(r.note("rename %s to %s", from, to), r.Root.Rename(from, to))
}

func (r *recorder) Remove(name string) error {
	return errors.Join(r.note("remove %s", name), r.Root.Remove(name))
}

func (r *recorder) Mkdir(name string, perm fs.FileMode) error {
	return errors.Join(r.note("mkdir %s %o", name, perm), r.Root.Mkdir(name, perm))
}

func (r *recorder) SyncFolder(name string) error {
	return errors.Join(r.note("sync folder %q", name), r.Root.SyncFolder(name))
}

type recordedFile struct {
	durable.File
	r *recorder
}

func (f *recordedFile) Write(parts [][]byte) error {
	return errors.Join(f.r.note("write %d parts", len(parts)), f.File.Write(parts))
}
func (f *recordedFile) Sync() error  { return errors.Join(f.r.note("sync file"), f.File.Sync()) }
func (f *recordedFile) Close() error { return errors.Join(f.r.note("close"), f.File.Close()) }

func open(t *testing.T) (*recorder, string) {
	t.Helper()
	path := t.TempDir()
	root, err := durable.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &recorder{Root: root}, path
}

func (r *recorder) expect(t *testing.T, want string) {
	t.Helper()
	if got := strings.Join(r.ops, "\n"); got != strings.TrimSpace(want) {
		t.Errorf("operations:\n%s\nexpected:\n%s", got, strings.TrimSpace(want))
	}
	r.ops = nil
}

func TestOrderOfOperations(t *testing.T) {
	r, path := open(t)
	if err := durable.MakeFolder(r, "a/b", 0o700); err != nil {
		t.Fatal(err)
	}
	r.expect(t, `
mkdir a 700
sync folder ""
mkdir a/b 700
sync folder "a"`)
	if err := durable.WriteFile(r, "a/b/c", 0o600, [][]byte{[]byte("one "), nil, []byte("two")}); err != nil {
		t.Fatal(err)
	}
	r.expect(t, `
create a/b/TEMP 600
write 3 parts
sync file
close
rename a/b/TEMP to a/b/c
sync folder "a/b"`)
	if err := durable.WriteFile(r, "a/b/c", 0o600, [][]byte{[]byte("other")}); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("a second file of the same name gives %v", err)
	}
	r.expect(t, `
create a/b/TEMP 600
write 1 parts
sync file
close
rename a/b/TEMP to a/b/c
remove a/b/TEMP
sync folder "a/b"`)
	if got, _ := os.ReadFile(filepath.Join(path, "a/b/c")); string(got) != "one two" {
		t.Fatalf("the file holds %q", got)
	}
	if err := durable.RemoveFile(r, "a/b/c"); err != nil {
		t.Fatal(err)
	}
	r.expect(t, `
remove a/b/c
sync folder "a/b"`)
	if err := durable.RemoveFile(r, "nowhere/c"); err != nil {
		t.Fatal(err)
	}
}

func TestWriteFileFailsAtEachOperation(t *testing.T) {
	for _, c := range []struct {
		fail   string
		stored bool // whether the file may be there afterwards
	}{
		{"create TEMP 600", false},
		{"write 1 parts", false},
		{"sync file", false},
		{"close", false},
		{"rename TEMP to x", true},
		{`sync folder ""`, true},
	} {
		t.Run(c.fail, func(t *testing.T) {
			r, path := open(t)
			r.fail = c.fail
			if err := durable.WriteFile(r, "x", 0o600, [][]byte{[]byte("data")}); !errors.Is(err, errTold) {
				t.Fatalf("the failure is reported as %v", err)
			}
			left, err := os.ReadDir(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range left {
				got, _ := os.ReadFile(filepath.Join(path, e.Name()))
				if !c.stored || e.Name() != "x" || string(got) != "data" {
					t.Errorf("%s stays, with %q", e.Name(), got)
				}
			}
		})
	}
}

func TestManyPartsAreWrittenInOrder(t *testing.T) {
	r, path := open(t)
	var parts [][]byte
	var want []byte
	for i := range 5000 {
		p := bytes.Repeat([]byte{byte(i)}, i%300)
		parts = append(parts, p)
		want = append(want, p...)
	}
	if err := durable.WriteFile(r, "x", 0o600, parts); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(path, "x"))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes differ from the %d written, %v", len(got), len(want), err)
	}
	if info, _ := os.Stat(filepath.Join(path, "x")); info.Mode().Perm() != 0o600 {
		t.Fatalf("the file's mode is %v", info.Mode())
	}
}

func TestOneOfManyWritersWins(t *testing.T) {
	r, path := open(t)
	var won atomic.Int32
	var wait sync.WaitGroup
	for i := range 16 {
		wait.Go(func() {
			err := durable.WriteFile(r, "x", 0o600, [][]byte{[]byte(fmt.Sprint(i))})
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if won.Load() != 1 {
		t.Errorf("%d writers won", won.Load())
	}
	if left, _ := os.ReadDir(path); len(left) != 1 {
		t.Errorf("%v are left", left)
	}
}

func TestCleanTemporary(t *testing.T) {
	r, path := open(t)
	now := time.Now()
	for name, age := range map[string]time.Duration{".tmp-0000000000000001": 2 * time.Hour, ".tmp-0000000000000002": 0, "kept": 2 * time.Hour} {
		file := filepath.Join(path, name)
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chtimes(file, time.Time{}, now.Add(-age))); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.CleanTemporary(r, "", now.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	r.expect(t, "remove TEMP")
	if _, err := os.Stat(filepath.Join(path, ".tmp-0000000000000001")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the old temporary file is still there")
	}
}

func TestMakeRoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "c")
	for range 2 { // the second time it is there
		r, err := durable.MakeRoot(path, 0o700)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
			t.Fatalf("%v %v", info, err)
		}
		r.Close()
	}
	file := filepath.Join(path, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := durable.MakeRoot(filepath.Join(file, "x"), 0o700); err == nil {
		t.Fatal("a folder was made in a file")
	}
}

func TestARootKeepsItsPlaceWhenMoved(t *testing.T) {
	r, path := open(t)
	if err := os.Rename(path, path+"-moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(path + "-moved") })
	if err := durable.WriteFile(r, "x", 0o600, nil); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(path); len(left) != 0 {
		t.Fatalf("%v was written into the folder that took the old one's place", left)
	}
}
