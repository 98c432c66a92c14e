package capture

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/lvm"
	"github.com/diskvault/diskvault/disk/qemu"
	"github.com/diskvault/diskvault/disk/rbd"
)

// Forget removes all that was kept for an owner between backups of a disk: its
// clones, snapshots and records of changes. source is the path or URL of the
// disk, which need not be there any more if it was a file, and stored what the
// last recovery point says of its capture; nil: nothing. What a running backup
// uses stays. A later backup reads all of the disk.
func Forget(ctx context.Context, owner, source string, stored []byte) error {
	if !plain.MatchString(owner) {
		return nil // nothing is kept for such a one
	}
	if filepath.IsAbs(source) {
		err := sweep(filepath.Dir(source), owner, "")
		if t, bad := parseToken(stored); bad == nil && t.Folder != "" && t.Folder != filepath.Dir(source) {
			err = errors.Join(err, sweep(t.Folder, owner, ""))
		}
		return err
	}
	src, err := disk.Probe(ctx, source)
	if err != nil {
		return err
	}
	switch src.Kind {
	case disk.Machine:
		return forgetRecords(ctx, owner, src)
	case disk.Ceph:
		address, err := rbd.ParseAddress(src.Path)
		if err != nil {
			return err
		}
		i, err := rbd.Open(ctx, address)
		if err != nil {
			return err
		}
		return removeAll(ctx, imageSnapshots{i, owner})
	case disk.Thin:
		volume, err := lvm.Open(ctx, src.Path)
		if err != nil {
			return err
		}
		return removeAll(ctx, volumeSnapshots{volume, owner})
	}
	return nil
}

func forgetRecords(ctx context.Context, owner string, src *disk.Source) (err error) {
	address, err := qemu.ParseAddress(src.Path)
	if err != nil {
		return err
	}
	m, err := qemu.Open(ctx, address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	d, err := m.Disk(ctx, address.Device)
	if err != nil {
		return err
	}
	d.Owner = owner
	return m.Forget(ctx, d)
}

func removeAll(ctx context.Context, s snapshots) error {
	all, err := s.names(ctx)
	for _, name := range all {
		err = errors.Join(err, s.remove(ctx, name))
	}
	return err
}
