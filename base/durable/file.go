package durable

import (
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

// maxVector is how many parts one pwritev takes (IOV_MAX).
const maxVector = 1024

// file is an open file of a Folder.
type file struct {
	fd   int
	name string
	end  int64 // where the next Write begins
}

// Write appends all parts with pwritev, without joining them in memory; a single
// large one that lies well in memory goes past the page cache.
func (f *file) Write(parts [][]byte) error {
	if len(parts) == 1 {
		rest, err := f.writeDirect(parts[0])
		if err != nil {
			return err
		}
		parts = [][]byte{rest}
	}
	vector := make([][]byte, 0, min(len(parts), maxVector))
	for len(parts) > 0 || len(vector) > 0 {
		for len(vector) < maxVector && len(parts) > 0 {
			if len(parts[0]) > 0 {
				vector = append(vector, parts[0])
			}
			parts = parts[1:]
		}
		if len(vector) == 0 {
			return nil
		}
		n, err := retry(func() (int, error) { return unix.Pwritev(f.fd, vector, f.end) })
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return f.failed("write", err)
		}
		f.end += int64(n)
		vector = rest(vector, n)
	}
	return nil
}

// rest drops the first n bytes of the parts, reusing the slice of them.
func rest(parts [][]byte, n int) [][]byte {
	done := 0
	for done < len(parts) && n >= len(parts[done]) {
		n -= len(parts[done])
		done++
	}
	left := copy(parts, parts[done:])
	parts = parts[:left]
	if left > 0 {
		parts[0] = parts[0][n:]
	}
	return parts
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := retry(func() (int, error) { return unix.Pread(f.fd, p[done:], off+int64(done)) })
		if err != nil {
			return done, f.failed("read", err)
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

func (f *file) Size() (int64, error) {
	var st unix.Stat_t
	if err := again(func() error { return unix.Fstat(f.fd, &st) }); err != nil {
		return 0, f.failed("stat", err)
	}
	return st.Size, nil
}

// Sync does not repeat an fsync that failed: the kernel reports a lost page
// only once, and the second call would succeed without it.
func (f *file) Sync() error {
	if err := again(func() error { return unix.Fsync(f.fd) }); err != nil {
		return f.failed("sync", err)
	}
	return nil
}

func (f *file) Close() error {
	// Not repeated after EINTR: on Linux the descriptor is closed all the same.
	if err := unix.Close(f.fd); err != nil && err != unix.EINTR {
		return f.failed("close", err)
	}
	return nil
}

func (f *file) failed(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}
