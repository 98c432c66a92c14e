package store

import (
	"container/list"
	"context"
	"sync"

	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// lru keeps the values used last, up to a total weight.
type lru[K comparable, V any] struct {
	mu     sync.Mutex
	limit  int
	weight int
	order  list.List // of *lruItem, newest first
	items  map[K]*list.Element
}

type lruItem[K comparable, V any] struct {
	key    K
	value  V
	weight int
}

func (c *lru[K, V]) get(k K) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[k]
	if !ok {
		return v, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*lruItem[K, V]).value, true
}

func (c *lru[K, V]) put(k K, v V, weight int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.items[k]; ok {
		return // two workers read the same thing; the first stays
	}
	if c.items == nil {
		c.items = map[K]*list.Element{}
	}
	c.items[k] = c.order.PushFront(&lruItem[K, V]{k, v, weight})
	c.weight += weight
	for c.weight > c.limit && c.order.Len() > 1 {
		oldest := c.order.Remove(c.order.Back()).(*lruItem[K, V])
		delete(c.items, oldest.key)
		c.weight -= oldest.weight
	}
}

// remove forgets one value.
func (c *lru[K, V]) remove(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[k]; ok {
		c.weight -= c.order.Remove(e).(*lruItem[K, V]).weight
		delete(c.items, k)
	}
}

// drop forgets all.
func (c *lru[K, V]) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.order.Init()
	c.items, c.weight = nil, 0
}

// packKeys remembers the keys of packs, which stand in their headers.
type packKeys struct{ lru[pack.ID, *seal.Key] }

// frameCache remembers metadata frames, decoded and split into nodes.
type frameCache struct{ lru[pack.Place, [][]byte] }

const (
	maxPackKeys   = 4096
	maxFrameBytes = 8 << 20
)

func newPackKeys() *packKeys     { return &packKeys{lru[pack.ID, *seal.Key]{limit: maxPackKeys}} }
func newFrameCache() *frameCache { return &frameCache{lru[pack.Place, [][]byte]{limit: maxFrameBytes}} }

// packKey gives the key of a pack, reading its header if need be.
func (s *Store) packKey(ctx context.Context, kind seal.Kind, id pack.ID) (*seal.Key, error) {
	if k, ok := s.keys.get(id); ok {
		return k, nil
	}
	name := packName(kind, id)
	var b [seal.HeaderSize]byte
	if err := s.bucket.Get(ctx, name, 0, b[:]); err != nil {
		return nil, err
	}
	h, err := seal.ParseHeader(b[:], kind, id)
	if err != nil {
		return nil, s.explain(name, err)
	}
	secret, err := s.secret(h.Epoch)
	if err != nil {
		return nil, s.explain(name, err)
	}
	k := seal.ObjectKey(secret, s.header.StoreID, h)
	s.keys.put(id, k, 1)
	return k, nil
}

const (
	dataPrefix     = "packs/data/"
	metadataPrefix = "packs/meta/"
)

// packName is the key in the bucket of a pack.
func packName(kind seal.Kind, id pack.ID) string {
	text := id.String()
	if kind == seal.MetadataPack {
		return metadataPrefix + text[:2] + "/" + text
	}
	return dataPrefix + text[:2] + "/" + text
}
