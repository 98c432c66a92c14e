package index

import (
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// tableBytes is the size of a table of the lowest levels. Larger tables would
// mean fewer open files and longer single compactions.
const tableBytes = 64 << 20

// budget divides MemoryBytes.
type budget struct {
	filter   int64  // the largest filter; mapped, not on the heap
	least    uint64 // entries that the smallest filter is made for
	cache    int64  // blocks of tables; the heap grows to two or three times of it
	memtable uint64 // one of at most three tables of newest entries
	run      int    // records that a loader sorts at once; taken while loading only
}

func divide(bytes int64) budget {
	return budget{
		filter:   max(bytes/8*5, 1<<20),
		least:    1 << 20,
		cache:    max(bytes/10, 4<<20),
		memtable: uint64(min(max(bytes/64, 1<<20), 4<<20)),
		run:      int(max(bytes/8, 1<<20)),
	}
}

func engineOptions(fs vfs.FS, b budget, f *failure) *pebble.Options {
	o := &pebble.Options{
		FS:                          fs,
		CacheSize:                   b.cache,
		MemTableSize:                b.memtable,
		MemTableStopWritesThreshold: 3,
		MaxOpenFiles:                400,
		FormatMajorVersion:          pebble.FormatTableFormatV6,
		// One compaction at a time: the other core belongs to the backup.
		CompactionConcurrencyRange: func() (int, int) { return 1, 1 },
		L0CompactionThreshold:      4,
		L0StopWritesThreshold:      24,
		LBaseMaxBytes:              64 << 20,
		// Written continuously instead of in one burst that would stall the
		// packs' own synced writes.
		BytesPerSync:    1 << 20,
		WALBytesPerSync: 1 << 20,
		Logger:          f,
		EventListener: &pebble.EventListener{
			// The default ends the process. The read that met the damage
			// returns an error of its own, which is enough.
			DataCorruption:  func(pebble.DataCorruptionInfo) {},
			BackgroundError: f.set,
			DiskSlow:        func(pebble.DiskSlowInfo) {},
		},
		DisableTableStats: true,
	}
	o.Experimental.ReadSamplingMultiplier = -1 // look-ups must not cause compactions
	for i := range o.Levels {
		l := &o.Levels[i]
		// Of 300 million entries, the tables' own indexes are 12 MB with blocks of
		// 16 KiB, and stay in the cache; with 4 KiB they are 50 MB, and most
		// look-ups read twice.
		l.BlockSize = 16 << 10
		l.IndexBlockSize = 16 << 10
		l.Compression = func() *sstable.CompressionProfile { return sstable.NoCompression } // hashes do not compress
		l.FilterPolicy = pebble.NoFilterPolicy                                              // see filter
		o.TargetFileSizes[i] = min(int64(4<<20)<<i, tableBytes)
	}
	return o
}

// failure is the engine's logger, and the end of the engine's use.
//
// The engine expects Fatalf not to return, and by default it ends the process:
// for a mere accelerator that is out of proportion. So the goroutine that
// called Fatalf, which may hold the engine's locks, is stopped for good, and
// every later use of the index returns the error. The same becomes of errors of
// the disk (see gate), and of background work, which would be tried again for
// ever while writers wait.
type failure struct {
	once sync.Once
	err  error         // set before done is closed
	done chan struct{} // closed when the engine has failed
}

func newFailure() *failure { return &failure{done: make(chan struct{})} }

func (f *failure) Infof(string, ...any)  {}
func (f *failure) Errorf(string, ...any) {}

func (f *failure) Fatalf(format string, args ...any) {
	err := &fatalError{text: fmt.Sprintf(format, args...)}
	for _, arg := range args {
		if cause, ok := arg.(error); ok {
			err.cause = cause
		}
	}
	f.set(err)
	select {}
}

func (f *failure) set(err error) {
	f.once.Do(func() {
		f.err = err
		close(f.done)
	})
}

// fatalError is what Fatalf was called with.
type fatalError struct {
	text  string
	cause error
}

func (e *fatalError) Error() string { return e.text }
func (e *fatalError) Unwrap() error { return e.cause }

// happened gives the fatal error of the engine, or nil.
func (f *failure) happened() error {
	select {
	case <-f.done:
		return f.err
	default:
		return nil
	}
}

// run calls fn and returns its error, or the fatal error of the engine, in
// which case fn may never return. A panic of the engine is a fatal error.
func (f *failure) run(fn func() error) error {
	if err := f.happened(); err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				f.set(fmt.Errorf("the index engine failed: %v", p))
			}
		}()
		result <- fn()
	}()
	select {
	case err := <-result:
		return err
	case <-f.done:
		return f.err
	}
}
