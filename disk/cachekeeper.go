package disk

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
)

// cacheKeeper keeps a backup from filling the page cache of the host with a
// disk that nobody else needs there: what was not cached before it was read is
// dropped after. What was cached stays, for somebody uses it.
//
// It asks with cachestat(2) (Linux 6.5) once for each chunk, well before the
// chunk is read, so that the kernel's readahead is not taken for an interest of
// somebody else. Where the kernel does not answer nothing is dropped.
// A nil keeper does nothing. Methods are safe for concurrent use.
type cacheKeeper struct {
	fd   int
	size int64

	mu    sync.Mutex
	asked []bool   // by group; guarded by mu
	cold  []uint16 // by group, a bit for each chunk that was not cached at all; guarded by mu
}

const (
	cacheChunk     = 4 << 20
	chunksPerGroup = 16 // the bits of an element of cold
	cacheGroup     = cacheChunk * chunksPerGroup
	groupsAsked    = 1 // how far ahead of a read: more than any readahead
)

// newCacheKeeper gives nil if the kernel does not tell what is cached.
func newCacheKeeper(fd int, size int64) *cacheKeeper {
	var st unix.Cachestat_t
	if size == 0 || unix.Cachestat(uint(fd), &unix.CachestatRange{Len: 1}, &st, 0) != nil {
		return nil
	}
	groups := (size + cacheGroup - 1) / cacheGroup
	return &cacheKeeper{fd: fd, size: size, asked: make([]bool, groups), cold: make([]uint16, groups)}
}

// beforeRead must be called before a range is read.
func (c *cacheKeeper) beforeRead(r extent.Range) {
	if c == nil || r.Empty() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	last := min((r.End()-1)/cacheGroup+groupsAsked, int64(len(c.asked))-1)
	for g := r.Off / cacheGroup; g <= last; g++ {
		if !c.asked[g] {
			c.asked[g] = true
			c.cold[g] = c.ask(g)
		}
	}
}

// ask finds out which chunks of a group have no page in the cache.
func (c *cacheKeeper) ask(group int64) (cold uint16) {
	for i := range chunksPerGroup {
		chunk := extent.Range{Off: group*cacheGroup + int64(i)*cacheChunk, Len: cacheChunk}
		if chunk.Off >= c.size {
			break
		}
		var st unix.Cachestat_t
		err := unix.Cachestat(uint(c.fd), &unix.CachestatRange{Off: uint64(chunk.Off), Len: uint64(chunk.Len)}, &st, 0)
		if err == nil && st.Cache == 0 {
			cold |= 1 << i
		}
	}
	return cold
}

// afterRead drops those parts of a range that were not cached before.
func (c *cacheKeeper) afterRead(r extent.Range) {
	if c == nil {
		return
	}
	for part := range r.Windows(cacheChunk) {
		if c.wasCold(part.Off) {
			// A hint; what the kernel keeps does no harm.
			_ = unix.Fadvise(c.fd, part.Off, part.Len, unix.FADV_DONTNEED)
		}
	}
}

func (c *cacheKeeper) wasCold(off int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cold[off/cacheGroup]&(1<<(off%cacheGroup/cacheChunk)) != 0
}
