package image

import "container/list"

// block is one block of the image. Its fields are set before done is closed
// and never after.
type block struct {
	number int64
	done   chan struct{}
	data   []byte // nil: zeros
	err    error

	place *list.Element // in the cache; nil: not settled, or dropped
}

// cache keeps the blocks used last. Its owner holds a lock.
type cache struct {
	limit  int64
	weight int64
	blocks map[int64]*block
	order  list.List // of *block that are settled, newest first
}

func (c *cache) get(n int64) (*block, bool) {
	b, ok := c.blocks[n]
	if ok && b.place != nil {
		c.order.MoveToFront(b.place)
	}
	return b, ok
}

// put adds a block that is being fetched.
func (c *cache) put(b *block) {
	if c.blocks == nil {
		c.blocks = map[int64]*block{}
	}
	c.blocks[b.number] = b
}

func (b *block) weight() int64 { return zeroWeight + int64(cap(b.data)) }

// settle makes a fetched block one that can be dropped; one with an error is
// dropped at once.
func (c *cache) settle(b *block) {
	if b.err != nil {
		delete(c.blocks, b.number)
		return
	}
	b.place = c.order.PushFront(b)
	c.weight += b.weight()
	for c.weight > c.limit && c.order.Len() > 1 {
		old := c.order.Remove(c.order.Back()).(*block)
		delete(c.blocks, old.number)
		c.weight -= old.weight()
	}
}
