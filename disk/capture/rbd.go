package capture

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

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
	v := &imageView{image: i, owner: r.Owner, src: src}
	if v.snapshot, err = i.Snapshot(ctx, r.Owner); err != nil {
		return nil, err
	}
	if err := v.open(ctx); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// imageView reads a snapshot through a server of its own.
type imageView struct {
	*disk.Reader
	image    rbd.Image
	owner    string
	src      *disk.Source
	snapshot string
	server   *rbd.Server

	settled bool
}

func (v *imageView) open(ctx context.Context) error {
	var err error
	if v.server, err = v.image.Serve(ctx, v.snapshot); err != nil {
		return err
	}
	export, err := disk.Probe(ctx, "nbd+unix:///?socket="+v.server.Socket)
	if err != nil {
		return err
	}
	if v.Reader, err = export.Open(ctx, disk.ReadOptions{}); err != nil {
		return err
	}
	v.server.Hide()
	if v.Size() != v.image.Size {
		return problem.New(problem.SourceResized, "%s had %d bytes and now has %d.", v.src.Path, v.image.Size, v.Size())
	}
	return nil
}

// Broken implements View: a snapshot cannot break.
func (*imageView) Broken() <-chan struct{} { return nil }

// Prove implements View.
func (v *imageView) Prove(ctx context.Context) (Proof, error) {
	all, err := v.image.Snapshots(ctx, v.owner)
	if err != nil {
		return Proof{}, err
	}
	if !slices.Contains(all, v.snapshot) {
		return Proof{Method: MethodRBD, Reason: "Another program removed the snapshot while it was read.", Retry: true}, nil
	}
	return Proof{Proven: true, Method: MethodRBD, Reason: "It was read from a snapshot, which Ceph took in one step."}, nil
}

// imageToken is what a recovery point keeps of its snapshot.
type imageToken struct {
	Method   Method `json:"method"`
	Snapshot string `json:"snapshot"`
	Size     int64  `json:"size"`
	Dropped  string `json:"dropped,omitempty"`
}

// Changed implements the tracking of changes between two snapshots.
func (v *imageView) Changed(ctx context.Context, stored []byte) (Changes, error) {
	var t imageToken
	switch err := json.Unmarshal(stored, &t); {
	case len(stored) == 0:
		return Unknown("no snapshot of the last recovery point was kept"), nil
	case err != nil || t.Method != MethodRBD:
		return Unknown("the last recovery point was captured in another way"), nil
	case t.Dropped != "":
		return Unknown("the last snapshot was not kept: " + t.Dropped), nil
	}
	all, err := v.image.Snapshots(ctx, v.owner)
	if err != nil {
		return Changes{}, err
	}
	if !slices.Contains(all, t.Snapshot) {
		return Unknown("the snapshot of the last recovery point is gone"), nil
	}
	changed, err := v.image.Diff(ctx, t.Snapshot, v.snapshot, v.Size())
	if err != nil {
		return Changes{}, err
	}
	changed = changed.Union(extent.Of(extent.Between(t.Size, v.Size())))
	return Changes{Known: true, Ranges: changed, Method: trackingRBD, Reason: "compared by Ceph with the snapshot of the last recovery point"}, nil
}

// Keep leaves the snapshot for the next backup.
func (v *imageView) Keep(context.Context, string) (Kept, error) {
	v.shut()
	t := imageToken{Method: MethodRBD, Snapshot: v.snapshot, Size: v.image.Size}
	if v.owner == "" {
		t = imageToken{Method: MethodRBD, Dropped: "it has no owner to be kept for"}
	}
	token, err := json.Marshal(t)
	return Kept{Token: token, Dropped: t.Dropped}, err
}

// Settle removes all other snapshots of the owner: that of the point before, and
// those of runs that were killed.
func (v *imageView) Settle(ctx context.Context) error {
	if v.owner == "" {
		return nil
	}
	v.settled = true
	return v.image.Remove(ctx, v.owner, v.snapshot)
}

// shut ends the reading.
func (v *imageView) shut() {
	if v.Reader != nil {
		v.Reader.Close()
	}
	if v.server != nil {
		v.server.Close()
		v.server = nil
	}
}

// Close implements View. The snapshot of a point that does not exist goes.
func (v *imageView) Close() error {
	v.shut()
	if v.settled {
		return nil
	}
	v.settled = true
	ctx, cancel := context.WithTimeout(context.Background(), removeLimit)
	defer cancel()
	return v.image.RemoveOne(ctx, v.snapshot)
}

// removeLimit is how long Ceph may take to remove a snapshot.
const removeLimit = time.Minute
