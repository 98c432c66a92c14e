package capture

import (
	"context"
	"errors"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/lvm"
)

// MethodLVM takes a snapshot of an LVM thin volume and reads it. The snapshot of
// the last recovery point is kept, for the pool's metadata to say what differs.
const MethodLVM Method = "lvm-snapshot"

// trackingThin is the name of change tracking by thin_delta.
const trackingThin = "thin-delta"

// LVM captures thin volumes.
type LVM struct {
	// Owner is for whom snapshots are kept, such as the ID of a backup instance.
	// Without one none is kept.
	Owner string
}

func (LVM) method() Method { return MethodLVM }

func (LVM) assess(_ context.Context, src *disk.Source) (a Assessment, refusal Refusal) {
	if src.Kind != disk.Thin {
		return a, Refusal{Method: MethodLVM}
	}
	a.Tracking = trackingThin
	a.Cost = "A snapshot is kept from one backup to the next; the first write to each block after it takes new room in the pool."
	return a, Refusal{}
}

// Capture implements Capturer.
func (l LVM) Capture(ctx context.Context, src *disk.Source) (View, error) {
	if src.Kind != disk.Thin {
		return nil, inapplicable("")
	}
	volume, err := lvm.Open(ctx, src.Path)
	if err != nil {
		return nil, err
	}
	if volume.Size != src.Size {
		return nil, problem.New(problem.SourceResized, "%s had %d bytes and now has %d.", src.Path, src.Size, volume.Size).
			With("sizeBefore", src.Size).With("sizeNow", volume.Size)
	}
	snapshot, err := volume.Snapshot(ctx, l.Owner)
	if err != nil {
		return nil, err
	}
	v := &snapshotView{
		origin: volumeSnapshots{volume, l.Owner}, method: MethodLVM, tracking: trackingThin, size: snapshot.Size, owner: l.Owner, name: snapshot.Name,
	}
	device, err := disk.Probe(ctx, snapshot.Path())
	if err == nil {
		v.Reader, err = device.Open(ctx, disk.ReadOptions{Direct: true})
	}
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// volumeSnapshots are those of a thin volume for an owner.
type volumeSnapshots struct {
	volume lvm.Volume
	owner  string
}

func (s volumeSnapshots) names(ctx context.Context) ([]string, error) {
	all, err := s.volume.Snapshots(ctx, s.owner)
	var names []string
	for _, one := range all {
		names = append(names, one.Name)
	}
	return names, err
}

func (s volumeSnapshots) diff(ctx context.Context, from, to string) (extent.Set, error) {
	all, err := s.volume.Snapshots(ctx, s.owner)
	if err != nil {
		return nil, err
	}
	var a, b *lvm.Volume
	for n := range all {
		switch all[n].Name {
		case from:
			a = &all[n]
		case to:
			b = &all[n]
		}
	}
	if a == nil || b == nil {
		return nil, problem.New(problem.SourceReadFailed, "Another program removed a snapshot of %s while it was compared.", s.volume).
			Do("Run again.")
	}
	return s.volume.Diff(ctx, *a, *b)
}

func (s volumeSnapshots) remove(ctx context.Context, name string) error {
	return s.volume.Remove(ctx, name)
}
