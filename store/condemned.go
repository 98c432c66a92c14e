package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

const (
	// condemnedPrefix is where a collection publishes the packs that no root
	// reaches: nobody is to refer to them any more.
	condemnedPrefix = "condemned/"
	// sweepPrefix is where it is decided, once, which of them go. The newest
	// decision stays when all is done: its number is the collect epoch.
	sweepPrefix = "sweeps/"

	maxListSize = 64 << 20
)

// condemnedList is a condemned list, and in short form the decision about it.
type condemnedList struct {
	Number   int       `json:"number"`
	Time     time.Time `json:"time"`
	Data     []pack.ID `json:"data"`
	Metadata []pack.ID `json:"metadata"`
	// Moved are packs that are gone, and whose pieces nobody looks for any more
	// where they were moved to.
	Moved []pack.ID `json:"moved,omitempty"`
	// Points were roots when it was made: they cannot reach the packs.
	Points []ID `json:"points,omitempty"`
}

// add adds a pack.
func (c *condemnedList) add(kind seal.Kind, id pack.ID) {
	if kind == seal.DataPack {
		c.Data = append(c.Data, id)
	} else {
		c.Metadata = append(c.Metadata, id)
	}
}

// packs are all packs of the list.
func (c *condemnedList) packs() iter.Seq2[seal.Kind, pack.ID] {
	return func(yield func(seal.Kind, pack.ID) bool) {
		for _, id := range c.Data {
			if !yield(seal.DataPack, id) {
				return
			}
		}
		for _, id := range c.Metadata {
			if !yield(seal.MetadataPack, id) {
				return
			}
		}
	}
}

// share is how many packs the list has, and what those take that are in sizes.
func (c *condemnedList) share(sizes map[pack.ID]int64) (s Share) {
	for _, id := range c.packs() {
		if n, ok := sizes[id]; ok {
			s.add(n)
		}
	}
	return s
}

func (c *condemnedList) empty() bool {
	return len(c.Data) == 0 && len(c.Metadata) == 0 && len(c.Moved) == 0
}

func condemnedKey(n int) string { return fmt.Sprintf("%s%08d", condemnedPrefix, n) }
func sweepKey(n int) string     { return fmt.Sprintf("%s%08d", sweepPrefix, n) }

// listID is what the header of a list names.
func listID(n int) (id ID) {
	copy(id[:], fmt.Sprintf("%016d", n))
	return id
}

// lists are the condemned lists by number.
type lists struct {
	pending []bucket.Object // condemned and not swept yet, oldest first
	decided []int           // of which the decision is there, oldest first
}

func (l lists) newest() int {
	n := 0
	if len(l.pending) > 0 {
		n = listNumber(l.pending[len(l.pending)-1].Key)
	}
	if len(l.decided) > 0 {
		n = max(n, l.decided[len(l.decided)-1])
	}
	return n
}

// swept is the newest epoch of which all is done.
func (l lists) swept() int {
	n := 0
	for _, d := range l.decided {
		if !slices.ContainsFunc(l.pending, func(o bucket.Object) bool { return listNumber(o.Key) == d }) {
			n = d
		}
	}
	return n
}

// sweeping tells whether a list is there that was decided.
func (l lists) sweeping() bool {
	return slices.ContainsFunc(l.pending, func(o bucket.Object) bool { return slices.Contains(l.decided, listNumber(o.Key)) })
}

func listNumber(key string) int {
	n, err := strconv.Atoi(key[strings.LastIndexByte(key, '/')+1:])
	if err != nil || len(key) < 8 {
		return 0
	}
	return n
}

// condemnedLists lists what is condemned and what was decided.
func (s *Store) condemnedLists(ctx context.Context) (l lists, err error) {
	// Decisions first: one that is there while its list is not is of a
	// collection that is through.
	for o, err := range s.bucket.List(ctx, sweepPrefix, "") {
		if err != nil {
			return l, err
		}
		if n := listNumber(o.Key); n > 0 {
			l.decided = append(l.decided, n)
		}
	}
	for o, err := range s.bucket.List(ctx, condemnedPrefix, "") {
		if err != nil {
			return l, err
		}
		if listNumber(o.Key) > 0 {
			l.pending = append(l.pending, o)
		}
	}
	return l, nil
}

func (s *Store) readList(ctx context.Context, key string, kind seal.Kind) (c condemnedList, err error) {
	n := listNumber(key)
	err = s.readDocument(ctx, key, kind, listID(n), maxListSize, &c)
	if err == nil && c.Number != n {
		err = s.damaged(key, errors.New("it is another list than its name says"))
	}
	return c, err
}

// clearance keeps a writer clear of condemned packs: it knows the lists, and
// what the writer refers to. It is safe for concurrent use.
type clearance struct {
	store *Store

	mu        sync.Mutex
	epoch     int // the newest list known
	condemned map[pack.ID]bool
	used      map[pack.ID]bool // packs that the writer refers to, beside those of its base
}

func (s *Store) newClearance() *clearance {
	return &clearance{store: s, condemned: map[pack.ID]bool{}, used: map[pack.ID]bool{}}
}

// use tells whether the writer may refer to a pack that it found in the index,
// and remembers that it does.
func (c *clearance) use(id pack.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used[id] {
		return true // pinned, if it is condemned
	}
	if guardCondemned && c.condemned[id] {
		return false
	}
	c.used[id] = true
	return true
}

// own notes a pack of the writer.
func (c *clearance) own(id pack.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used[id] = true
}

// news reads the lists that were published since it was asked last.
func (c *clearance) news(ctx context.Context) (bool, error) {
	l, err := c.store.condemnedLists(ctx)
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	known := c.epoch
	c.mu.Unlock()
	if l.newest() <= known {
		return false, nil
	}
	var packs []pack.ID
	for _, o := range l.pending {
		if listNumber(o.Key) <= known {
			continue
		}
		list, err := c.store.readList(ctx, o.Key, seal.Condemned)
		if errors.Is(err, bucket.ErrNotFound) {
			continue // swept meanwhile: the writer must not know these packs, see below
		}
		if err != nil {
			return false, err
		}
		packs = slices.Concat(packs, list.Data, list.Metadata, list.Moved)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range packs {
		c.condemned[id] = true
	}
	c.epoch = l.newest()
	return true, nil
}

// acknowledge reads new lists and gives the newest number known, with the
// condemned packs that the writer refers to all the same. Whatever it referred
// to before is among them; what it refers to later is not condemned.
func (c *clearance) acknowledge(ctx context.Context) (epoch int, pins []pack.ID, err error) {
	if _, err := c.news(ctx); err != nil {
		return 0, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.used {
		if c.condemned[id] {
			pins = append(pins, id)
		}
	}
	slices.SortFunc(pins, comparePacks)
	return c.epoch, pins, nil
}

// comparePacks brings packs into an order that does not change from run to run.
func comparePacks(a, b pack.ID) int { return bytes.Compare(a[:], b[:]) }
