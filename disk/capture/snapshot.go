package capture

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/disk"
)

// snapshots are those of one disk, on storage that takes them itself, that are
// for one owner.
type snapshots interface {
	names(ctx context.Context) ([]string, error)
	// diff gives all that may differ between two of them.
	diff(ctx context.Context, from, to string) (extent.Set, error)
	remove(ctx context.Context, name string) error
}

// snapshotView reads a snapshot. That of the last recovery point stays, for the
// storage to say what differs.
type snapshotView struct {
	*disk.Reader
	origin   snapshots
	method   Method
	tracking string // the name of the change tracking
	size     int64
	owner    string
	name     string // of the snapshot
	stop     func() // what serves the snapshot; may be nil

	shut, settled bool
}

// Broken implements View: a snapshot cannot break.
func (*snapshotView) Broken() <-chan struct{} { return nil }

// Prove implements View.
func (v *snapshotView) Prove(ctx context.Context) (Proof, error) {
	all, err := v.origin.names(ctx)
	if err != nil {
		return Proof{}, err
	}
	if !slices.Contains(all, v.name) {
		return Proof{Method: v.method, Reason: "Another program removed the snapshot while it was read.", Retry: true}, nil
	}
	return Proof{Proven: true, Method: v.method, Reason: "It was read from a snapshot, which its storage took in one step."}, nil
}

// snapshotToken is what a recovery point keeps of its snapshot.
type snapshotToken struct {
	Method   Method `json:"method"`
	Snapshot string `json:"snapshot"`
	Size     int64  `json:"size"`
	Dropped  string `json:"dropped,omitempty"`
}

// Changed implements the tracking of changes between two snapshots.
func (v *snapshotView) Changed(ctx context.Context, stored []byte) (Changes, error) {
	var t snapshotToken
	switch err := json.Unmarshal(stored, &t); {
	case len(stored) == 0:
		return Unknown("no snapshot of the last recovery point was kept"), nil
	case err != nil || t.Method != v.method:
		return Unknown("the last recovery point was captured in another way"), nil
	case t.Dropped != "":
		return Unknown("the last snapshot was not kept: " + t.Dropped), nil
	}
	all, err := v.origin.names(ctx)
	if err != nil {
		return Changes{}, err
	}
	if !slices.Contains(all, t.Snapshot) {
		return Unknown("the snapshot of the last recovery point is gone"), nil
	}
	changed, err := v.origin.diff(ctx, t.Snapshot, v.name)
	if err != nil {
		return Changes{}, err
	}
	// What a disk grew by is in no comparison.
	changed = changed.Union(extent.Of(extent.Between(t.Size, v.size)))
	return Changes{Known: true, Ranges: changed, Method: v.tracking, Reason: "compared by the storage with the snapshot of the last recovery point"}, nil
}

// Keep leaves the snapshot for the next backup.
func (v *snapshotView) Keep(context.Context, string) (Kept, error) {
	v.end()
	t := snapshotToken{Method: v.method, Snapshot: v.name, Size: v.size}
	if v.owner == "" {
		t = snapshotToken{Method: v.method, Dropped: "it has no owner to be kept for"}
	}
	token, err := json.Marshal(t)
	return Kept{Token: token, Dropped: t.Dropped}, err
}

// Settle removes all other snapshots of the owner: that of the point before, and
// those of runs that were killed.
func (v *snapshotView) Settle(ctx context.Context) error {
	if v.owner == "" {
		return nil
	}
	v.settled = true
	all, err := v.origin.names(ctx)
	for _, name := range all {
		if name != v.name {
			err = errors.Join(err, v.origin.remove(ctx, name))
		}
	}
	return err
}

// end ends the reading.
func (v *snapshotView) end() {
	if v.shut {
		return
	}
	v.shut = true
	if v.Reader != nil {
		v.Reader.Close() // only read from; nothing is lost with it
	}
	if v.stop != nil {
		v.stop()
	}
}

// Close implements View. The snapshot of a point that does not exist goes.
func (v *snapshotView) Close() error {
	v.end()
	if v.settled {
		return nil
	}
	v.settled = true
	ctx, cancel := context.WithTimeout(context.Background(), removeLimit)
	defer cancel()
	return v.origin.remove(ctx, v.name)
}

// removeLimit is how long the storage may take to remove a snapshot.
const removeLimit = time.Minute
