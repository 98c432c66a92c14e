package store

import (
	"sync"

	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/index"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// fresh knows the blocks that this run is storing and that the index does not
// know yet, so that a block that comes twice is stored once.
type fresh struct {
	mu     sync.Mutex
	blocks map[block.Hash]freshBlock
}

type freshBlock struct {
	frame *freshFrame
	slot  int
}

// freshFrame is a frame that is being made: place is valid once ready is
// closed. A copy, whose frames may be taken apart, fills places instead, one for
// each slot; a place of zero is of a piece that the source has lost.
type freshFrame struct {
	ready  chan struct{}
	place  pack.Place
	places []pack.Place
}

// claim gives the frame that has the block; mine tells that it is the caller's
// frame, which then must store it in that slot.
func (f *fresh) claim(h block.Hash, frame *freshFrame, slot int) (b freshBlock, mine bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b, ok := f.blocks[h]; ok {
		return b, false
	}
	b = freshBlock{frame, slot}
	f.blocks[h] = b
	return b, true
}

// find gives the frame that has the block.
func (f *fresh) find(h block.Hash) (freshBlock, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.blocks[h]
	return b, ok
}

// forget drops blocks that the index knows from now on.
func (f *fresh) forget(entries []index.Entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range entries {
		delete(f.blocks, entries[i].Hash)
	}
}
