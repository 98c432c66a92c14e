package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/diskvault/diskvault/base/problem"
)

// formatVersion is part of the identity row, so an index of another version is
// discarded like that of another store.
const formatVersion = 1

// DefaultMemory is the memory that an index takes when Options names none.
const DefaultMemory = 160 << 20

// Options says whose index it is and what it may use.
type Options struct {
	// Store is the identity of the store that the index is of, for example its
	// ID. Required. An index of another store in the same folder is emptied.
	Store string
	// MemoryBytes is the memory that the index may use, whatever the number of
	// entries; a small index uses little of it. Five eighths of it are for a filter
	// that tells absent blocks, which is at its best with 10 bits for each entry,
	// and of use down to 3. 0 means DefaultMemory.
	MemoryBytes int64
}

// Index is open until Close. All methods may be called concurrently; Close
// waits for nobody, so it comes after all other calls.
type Index struct {
	dir     string
	fs      vfs.FS // for the loader's files; the engine writes through the gate
	gate    *gate
	lock    *os.File
	db      *pebble.DB
	budget  budget
	engine  *failure
	filters filters
	keys    sync.Pool // *[blockKey]byte

	mu      sync.Mutex // held while packs are added and forgotten
	next    uint32     // the next pack's number; at least the stored counter
	loading bool       // a Loader is open
}

// Open opens the index in dir, and makes it if it is missing. Its cost does
// not depend on the number of entries.
//
// Errors: IndexBusy if the index is open already, here or in another process;
// IndexDamaged if it cannot be read (Remove it and fill it again);
// HomeNotUsable or HomeFull if the folder cannot be used.
func Open(dir string, o Options) (*Index, error) {
	if o.Store == "" {
		return nil, errors.New("index: no store named")
	}
	if o.MemoryBytes == 0 {
		o.MemoryBytes = DefaultMemory
	}
	return openWith(dir, o.Store, divide(o.MemoryBytes))
}

func openWith(dir, store string, b budget) (*Index, error) {
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	identity := append([]byte{formatVersion}, store...)
	x, err := open(vfs.Default, dir, b, identity)
	if errors.Is(err, errForeign) {
		if err = errors.Join(os.RemoveAll(tables(dir)), os.RemoveAll(filterPath(dir))); err == nil {
			x, err = open(vfs.Default, dir, b, identity)
		}
	}
	if err != nil {
		lock.Close()
		return nil, classify(err, dir)
	}
	x.lock = lock
	x.startFilters(filterPath(dir))
	return x, nil
}

var errForeign = errors.New("the index is of another store or version")

// tables is the folder that belongs to the engine alone.
func tables(dir string) string { return filepath.Join(dir, "tables") }

func filterPath(dir string) string { return filepath.Join(dir, "filter") }

// open is Open without the lock, on any file system.
func open(fs vfs.FS, dir string, b budget, identity []byte) (*Index, error) {
	// A loader that was killed leaves its files behind.
	if err := fs.RemoveAll(scratch(dir)); err != nil {
		return nil, err
	}
	x := &Index{dir: dir, fs: fs, budget: b, engine: newFailure()}
	x.gate = newGate(fs, x.engine)
	x.keys.New = func() any { return new([blockKey]byte) }
	var db *pebble.DB
	err := x.engine.run(func() (err error) {
		db, err = pebble.Open(tables(dir), engineOptions(x.gate, b, x.engine))
		return err
	})
	if err != nil {
		if x.engine.happened() != nil {
			x.gate.shut()
		}
		return nil, err
	}
	x.db = db
	if err := x.begin(identity); err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

// begin reads what must be known before the first use, and marks a new index
// as the store's, durably, before anything else is in it.
func (x *Index) begin(identity []byte) error {
	was, found, err := x.get(identityRow)
	switch {
	case err != nil:
		return err
	case found && !bytes.Equal(was, identity):
		return errForeign
	case !found:
		b := x.db.NewBatch()
		err := errors.Join(
			b.Set(identityRow, identity, nil),
			b.Set(counterRow, binary.BigEndian.AppendUint32(nil, 0), nil))
		if err != nil {
			return err
		}
		return x.commit(b, pebble.Sync)
	}
	counter, found, err := x.get(counterRow)
	if err != nil {
		return err
	}
	if !found || len(counter) != 4 {
		return fmt.Errorf("the counter of packs is missing: %w", pebble.ErrCorruption)
	}
	x.next = binary.BigEndian.Uint32(counter)
	return nil
}

// Close writes what is in memory and ends the use of the index. After a fatal
// error of the engine it gives that error; then what the engine holds in memory
// is not freed, but the folder may be opened again, or removed.
func (x *Index) Close() error {
	x.stopFilters()
	err := x.close()
	if lockErr := x.lock.Close(); err == nil {
		err = lockErr
	}
	if err != nil {
		return x.classify(err)
	}
	return nil
}

func (x *Index) close() error {
	err := x.engine.run(x.db.Close)
	if x.engine.happened() != nil {
		x.gate.shut()
	}
	return err
}

// Remove deletes the index in dir, damaged or not. Nothing but space and time
// is lost: it can be filled again from the store. It fails with IndexBusy
// while the index is open.
func Remove(dir string) error {
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := errors.Join(os.RemoveAll(tables(dir)), os.RemoveAll(scratch(dir)), os.RemoveAll(filterPath(dir))); err != nil {
		return classify(err, dir)
	}
	return nil
}

// lockDir makes dir and takes the lock on it, which ends when the file is
// closed or the process ends.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, classify(err, dir)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, classify(err, dir)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, problem.New(problem.IndexBusy, "The index in %s is in use, by this or another process.", dir)
		}
		return nil, classify(err, dir)
	}
	return f, nil
}

// Len estimates the number of entries, those of forgotten packs included.
func (x *Index) Len() int64 {
	if f := x.filters.inUse.Load(); f != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		return int64(f.head.count)
	}
	return x.tableEntries()
}

// tableEntries estimates the number of entries from the size of the tables. It
// can be wrong by half for a small index.
func (x *Index) tableEntries() int64 {
	if x.engine.happened() != nil {
		return 0
	}
	m := x.db.Metrics()
	return int64(m.DiskSpaceUsage()-m.WAL.PhysicalSize)/(blockKey+blockValue) + int64(m.MemTable.Size/100)
}

func (x *Index) get(key []byte) (value []byte, found bool, err error) {
	if err := x.engine.happened(); err != nil {
		return nil, false, err
	}
	v, closer, err := x.db.Get(key)
	if err == pebble.ErrNotFound {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer closer.Close()
	return bytes.Clone(v), true, nil
}

// commit applies the batch and ends its use. If the engine fails meanwhile, the
// batch stays with it: batches are used again after Close.
func (x *Index) commit(b *pebble.Batch, o *pebble.WriteOptions) error {
	return x.engine.run(func() error { return errors.Join(x.db.Apply(b, o), b.Close()) })
}

func (x *Index) classify(err error) error { return classify(err, x.dir) }

// classify gives an error of the engine or the system its code.
func classify(err error, dir string) error {
	var p *problem.Error
	switch {
	case errors.As(err, &p):
		return err
	case errors.Is(err, pebble.ErrCorruption), errors.Is(err, fs.ErrNotExist):
		return problem.Wrap(err, problem.IndexDamaged, "The index in %s is damaged.", dir)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return problem.Wrap(err, problem.HomeFull, "There is no room left for the index in %s.", dir)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR):
		return problem.Wrap(err, problem.HomeNotUsable, "The index in %s cannot be used.", dir)
	default:
		return problem.Wrap(err, problem.IndexDamaged, "The index in %s cannot be read or written.", dir)
	}
}
