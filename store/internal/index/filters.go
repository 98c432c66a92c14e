package index

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/store/internal/block"
)

// filters are the filter in use and the one that is being made to follow it.
// Neither is ever needed: with none, look-ups read the tables. So nothing here
// gives an error; what fails is left out.
type filters struct {
	path  string // empty: the index has no filters
	owner [16]byte
	inUse atomic.Pointer[filter]

	// The following belong to Index.mu.
	next    *filter   // being filled; gets what is added meanwhile; or nil
	retired []*filter // replaced; look-ups may still be in them
	stop    chan struct{}
	stopped chan struct{} // closed when filling in the background has ended
}

// ownerRow holds the random number that ties a filter to this index: an index
// that was begun anew in the same folder has another.
var ownerRow = []byte{spaceMeta, 'f'}

// fillStep is the number of rows between looks at whether to stop.
const fillStep = 1 << 14

// startFilters opens the filter, makes one if the index is new, or has one made
// in the background if there is none that can be trusted.
func (x *Index) startFilters(path string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	value, found, err := x.get(ownerRow)
	if err != nil {
		return
	}
	if !found || len(value) != len(x.filters.owner) {
		value = make([]byte, len(x.filters.owner))
		rand.Read(value)
		b := x.db.NewBatch()
		if b.Set(ownerRow, value, nil) != nil || x.commit(b, pebble.Sync) != nil {
			return
		}
	}
	copy(x.filters.owner[:], value)
	x.filters.path = path
	os.Remove(x.filters.nextPath())
	f, err := openFilter(path, x.filters.owner)
	switch {
	case err == nil:
		x.filters.inUse.Store(f)
		size := int64(f.head.lines) * lineBytes
		cramped := f.head.capacity == math.MaxUint64 && size < x.budget.filter/2
		if f.suspect() || cramped || size > x.budget.filter*2 {
			x.refill()
		}
	case x.next == 0: // nothing was ever added
		if f, err := createFilter(path, x.plan(0)); err == nil {
			x.filters.inUse.Store(f)
		}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errNotOurFilter):
		x.refill()
	}
}

func (s *filters) nextPath() string { return s.path + ".new" }

func (x *Index) plan(n uint64) filterHead {
	h := planFilter(max(n, x.budget.least), x.budget.filter)
	h.owner = x.filters.owner
	return h
}

// absent tells whether the block is certainly not known.
func (x *Index) absent(h *block.Hash) bool {
	f := x.filters.inUse.Load()
	return f != nil && !f.has(h)
}

// note adds entries to the filters before they become known. x.mu is held.
func (x *Index) note(entries []Entry) {
	if next := x.filters.next; next != nil && next.add(entries) != nil {
		x.abandon()
	}
	f := x.filters.inUse.Load()
	if f == nil {
		return
	}
	if f.add(entries) != nil {
		x.withdraw()
	}
}

// grow has a larger filter made when the one in use is full. It comes after the
// entries that made it full are known: what is filled in the background is what
// is known when it begins, and what is noted later. x.mu is held.
func (x *Index) grow() {
	if f := x.filters.inUse.Load(); f != nil && f.full() {
		x.refill()
	}
}

// withdraw ends the use of the filter. x.mu is held.
func (x *Index) withdraw() {
	if f := x.filters.inUse.Swap(nil); f != nil {
		x.filters.retired = append(x.filters.retired, f)
		f.rest()
		os.Remove(x.filters.path)
	}
}

// abandon gives up the next filter. x.mu is held.
func (x *Index) abandon() {
	if next := x.filters.next; next != nil {
		x.filters.next = nil
		x.filters.retired = append(x.filters.retired, next)
		next.rest()
		os.Remove(x.filters.nextPath())
	}
}

// prepare makes the next filter, for n entries. It is nil if that cannot be,
// or if there is one already. x.mu is held.
func (x *Index) prepare(n uint64) *filter {
	if x.filters.path == "" || x.filters.next != nil {
		return nil
	}
	f, err := createFilter(x.filters.nextPath(), x.plan(n))
	if err != nil {
		return nil
	}
	f.begin()
	x.filters.next = f
	return f
}

// replace puts the next filter in the place of the one in use, if it is still
// wanted. x.mu is held.
func (x *Index) replace(f *filter) {
	if x.filters.next != f {
		return
	}
	err := f.sync()
	if err == nil {
		err = os.Rename(x.filters.nextPath(), x.filters.path)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(x.filters.path))
	}
	if err != nil {
		x.abandon()
		return
	}
	x.filters.next = nil
	if old := x.filters.inUse.Swap(f); old != nil {
		x.filters.retired = append(x.filters.retired, old)
		old.rest()
	}
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// refill has a new filter made from the entries, in the background, with the
// least priority. While a Loader is open, it is left to that. x.mu is held.
func (x *Index) refill() {
	if x.loading {
		return
	}
	f := x.prepare(uint64(x.tableEntries()))
	if f == nil {
		return
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	x.filters.stop, x.filters.stopped = stop, stopped
	go func() {
		defer close(stopped)
		// The thread's priority cannot be raised again; it ends with this.
		runtime.LockOSThread()
		_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19)
		err := x.fillFrom(f, stop)
		x.mu.Lock()
		defer x.mu.Unlock()
		if err == nil {
			x.replace(f)
		} else if x.filters.next == f {
			x.abandon()
		}
	}()
}

var errStopped = errors.New("stopped")

// fillFrom adds all entries to a filter.
func (x *Index) fillFrom(f *filter, stop chan struct{}) (err error) {
	if err := x.engine.happened(); err != nil {
		return err
	}
	rows, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceBlock}, UpperBound: []byte{spaceBlock + 1}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	w := f.fill()
	for n, ok := 0, rows.First(); ok; n, ok = n+1, rows.Next() {
		if n%fillStep == 0 {
			select {
			case <-stop:
				return errStopped
			case <-x.engine.done:
				return errStopped
			default:
			}
		}
		if key := rows.Key(); len(key) == blockKey {
			if err := w.add(binary.BigEndian.Uint64(key[1:]), binary.BigEndian.Uint64(key[9:])); err != nil {
				return err
			}
		}
	}
	if err := rows.Error(); err != nil {
		return err
	}
	return w.flush()
}

// beginLoad makes the next filter for a Loader of n entries, if there are no
// others yet; else there will be one when they are together. It ends what is
// being made in the background, which knows nothing of the Loader's entries.
func (x *Index) beginLoad(n uint64) *filter {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.filters.stop != nil {
		close(x.filters.stop)
		x.filters.stop = nil
	}
	x.abandon()
	rows, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceBlock}, UpperBound: []byte{spaceBlock + 1}})
	if err != nil {
		return nil
	}
	empty := !rows.First()
	if rows.Close() != nil || !empty {
		return nil
	}
	return x.prepare(n)
}

// finishLoad puts the Loader's filter into use, or none if there is none. It
// comes before the Loader's entries become known. x.mu is held.
func (x *Index) finishLoad(f *filter) {
	if f != nil {
		x.replace(f)
	}
	if f == nil || x.filters.inUse.Load() != f {
		x.withdraw()
	}
}

// stopFilters ends what runs in the background and closes the filters.
func (x *Index) stopFilters() {
	x.mu.Lock()
	stopped := x.filters.stopped
	if x.filters.stop != nil {
		close(x.filters.stop)
	}
	x.filters.stop, x.filters.stopped = nil, nil
	x.mu.Unlock()
	if stopped != nil {
		<-stopped
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.abandon()
	if f := x.filters.inUse.Swap(nil); f != nil {
		if f.sync() != nil {
			os.Remove(x.filters.path)
		}
		f.close()
	}
	for _, f := range x.filters.retired {
		f.close()
	}
	x.filters.retired = nil
}
