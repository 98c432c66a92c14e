package qemutest

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/diskvault/diskvault/disk/nbd"
)

// Ring is a disk to which one writer writes numbered blocks in order, each
// after the one before it was acknowledged: 1, 2, 3 and so on, again and again
// over the same places. A copy of it is of one point in time only if it holds a
// beginning of that row.
type Ring struct {
	Size  int64
	Slots int64
}

// SlotSize is the size of a numbered block in bytes.
const SlotSize = 4096

// Offset is the place of a number: neighbours lie far apart.
func (r Ring) Offset(number uint64) int64 {
	slot := int64(number % uint64(r.Slots))
	spread := slot * 2654435761 % r.Slots // Slots is a power of two, so this is one to one
	return spread * (r.Size / r.Slots) / SlotSize * SlotSize
}

// Block is the numbered block.
func Block(number uint64) []byte {
	b := make([]byte, SlotSize)
	for at := 0; at < len(b); at += 8 {
		binary.LittleEndian.PutUint64(b[at:], number)
	}
	return b
}

// Check finds the last number in a copy, and whether all before it are there
// and none is torn.
func (r Ring) Check(copy []byte) (last uint64, err error) {
	seen := make([]uint64, r.Slots)
	for slot := range uint64(r.Slots) {
		at := r.Offset(slot)
		b := copy[at : at+SlotSize]
		number := binary.LittleEndian.Uint64(b)
		if !slices.Equal(b, Block(number)) {
			return 0, fmt.Errorf("the block at %d is torn, or of something else", at)
		}
		if number != 0 && number%uint64(r.Slots) != slot {
			return 0, fmt.Errorf("the number %d lies at %d, where it was never written", number, at)
		}
		seen[slot] = number
		last = max(last, number)
	}
	for slot, number := range seen {
		want := last - (last-uint64(slot))%uint64(r.Slots) // the last one of this slot up to last
		if uint64(slot) > last || want == 0 {
			want = 0
		}
		if number != want {
			return last, fmt.Errorf("number %d is there, but the slot %d holds %d and not %d", last, slot, number, want)
		}
	}
	return last, nil
}

// Writer writes a Ring over NBD in the background.
type Writer struct {
	acknowledged atomic.Uint64
	latencies    []time.Duration
	cancel       context.CancelFunc
	done         chan error
}

// Write begins to write after the number last.
func (r Ring) Write(t testing.TB, socket, export string, last uint64) *Writer {
	t.Helper()
	client, err := nbd.Dial(context.Background(), nbd.Address{Network: "unix", Host: socket, Export: export}, nbd.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &Writer{cancel: cancel, done: make(chan error, 1)}
	w.acknowledged.Store(last)
	go func() {
		defer client.Close()
		for number := last + 1; ctx.Err() == nil; number++ {
			began := time.Now()
			if err := client.Write(context.Background(), Block(number), r.Offset(number)); err != nil {
				w.done <- err
				return
			}
			w.latencies = append(w.latencies, time.Since(began))
			w.acknowledged.Store(number)
		}
		w.done <- nil
	}()
	t.Cleanup(func() { cancel() })
	return w
}

// Acknowledged is the last number that is known to be written.
func (w *Writer) Acknowledged() uint64 { return w.acknowledged.Load() }

// Stop ends the writer; the error is that of a write that failed.
func (w *Writer) Stop() error {
	w.cancel()
	return <-w.done
}

// Latencies are those of all writes, sorted. Ask after Stop.
func (w *Writer) Latencies() []time.Duration {
	slices.Sort(w.latencies)
	return w.latencies
}
