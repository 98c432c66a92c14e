package durable

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Large writes go past the page cache: what is synced right away and not read
// soon would only push out what others need, and copying it there costs a
// tenth of a backup's processor time.
const (
	directFrom  = 1 << 20 // bytes
	directAlign = 4096    // of memory, offset and length; suits all sectors in use
)

// writeDirect writes as much of p as can go past the page cache, and gives the
// rest, which is all of p where the file system or the buffer does not allow it.
func (f *file) writeDirect(p []byte) (rest []byte, err error) {
	if len(p) < directFrom || f.end%directAlign != 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%directAlign != 0 {
		return p, nil
	}
	flags, err := unix.FcntlInt(uintptr(f.fd), unix.F_GETFL, 0)
	if err != nil {
		return p, nil
	}
	if _, err := unix.FcntlInt(uintptr(f.fd), unix.F_SETFL, flags|unix.O_DIRECT); err != nil {
		return p, nil
	}
	defer unix.FcntlInt(uintptr(f.fd), unix.F_SETFL, flags)
	for len(p) >= directAlign {
		whole := p[:len(p)/directAlign*directAlign]
		n, err := retry(func() (int, error) { return unix.Pwrite(f.fd, whole, f.end) })
		if err == unix.EINVAL || err == nil && n%directAlign != 0 {
			// A file system that takes the flag and not the write, or that went
			// on by itself: buffered writes finish the work.
			f.end += int64(max(n, 0))
			return p[max(n, 0):], nil
		}
		if err != nil {
			return p, f.failed("write", err)
		}
		if n == 0 {
			return p, nil
		}
		f.end += int64(n)
		p = p[n:]
	}
	return p, nil
}
