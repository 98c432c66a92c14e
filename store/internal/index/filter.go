package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"math/bits"
	"os"
	"runtime/debug"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/store/internal/block"
)

// filter is a Bloom filter over the entries: most blocks that are not known are
// told so by one look into memory, without the tables. It is a file, read
// through a map and written by plain writes, so that a full or failing disk is
// an error and not the end of the process. The kernel keeps as much of it in
// memory as is used, and opening it costs nothing.
//
// A bit that is lost makes a known block unknown, which costs space and no
// more. So the file is not synced with the entries; it is noted in the header
// that a power failure may have cost bits.
//
// The file is a header page and lines of 512 bits. A hash's first 64 bits
// choose the line, in the order of the hashes; its next bits choose the bits.
type filter struct {
	file  *os.File
	bytes []byte // the whole file, mapped, read-only
	head  filterHead

	mu sync.Mutex // held while bits are set, and for head
}

// filterHead is the header of the file.
type filterHead struct {
	owner    [16]byte // which index it belongs to; see Index.begin
	lines    uint64
	probes   uint8  // bits that are set for a hash
	capacity uint64 // entries above which it should be made anew
	count    uint64 // entries in it, about
	boot     [16]byte
	// The boot during which bits were set that may not be on the disk; zero if
	// all are.
}

const (
	filterPage     = 4096
	lineBytes      = 64
	filterMagic    = "diskvault index filter 1\n"
	filterHeadSize = len(filterMagic) + 16 + 8 + 1 + 8 + 8 + 16 + 4
	// filterBits is what a filter that may be as large as it likes has for
	// each entry when it is full: one in a hundred absent blocks passes it.
	filterBits = 10
	maxProbes  = 6
)

// planFilter gives the shape of a filter for n entries and as many again,
// within most bytes. Where these do not suffice, it has fewer bits for each
// entry and lets more blocks pass.
func planFilter(n uint64, most int64) (h filterHead) {
	n = max(n, 1)
	size := min(2*n*filterBits/8, uint64(most))
	h.lines = max(size/lineBytes, 1)
	h.capacity = size * 8 / filterBits
	perEntry := float64(size*8) / (float64(n) * 1.25)
	h.probes = uint8(min(max(math.Round(perEntry*math.Ln2), 2), maxProbes))
	if h.capacity < n { // no larger filter will be made
		h.capacity = math.MaxUint64
	}
	return h
}

// createFilter makes an empty filter at path, in place of what is there.
func createFilter(path string, h filterHead) (f *filter, err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	f = &filter{file: file, head: h}
	size := filterPage + int64(h.lines)*lineBytes
	// Space is taken now, so that setting a bit cannot find the disk full.
	if err = unix.Fallocate(int(file.Fd()), 0, 0, size); errors.Is(err, unix.EOPNOTSUPP) {
		err = writeZeros(file, size)
	}
	if err == nil {
		err = f.writeHead()
	}
	if err == nil {
		err = f.mapFile(size)
	}
	if err != nil {
		file.Close()
		os.Remove(path)
		return nil, err
	}
	return f, nil
}

func writeZeros(file *os.File, size int64) error {
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(zeros)) {
		if _, err := file.WriteAt(zeros[:min(size-at, int64(len(zeros)))], at); err != nil {
			return err
		}
	}
	return nil
}

var errNotOurFilter = errors.New("the filter is damaged or of another index")

// openFilter opens the filter of the owner.
func openFilter(path string, owner [16]byte) (*filter, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	f := &filter{file: file}
	head := make([]byte, filterHeadSize)
	if _, err := file.ReadAt(head, 0); err != nil || !f.head.decode(head) || f.head.owner != owner {
		file.Close()
		return nil, errNotOurFilter
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, err
	}
	if info.Size() != filterPage+int64(f.head.lines)*lineBytes {
		file.Close()
		return nil, errNotOurFilter
	}
	if err := f.mapFile(info.Size()); err != nil {
		file.Close()
		return nil, err
	}
	return f, nil
}

func (f *filter) mapFile(size int64) (err error) {
	f.bytes, err = unix.Mmap(int(f.file.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	return err
}

func (h *filterHead) encode() []byte {
	b := append(make([]byte, 0, filterHeadSize), filterMagic...)
	b = append(b, h.owner[:]...)
	b = binary.LittleEndian.AppendUint64(b, h.lines)
	b = append(b, h.probes)
	b = binary.LittleEndian.AppendUint64(b, h.capacity)
	b = binary.LittleEndian.AppendUint64(b, h.count)
	b = append(b, h.boot[:]...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (h *filterHead) decode(b []byte) bool {
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	rest, ok := bytes.CutPrefix(body, []byte(filterMagic))
	if !ok || sum != crc32.Checksum(body, castagnoli) {
		return false
	}
	rest = rest[copy(h.owner[:], rest):]
	h.lines = binary.LittleEndian.Uint64(rest)
	h.probes = rest[8]
	h.capacity = binary.LittleEndian.Uint64(rest[9:])
	h.count = binary.LittleEndian.Uint64(rest[17:])
	copy(h.boot[:], rest[25:])
	return h.lines > 0 && h.lines < 1<<40 && h.probes > 0 && h.probes <= maxProbes
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (f *filter) writeHead() error {
	_, err := f.file.WriteAt(f.head.encode(), 0)
	return err
}

// line gives the number of the line of a hash. It grows with the hash.
func (h *filterHead) line(hi uint64) int64 {
	line, _ := bits.Mul64(hi, h.lines)
	return int64(line)
}

// set sets the bits of a hash in its line.
func (h *filterHead) set(line []byte, lo uint64) {
	for range h.probes {
		line[lo>>3&63] |= 1 << (lo & 7)
		lo >>= 9
	}
}

// has tells whether the hash may have been added. It may be called beside add.
func (f *filter) has(hash *block.Hash) (maybe bool) {
	// A page that cannot be read from the disk arrives as a fault.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			maybe = true
		}
	}()
	hi, lo := split(hash)
	line := f.bytes[filterPage+f.head.line(hi)*lineBytes:][:lineBytes]
	for range f.head.probes {
		if line[lo>>3&63]&(1<<(lo&7)) == 0 {
			return false
		}
		lo >>= 9
	}
	return true
}

// add adds the hashes of entries. The first one since the file was on the disk
// as a whole costs a sync.
func (f *filter) add(entries []Entry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin(); err != nil {
		return err
	}
	var line [lineBytes]byte
	for i := range entries {
		hi, lo := split(&entries[i].Hash)
		at := filterPage + f.head.line(hi)*lineBytes
		if _, err := f.file.ReadAt(line[:], at); err != nil {
			return err
		}
		f.head.set(line[:], lo)
		if _, err := f.file.WriteAt(line[:], at); err != nil {
			return err
		}
	}
	f.head.count += uint64(len(entries))
	return nil
}

// begin notes that bits are set which are not on the disk. f.mu is held.
func (f *filter) begin() error {
	if f.head.boot != [16]byte{} {
		return nil
	}
	f.head.boot = thisBoot()
	if err := f.writeHead(); err != nil {
		return err
	}
	return unix.Fdatasync(int(f.file.Fd()))
}

// suspect tells whether bits may be lost: the machine went down with bits set
// that had not been synced.
func (f *filter) suspect() bool {
	return f.head.boot != [16]byte{} && f.head.boot != thisBoot()
}

// full tells whether a larger filter would serve better.
func (f *filter) full() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.head.count > f.head.capacity
}

// sync puts the bits on the disk and notes it, unless some were lost before.
func (f *filter) sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.head.boot == [16]byte{} || f.suspect() {
		return nil
	}
	if err := unix.Fdatasync(int(f.file.Fd())); err != nil {
		return err
	}
	f.head.boot = [16]byte{}
	if err := f.writeHead(); err != nil {
		return err
	}
	return unix.Fdatasync(int(f.file.Fd()))
}

// rest lets the kernel take the memory back; for a filter that was replaced
// and that a look-up may still be using.
func (f *filter) rest() { _ = unix.Madvise(f.bytes, unix.MADV_DONTNEED) }

func (f *filter) close() error {
	return errors.Join(unix.Munmap(f.bytes), f.file.Close())
}

// thisBoot is the kernel's name for the time since the machine came up, or a
// value of its own if the kernel tells none.
var thisBoot = sync.OnceValue(func() (id [16]byte) {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if copy(id[:], strings.ReplaceAll(string(text), "-", "")) == 0 {
		id[0] = 1
	}
	return id
})

// filling adds hashes in their order, which is that of the lines, and so writes
// a large filter from beginning to end. Others may add to it meanwhile.
type filling struct {
	f     *filter
	chunk []byte // lines from first on
	first int64
	count uint64
}

const chunkLines = 4096

func (f *filter) fill() *filling { return &filling{f: f, chunk: make([]byte, chunkLines*lineBytes)} }

func (w *filling) add(hi, lo uint64) error {
	line := w.f.head.line(hi)
	if line >= w.first+chunkLines {
		if err := w.flush(); err != nil {
			return err
		}
		w.first = line - line%chunkLines
	}
	w.f.head.set(w.chunk[(line-w.first)*lineBytes:], lo)
	w.count++
	return nil
}

// flush adds the chunk's bits to what others have set.
func (w *filling) flush() error {
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	at := filterPage + w.first*lineBytes
	n := min(int64(len(w.chunk)), int64(len(w.f.bytes))-at)
	was := make([]byte, n)
	if _, err := w.f.file.ReadAt(was, at); err != nil && err != io.EOF {
		return err
	}
	for i := range was {
		was[i] |= w.chunk[i]
	}
	clear(w.chunk)
	w.f.head.count += w.count
	w.count = 0
	_, err := w.f.file.WriteAt(was, at)
	return err
}
