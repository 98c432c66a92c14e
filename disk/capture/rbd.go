package capture

import (
	"context"
	"errors"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/rbd"
)

// MethodRBD takes a snapshot of a Ceph RBD image and reads it. The snapshot of
// the last recovery point is kept, for Ceph to say what differs.
const MethodRBD Method = "rbd-snapshot"

// trackingRBD is the name of change tracking by `rbd diff`.
const trackingRBD = "rbd-diff"

// RBD captures Ceph images.
type RBD struct {
	// Owner is for whom snapshots are kept, such as the ID of a backup instance.
	// Without one none is kept.
	Owner string
}

func (RBD) method() Method { return MethodRBD }

func (r RBD) assess(ctx context.Context, src *disk.Source) (a Assessment, refusal Refusal) {
	if src.Kind != disk.Ceph {
		return a, Refusal{Method: MethodRBD}
	}
	a.Tracking = trackingRBD
	a.Cost = "A snapshot is kept from one backup to the next; the first write to each object after it copies the object."
	i, err := openImage(ctx, src)
	if err == nil && !i.FastDiff() {
		a.Better = []string{"With the image features object-map and fast-diff (`rbd feature enable`) Ceph would find what changed without looking at each object."}
	}
	return a, Refusal{}
}

func openImage(ctx context.Context, src *disk.Source) (rbd.Image, error) {
	address, err := rbd.ParseAddress(src.Path)
	if err != nil {
		return rbd.Image{}, err
	}
	return rbd.Open(ctx, address)
}

// Capture implements Capturer.
func (r RBD) Capture(ctx context.Context, src *disk.Source) (View, error) {
	if src.Kind != disk.Ceph {
		return nil, inapplicable("")
	}
	i, err := openImage(ctx, src)
	if err != nil {
		return nil, err
	}
	if i.Size != src.Size {
		return nil, problem.New(problem.SourceResized, "%s had %d bytes and now has %d.", src.Path, src.Size, i.Size).
			With("sizeBefore", src.Size).With("sizeNow", i.Size)
	}
	name, err := i.Snapshot(ctx, r.Owner)
	if err != nil {
		return nil, err
	}
	v := &snapshotView{
		origin: imageSnapshots{i, r.Owner}, method: MethodRBD, tracking: trackingRBD, size: i.Size, owner: r.Owner, name: name,
	}
	if err := v.serve(ctx, i); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// serve begins to read a snapshot of an image.
func (v *snapshotView) serve(ctx context.Context, i rbd.Image) error {
	server, err := i.Serve(ctx, v.name)
	if err != nil {
		return err
	}
	v.stop = server.Close
	export, err := disk.Probe(ctx, "nbd+unix:///?socket="+server.Socket)
	if err != nil {
		return err
	}
	if v.Reader, err = export.Open(ctx, disk.ReadOptions{}); err != nil {
		return err
	}
	server.Hide()
	return nil
}

// imageSnapshots are those of an image for an owner.
type imageSnapshots struct {
	image rbd.Image
	owner string
}

func (s imageSnapshots) names(ctx context.Context) ([]string, error) {
	return s.image.Snapshots(ctx, s.owner)
}

func (s imageSnapshots) diff(ctx context.Context, from, to string) (extent.Set, error) {
	return s.image.Diff(ctx, from, to, s.image.Size)
}

func (s imageSnapshots) remove(ctx context.Context, name string) error {
	return s.image.Remove(ctx, name)
}
