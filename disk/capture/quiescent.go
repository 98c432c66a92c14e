package capture

import (
	"context"
	"sync"

	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/blockdev"
)

// Quiescent captures by reading the source itself. A file is held by a read
// lease, which the kernel breaks before it lets anybody open the file for
// writing; of a device the kernel's counters of writes must not move. The zero
// value is ready.
type Quiescent struct{}

// Capture implements Capturer. It flushes the source, and begins to watch it.
func (Quiescent) Capture(ctx context.Context, src *disk.Source) (View, error) {
	if src.Kind == disk.Block {
		return captureDevice(ctx, blockdev.Kernel{}, src)
	}
	if src.Inside() {
		return captureInside(ctx, src)
	}
	return captureFile(ctx, src)
}

// doubt is the first reason found against a proof. It is safe for concurrent
// use.
type doubt struct {
	mu     sync.Mutex
	reason string        // guarded by mu; "" while there is none
	retry  bool          // guarded by mu
	broken chan struct{} // closed when reason is set
}

func newDoubt() *doubt { return &doubt{broken: make(chan struct{})} }

// raise records a reason; later ones change nothing.
func (d *doubt) raise(reason string, retry bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reason == "" {
		d.reason, d.retry = reason, retry
		close(d.broken)
	}
}

// proof is the unproven proof of the doubt; ok is false while there is none.
func (d *doubt) proof() (p Proof, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Proof{Method: MethodQuiescent, Reason: d.reason, Retry: d.retry}, d.reason != ""
}

// Broken implements View.
func (d *doubt) Broken() <-chan struct{} { return d.broken }

func proven(reason string) Proof {
	return Proof{Proven: true, Method: MethodQuiescent, Reason: reason}
}
