package disk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
)

// ReadError says that some bytes of a source cannot be read. The others of the
// same call were delivered.
type ReadError struct {
	Path   string
	Ranges extent.Set // what cannot be read; never empty
	Err    error      // what the system said about the first of them
}

func (e *ReadError) Error() string {
	return fmt.Sprintf("%d bytes of %s in %d ranges cannot be read, the first at %v: %v",
		e.Ranges.Total(), e.Path, len(e.Ranges), e.Ranges[0], e.Err)
}

func (e *ReadError) Unwrap() error { return e.Err }

// A failed read is tried again in smaller and smaller pieces. A dying disk may
// take half a minute for each try, so tries and time are bounded; what was not
// tried by then counts as unreadable.
const (
	triesPerRead  = 2048
	timePerRead   = 20 * time.Second
	timePerReader = 5 * time.Minute
)

// narrowBudget is the time that a Reader may still spend on failed reads.
type narrowBudget struct {
	mu    sync.Mutex
	spent time.Duration // guarded by mu
}

func (b *narrowBudget) left() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return timePerReader - b.spent
}

func (b *narrowBudget) spend(d time.Duration) {
	b.mu.Lock()
	b.spent += d
	b.mu.Unlock()
}

// IsFaultOfRange tells errors of some bytes from those of the whole source. A
// device that is gone answers the same to every read.
func IsFaultOfRange(err error) bool {
	switch {
	case errors.Is(err, unix.EIO), // medium error, or a checksum of btrfs
		errors.Is(err, unix.ENODATA),   // critical medium error
		errors.Is(err, unix.EILSEQ),    // protection information does not fit
		errors.Is(err, unix.EBADMSG),   // checksum of XFS or ext4
		errors.Is(err, unix.EUCLEAN),   // structure of the file system
		errors.Is(err, unix.EREMOTEIO), // critical target error
		errors.Is(err, unix.ETIMEDOUT),
		errors.Is(err, unix.ENOLINK): // a path of a multipath device
		return true
	}
	return false
}

// readAround reads p again after cause, in pieces, to find out which of its
// bytes cannot be read. The first good bytes of p are known to be right. It goes
// through all of p in large pieces before it looks closer, so that the bounds
// cost precision rather than data.
func (r *Reader) readAround(ctx context.Context, p []byte, off int64, good int, cause error) error {
	start := time.Now()
	deadline := start.Add(min(timePerRead, r.narrowing.left()))
	defer func() { r.narrowing.spend(time.Since(start)) }()

	tries := triesPerRead
	end := off + int64(len(p))
	bad := extent.Of(extent.Between(off+int64(good), end))
	for _, piece := range r.pieces() {
		var still []extent.Range
		for at := range bad.Windows(piece) {
			if tries == 0 || !time.Now().Before(deadline) {
				still = append(still, at)
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			tries--
			n, err := r.pread(ctx, p[at.Off-off:at.End()-off], at.Off)
			switch {
			case err == nil && int64(n) == at.Len:
			case err == nil:
				return r.shorter()
			case !IsFaultOfRange(err):
				return r.failed(ctx, err)
			default:
				still = append(still, extent.Between(at.Off+int64(n), at.End()))
			}
		}
		if bad = extent.Of(still...); len(bad) == 0 {
			return nil
		}
	}
	for _, b := range bad {
		clear(p[b.Off-off : b.End()-off])
	}
	return &ReadError{Path: r.path, Ranges: bad, Err: cause}
}

// pieces are the sizes in which a failed read is tried again. The page cache
// reads whole pages, so that smaller pieces help direct reads only.
func (r *Reader) pieces() []int64 {
	if r.direct && r.sector < 4<<10 {
		return []int64{64 << 10, 4 << 10, r.sector}
	}
	return []int64{64 << 10, 4 << 10}
}
