// Package membucket is a bucket in memory, for tests and simulation. It keeps
// every promise of a bucket except that it forgets all when the process ends.
package membucket

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/diskvault/diskvault/store/bucket"
)

// Bucket is a bucket in memory. The zero value is not usable; see New.
type Bucket struct {
	mu      sync.RWMutex
	now     func() time.Time   // guarded by mu
	keys    []string           // guarded by mu; sorted
	objects map[string]content // guarded by mu
}

type content struct {
	data   []byte // never changed in place
	stored time.Time
}

var _ bucket.Bucket = (*Bucket)(nil)

// New makes an empty bucket with the clock of this machine.
func New() *Bucket {
	return &Bucket{now: time.Now, objects: map[string]content{}}
}

// SetClock replaces the clock that dates objects from now on.
func (b *Bucket) SetClock(now func() time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = now
}

// Clone gives a bucket of its own with the same objects and clock.
func (b *Bucket) Clone() *Bucket {
	b.mu.RLock()
	defer b.mu.RUnlock()
	c := &Bucket{now: b.now, keys: slices.Clone(b.keys), objects: make(map[string]content, len(b.objects))}
	for k, v := range b.objects {
		c.objects[k] = v
	}
	return c
}

// Replace puts data in the place of an object, as damage would; only tests do
// that. A key that is not there is added.
func (b *Bucket) Replace(key string, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, ok := b.objects[key]
	if !ok {
		old.stored = b.now()
		b.insert(key)
	}
	b.objects[key] = content{slices.Clone(data), old.stored}
}

// insert adds a key in order; mu is held.
func (b *Bucket) insert(key string) {
	at, _ := slices.BinarySearch(b.keys, key)
	b.keys = slices.Insert(b.keys, at, key)
}

// Put is described at bucket.Bucket.
func (b *Bucket) Put(ctx context.Context, key string, parts [][]byte) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	data := slices.Concat(parts...)
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.objects[key]; ok {
		return fmt.Errorf("put %s: %w", key, bucket.ErrExists)
	}
	b.objects[key] = content{data, b.now()}
	b.insert(key)
	return nil
}

// Get is described at bucket.Bucket.
func (b *Bucket) Get(ctx context.Context, key string, off int64, dst []byte) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	b.mu.RLock()
	c, ok := b.objects[key]
	b.mu.RUnlock()
	switch {
	case !ok:
		return bucket.NotFound(b, key)
	case off < 0:
		return fmt.Errorf("get %s: the offset %d is negative", key, off)
	case off+int64(len(dst)) > int64(len(c.data)):
		return bucket.Short(b, key, int64(len(c.data)), off, len(dst))
	}
	copy(dst, c.data[off:])
	return nil
}

// Stat is described at bucket.Bucket.
func (b *Bucket) Stat(ctx context.Context, key string) (bucket.Object, error) {
	if err := check(ctx, key); err != nil {
		return bucket.Object{}, err
	}
	b.mu.RLock()
	c, ok := b.objects[key]
	b.mu.RUnlock()
	if !ok {
		return bucket.Object{}, bucket.NotFound(b, key)
	}
	return bucket.Object{Key: key, Size: int64(len(c.data)), Stored: c.stored}, nil
}

// List is described at bucket.Bucket. It shows the moment of the call.
func (b *Bucket) List(ctx context.Context, prefix, after string) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		for _, o := range b.matching(prefix, after) {
			if err := ctx.Err(); err != nil {
				yield(bucket.Object{}, err)
				return
			}
			if !yield(o, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(bucket.Object{}, err)
		}
	}
}

func (b *Bucket) matching(prefix, after string) []bucket.Object {
	b.mu.RLock()
	defer b.mu.RUnlock()
	at, found := slices.BinarySearch(b.keys, max(prefix, after))
	if found && after >= prefix {
		at++
	}
	var objects []bucket.Object
	for _, k := range b.keys[at:] {
		if !strings.HasPrefix(k, prefix) {
			break
		}
		c := b.objects[k]
		objects = append(objects, bucket.Object{Key: k, Size: int64(len(c.data)), Stored: c.stored})
	}
	return objects
}

// Delete is described at bucket.Bucket.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.objects[key]; ok {
		delete(b.objects, key)
		at, _ := slices.BinarySearch(b.keys, key)
		b.keys = slices.Delete(b.keys, at, at+1)
	}
	return nil
}

// URL is always "memory:".
func (b *Bucket) URL() string { return "memory:" }

// Close does nothing: a bucket in memory can be opened again by using it.
func (b *Bucket) Close() error { return nil }

func check(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return bucket.CheckKey(key)
}
