package xfs

import (
	"sort"

	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

const (
	sector      = 512
	recordMagic = 0xfeedbabe
	// maxRecord is how long a record of the log is at most, in sectors, with
	// its headers.
	maxRecord = 256<<10/sector + 8
)

// logIsClean tells whether the newest record of the log says that the file
// system was unmounted. What is in doubt is not clean.
func (s *System) logIsClean() (bool, error) {
	block, blocks := be.Uint64(s.super[48:]), int64(be.Uint32(s.super[96:]))
	if block == 0 {
		return false, node.Unsupportedf("it lies on another device")
	}
	start, err := s.place(block)
	if err != nil {
		return false, err
	}
	l := log{s.device, start, blocks * s.blockSize / sector}
	if l.sectors < 2 {
		return false, node.Damagedf("the log is empty")
	}
	head, err := l.head()
	if err != nil {
		return false, err
	}
	// The newest record ends before the head.
	for n := int64(1); n <= min(maxRecord, l.sectors); n++ {
		at := (head - n + l.sectors) % l.sectors
		b, err := l.sector(at)
		if err != nil {
			return false, err
		}
		if be.Uint32(b) != recordMagic {
			continue
		}
		if be.Uint32(b[40:]) != 1 { // it is the only operation of its record
			return false, nil
		}
		op, err := l.sector((at + 1) % l.sectors)
		const unmount = 0x20
		return err == nil && op[9]&unmount != 0, err
	}
	return false, nil
}

type log struct {
	device  node.Device
	start   int64 // bytes
	sectors int64
}

func (l log) sector(n int64) ([]byte, error) { return l.device.Bytes(l.start+n*sector, sector) }

// cycle is how often the log had been round when the sector was written.
func (l log) cycle(n int64) (uint32, error) {
	b, err := l.sector(n)
	if err != nil {
		return 0, err
	}
	if be.Uint32(b) == recordMagic {
		return be.Uint32(b[4:]), nil
	}
	return be.Uint32(b), nil
}

// head finds the sector that is written next: there the cycle goes down.
func (l log) head() (int64, error) {
	first, err := l.cycle(0)
	if err != nil {
		return 0, err
	}
	head := sort.Search(int(l.sectors), func(n int) bool {
		c, e := l.cycle(int64(n))
		if e != nil && err == nil {
			err = e
		}
		return c != first
	})
	return int64(head) % l.sectors, err
}
