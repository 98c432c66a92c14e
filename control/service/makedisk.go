package service

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/durable"
	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/engine/restore"
)

// RegisterDisk makes the resource of a disk that has a source already, or
// changes one. What the source is tells its size, where this host reaches it.
func (a Acting) RegisterDisk(ctx context.Context, d resource.Disk, match string) (out resource.Disk, created bool, err error) {
	source, err := sourceOf(d.Source)
	if err != nil {
		return out, false, err
	}
	if source != "" {
		src, err := disk.Probe(ctx, source)
		switch {
		case err == nil:
			d.Size = src.Size
		case d.Size == 0:
			return out, false, err
		}
	}
	return a.PutDisk(ctx, d, match)
}

// MakeDisk makes the resource of a new disk and its bytes: zeros, or those of
// a snapshot, as a sparse file in the folder that the resource group names,
// else in the data folder. It tells whether the disk is new; one that exists
// is changed only as PutDisk does.
func (a Acting) MakeDisk(ctx context.Context, d resource.Disk, from resource.ID, match string) (out resource.Disk, created bool, err error) {
	old, err := catalog.Resource[resource.Disk](ctx, a.s.catalog, d.ID)
	if err == nil {
		if old.Source != "" && d.Size > old.Size {
			return out, false, problem.New(problem.PropertyFixed, "The disk %q has %s; diskvault does not grow disks.", d.ID.Name(), byteText(old.Size)).Do("Grow it on its host; the next backup notices.")
		}
		return a.PutDisk(ctx, d, match)
	}
	if !errors.Is(err, catalog.ErrNotFound) {
		return out, false, err
	}
	if err := a.may(ctx, disks+"write", d.ID); err != nil {
		return out, false, err
	}
	if err := a.s.inGroup(ctx, d.ID); err != nil {
		return out, false, err
	}
	var snapshot resource.Snapshot
	if from != "" {
		if err := a.may(ctx, snapshots+"beginGetAccess/action", from); err != nil {
			return out, false, err
		}
		if snapshot, err = catalog.Resource[resource.Snapshot](ctx, a.s.catalog, from); err != nil {
			return out, false, missing(err, from)
		}
		if d.Size != 0 && d.Size < snapshot.Size {
			return out, false, problem.New(problem.InvalidArgument, "The disk %q would have %s, and the snapshot has %s.", d.ID.Name(), byteText(d.Size), byteText(snapshot.Size)).Do("Leave the size away, or give one that is large enough.")
		}
	}
	g, err := a.s.group(ctx, d.ID.GroupID())
	if err != nil {
		return out, false, err
	}
	folder := g.Tags[TagFolder]
	if folder == "" {
		folder = filepath.Join(a.s.folder.Path(), "disks")
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return out, false, problem.Wrap(err, problem.TargetNotWritable, "The folder of the new disk, %s, cannot be made.", folder)
	}
	// No name that was ever used is used again, so nothing can be overwritten.
	path := filepath.Join(folder, d.ID.Name()+"-"+uuid.NewString()+".img")
	if from == "" {
		err = makeEmpty(path, d.Size)
	} else {
		d.Size = max(d.Size, snapshot.Size)
		err = a.s.copyOut(ctx, snapshot, path, d.Size)
	}
	if err != nil {
		return out, false, err
	}
	d.Source = path
	out, created, err = a.PutDisk(ctx, d, match)
	if err != nil || !created {
		err = errors.Join(err, os.Remove(path)) // of this call alone: its name is new
	}
	return out, created, err
}

// makeEmpty makes a file of zeros that takes no room.
func makeEmpty(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Sync(), f.Close())
	}
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrExist) {
		err = errors.Join(err, os.Remove(path))
	}
	return problem.Wrap(err, problem.TargetNotWritable, "The new disk %s cannot be made.", path)
}

func syncFolder(path string) error {
	root, err := durable.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(root.SyncFolder("."), root.Close())
}

// copyOut writes the content of a snapshot to a new file.
func (s *Service) copyOut(ctx context.Context, n resource.Snapshot, path string, size int64) error {
	points, err := s.catalog.Points(ctx, n.Instance)
	if err != nil {
		return err
	}
	p, err := pointOf(points, n.Disk.Name(), n.Point)
	if err != nil {
		return err
	}
	at, err := s.locate(ctx, p, "")
	if err != nil {
		return err
	}
	if _, err := restore.New(restore.Options{Store: at.store, Point: at.point, To: path, Meter: meter.New("prepare")}).Do(ctx); err != nil {
		return errors.Join(err, removeIfThere(path))
	}
	if size > p.Size {
		if err := os.Truncate(path, size); err != nil {
			return problem.Wrap(err, problem.TargetWriteFailed, "The new disk %s cannot be made as large as asked for.", path)
		}
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// TagPoint is the tag of a snapshot that says which recovery point of the disk
// it is to show; without it that is the newest one.
const TagPoint = "diskvault-recovery-point"

// ShowPoint makes the resource of a snapshot that shows a recovery point of a
// protected disk. A disk that is not protected has none that could be shown.
func (a Acting) ShowPoint(ctx context.Context, n resource.Snapshot, match string) (out resource.Snapshot, created bool, err error) {
	if _, err := catalog.Resource[resource.Snapshot](ctx, a.s.catalog, n.ID); err == nil {
		return a.PutSnapshot(ctx, n, match)
	}
	found, err := a.s.catalog.InstancesOf(ctx, n.Disk)
	if err != nil {
		return out, false, err
	}
	for _, i := range found {
		points, err := a.s.catalog.Points(ctx, i.ID)
		if err != nil {
			return out, false, err
		}
		if len(points) == 0 || i.Deletion != nil {
			continue
		}
		text := n.Tags[TagPoint]
		if text == "" {
			text = "latest"
		}
		p, err := choose(points, i.Name, text)
		if err != nil {
			return out, false, err
		}
		n.Instance, n.Point = i.ID, p.ID
		return a.PutSnapshot(ctx, n, match)
	}
	return out, false, problem.New(problem.DiskOptionUnsupported, "The disk %q has no recovery point that a snapshot could show.", n.Disk.Name()).Do("Protect it and back it up first; snapshots show recovery points.")
}
