package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A hostFile is a regular file of this machine that may go onto the system disk.
type hostFile struct {
	path string
	size int64
}

// pick chooses two disjoint sets of files below the trees, of about the given
// sizes. Whole folders are chosen, in an order that only depends on their
// names: an equal tree gives an equal choice.
func pick(ctx context.Context, trees []string, base, update int64) (first, second []hostFile, err error) {
	folders := map[string][]hostFile{}
	total := int64(0)
	for _, tree := range trees {
		err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			// A name that debugfs could misread is left out.
			if err != nil || !d.Type().IsRegular() || strings.ContainsAny(path, "\"\\\n") {
				return err
			}
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && readable(path) {
				folder := filepath.Dir(path)
				folders[folder] = append(folders[folder], hostFile{path, info.Size()})
				total += info.Size()
			}
			return err
		})
		if err != nil {
			return nil, nil, err
		}
	}
	order := make([]string, 0, len(folders))
	for folder := range folders {
		order = append(order, folder)
	}
	slices.SortFunc(order, func(a, b string) int {
		return cmp.Or(cmp.Compare(nameHash(a), nameHash(b)), cmp.Compare(a, b))
	})
	// The first folders that still fit go to the base; of what remains, again
	// the first that fit go to the update.
	take := func(budget int64) (taken []hostFile, left int64) {
		for _, folder := range order {
			size := int64(0)
			for _, f := range folders[folder] {
				size += f.size
			}
			if files := folders[folder]; len(files) > 0 && size <= budget {
				taken = append(taken, files...)
				budget -= size
				delete(folders, folder)
			}
		}
		return taken, budget
	}
	first, leftFirst := take(base)
	second, leftSecond := take(update)
	if leftFirst > base/50 || leftSecond > update/10 {
		return nil, nil, fmt.Errorf("%s hold %s in files, too few for a disk with %s and %s more later: "+
			"name more folders with --tree, or make everything smaller with --scale",
			strings.Join(trees, ", "), mib(total), mib(base), mib(update))
	}
	return first, second, nil
}

func readable(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

func nameHash(s string) uint64 {
	h := fnv.New64a()
	io.WriteString(h, s)
	return h.Sum64()
}

// stage copies files below a folder, each at its own path, with its time.
func stage(ctx context.Context, files []hostFile, folder string) error {
	for _, f := range files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := copyFile(f.path, filepath.Join(folder, f.path)); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm()|0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Chtimes(to, info.ModTime(), info.ModTime())
}
