package backup

import (
	"context"

	"github.com/diskvault/diskvault/disk/capture"
)

// tracker is a view that can tell what has changed since the capture of an
// earlier recovery point of the disk. The methods are called by one goroutine,
// in the order in which they stand here.
type tracker interface {
	// Changed compares the view with the capture that the token stands for, which
	// an earlier Keep gave; empty: there is none. It is not asked where there is no
	// earlier point. That it cannot tell is no error.
	Changed(ctx context.Context, token []byte) (capture.Changes, error)
	// Keep makes the capture outlast the view, as what the backup after this one
	// is compared with, or says why it does not. It comes after the last Read, just
	// before the point of this ID (plain letters and digits) is committed, so
	// whatever holds up the source's writers should end here.
	Keep(ctx context.Context, point string) (capture.Kept, error)
	// Settle is called once the point exists: earlier captures can go. If Close
	// comes without it, there is no point, and what Keep kept must go.
	Settle(ctx context.Context) error
}

// noticer is a view with something to tell the user beside its proof.
type noticer interface{ Notices() []string }

// untracked is a view that says why it cannot track changes: a clause.
type untracked interface{ Untracked() string }
