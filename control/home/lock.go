package home

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lock is the ownership of a data folder. The kernel ends it with the process,
// however that ends.
type lock struct{ file *os.File }

// tryLock takes the folder if nobody owns it; nil if somebody does.
func (f Folder) tryLock() (*lock, error) {
	path := filepath.Join(f.path, "lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, trouble(err, "The lock of the data folder, %s, cannot be opened.", path)
	}
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		file.Close()
		if err == unix.EWOULDBLOCK {
			return nil, nil
		}
		return nil, trouble(err, "The data folder %s lies on a file system without locks.", f.path)
	}
	// Only for people to read: the lock itself is the kernel's.
	host, _ := os.Hostname()
	owner := fmt.Sprintf("%d on %s\n", os.Getpid(), host)
	_ = errors.Join(file.Truncate(0), writeAt(file, owner)) // no room for it is no reason to refuse a restore
	return &lock{file}, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

func (l *lock) release() error { return l.file.Close() }

// owner tells which process owns the folder, as far as it can be known.
func (f Folder) owner() string {
	data, err := os.ReadFile(filepath.Join(f.path, "lock"))
	text := strings.TrimSpace(string(data))
	if err != nil || text == "" {
		return "unknown"
	}
	return text
}
