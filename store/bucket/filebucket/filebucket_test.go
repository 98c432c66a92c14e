package filebucket_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/buckettest"
	"github.com/diskvault/diskvault/store/bucket/filebucket"
)

func open(t *testing.T, path string) *filebucket.Bucket {
	t.Helper()
	b, err := filebucket.Open(path, filebucket.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestConformance(t *testing.T) {
	buckettest.Run(t, buckettest.Options{Keys: 150}, func(t *testing.T) bucket.Bucket { return open(t, t.TempDir()) })
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "store")
	if _, err := filebucket.Open(path, filebucket.Options{}); !problem.Is(err, problem.StoreNotFound) {
		t.Fatalf("a missing folder gives %v", err)
	}
	b := open(t, path)
	if b.URL() != "file:"+path {
		t.Errorf("the URL is %s", b.URL())
	}
	if err := b.Put(t.Context(), "packs/ab/x", [][]byte{[]byte("data")}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"": 0o700, "packs": 0o700, "packs/ab": 0o700, "packs/ab/x": 0o600} {
		info, err := os.Stat(filepath.Join(path, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q has the mode %v, %v", name, info.Mode().Perm(), err)
		}
	}
	again, err := filebucket.Open(path, filebucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if data, err := bucket.ReadAll(t.Context(), again, "packs/ab/x", 10); err != nil || string(data) != "data" {
		t.Fatalf("%q, %v", data, err)
	}
	file := filepath.Join(path, "packs/ab/x")
	if _, err := filebucket.Open(file, filebucket.Options{}); problem.From(err).Code == problem.InternalError {
		t.Fatalf("a file instead of a folder gives %v", err)
	}
}

func TestForeignFilesArePassedOver(t *testing.T) {
	path := t.TempDir()
	b := open(t, path)
	if err := b.Put(t.Context(), "a/x", nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".tmp-0000000000000001", "a/.tmp-0000000000000002", ".DS_Store", "a/name with spaces", ".git/config"} {
		name = filepath.Join(path, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for o, err := range b.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, o.Key)
	}
	if fmt.Sprint(got) != "[a/x]" {
		t.Fatalf("listed: %v", got)
	}
}

func TestLeftoversGoWhenTheyAreOld(t *testing.T) {
	path := t.TempDir()
	folder := filepath.Join(path, "packs", "ab")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	old, young := filepath.Join(folder, ".tmp-0000000000000001"), filepath.Join(folder, ".tmp-0000000000000002")
	for name, age := range map[string]time.Duration{old: 25 * time.Hour, young: 23 * time.Hour} {
		if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Chtimes(name, time.Time{}, time.Now().Add(-age))); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(t, path).Put(t.Context(), "packs/ab/x", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old one is still there: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("the young one is gone: %v", err)
	}
}

func TestEmptyFoldersOfIDsGo(t *testing.T) {
	path := t.TempDir()
	b := open(t, path)
	for _, key := range []string{"sessions/0123456789abcdef0123456789abcdef/1", "packs/ab/x"} {
		if err := errors.Join(b.Put(t.Context(), key, nil), b.Delete(t.Context(), key)); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(path, "sessions")); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
	if _, err := os.Stat(filepath.Join(path, "packs", "ab")); err != nil {
		t.Errorf("the folder of a fan-out is gone: %v", err)
	}
}

func TestFolderThatWasRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	b := open(t, path)
	if err := errors.Join(b.Put(t.Context(), "a/x", nil), os.RemoveAll(path)); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "a/y", nil); !problem.Is(err, problem.StoreNotFound) {
		t.Errorf("put gives %v", err)
	}
	if err := b.Get(t.Context(), "a/x", 0, make([]byte, 1)); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("get gives %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is back: %v", err)
	}
}

func TestReadOnlyFolder(t *testing.T) {
	path := t.TempDir()
	b := open(t, path)
	if err := os.Chmod(path, 0o500); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		// Root may write everywhere; as nobody, this thread may not. Locked, it
		// is not used again after the test.
		runtime.LockOSThread()
		if err := unix.Setfsuid(65534); err != nil {
			t.Fatal(err)
		}
		defer unix.Setfsuid(0)
	}
	if err := b.Put(t.Context(), "x", nil); !problem.Is(err, problem.StorePermissionDenied) {
		t.Fatalf("a read-only folder gives %v", err)
	}
}

func BenchmarkBucket(b *testing.B) {
	at, err := filebucket.Open(b.TempDir(), filebucket.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer at.Close()
	buckettest.Benchmark(b, at, 32<<20)
}
