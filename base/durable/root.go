// Package durable writes files, renames and folders so that they are still
// there after a power failure: a function that returned nil has synced what it
// did, the data and the names.
//
// All names are relative to a Root, joined by slashes. The operating system is
// one Root (Open); package powerloss holds another, in memory, that forgets
// what was not synced.
package durable

import (
	"io/fs"
	"time"
)

// Root is a folder and all that lies in it, with the few operations that the
// functions of this package are made of. The empty name is the folder itself.
// Errors answer errors.Is for fs.ErrExist, fs.ErrNotExist and fs.ErrPermission.
// All methods may be called concurrently.
type Root interface {
	// Create makes a file that does not exist and opens it for writing.
	Create(name string, perm fs.FileMode) (File, error)
	// Open opens a file for reading.
	Open(name string) (File, error)
	// Rename gives a file another name; fs.ErrExist if that is taken.
	Rename(from, to string) error
	// Remove removes a file.
	Remove(name string) error
	// Mkdir makes a folder.
	Mkdir(name string, perm fs.FileMode) error
	// Rmdir removes a folder; it fails if something is in it.
	Rmdir(name string) error
	// SyncFolder puts the names in a folder on stable storage, as they are now.
	SyncFolder(name string) error
	// Stat describes a file or folder.
	Stat(name string) (Info, error)
	// ReadFolder lists what is in a folder, in no order.
	ReadFolder(name string) ([]Entry, error)
	// Close releases the root.
	Close() error
}

// File is an open file of a Root.
type File interface {
	// Write appends all parts.
	Write(parts [][]byte) error
	// ReadAt is io.ReaderAt.
	ReadAt(p []byte, off int64) (int, error)
	// Size is the length of the file in bytes.
	Size() (int64, error)
	// Sync puts the file's data on stable storage, but not its name.
	Sync() error
	Close() error
}

// Info describes a file or folder.
type Info struct {
	Size   int64     // in bytes
	Time   time.Time // of the last change of the data, by the file system's clock
	Folder bool
}

// Entry is a name in a folder.
type Entry struct {
	Name   string
	Folder bool
}
