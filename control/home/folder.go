// Package home owns the data folder: where things lie in it, which process
// owns it, and how the others have their work done.
//
// One process owns a data folder, by a lock that ends with the process. The
// owner listens on a Unix socket in the folder; whoever comes second hands its
// request over and waits for its turn. When the owner has done its own work,
// or dies, those who still wait try again: one of them becomes the owner. So
// no request depends on any process but the one that a person started.
package home

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
)

// Folder is a data folder.
type Folder struct{ path string }

// Open makes the folder if it does not exist, for its owner only, and checks
// that it can be written. Errors: HomeNotUsable.
func Open(path string) (Folder, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Folder{}, trouble(err, "The data folder %s cannot be used.", path)
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return Folder{}, problem.New(problem.HomeNotUsable, "The data folder %s is not a folder.", path)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return Folder{}, trouble(err, "The data folder %s cannot be made.", path)
	}
	if err := unix.Access(path, unix.W_OK|unix.X_OK); err != nil {
		return Folder{}, trouble(err, "The data folder %s cannot be written.", path)
	}
	return Folder{path}, nil
}

// trouble is the problem of a system call in the folder.
func trouble(err error, format string, args ...any) error {
	code := problem.HomeNotUsable
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		code = problem.HomeFull
	}
	return problem.Wrap(err, code, format, args...)
}

// Path of the folder itself, absolute.
func (f Folder) Path() string { return f.path }

// Catalog is the path of the catalog's file.
func (f Folder) Catalog() string { return filepath.Join(f.path, "catalog.db") }

// Store is the path of the store that is used unless another is asked for.
func (f Folder) Store() string { return filepath.Join(f.path, "store") }

// Cache is the folder of what can be rebuilt from the stores, the indexes
// among it.
func (f Folder) Cache() string { return filepath.Join(f.path, "cache") }

// Config is the path of the settings file, which need not exist.
func (f Folder) Config() string { return filepath.Join(f.path, "config.yaml") }

func (f Folder) keyFile(storeID string) string {
	return filepath.Join(f.path, "keys", storeID+".key")
}

// Key gives the local key of a store, and whether there is one.
func (f Folder) Key(storeID string) (text string, found bool, err error) {
	data, err := os.ReadFile(f.keyFile(storeID))
	if errors.Is(err, os.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, trouble(err, "The key file %s cannot be read.", f.keyFile(storeID))
	}
	return string(data), true, nil
}

// Keys gives the local keys of all stores, as far as they can be read.
func (f Folder) Keys() (texts []string) {
	names, _ := filepath.Glob(f.keyFile("*"))
	for _, name := range names {
		if data, err := os.ReadFile(name); err == nil {
			texts = append(texts, string(data))
		}
	}
	return texts
}

// SaveKey keeps the local key of a store, on stable storage when it returns.
func (f Folder) SaveKey(storeID, url, key string) error {
	path := f.keyFile(storeID)
	text := "# diskvault: opens the store " + storeID + " at " + url + "\n" + key + "\n"
	if err := saveKey(path, text); err != nil {
		return trouble(err, "The key file %s cannot be written.", path)
	}
	return nil
}

func saveKey(path, text string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp := path + ".new"
	t, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = t.WriteString(text)
	if err == nil {
		err = t.Sync()
	}
	if err = errors.Join(err, t.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := syncFolder(d); err != nil {
			return err
		}
	}
	return nil
}

// Rename gives something in the folder its final name, on stable storage when
// it returns.
func (f Folder) Rename(from, to string) error {
	err := os.Rename(from, to)
	if err == nil {
		err = syncFolder(filepath.Dir(to))
	}
	if err != nil {
		return trouble(err, "%s cannot be renamed to %s.", from, to)
	}
	return nil
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
