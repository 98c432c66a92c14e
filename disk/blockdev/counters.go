package blockdev

import (
	"fmt"
	"strconv"
	"strings"
)

// Counters is what has been written to a device since it appeared. The kernel
// counts an operation when it ends, so what is under way is told apart.
type Counters struct {
	Writes         uint64 `json:"writes"` // completed writes
	WrittenSectors uint64 `json:"writtenSectors"`
	Discards       uint64 `json:"discards"`
	DiscardSectors uint64 `json:"discardSectors"`
	Flushes        uint64 `json:"flushes"`
	WritesInFlight uint64 `json:"writesInFlight"` // writes, discards and flushes not yet ended
}

// Counters reads the statistics of the device. The error is ErrNoCounters if
// they are switched off or too old a kernel lacks a part of them.
func (d Device) Counters() (Counters, error) {
	if d.queue("iostats") != "1" {
		return Counters{}, fmt.Errorf("%s: %w", d.Name, ErrNoCounters)
	}
	// First what is under way, then what has ended: an operation that ends in
	// between is then seen at least once. The kernel counts the end before it
	// takes the operation off those under way.
	inflight := d.Attribute("inflight")
	c, err := parseCounters(d.Attribute("stat"), inflight)
	if err != nil {
		return Counters{}, fmt.Errorf("%s: %w", d.Name, err)
	}
	return c, nil
}

// parseCounters reads the files stat and inflight, whose fields the kernel's
// document "block/stat" numbers; flushes are the last and newest.
func parseCounters(stat, inflight string) (Counters, error) {
	f, err := numbers(stat)
	if err != nil || len(f) < 17 {
		return Counters{}, ErrNoCounters
	}
	n, err := numbers(inflight)
	if err != nil || len(n) != 2 {
		return Counters{}, ErrNoCounters
	}
	return Counters{
		Writes: f[4], WrittenSectors: f[6],
		Discards: f[11], DiscardSectors: f[13],
		Flushes: f[15], WritesInFlight: n[1],
	}, nil
}

func numbers(text string) ([]uint64, error) {
	fields := strings.Fields(text)
	out := make([]uint64, len(fields))
	for i, f := range fields {
		var err error
		if out[i], err = strconv.ParseUint(f, 10, 64); err != nil {
			return nil, err
		}
	}
	return out, nil
}
