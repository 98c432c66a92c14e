package ext

import (
	"encoding/binary"
	"io"

	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

// The journal is big-endian. See the kernel's Documentation/filesystems/ext4.
const (
	journalMagic = 0xc03b3998

	typeDescriptor = 1
	typeCommit     = 2
	typeSuper1     = 3
	typeSuper2     = 4
	typeRevoke     = 5

	journalRevokes    = 0x1
	journalWide       = 0x2
	journalAsync      = 0x4
	journalSums2      = 0x8
	journalSums3      = 0x10
	journalFastCommit = 0x20

	tagEscaped = 1
	tagSame    = 2
	tagLast    = 8
)

var be = binary.BigEndian

// journal is what is read of the log.
type journal struct {
	system   *System
	file     *node.Mapped
	features uint32
	seed     uint32
	first    uint32 // block of the journal where the log begins
	end      uint32 // behind the log
}

// logged is where the newest content of a block lies.
type logged struct {
	at       int64 // of the device
	escaped  bool  // its first bytes are those of a journal block, and were taken out
	sequence uint32
}

// replay finds what the journal holds and the file system does not yet. stale
// says why that cannot be done.
func (s *System) replay() (over io.ReaderAt, stale string, err error) {
	number := le.Uint32(s.super[0xe0:])
	if number == 0 {
		return nil, "its journal is on another device: files that were changed shortly before the point can be old or half written", nil
	}
	j, start, sequence, err := s.journal(uint64(number))
	if err != nil {
		return nil, "", err
	}
	if start == 0 {
		return s.device, "", nil
	}
	blocks, fast, err := j.scan(start, sequence)
	if err != nil {
		return nil, "", err
	}
	if fast {
		stale = "its journal holds fast commits, which are not replayed: files that were changed shortly before the point can be old or half written"
	}
	return &overlay{s.device, s.blockSize, blocks}, stale, nil
}

func (s *System) journal(number uint64) (j *journal, start, sequence uint32, err error) {
	i, err := s.inode(number)
	if err != nil {
		return nil, 0, 0, err
	}
	c, err := s.content(i)
	if err != nil {
		return nil, 0, 0, err
	}
	m, ok := c.(*node.Mapped)
	if !ok {
		return nil, 0, 0, node.Damagedf("the journal lies inline")
	}
	b := make([]byte, 1024)
	if n, err := m.ReadAt(b, 0); n < len(b) {
		return nil, 0, 0, err
	}
	kind := be.Uint32(b[4:])
	if be.Uint32(b) != journalMagic || kind != typeSuper1 && kind != typeSuper2 {
		return nil, 0, 0, node.Damagedf("the journal has no superblock")
	}
	j = &journal{system: s, file: m, first: be.Uint32(b[0x14:]), end: be.Uint32(b[0x10:])}
	if kind == typeSuper2 {
		j.features = be.Uint32(b[0x28:])
	}
	if odd := j.features &^ (journalRevokes | journalWide | journalAsync | journalSums2 | journalSums3 | journalFastCommit); odd != 0 {
		return nil, 0, 0, node.Unsupportedf("the journal uses features (%#x) that are not known", odd)
	}
	if j.sums() {
		want := be.Uint32(b[0xfc:])
		clear(b[0xfc:0x100])
		if crc32c(^uint32(0), b) != want {
			return nil, 0, 0, node.Damagedf("the checksum of the journal's superblock is wrong")
		}
		j.seed = crc32c(^uint32(0), b[0x30:0x40])
	}
	if j.features&journalFastCommit != 0 {
		fast := be.Uint32(b[0x54:])
		if fast == 0 {
			fast = 256
		}
		j.end -= min(fast, j.end)
	}
	start, sequence = be.Uint32(b[0x1c:]), be.Uint32(b[0x18:])
	if int64(be.Uint32(b[0xc:])) != s.blockSize || j.first == 0 || j.first >= j.end || int64(j.end)*s.blockSize > m.Length ||
		start != 0 && (start < j.first || start >= j.end) {
		return nil, 0, 0, node.Damagedf("the journal has a wrong shape")
	}
	return j, start, sequence, nil
}

func (j *journal) sums() bool { return j.features&(journalSums2|journalSums3) != 0 }

// place finds a block of the journal on the device.
func (j *journal) place(n uint32) (int64, error) {
	off := int64(n) * j.system.blockSize
	i := j.file.At(off)
	if i < 0 {
		return 0, node.Damagedf("the journal has a hole")
	}
	r := j.file.Runs[i]
	return r.At + off - r.Off, nil
}

func (j *journal) block(n uint32) ([]byte, error) {
	at, err := j.place(n)
	if err != nil {
		return nil, err
	}
	return j.system.device.Bytes(at, j.system.blockSize)
}

// after is the next block of the log, which is a ring.
func (j *journal) after(n uint32) uint32 {
	if n++; n >= j.end {
		return j.first
	}
	return n
}

// maxRevoked bounds how many blocks a journal takes back.
const maxRevoked = 4 << 20

// scan goes through all transactions that are whole, and returns for each
// block the newest content that was not revoked. A transaction without its
// commit block is the end: it never happened.
func (j *journal) scan(at, sequence uint32) (map[uint64]logged, bool, error) {
	blocks := map[uint64]logged{}
	revoked := map[uint64]uint32{}
	left := j.end - j.first // blocks: no log is longer than its ring
	for {
		t := transaction{journal: j, sequence: sequence, left: left}
		next, whole, err := t.read(at)
		if err != nil {
			return nil, false, err
		}
		if !whole {
			break
		}
		for n, l := range t.blocks {
			blocks[n] = l
		}
		for _, n := range t.revoked {
			revoked[n] = sequence
		}
		if len(revoked) > maxRevoked {
			return nil, false, node.Damagedf("it takes back more than it can hold")
		}
		at, left = next, t.left
		sequence++
	}
	for n, l := range blocks {
		// A revocation holds for its own transaction, too: what was logged
		// there was logged before.
		if r, ok := revoked[n]; ok && int32(r-l.sequence) >= 0 {
			delete(blocks, n)
		}
	}
	fast, err := j.fastCommits(sequence)
	return blocks, fast, err
}

// fastCommits tells whether the area behind the log holds commits of the
// transaction that follows the last whole one.
func (j *journal) fastCommits(sequence uint32) (bool, error) {
	if j.features&journalFastCommit == 0 {
		return false, nil
	}
	b, err := j.block(j.end)
	if err != nil {
		return false, err
	}
	const head = 8 // a tag of this number begins it: tag, length, features, transaction
	return le.Uint16(b) == head && le.Uint32(b[8:]) == sequence, nil
}

// transaction is one that is being read.
type transaction struct {
	journal  *journal
	sequence uint32
	left     uint32 // blocks of the ring not yet looked at
	blocks   map[uint64]logged
	revoked  []uint64
}

func (t *transaction) read(at uint32) (next uint32, whole bool, err error) {
	t.blocks = map[uint64]logged{}
	j := t.journal
	for ; t.left > 0; t.left-- {
		b, err := j.block(at)
		if err != nil {
			return 0, false, err
		}
		if be.Uint32(b) != journalMagic || be.Uint32(b[8:]) != t.sequence {
			return 0, false, nil
		}
		at = j.after(at)
		switch be.Uint32(b[4:]) {
		case typeDescriptor:
			ok, err := t.descriptor(b, &at)
			if err != nil || !ok {
				return 0, false, err
			}
		case typeRevoke:
			if !t.revoke(b) {
				return 0, false, nil
			}
			if len(t.revoked) > maxRevoked {
				return 0, false, node.Damagedf("it takes back more than it can hold")
			}
		case typeCommit:
			if j.sums() {
				want := be.Uint32(b[16:])
				clear(b[16:20])
				if crc32c(j.seed, b) != want {
					return 0, false, nil
				}
			}
			t.left--
			return at, true, nil
		default:
			return 0, false, nil
		}
	}
	return 0, false, nil
}

// tailed checks the checksum at the end of a block and returns what is before.
func (j *journal) tailed(b []byte) ([]byte, bool) {
	if !j.sums() {
		return b, true
	}
	n := len(b) - 4
	want := be.Uint32(b[n:])
	clear(b[n:])
	return b[:n], crc32c(j.seed, b) == want
}

// descriptor reads which blocks of the file system follow. ok is false if the
// transaction was not written whole.
func (t *transaction) descriptor(b []byte, at *uint32) (ok bool, err error) {
	j := t.journal
	b, ok = j.tailed(b)
	if !ok {
		return false, nil
	}
	size := 8
	if j.features&journalWide != 0 {
		size = 12
	}
	if j.features&journalSums2 != 0 {
		size += 2
	}
	if j.features&journalSums3 != 0 {
		size = 16
	}
	for b = b[12:]; len(b) >= size; {
		n := uint64(be.Uint32(b))
		var flags, sum uint32
		if j.features&journalSums3 != 0 {
			flags, sum = be.Uint32(b[4:]), be.Uint32(b[12:])
		} else {
			flags, sum = uint32(be.Uint16(b[6:])), uint32(be.Uint16(b[4:]))
		}
		if j.features&journalWide != 0 {
			n |= uint64(be.Uint32(b[8:])) << 32
		}
		if t.left <= 1 {
			return false, nil
		}
		t.left--
		place, err := j.place(*at)
		if err != nil {
			return false, err
		}
		if j.sums() {
			if ok, err := t.intact(place, sum); err != nil || !ok {
				return false, err
			}
		}
		*at = j.after(*at)
		t.blocks[n] = logged{place, flags&tagEscaped != 0, t.sequence}
		b = b[size:]
		if flags&tagSame == 0 {
			if len(b) < 16 {
				break
			}
			b = b[16:]
		}
		if flags&tagLast != 0 {
			break
		}
	}
	return true, nil
}

// intact verifies a logged block.
func (t *transaction) intact(place int64, want uint32) (bool, error) {
	s := t.journal.system
	b, err := s.device.Bytes(place, s.blockSize)
	if err != nil {
		return false, err
	}
	sum := crc32c(t.journal.seed, be.AppendUint32(nil, t.sequence))
	sum = crc32c(sum, b)
	if t.journal.features&journalSums3 == 0 {
		sum &= 0xffff
	}
	return sum == want, nil
}

// revoke reads which blocks must not be taken from this or earlier transactions.
func (t *transaction) revoke(b []byte) bool {
	b, ok := t.journal.tailed(b)
	if !ok {
		return false
	}
	used := int(be.Uint32(b[12:]))
	if used < 16 || used > len(b) {
		return false
	}
	size := 4
	if t.journal.features&journalWide != 0 {
		size = 8
	}
	for b = b[16:used]; len(b) >= size; b = b[size:] {
		if size == 8 {
			t.revoked = append(t.revoked, be.Uint64(b))
		} else {
			t.revoked = append(t.revoked, uint64(be.Uint32(b)))
		}
	}
	return true
}

// overlay is the device as it is when the journal was replayed. The blocks
// stay where they are in the journal.
type overlay struct {
	device    node.Device
	blockSize int64
	blocks    map[uint64]logged
}

// ReadAt implements io.ReaderAt.
func (o *overlay) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		first := uint64(at / o.blockSize)
		l, ok := o.blocks[first]
		in := at % o.blockSize
		length := min(int64(len(p)-n), o.blockSize-in)
		if !ok {
			// All that lies before the next block that was logged at once.
			for length < int64(len(p)-n) {
				if _, ok := o.blocks[uint64((at+length)/o.blockSize)]; ok {
					break
				}
				length = min(int64(len(p)-n), length+o.blockSize)
			}
			got, err := o.device.ReadAt(p[n:n+int(length)], at)
			n += got
			if int64(got) < length {
				return n, err
			}
			continue
		}
		piece := p[n : n+int(length)]
		got, err := o.device.ReadAt(piece, l.at+in)
		if l.escaped && in < 4 {
			var magic [4]byte
			be.PutUint32(magic[:], journalMagic)
			copy(piece[:got], magic[in:])
		}
		n += got
		if int64(got) < length {
			return n, err
		}
	}
	return n, nil
}
