package filebucket

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/diskvault/diskvault/base/durable"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
)

func TestClassify(t *testing.T) {
	for errno, want := range map[syscall.Errno]problem.Code{
		syscall.ENOSPC: problem.StoreFull,
		syscall.EDQUOT: problem.StoreFull,
		syscall.EACCES: problem.StorePermissionDenied,
		syscall.EROFS:  problem.StorePermissionDenied,
		syscall.ESTALE: problem.StoreUnreachable,
		syscall.EIO:    problem.StoreFailed,
	} {
		err := classify(&fs.PathError{Op: "write", Path: "x", Err: errno}, "file:/x")
		if !problem.Is(err, want) || !errors.Is(err, errno) {
			t.Errorf("%v becomes %v", errno, err)
		}
	}
	if err := classify(context.Canceled, "file:/x"); problem.From(err).Code != problem.OperationInterrupted {
		t.Errorf("a cancelled context becomes %v", err)
	}
}

// A device that is always full shows the error that a person sees.
func TestFullFileSystem(t *testing.T) {
	r, err := durable.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := On(full{r}, "file:/full")
	defer b.Close()
	if err := b.Put(t.Context(), "packs/ab/x", [][]byte{make([]byte, 10)}); !problem.Is(err, problem.StoreFull) {
		t.Fatalf("%v", err)
	}
	if _, err := b.Stat(t.Context(), "packs/ab/x"); !errors.Is(err, bucket.ErrNotFound) {
		t.Fatalf("%v", err)
	}
}

type full struct{ *durable.Folder }

func (f full) Create(name string, perm fs.FileMode) (durable.File, error) {
	created, err := f.Folder.Create(name, perm)
	return fullFile{created}, err
}

type fullFile struct{ durable.File }

func (fullFile) Write([][]byte) error {
	dev, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer dev.Close()
	_, err = dev.Write([]byte("x"))
	return err
}
