package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/disk/capture"
	"github.com/diskvault/diskvault/store"
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

const (
	damagedParent = "the last recovery point is damaged, so all of the disk was read"
	deletedParent = "the last recovery point was deleted meanwhile, so all of the disk was read"
)

// changes asks the view what has changed since the parent. tracked tells that
// only that is to be read; changes may be known although all is.
func (r *Run) changes(ctx context.Context, view capture.View) (changes capture.Changes, tracked bool, err error) {
	o := r.options
	note := func(c capture.Changes) { r.result.ChangeTracking = ChangeTracking{Method: c.Method, Reason: c.Reason} }
	if o.Parent == nil {
		note(capture.Unknown("first backup of this disk"))
		return changes, false, nil
	}
	t, ok := view.(tracker)
	if !ok {
		changes = capture.Unknown("nothing records the changes of this source, so all of it was read and compared")
		if u, ok := view.(untracked); ok {
			changes.Reason = u.Untracked()
		}
	} else if changes, err = t.Changed(ctx, o.Parent.CaptureBase); err != nil {
		return changes, false, err
	}
	since := time.Since(o.Parent.FullRead)
	switch {
	case o.FullScan:
		note(capture.Unknown("a full scan was asked for"))
		r.result.ChangeTracking.Planned = true
	case !changes.Known:
		note(changes)
	case r.distrust != "":
		changes = capture.Unknown(r.distrust)
		note(changes)
	case since >= o.FullReadEvery:
		note(capture.Unknown(fmt.Sprintf("all of the disk is read every %d days, whatever change tracking says, to see whether it missed anything", int(o.FullReadEvery.Hours()/24))))
		r.result.ChangeTracking.Planned = true
	default:
		note(changes)
		return changes, true, nil
	}
	return changes, false, nil
}

// changed is what must be read: whatever is known to have changed, and what the
// base does not have.
func (r *Run) changed(changes capture.Changes, writer *store.Writer, size int64) (extent.Set, error) {
	r.reported = changes.Ranges.Total()
	doubtful, err := writer.Doubtful()
	if err != nil {
		return nil, err
	}
	set := changes.Ranges.Union(doubtful)
	for _, lost := range r.options.Parent.Unreadable { // zeros there
		set = set.Union(extent.Of(extent.Range{Off: lost.Offset, Len: lost.Length}))
	}
	return set.Align(int64(r.options.Store.BlockSize()), size), nil
}

// withoutBase has the run read everything in the next attempt if it is the base
// that is damaged.
func (r *Run) withoutBase(err error) (again bool, _ error) {
	if errors.Is(err, store.ErrBaseDamaged) {
		r.distrust = damagedParent
		return true, err
	}
	return false, err
}

// keep keeps the capture for the next backup, if it can, and gives what stands
// for it.
func (r *Run) keep(ctx context.Context, view capture.View, proof capture.Proof, id store.ID) []byte {
	t, ok := view.(tracker)
	if !ok || !proof.Proven {
		return nil
	}
	kept, err := t.Keep(ctx, id.String())
	if err != nil {
		kept = capture.Kept{Dropped: err.Error()}
	}
	r.result.ChangeTracking.Dropped = kept.Dropped
	return kept.Token
}

// settle ends the captures of earlier points, now that this point exists. If all
// of the disk was read although its changes were known, it looks first whether
// they were all. A failure is no failure of the backup.
func (r *Run) settle(ctx context.Context, view capture.View, changes capture.Changes, tracked bool) {
	ctx = context.WithoutCancel(ctx)
	t, ok := view.(tracker)
	if !ok {
		return
	}
	if !tracked && changes.Known && r.missed(ctx, changes) {
		return // without it, Close removes the capture, so that all is read next time
	}
	if err := t.Settle(ctx); err != nil {
		r.result.Notices = append(r.result.Notices, fmt.Sprintf("A capture of an earlier recovery point could not be removed (%v); the next backup tries again.", err))
	}
}

// missed compares the point with its parent outside of the known changes.
func (r *Run) missed(ctx context.Context, changes capture.Changes) bool {
	now, err := r.options.Store.Image(r.result.Point)
	if err != nil || r.parent == nil {
		return false
	}
	differ, err := now.Differs(ctx, r.parent)
	if err != nil {
		r.warn("Whether change tracking missed anything could not be found out: %v", err)
		return false
	}
	for _, lost := range append(r.options.Parent.Unreadable, r.result.Point.Unreadable...) {
		changes.Ranges = changes.Ranges.Union(extent.Of(extent.Range{Off: lost.Offset, Len: lost.Length}))
	}
	missed := differ.Within(extent.Between(0, now.Size())).Subtract(changes.Ranges.Align(int64(r.options.Store.BlockSize()), now.Size()))
	if missed == nil {
		return false
	}
	for _, m := range missed {
		r.result.ChangeTracking.Missed = append(r.result.ChangeTracking.Missed, store.Range{Offset: m.Off, Length: m.Len})
	}
	r.warn("Change tracking (%s) missed %d bytes in %d ranges, the first at byte %d: either the storage of the disk gives back other bytes than were written to it, or the tracking is wrong. This recovery point is right, since all of the disk was read. Those made since the last full read, at %s, may show older content there.",
		changes.Method, missed.Total(), len(missed), missed[0].Off, r.options.Parent.FullRead.Format(time.RFC3339))
	return true
}
