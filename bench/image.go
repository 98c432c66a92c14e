package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"syscall"
)

const (
	seekData = 3 // SEEK_DATA
	seekHole = 4 // SEEK_HOLE
)

// A span is a byte range of a file.
type span struct{ off, len int64 }

// dataSpans walks the allocated ranges of a file, in order.
func dataSpans(f *os.File) iter.Seq2[span, error] {
	return func(yield func(span, error) bool) {
		for off := int64(0); ; {
			start, err := f.Seek(off, seekData)
			if errors.Is(err, syscall.ENXIO) {
				return
			}
			if err != nil {
				yield(span{}, err)
				return
			}
			end, err := f.Seek(start, seekHole)
			if err != nil {
				yield(span{}, err)
				return
			}
			if !yield(span{start, end - start}, nil) {
				return
			}
			off = end
		}
	}
}

// place makes the file at path hold what the image holds, in place: the path
// and, if it exists, the inode stay. Holes stay holes.
func place(ctx context.Context, image, path string) error {
	_, err := output(ctx, command{
		args: []string{"cp", "--sparse=always", "--reflink=auto", image, path},
		env:  os.Environ(),
	})
	if err != nil {
		return err
	}
	syscall.Sync()
	return nil
}

// warm reads the allocated ranges of a file, or of all files below a folder,
// so that they are in the page cache.
func warm(ctx context.Context, path string) error {
	buffer := make([]byte, 1<<20)
	return filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		for s, err := range dataSpans(f) {
			if err != nil {
				return err
			}
			section := io.NewSectionReader(f, s.off, s.len)
			for {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				_, err := section.Read(buffer)
				if err == io.EOF {
					break
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// A comparison walks two files together.
type comparison struct {
	size      int64
	differing int64 // bytes in pages of the given size that are not equal
}

// compare reads two files from end to end and counts the pages that differ.
// Different lengths are an error.
func compare(ctx context.Context, a, b string, page int) (comparison, error) {
	fa, err := os.Open(a)
	if err != nil {
		return comparison{}, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return comparison{}, err
	}
	defer fb.Close()
	infoA, err := fa.Stat()
	if err != nil {
		return comparison{}, err
	}
	infoB, err := fb.Stat()
	if err != nil {
		return comparison{}, err
	}
	if infoA.Size() != infoB.Size() {
		return comparison{}, fmt.Errorf("%s has %d bytes, %s has %d", a, infoA.Size(), b, infoB.Size())
	}
	c := comparison{size: infoA.Size()}
	bufferA, bufferB := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < c.size; off += int64(len(bufferA)) {
		if ctx.Err() != nil {
			return c, context.Cause(ctx)
		}
		n := int(min(int64(len(bufferA)), c.size-off))
		if _, err := fa.ReadAt(bufferA[:n], off); err != nil {
			return c, err
		}
		if _, err := fb.ReadAt(bufferB[:n], off); err != nil {
			return c, err
		}
		if bytes.Equal(bufferA[:n], bufferB[:n]) {
			continue
		}
		for p := 0; p < n; p += page {
			end := min(p+page, n)
			if !bytes.Equal(bufferA[p:end], bufferB[p:end]) {
				c.differing += int64(end - p)
			}
		}
	}
	return c, nil
}

// fsyncFile puts a file on stable storage.
func fsyncFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// treeBytes is the sum of the lengths of all files below a folder.
func treeBytes(folder string) (int64, error) {
	total := int64(0)
	err := filepath.WalkDir(folder, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

// allocatedBelow is how much space the files below a folder take, 0 if there is
// no such folder.
func allocatedBelow(folder string) (int64, error) {
	total := int64(0)
	err := filepath.WalkDir(folder, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n, err := allocatedBytes(name)
		total += n
		return err
	})
	return total, err
}

// allocatedBytes is how much space a file takes on its file system.
func allocatedBytes(path string) (int64, error) {
	var st syscall.Stat_t
	err := syscall.Stat(path, &st)
	return st.Blocks * 512, err
}
