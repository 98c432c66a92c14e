package store

import (
	"sync"

	"golang.org/x/sys/unix"
)

// buffers lends large buffers that live outside of the garbage collector's
// heap, which would otherwise grow to twice their size before it is collected.
type buffers struct {
	mu   sync.Mutex
	free map[int][][]byte // by capacity
}

// get lends a buffer of length 0 and the given capacity.
func (b *buffers) get(size int) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if list := b.free[size]; len(list) > 0 {
		buf := list[len(list)-1]
		b.free[size] = list[:len(list)-1]
		return buf[:0]
	}
	buf, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return make([]byte, 0, size) // no address space: the heap will say so
	}
	return buf[:0]
}

// put takes a buffer back.
func (b *buffers) put(buf []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.free == nil {
		b.free = map[int][][]byte{}
	}
	b.free[cap(buf)] = append(b.free[cap(buf)], buf)
}

// drop gives the memory of all buffers that are not lent back to the system.
func (b *buffers) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, list := range b.free {
		for _, buf := range list {
			// A buffer that came from the heap is none of a mapping: the error
			// says so, and the garbage collector takes it.
			_ = unix.Munmap(buf[:cap(buf)])
		}
	}
	b.free = nil
}
