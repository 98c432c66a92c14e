package overlay

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
)

// ledger keeps the marks of an overlay in a file, so that another process can
// go on. At any moment it names only what is on stable storage in the disk's
// file: marks are only ever added, and only after the data were synced.
type ledger struct {
	file    *os.File
	unsaved map[int64]struct{} // segments; guarded by Disk.mu

	saving sync.Mutex
	failed error // guarded by saving: a sync that failed does not come back
}

// heading is what a ledger begins with, as JSON padded with zeros to room bytes.
// Behind it lie the marks of each segment, little-endian.
type heading struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	Content string `json:"content"` // what the base is
	Size    int64  `json:"size"`
	Inode   uint64 `json:"inode"` // of the disk's file
}

const (
	room       = 4096
	ledgerName = ".marks"
)

// Open makes an overlay in a file with a name, or goes on with the one that is
// there, and tells which. Beside it lies path.marks, which names what of the
// disk is in the file. content says what the base is: an overlay of something
// else is TargetExists. Another process that has it open is TargetInUse.
func Open(base Base, path, content string) (d *Disk, resumed bool, err error) {
	marksFile, err := os.OpenFile(path+ledgerName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, problem.Wrap(err, problem.TargetNotWritable, "%s cannot be made.", path+ledgerName)
	}
	defer func() {
		if err != nil {
			marksFile.Close()
		}
	}()
	if err := unix.Flock(int(marksFile.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, false, problem.Wrap(err, problem.TargetInUse, "Another process is restoring to %s.", path)
	}
	head := make([]byte, room)
	n, err := io.ReadFull(marksFile, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, false, problem.Wrap(err, problem.TargetWriteFailed, "%s cannot be read.", marksFile.Name())
	}
	d = &Disk{base: base, size: base.Size(), path: path, marks: map[int64]*marks{}, keep: &ledger{file: marksFile, unsaved: map[int64]struct{}{}}}
	if n == room {
		return d, true, d.resume(head, content)
	}
	return d, false, d.begin(content)
}

// begin makes the files of a new overlay. The heading comes last: without it
// there is no overlay.
func (d *Disk) begin(content string) (err error) {
	d.file, err = os.OpenFile(d.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return problem.Wrap(err, problem.TargetNotWritable, "%s cannot be made.", d.path)
	}
	var st unix.Stat_t
	// A run that was killed right here left a file that holds nothing.
	if err := unix.Fstat(int(d.file.Fd()), &st); err != nil || st.Blocks > 0 {
		d.file.Close()
		return problem.New(problem.TargetExists, "%s exists, and is no unfinished restore: %s is missing beside it.", d.path, filepath.Base(d.path)+ledgerName)
	}
	err = d.file.Truncate(d.size)
	if err == nil {
		err = d.file.Sync()
	}
	text, _ := json.Marshal(heading{"diskvault overlay", 1, content, d.size, st.Ino}) // cannot fail
	if err == nil {
		_, err = d.keep.file.WriteAt(append(text, make([]byte, room-len(text))...), 0)
	}
	if err == nil {
		err = d.keep.file.Sync()
	}
	if err == nil {
		err = syncFolder(d.path)
	}
	if err != nil {
		d.file.Close()
		return writeProblem(err, d.path)
	}
	return nil
}

func syncFolder(path string) error {
	f, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// resume takes over what a ledger says.
func (d *Disk) resume(head []byte, content string) (err error) {
	var h heading
	if json.Unmarshal(bytes.TrimRight(head, "\x00"), &h) != nil || h.Version != 1 {
		return problem.New(problem.TargetExists, "%s does not belong to a restore that this version can go on with.", d.keep.file.Name())
	}
	if h.Content != content || h.Size != d.size {
		return problem.New(problem.TargetExists, "%s is an unfinished restore of another recovery point.", d.path).
			Do("Name the same recovery point to go on with it, or remove " + d.path + " and " + d.keep.file.Name() + ".")
	}
	if d.file, err = os.OpenFile(d.path, os.O_RDWR, 0); err != nil {
		return problem.Wrap(err, problem.TargetNotWritable, "The unfinished restore %s cannot be opened.", d.path)
	}
	defer func() {
		if err != nil {
			d.file.Close()
		}
	}()
	var st unix.Stat_t
	if err := unix.Fstat(int(d.file.Fd()), &st); err != nil || st.Ino != h.Inode || st.Size != d.size {
		return problem.New(problem.TargetExists, "%s is not the file that the unfinished restore was writing: it was copied or replaced.", d.path).
			Do("Remove " + d.path + " and " + d.keep.file.Name() + ", and restore again.")
	}
	for at := int64(0); ; {
		next, err := unix.Seek(int(d.keep.file.Fd()), max(at, room), unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return writeProblem(err, d.keep.file.Name())
		}
		at = (next-room)/markBytes*markBytes + room
		buffer := make([]byte, 8192*markBytes)
		n, err := d.keep.file.ReadAt(buffer, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return writeProblem(err, d.keep.file.Name())
		}
		for i := 0; i+markBytes <= n; i += markBytes {
			m := decode(buffer[i:])
			n := (at-room)/markBytes + int64(i/markBytes)
			switch m {
			case marks{}:
			case *full:
				d.marks[n] = full
			default:
				d.marks[n] = &m
			}
		}
		if n < len(buffer) {
			return nil
		}
		at += int64(n)
	}
}

// markBytes is what the marks of a segment take in the file.
const markBytes = words * 8

func decode(b []byte) (m marks) {
	for i := range m {
		m[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return m
}

// save puts the disk's file on stable storage, and then the marks that were
// made before.
func (l *ledger) save(d *Disk) error {
	l.saving.Lock()
	defer l.saving.Unlock()
	if l.failed != nil {
		return l.failed
	}
	d.mu.Lock()
	unsaved := l.unsaved
	l.unsaved = map[int64]struct{}{}
	current := make(map[int64]*marks, len(unsaved))
	for n := range unsaved {
		current[n] = d.marks[n]
	}
	d.mu.Unlock()
	err := unix.Fdatasync(int(d.file.Fd()))
	var b [markBytes]byte
	for n, m := range current {
		for i, w := range m {
			binary.LittleEndian.PutUint64(b[8*i:], w)
		}
		if err == nil {
			_, err = l.file.WriteAt(b[:], room+n*markBytes)
		}
	}
	if err == nil && len(current) > 0 {
		err = unix.Fdatasync(int(l.file.Fd()))
	}
	if err != nil {
		// What the kernel could not write it forgets: no later sync tells of it.
		l.failed = writeProblem(err, d.where())
		return l.failed
	}
	return nil
}

// Finish gives the file its name when all of the disk is in it, and removes
// the marks. It is TargetExists if the name was taken meanwhile. The overlay
// can be used all the same until it is closed.
func (d *Disk) Finish(name string) error {
	if err := d.Flush(context.Background()); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, d.path, unix.AT_FDCWD, name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // a file system that does not know the flag
		if err = os.Link(d.path, name); err == nil {
			err = os.Remove(d.path)
		}
	}
	if errors.Is(err, os.ErrExist) {
		return problem.Wrap(err, problem.TargetExists, "The disk is whole, but %s was taken meanwhile: it stays at %s.", name, d.path)
	}
	if err == nil {
		err = syncFolder(name)
	}
	// Only now: without its marks nobody would know what the file is.
	if err == nil {
		err = os.Remove(d.keep.file.Name())
	}
	if err != nil {
		return problem.Wrap(err, problem.TargetWriteFailed, "The restored disk %s cannot be given its name.", name)
	}
	return nil
}

// Tidy removes the marks of an overlay that got its name right before its
// process was killed, and tells whether there were any.
func Tidy(path, name string) bool {
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return false
	}
	if _, err := os.Lstat(name); err != nil {
		return false
	}
	return os.Remove(path+ledgerName) == nil
}
