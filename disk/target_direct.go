package disk

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Large writes go past the page cache: a restore would fill it with what
// nobody has asked for yet, and copying there takes more processor time than
// decoding.
const (
	directFrom  = 64 << 10 // bytes
	directAlign = 4096     // of memory, offset and length; suits all sectors in use
)

// openDirect opens the target a second time, for direct writes. Where that
// cannot be, all writes go through the page cache.
func (t *Target) openDirect() {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", t.fd), unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err == nil {
		t.direct = fd
	}
}

// descriptor says through which descriptor, and how much of p, is written next.
func (t *Target) descriptor(p []byte, off int64) (fd int, part []byte) {
	whole := len(p) / directAlign * directAlign
	address := int64(uintptr(unsafe.Pointer(unsafe.SliceData(p))))
	if t.direct < 0 || t.noDirect.Load() || whole < directFrom || (address|off)%directAlign != 0 {
		return t.fd, p
	}
	return t.direct, p[:whole]
}
