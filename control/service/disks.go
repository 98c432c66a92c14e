package service

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
)

const (
	disks     = "Microsoft.Compute/disks/"
	snapshots = "Microsoft.Compute/snapshots/"
)

// PutDisk makes the resource of a disk or replaces what may change of it: the
// source is fixed once it is set, and the size only grows. It tells whether
// the disk is new.
func (a Acting) PutDisk(ctx context.Context, d resource.Disk, match string) (out resource.Disk, created bool, err error) {
	out, err = act(ctx, a, disks+"write", d.ID, func() (resource.Disk, error) {
		if err := resource.CheckInstanceName(d.ID.Name()); err != nil {
			return resource.Disk{}, err
		}
		if err := a.s.inGroup(ctx, d.ID); err != nil {
			return resource.Disk{}, err
		}
		source, err := sourceOf(d.Source)
		if err != nil {
			return resource.Disk{}, err
		}
		return putResource(ctx, a.s, d.ID, func(old *resource.Disk) (resource.Disk, error) {
			created = old == nil
			if err := matches(match, old); err != nil {
				return resource.Disk{}, err
			}
			n := d
			n.Source, n.Location, n.Created, n.UniqueID = source, resource.Location(d.Location), time.Now().UTC(), uuid.NewString()
			if old == nil {
				if n.Location == "" {
					return resource.Disk{}, problem.New(problem.InvalidArgument, "The disk %q needs a location.", n.ID.Name()).Do("Give the site whose hosts reach its source.")
				}
				return n, nil
			}
			n.ID, n.Created, n.UniqueID = old.ID, old.Created, old.UniqueID
			if n.Location == "" {
				n.Location = old.Location
			}
			if n.Source == "" {
				n.Source = old.Source
			}
			switch {
			case n.Location != old.Location:
				return resource.Disk{}, problem.New(problem.LocationConflict, "The disk %q lies in %s and cannot move to %s.", n.ID.Name(), old.Location, n.Location)
			case old.Source != "" && n.Source != old.Source:
				return resource.Disk{}, problem.New(problem.PropertyFixed, "The disk %q has the source %s, which cannot be changed.", n.ID.Name(), old.Source)
			case n.Size < old.Size && n.Size != 0:
				return resource.Disk{}, problem.New(problem.PropertyFixed, "The disk %q has %s; it can grow, and not shrink.", n.ID.Name(), byteText(old.Size))
			}
			n.Size = max(n.Size, old.Size)
			return n, nil
		})
	})
	return out, created, err
}

// sourceOf reads what a disk's resource says of its source: file:///path, or
// an absolute path, or a URL of another kind.
func sourceOf(text string) (string, error) {
	path, isFile := strings.CutPrefix(text, "file://")
	if isFile || strings.HasPrefix(text, "/") {
		if !filepath.IsAbs(path) {
			return "", problem.New(problem.InvalidArgument, "The source %q is no absolute path.", text).Do("Write it as file:///path.")
		}
		return filepath.Clean(path), nil
	}
	return text, nil
}

// Disk gives the resource of a disk.
func (a Acting) Disk(ctx context.Context, id resource.ID) (resource.Disk, error) {
	return look(ctx, a, disks+"read", id, func() (resource.Disk, error) {
		d, err := catalog.Resource[resource.Disk](ctx, a.s.catalog, id)
		return d, missing(err, id)
	})
}

// Disks lists the disks of a resource group or subscription.
func (a Acting) Disks(ctx context.Context, scope resource.ID, p Page) ([]resource.Disk, error) {
	return look(ctx, a, disks+"read", scope, func() ([]resource.Disk, error) {
		return catalog.Resources[resource.Disk](ctx, a.s.catalog, resource.TypeDisk, scope, p.catalog())
	})
}

// DeleteDisk removes the resource of a disk, never its bytes; false if it is
// not there. Its recovery points stay.
func (a Acting) DeleteDisk(ctx context.Context, id resource.ID) (bool, error) {
	return act(ctx, a, disks+"delete", id, func() (bool, error) { return a.s.dropResource(ctx, id) })
}

// PutSnapshot makes the resource of a snapshot that a client asked for, of a
// recovery point that exists; what it shows cannot be changed.
func (a Acting) PutSnapshot(ctx context.Context, n resource.Snapshot, match string) (out resource.Snapshot, created bool, err error) {
	out, err = act(ctx, a, snapshots+"write", n.ID, func() (resource.Snapshot, error) {
		if err := resource.CheckInstanceName(n.ID.Name()); err != nil {
			return resource.Snapshot{}, err
		}
		if err := a.s.inGroup(ctx, n.ID); err != nil {
			return resource.Snapshot{}, err
		}
		d, err := catalog.Resource[resource.Disk](ctx, a.s.catalog, n.Disk)
		if err != nil {
			return resource.Snapshot{}, missing(err, n.Disk)
		}
		// Who makes a snapshot reads the disk.
		if err := a.may(ctx, disks+"beginGetAccess/action", n.Disk); err != nil {
			return resource.Snapshot{}, err
		}
		return putResource(ctx, a.s, n.ID, func(old *resource.Snapshot) (resource.Snapshot, error) {
			created = old == nil
			if err := matches(match, old); err != nil {
				return resource.Snapshot{}, err
			}
			s := n
			s.Disk, s.DiskUnique, s.Size, s.Location = d.ID, d.UniqueID, d.Size, d.Location
			s.Created, s.UniqueID = time.Now().UTC(), uuid.NewString()
			if old == nil {
				return s, nil
			}
			if !old.Disk.Same(d.ID) || s.Point != "" && s.Point != old.Point {
				return resource.Snapshot{}, problem.New(problem.PropertyFixed, "The snapshot %q shows something else, which cannot be changed.", n.ID.Name())
			}
			kept := *old
			kept.Tags, kept.Properties = n.Tags, n.Properties
			return kept, nil
		})
	})
	return out, created, err
}

// Snapshot gives the resource of a snapshot.
func (a Acting) Snapshot(ctx context.Context, id resource.ID) (resource.Snapshot, error) {
	return look(ctx, a, snapshots+"read", id, func() (resource.Snapshot, error) {
		n, err := catalog.Resource[resource.Snapshot](ctx, a.s.catalog, id)
		return n, missing(err, id)
	})
}

// Snapshots lists the snapshots of a resource group or subscription.
func (a Acting) Snapshots(ctx context.Context, scope resource.ID, p Page) ([]resource.Snapshot, error) {
	return look(ctx, a, snapshots+"read", scope, func() ([]resource.Snapshot, error) {
		return catalog.Resources[resource.Snapshot](ctx, a.s.catalog, resource.TypeSnapshot, scope, p.catalog())
	})
}

// DeleteSnapshot removes the resource of a snapshot; false if it is not there.
func (a Acting) DeleteSnapshot(ctx context.Context, id resource.ID) (bool, error) {
	return act(ctx, a, snapshots+"delete", id, func() (bool, error) { return a.s.dropResource(ctx, id) })
}
