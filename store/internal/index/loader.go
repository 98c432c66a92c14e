package index

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// Loader adds the packs of a whole store at once: entries are sorted outside
// memory and written once, as finished tables, where Add would rewrite them
// level by level. It takes a quarter of the index's memory besides, 20 bytes
// for each pack, and for a while twice the disk space of its entries.
// It is for one goroutine; the index may be used meanwhile.
type Loader struct {
	x      *Index
	dir    string
	run    []record // sorted and written to a file when full
	runs   int
	total  uint64 // entries
	packs  map[pack.ID]uint32
	filter *filter // of the tables that Commit writes; nil if none is wanted
}

// record is an entry on its way to a table. The hash is kept as two numbers,
// which compare faster.
type record struct {
	hi, lo uint64
	value  [blockValue]byte
}

const recordSize = hashPart + blockValue

func (r *record) compare(s *record) int {
	if c := cmp.Compare(r.hi, s.hi); c != 0 {
		return c
	}
	return cmp.Compare(r.lo, s.lo)
}

// scratch is the folder of the loader's files.
func scratch(dir string) string { return filepath.Join(dir, "load") }

func (x *Index) beingLoaded() error {
	return problem.New(problem.IndexBusy, "The index in %s is being filled already.", x.dir)
}

// Load begins to load packs. One Loader may be open at a time, else IndexBusy.
func (x *Index) Load() (*Loader, error) {
	if err := x.engine.happened(); err != nil {
		return nil, x.classify(err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.loading {
		return nil, x.beingLoaded()
	}
	dir := scratch(x.dir)
	if err := x.fs.MkdirAll(dir, 0o700); err != nil {
		return nil, x.classify(err)
	}
	x.loading = true
	return &Loader{
		x: x, dir: dir,
		run:   make([]record, 0, x.budget.run/32),
		packs: map[pack.ID]uint32{},
	}, nil
}

// Add takes a pack, in any order. It becomes known with Commit. A pack that is
// there already, or was taken already, is left out.
func (l *Loader) Add(id pack.ID, entries []Entry) error {
	if _, taken := l.packs[id]; taken {
		return nil
	}
	if has, err := l.x.HasPack(id); err != nil || has {
		return err
	}
	number, err := l.x.reserve()
	if err != nil {
		return err
	}
	for i := range entries {
		var r record
		if err := putBlockValue(&r.value, number, &entries[i]); err != nil {
			return err
		}
		r.hi, r.lo = split(&entries[i].Hash)
		if len(l.run) == cap(l.run) {
			if err := l.spill(); err != nil {
				return l.x.classify(err)
			}
		}
		l.run = append(l.run, r)
		l.total++
	}
	l.packs[id] = number
	return nil
}

func split(h *block.Hash) (hi, lo uint64) {
	return binary.BigEndian.Uint64(h[0:]), binary.BigEndian.Uint64(h[8:])
}

func (l *Loader) sortRun() {
	slices.SortFunc(l.run, func(a, b record) int { return a.compare(&b) })
}

func (l *Loader) runPath(i int) string { return filepath.Join(l.dir, fmt.Sprintf("run-%06d", i)) }

// spill writes the run to a file, sorted.
func (l *Loader) spill() (err error) {
	l.sortRun()
	f, err := l.x.fs.Create(l.runPath(l.runs), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 256<<10)
	var buf [recordSize]byte
	for i := range l.run {
		r := &l.run[i]
		binary.BigEndian.PutUint64(buf[0:], r.hi)
		binary.BigEndian.PutUint64(buf[8:], r.lo)
		copy(buf[hashPart:], r.value[:])
		if _, err := w.Write(buf[:]); err != nil {
			return err
		}
	}
	l.runs++
	l.run = l.run[:0]
	return w.Flush()
}

// Commit makes all packs taken so far known, durably, and closes the loader.
// If it fails or the context ends, none or some of them are known; the same
// load may be done again.
func (l *Loader) Commit(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, l.Close()) }()
	x := l.x
	l.filter = x.beginLoad(l.total)
	paths, err := l.writeTables(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return x.classify(err)
	}
	if err := x.adopt(ctx, paths, l.packs, l.filter); err != nil {
		return x.classify(err)
	}
	return nil
}

// adopt takes finished tables into the index, then names their packs. After a
// crash between the steps the entries' numbers resolve to nothing, and the
// counter sees to it that they never will. The filter f is of the tables.
func (x *Index) adopt(ctx context.Context, paths []string, packs map[pack.ID]uint32, f *filter) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	set := func(fill func(b *pebble.Batch) error) error {
		b := x.db.NewBatch()
		if err := fill(b); err != nil {
			return err
		}
		return x.commit(b, pebble.Sync)
	}
	err := set(func(b *pebble.Batch) error {
		return b.Set(counterRow, binary.BigEndian.AppendUint32(nil, x.next), nil)
	})
	if err != nil {
		return err
	}
	x.finishLoad(f)
	if len(paths) > 0 {
		if err := x.engine.run(func() error { return x.db.Ingest(ctx, paths) }); err != nil {
			return err
		}
	}
	ids := make([]pack.ID, 0, len(packs))
	for id := range packs {
		ids = append(ids, id)
	}
	for part := range slices.Chunk(ids, 4096) {
		err := set(func(b *pebble.Batch) error {
			for _, id := range part {
				pk, nk := packKey(id), numberKey(packs[id])
				if err := errors.Join(b.Set(pk[:], nk[1:], nil), b.Set(nk[:], id[:], nil)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Close gives up what was not committed. It may be called after Commit.
func (l *Loader) Close() error {
	l.run, l.packs = nil, nil
	if l.x == nil {
		return nil
	}
	x := l.x
	l.x = nil
	err := x.fs.RemoveAll(l.dir)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.loading = false
	if l.filter != nil && x.filters.next == l.filter {
		x.abandon()
	}
	if x.filters.path != "" && x.filters.inUse.Load() == nil {
		x.refill()
	}
	if err != nil {
		return x.classify(err)
	}
	return nil
}

// writeTables merges the runs into tables that do not overlap, each synced,
// and fills the filter.
func (l *Loader) writeTables(ctx context.Context) (paths []string, err error) {
	if l.runs > 0 && len(l.run) > 0 {
		if err := l.spill(); err != nil {
			return nil, err
		}
	}
	var sources merge
	if l.runs == 0 {
		l.sortRun()
		sources = append(sources, &source{run: l.run})
	} else {
		l.run = nil
		buffer := min(max(l.x.budget.run/l.runs, 4<<10), 256<<10)
		for i := range l.runs {
			f, err := l.x.fs.Open(l.runPath(i), vfs.SequentialReadsOption)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			sources = append(sources, &source{file: bufio.NewReaderSize(f, buffer)})
		}
	}
	var live merge
	for _, s := range sources {
		if ok, err := s.next(); err != nil {
			return nil, err
		} else if ok {
			live = append(live, s)
		}
	}
	heap.Init(&live)

	var filling *filling
	if l.filter != nil {
		filling = l.filter.fill()
	}
	var w *sstable.Writer
	defer func() {
		if w != nil { // an error has ended the loop below
			w.Close()
		}
	}()
	var last record
	for some := false; len(live) > 0; {
		r := live[0].head
		if ok, err := live[0].next(); err != nil {
			return nil, err
		} else if ok {
			heap.Fix(&live, 0)
		} else {
			heap.Pop(&live)
		}
		if some && r.compare(&last) == 0 {
			continue // a block that lies in two packs
		}
		some, last = true, r
		if w == nil {
			if err := ctx.Err(); err != nil {
				return nil, context.Cause(ctx)
			}
			path := filepath.Join(l.dir, fmt.Sprintf("table-%06d", len(paths)))
			if w, err = l.x.newTable(path); err != nil {
				return nil, err
			}
			paths = append(paths, path)
		}
		var key [blockKey]byte
		key[0] = spaceBlock
		binary.BigEndian.PutUint64(key[1:], r.hi)
		binary.BigEndian.PutUint64(key[9:], r.lo)
		if err := w.Set(key[:], r.value[:]); err != nil {
			return nil, err
		}
		if filling != nil {
			if err := filling.add(r.hi, r.lo); err != nil {
				return nil, err
			}
		}
		if w.Raw().EstimatedSize() >= tableBytes {
			done := w
			w = nil
			if err := done.Close(); err != nil {
				return nil, err
			}
		}
	}
	if filling != nil {
		if err := filling.flush(); err != nil {
			return nil, err
		}
	}
	if w != nil {
		done := w
		w = nil
		return paths, done.Close()
	}
	return paths, nil
}

// newTable begins a table like those of the lowest level.
func (x *Index) newTable(path string) (*sstable.Writer, error) {
	f, err := x.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	o := engineOptions(x.gate, x.budget, x.engine)
	o.EnsureDefaults()
	wo := o.MakeWriterOptions(len(o.Levels)-1, o.FormatMajorVersion.MaxTableFormat())
	return sstable.NewWriter(objstorageprovider.NewFileWritable(f), wo), nil
}

// source gives the records of one run in order: from a file, or from memory.
type source struct {
	file *bufio.Reader
	run  []record
	head record
}

func (s *source) next() (ok bool, err error) {
	if s.file == nil {
		if len(s.run) == 0 {
			return false, nil
		}
		s.head, s.run = s.run[0], s.run[1:]
		return true, nil
	}
	var buf [recordSize]byte
	if _, err := io.ReadFull(s.file, buf[:]); err == io.EOF {
		return false, nil
	} else if err != nil {
		return false, err
	}
	s.head.hi = binary.BigEndian.Uint64(buf[0:])
	s.head.lo = binary.BigEndian.Uint64(buf[8:])
	copy(s.head.value[:], buf[hashPart:])
	return true, nil
}

// merge is a heap of sources by their first record.
type merge []*source

func (m merge) Len() int { return len(m) }

func (m merge) Less(i, j int) bool {
	if c := m[i].head.compare(&m[j].head); c != 0 {
		return c < 0
	}
	return bytes.Compare(m[i].head.value[:], m[j].head.value[:]) < 0
}

func (m merge) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *merge) Push(s any)   { *m = append(*m, s.(*source)) }
func (m *merge) Pop() any {
	last := len(*m) - 1
	s := (*m)[last]
	*m = (*m)[:last]
	return s
}
