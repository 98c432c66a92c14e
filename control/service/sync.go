package service

import (
	"context"

	"github.com/diskvault/diskvault/control/access"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
)

// DiskFree returns a problem if a disk is protected by another instance: what
// a validation answers at once.
func (a Acting) DiskFree(ctx context.Context, r InstanceRequest) error {
	_, err := look(ctx, a, vaults+"validateForBackup/action", r.ID.Parent(), func() (struct{}, error) { return struct{}{}, a.s.alone(ctx, r) })
	return err
}

// Configure ends what PutInstance began, as Settle does, and returns the error
// for which the disk is not protected.
func (a Acting) Configure(ctx context.Context, i resource.Instance) error {
	done, err := a.s.Settle(ctx, i.ID)
	if err == nil && done.Error != nil && done.State != resource.ProtectionConfigured {
		return done.Error.Problem()
	}
	return err
}

// Sync tries again what failed when an instance was last configured or backed
// up, and moves it out of its error state if that is mended.
func (a Acting) Sync(ctx context.Context, id resource.ID) error {
	i, err := act(ctx, a, instances+"sync/action", id, func() (resource.Instance, error) {
		i, err := a.s.live(ctx, id)
		if err != nil || i.State != resource.ConfiguringProtectionFailed {
			return i, err
		}
		return a.s.changeInstance(ctx, i.ID, func(old *resource.Instance) (resource.Instance, error) {
			if old == nil {
				return i, missing(catalog.ErrNotFound, id)
			}
			n := *old
			to, _, err := n.State.After(resource.Configure)
			n.State, n.Error = to, nil
			return n, err
		})
	})
	if err != nil {
		return err
	}
	if i.State == resource.ProtectionError {
		if err := a.s.ready(ctx, i, access.Backup); err != nil {
			return err
		}
		return a.s.mended(ctx, i)
	}
	return a.Configure(ctx, i)
}

// VaultGuarded tells whether a resource guard guards a vault.
func (a Acting) VaultGuarded(ctx context.Context, vault resource.ID) (bool, error) {
	return look(ctx, a, vaults+"read", vault, func() (bool, error) {
		found, err := a.s.proxies(ctx, vault)
		return len(found) > 0, err
	})
}

// JobInstances gives the IDs of the backup instances that jobs of a vault were
// for, by their GUIDs; those that are gone are left out.
func (a Acting) JobInstances(ctx context.Context, vault resource.ID, jobs ...resource.Job) (map[string]resource.ID, error) {
	return look(ctx, a, vaults+"backupJobs/read", vault, func() (map[string]resource.ID, error) {
		out := map[string]resource.ID{}
		for _, j := range jobs {
			if _, seen := out[j.InstanceID]; seen || j.InstanceID == "" {
				continue
			}
			found, err := a.s.catalog.InstancesNamed(ctx, j.InstanceID)
			if err != nil {
				return nil, err
			}
			for _, i := range found {
				if i.ID == j.InstanceID {
					out[i.ID] = i.ResourceID()
				}
			}
		}
		return out, nil
	})
}
