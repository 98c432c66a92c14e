// Package capture gives point-in-time views of disks, in one of several ways
// that are tried in order: a reflink of the file on XFS and btrfs, whoever writes
// to it; or the quiescent read of the source itself, while the kernel is asked
// whether anybody writes to it. A view never claims to be of one point in time:
// it proves it after it was read, or says why it cannot. Some views can also tell
// what has changed since an earlier one.
package capture

import (
	"context"
	"iter"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
)

// Method names a way of capturing; recovery points record it.
type Method string

// MethodQuiescent reads the source itself, and proves that nothing wrote to it.
const MethodQuiescent Method = "quiescent"

// Capturer makes views of sources in one way. A source that can be read gets a
// view, even if it is clear from the start that it will not be proven: whoever
// takes an inconsistent copy reads that. Errors are problems, those of
// disk.Source.Open.
type Capturer interface {
	Capture(ctx context.Context, src *disk.Source) (View, error)
}

// View is a disk to be read by a backup. Read, Allocated and Broken are safe
// for concurrent use, as is Prove; Close comes last.
type View interface {
	// Size is the size of the disk in bytes.
	Size() int64
	// Read fills p from off on; see disk.Reader.Read.
	Read(ctx context.Context, p []byte, off int64) error
	// Allocated gives the ranges that may hold data; see disk.Reader.Allocated.
	Allocated(ctx context.Context) iter.Seq2[extent.Range, error]
	// Broken is closed as soon as it is known that Prove will not prove: there
	// is no use in reading on, unless for an inconsistent copy. It may be closed
	// from the start, and it may stay open although Prove then fails.
	Broken() <-chan struct{}
	// Prove says whether everything read so far was of one point in time. Ask
	// after the last Read. The error is the problem SourceResized if the source
	// has changed its size, or SourceReadFailed if it cannot be asked.
	Prove(ctx context.Context) (Proof, error)
	// Close ends the view. What writers waited for, if anything, is free then.
	Close() error
}

// Proof is what a view has found out about itself.
type Proof struct {
	Proven bool   `json:"proven"` // all that was read is of one point in time
	Method Method `json:"method"`
	Reason string `json:"reason"` // why it is, or is not, proven: one sentence
	Retry  bool   `json:"retry"`  // not proven now, but another try may be
}

// Problem is the refusal of an unproven view, of the code SourceInUse, or nil
// for a proven one.
func (p Proof) Problem(src *disk.Source) *problem.Error {
	if p.Proven {
		return nil
	}
	return problem.New(problem.SourceInUse, "A copy of %s would not be of one point in time. %s", src, p.Reason).
		With("path", src.Path).With("method", string(p.Method)).With("retry", p.Retry)
}
