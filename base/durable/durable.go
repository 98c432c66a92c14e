package durable

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// temporary begins the names of files that are not whole yet.
const temporary = ".tmp-"

// IsTemporary tells whether a name is that of a file which WriteFile has not
// finished, or will never finish.
func IsTemporary(name string) bool {
	return strings.HasPrefix(path.Base(name), temporary)
}

// WriteFile makes a file with the content of parts, unless there is one of this
// name: then it returns fs.ErrExist, and that file's name is on stable storage.
// Nobody ever sees a part of a file under its name, not even after a power
// failure. After any other error the file may be there or not.
//
// System calls:
//
//	openat(folder/.tmp-…, O_CREAT|O_EXCL|O_WRONLY)
//	pwritev(…)
//	fsync(file)
//	close(file)
//	renameat2(folder/.tmp-…, name, RENAME_NOREPLACE)
//	openat(folder, O_DIRECTORY), fsync(folder), close(folder)
func WriteFile(r Root, name string, perm fs.FileMode, parts [][]byte) error {
	folder := folderOf(name)
	temp := path.Join(folder, temporaryName())
	if err := writeTemporary(r, temp, perm, parts); err != nil {
		return err
	}
	if err := r.Rename(temp, name); err != nil {
		// The name may have been given even if an error is reported, so only
		// the temporary name is cleaned up.
		r.Remove(temp)
		if errors.Is(err, fs.ErrExist) {
			// Whoever holds the name may be about to sync it; the caller will
			// rely on its being there.
			if err := r.SyncFolder(folder); err != nil {
				return err
			}
		}
		return err
	}
	return r.SyncFolder(folder)
}

func writeTemporary(r Root, temp string, perm fs.FileMode, parts [][]byte) error {
	f, err := r.Create(temp, perm)
	if err != nil {
		return err
	}
	err = f.Write(parts)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed // some network file systems report a full quota only here
	}
	if err != nil {
		r.Remove(temp)
	}
	return err
}

// RemoveFile removes a file for good; one that is not there is no error.
//
// System calls:
//
//	unlinkat(name)
//	openat(folder, O_DIRECTORY), fsync(folder), close(folder)
func RemoveFile(r Root, name string) error {
	if err := r.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Also when there was no such file: another process may have removed it and
	// not synced yet.
	err := r.SyncFolder(folderOf(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// MakeFolder makes a folder and those above it, as far as they are missing, and
// puts all their names on stable storage, also of those that were there.
//
// System calls, for each folder from the top:
//
//	mkdirat(folder)
//	openat(parent, O_DIRECTORY), fsync(parent), close(parent)
func MakeFolder(r Root, name string, perm fs.FileMode) error {
	if name == "" {
		return nil
	}
	parent := folderOf(name)
	if err := MakeFolder(r, parent, perm); err != nil {
		return err
	}
	if err := r.Mkdir(name, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return r.SyncFolder(parent)
}

// CleanTemporary removes what writers that died left in a folder before a
// moment by the file system's clock. What it cannot remove it leaves.
//
// System calls:
//
//	openat(folder, O_DIRECTORY), getdents64(…), close(folder)
//	for each old temporary file: fstatat(file), unlinkat(file)
func CleanTemporary(r Root, folder string, before time.Time) error {
	entries, err := r.ReadFolder(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Folder || !IsTemporary(e.Name) {
			continue
		}
		name := path.Join(folder, e.Name)
		if info, err := r.Stat(name); err == nil && info.Time.Before(before) {
			r.Remove(name)
		}
	}
	return nil
}

// MakeRoot makes the folder at a path of the operating system, and those above
// it, as MakeFolder does, and opens it.
func MakeRoot(name string, perm fs.FileMode) (*Folder, error) {
	name, err := filepath.Abs(name)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(name); err == nil {
		return Open(name)
	}
	// From the nearest folder that exists, so that nothing above is touched.
	above := filepath.Dir(name)
	for {
		_, err := os.Stat(above)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || above == filepath.Dir(above) {
			return nil, err
		}
		above = filepath.Dir(above)
	}
	r, err := Open(above)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	missing, err := filepath.Rel(above, name)
	if err != nil {
		return nil, err
	}
	if err := MakeFolder(r, missing, perm); err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	return Open(name)
}

func folderOf(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return ""
}

func temporaryName() string {
	var b [8]byte
	rand.Read(b[:])
	return temporary + hex.EncodeToString(b[:])
}
