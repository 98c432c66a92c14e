// Package node holds the words that all readers of file systems share: what a
// file is, what a folder lists, and where the bytes of a file lie.
package node

import (
	"errors"
	"time"
)

// The errors of readers; what is wrong is in the text that wraps them.
var (
	// ErrDamaged: the file system contradicts itself.
	ErrDamaged = errors.New("the file system is damaged")
	// ErrUnsupported: it is made in a way that the reader does not know. It is
	// returned instead of bytes that might be wrong.
	ErrUnsupported = errors.New("not supported")
)

// Kind of a file.
type Kind uint8

// The kinds. Unknown is only in entries of folders that do not tell it.
const (
	Unknown Kind = iota
	Regular
	Directory
	Symlink
	CharDevice
	BlockDevice
	Pipe
	Socket
)

// KindOf gives the kind in the upper bits of a Unix mode.
func KindOf(mode uint32) Kind {
	switch mode & 0o170000 {
	case 0o100000:
		return Regular
	case 0o040000:
		return Directory
	case 0o120000:
		return Symlink
	case 0o020000:
		return CharDevice
	case 0o060000:
		return BlockDevice
	case 0o010000:
		return Pipe
	case 0o140000:
		return Socket
	}
	return Unknown
}

// Mode gives the upper bits of a Unix mode.
func (k Kind) Mode() uint32 {
	return [...]uint32{0, 0o100000, 0o040000, 0o120000, 0o020000, 0o060000, 0o010000, 0o140000}[k]
}

// Attr is what a file system says about a file.
type Attr struct {
	Ino         uint64
	Kind        Kind
	Mode        uint32 // the lower 12 bits
	UID, GID    uint32
	Links       uint32
	Size        int64 // bytes
	Allocated   int64 // bytes that it takes on the disk, where known
	Accessed    time.Time
	Modified    time.Time
	Changed     time.Time
	Created     time.Time // zero where the file system has none
	DeviceMajor uint32
	DeviceMinor uint32
}

// Entry is a name in a folder. "." and ".." are never given.
type Entry struct {
	Name string
	Ino  uint64
	Kind Kind
}

// System reads one file system. It is safe for concurrent use, changes
// nothing, and answers about any number without panicking or hanging.
type System interface {
	Root() uint64
	Attr(ino uint64) (Attr, error)
	List(ino uint64, each func(Entry) error) error
	Content(ino uint64) (Content, error) // of a regular file
	Link(ino uint64) (string, error)     // of a symbolic link
	Xattrs(ino uint64) (map[string][]byte, error)
}

// Facts are what a file system says about itself.
type Facts struct {
	Kind  string // as blkid names it: ext4, xfs, vfat, ntfs
	Label string
	UUID  string
	// Stale says why files may be older than the disk or half written: a
	// journal that could not be replayed. Empty: nothing is missing.
	Stale string
	// Replayed: the journal was replayed in memory.
	Replayed bool
}

// The limits of what is believed. They bound memory and time on a disk that
// was made to harm; real disks stay far below.
const (
	MaxRuns      = 4 << 20   // pieces of one file
	MaxDirectory = 1 << 30   // bytes of one folder
	MaxEntries   = 4 << 20   // entries of one folder
	MaxTree      = 1 << 30   // bytes of the tree that tells where one file lies
	MaxXattr     = 64 << 10  // bytes of one value, as in Linux
	MaxXattrs    = 64 << 20  // bytes of all of one file
	MaxLink      = 64 << 10  // bytes of a symbolic link
	MaxRead      = 256 << 20 // bytes of metadata read at once
)
