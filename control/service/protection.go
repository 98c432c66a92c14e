package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/access"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/retention"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/capture"
)

const instances = "Microsoft.DataProtection/backupVaults/backupInstances/"

// InstanceRequest asks that a disk be protected as it says.
type InstanceRequest struct {
	ID           resource.ID // of the backup instance
	FriendlyName string
	Tags         map[string]string
	Disk         resource.ID
	Policy       resource.ID // in the same vault
	Snapshots    resource.ID // resource group of the operational tier
	ActsAs       resource.ID // user-assigned identity of the vault; empty: its own
	Match        string      // ETag that it must have; * for one that must exist
}

// PutInstance protects a disk, or changes its policy. It returns as soon as the
// request is accepted: the instance then is in the state ConfiguringProtection
// or UpdatingProtection, and Settle ends that. It tells whether it is new.
func (a Acting) PutInstance(ctx context.Context, r InstanceRequest) (out resource.Instance, created bool, err error) {
	out, err = act(ctx, a, instances+"write", r.ID, func() (resource.Instance, error) {
		wanted, err := a.s.wanted(ctx, r)
		if err != nil {
			return out, err
		}
		var old resource.Instance
		old, created, err = a.s.known(ctx, r.ID)
		if err != nil {
			return out, err
		}
		if created {
			if err := matches[resource.Instance](r.Match, nil); err != nil {
				return out, err
			}
			if err := a.s.alone(ctx, r); err != nil {
				return out, err
			}
			wanted.State, _, _ = resource.NotProtected.After(resource.Configure)
			return a.s.changeInstance(ctx, wanted.ID, func(*resource.Instance) (resource.Instance, error) { return wanted, nil })
		}
		return a.s.changeInstance(ctx, old.ID, func(old *resource.Instance) (resource.Instance, error) {
			if old == nil {
				return out, missing(catalog.ErrNotFound, r.ID)
			}
			if err := matches(r.Match, old); err != nil {
				return out, err
			}
			return changed(*old, wanted)
		})
	})
	return out, created, err
}

// known finds the instance under an ID; none is no error.
func (s *Service) known(ctx context.Context, id resource.ID) (i resource.Instance, none bool, err error) {
	i, err = s.catalog.Instance(ctx, id)
	if errors.Is(err, catalog.ErrNotFound) {
		return i, true, nil
	}
	return i, false, err
}

// changed says what an instance becomes by a request.
func changed(old, wanted resource.Instance) (resource.Instance, error) {
	i := old
	switch {
	case old.Deletion != nil:
		return i, problem.New(problem.ProtectionStateConflict, "The backup instance %q is deleted, and could be had back until %s.", old.Name, old.Deletion.Purge.Format(time.RFC3339)).
			Do("Undelete it, or choose another name.")
	case !old.DiskID.Same(wanted.DiskID) && old.DiskID != "":
		return i, problem.New(problem.PropertyFixed, "The backup instance %q protects the disk %s, which cannot be changed.", old.Name, old.DiskID)
	case !old.Snapshots.Same(wanted.Snapshots) && old.Snapshots != "":
		return i, problem.New(problem.PropertyFixed, "The backup instance %q keeps its recovery points in %s, which cannot be changed.", old.Name, old.Snapshots)
	}
	move := resource.Update
	if old.State == resource.ConfiguringProtectionFailed {
		move = resource.Configure
	}
	state, moved, err := old.State.After(move)
	if err != nil && (old.State == resource.ProtectionStopped || old.State == resource.BackupSchedulesSuspended) && old.Policy != wanted.Policy {
		// A disk that is not backed up can have its policy changed all the
		// same: the new one holds from the resumption on.
		state, moved, err = old.State, false, nil
	}
	if err != nil {
		return i, err
	}
	if moved {
		i.State = state
	}
	if i.Policy != wanted.Policy {
		i.Policy, i.Since = wanted.Policy, time.Now().UTC()
	}
	i.FriendlyName, i.Tags, i.ActsAs, i.Error = wanted.FriendlyName, wanted.Tags, wanted.ActsAs, nil
	return i, nil
}

// wanted checks what a request says by itself, and makes the instance of it.
func (s *Service) wanted(ctx context.Context, r InstanceRequest) (i resource.Instance, err error) {
	if err := resource.CheckInstanceName(r.ID.Name()); err != nil {
		return i, err
	}
	vaultID := r.ID.Parent()
	v, err := s.catalog.Vault(ctx, string(vaultID))
	if err != nil {
		return i, missing(err, vaultID)
	}
	if !r.Policy.Parent().Same(vaultID) {
		return i, problem.New(problem.InvalidArgument, "The policy %s does not belong to the vault %q.", r.Policy, v.Name).Do("Choose a policy of the same vault.")
	}
	p, err := s.catalog.Policy(ctx, string(vaultID), r.Policy.Name())
	if err != nil {
		return i, missing(err, r.Policy)
	}
	d, err := catalog.Resource[resource.Disk](ctx, s.catalog, r.Disk)
	if err != nil {
		if err = missing(err, r.Disk); problem.Is(err, problem.ResourceNotFound) {
			err = problem.New(problem.DiskGone, "There is no disk %s.", r.Disk).With("disk", string(r.Disk))
		}
		return i, err
	}
	if !resource.SameLocation(d.Location, v.Location) {
		return i, problem.New(problem.LocationConflict, "The disk %q lies in %s and the vault %q in %s; a vault protects the disks of its own location.", d.ID.Name(), d.Location, v.Name, v.Location).
			Do("Use a vault in " + d.Location + ".")
	}
	if r.Snapshots == "" {
		return i, problem.New(problem.SnapshotGroupMissing, "The request names no resource group for the recovery points.")
	}
	if r.Snapshots.Type() != resource.TypeGroup {
		return i, problem.New(problem.SnapshotGroupInvalid, "%q is no resource group.", r.Snapshots)
	}
	if r.Snapshots.Subscription() != d.ID.Subscription() {
		return i, problem.New(problem.SnapshotGroupElsewhere, "The resource group %q lies in another subscription than the disk %q.", r.Snapshots.Name(), d.ID.Name())
	}
	g, err := s.group(ctx, r.Snapshots)
	if err != nil {
		if problem.Is(err, problem.GroupNotFound) {
			err = problem.New(problem.SnapshotGroupGone, "There is no resource group %q for the recovery points.", r.Snapshots.Name())
		}
		return i, err
	}
	if r.ActsAs != "" {
		if _, ok := v.Identity.Of(r.ActsAs); !ok {
			return i, problem.New(problem.IdentityGone, "The vault %q does not have the identity %s.", v.Name, r.ActsAs)
		}
	}
	store, err := s.storeOfGroup(ctx, g)
	if err != nil {
		return i, err
	}
	name := r.FriendlyName
	if name == "" {
		name = d.ID.Name()
	}
	now := time.Now().UTC()
	return resource.Instance{
		ID: uuid.NewString(), Name: r.ID.Name(), FriendlyName: name, Tags: r.Tags, Disk: d.Source, Size: d.Size, DiskID: d.ID,
		Vault: v.Ref(), Policy: p.Name, Store: store, Snapshots: g.ID, ActsAs: r.ActsAs, Created: now, Since: now,
	}, nil
}

// storeOfGroup gives the store that a resource group stands for.
func (s *Service) storeOfGroup(ctx context.Context, g resource.Group) (string, error) {
	if g.Store != "" {
		return g.Store, nil
	}
	known, err := s.catalog.Stores(ctx)
	if err != nil {
		return "", err
	}
	if len(known) == 0 {
		return "", problem.New(problem.StoreNotFound, "There is no store yet that the resource group %q could stand for.", g.ID.Name()).
			Do("Make one: diskvault store create")
	}
	return known[0].ID, nil
}

// alone checks that no other instance protects the disk: there is at most one
// in all vaults. In the same vault a deleted one counts as well.
func (s *Service) alone(ctx context.Context, r InstanceRequest) error {
	others, err := s.catalog.InstancesOf(ctx, r.Disk)
	if err != nil {
		return err
	}
	for _, o := range others {
		id := o.ResourceID()
		if id.Same(r.ID) || o.Deletion != nil && !id.Parent().Same(r.ID.Parent()) {
			continue
		}
		return problem.New(problem.DiskProtected, "The disk %q is protected already, by the backup instance %q in the vault %q.", r.Disk.Name(), o.Name, id.Parent().Name()).
			With("backupInstanceId", string(id)).With("vaultId", string(id.Parent()))
	}
	return nil
}

// changeInstance changes an instance and its record.
func (s *Service) changeInstance(ctx context.Context, id string, decide func(old *resource.Instance) (resource.Instance, error)) (resource.Instance, error) {
	unlock, err := s.disks.lock(ctx, lockOf(id))
	if err != nil {
		return resource.Instance{}, err
	}
	defer unlock()
	return sealed(func(old *resource.Instance) (resource.Instance, error) {
		i, err := decide(old)
		return i.Normal(), err
	}, func() (resource.Instance, error) {
		found, err := s.catalog.InstancesNamed(ctx, id)
		for _, i := range found {
			if i.ID == id {
				return i, nil
			}
		}
		if err == nil {
			err = catalog.ErrNotFound
		}
		return resource.Instance{}, err
	}, func(i resource.Instance) error {
		st, _, err := s.openKnown(ctx, i.Store, "")
		if err != nil {
			return err
		}
		v, err := s.catalog.Vault(ctx, i.Vault)
		if err != nil {
			return err
		}
		p, err := s.catalog.Policy(ctx, i.Vault, i.Policy)
		if err != nil {
			return err
		}
		return s.seal(ctx, st, v, p, i)
	}, func(do func(old *resource.Instance) (resource.Instance, error)) (resource.Instance, error) {
		return s.catalog.ChangeInstance(ctx, id, do)
	})
}

// ValidateForBackup checks all that protecting a disk takes, and changes
// nothing.
func (a Acting) ValidateForBackup(ctx context.Context, r InstanceRequest) error {
	_, err := look(ctx, a, vaults+"validateForBackup/action", r.ID.Parent(), func() (struct{}, error) {
		i, err := a.s.wanted(ctx, r)
		if err == nil {
			err = a.s.alone(ctx, r)
		}
		if err == nil {
			err = a.s.ready(ctx, i, access.Validate)
		}
		return struct{}{}, err
	})
	return err
}

// ready checks that a backup of the instance could run now: the vault's
// identity may, and the source can be read.
func (s *Service) ready(ctx context.Context, i resource.Instance, w access.Work) error {
	report, err := s.preflight(ctx, i, w, "")
	if err == nil {
		err = report.Err()
	}
	if err != nil {
		return err
	}
	if i.Disk == "" {
		return problem.New(problem.SourceNotFound, "The disk %q names no source, so there is nothing to back up.", i.DiskID.Name()).
			Do("Make the disk with creationData.sourceUri, or tag it diskvault-source.")
	}
	_, err = disk.Probe(ctx, i.Disk)
	return err
}

// Settle ends what PutInstance began: it checks that the disk can be backed up,
// and moves the instance to ProtectionConfigured or to an error state that says
// why. It may be called again at any time, and after a crash.
func (s *Service) Settle(ctx context.Context, id string) (resource.Instance, error) {
	found, err := s.catalog.InstancesNamed(ctx, id)
	if err != nil || len(found) == 0 {
		return resource.Instance{}, err
	}
	if st := found[0].State; st != resource.ConfiguringProtection && st != resource.UpdatingProtection {
		return found[0], nil
	}
	bad := s.ready(ctx, found[0], access.Validate)
	if ctx.Err() != nil {
		return found[0], context.Cause(ctx)
	}
	return s.changeInstance(ctx, id, func(old *resource.Instance) (resource.Instance, error) {
		if old == nil {
			return resource.Instance{}, missing(catalog.ErrNotFound, found[0].ResourceID())
		}
		i := *old
		change := resource.Configured
		if bad != nil {
			change = resource.ConfigureFailed
			if i.State == resource.UpdatingProtection {
				change = resource.BackupsFail
			}
		}
		to, moved, err := i.State.After(change)
		if err != nil || !moved {
			return i, nil // somebody moved it on meanwhile
		}
		i.State, i.Error = to, resource.FailureOf(bad)
		return i, nil
	})
}

// Instance gives a backup instance that is not deleted.
func (a Acting) Instance(ctx context.Context, id resource.ID) (resource.Instance, error) {
	return look(ctx, a, instances+"read", id, func() (resource.Instance, error) { return a.s.live(ctx, id) })
}

func (s *Service) live(ctx context.Context, id resource.ID) (resource.Instance, error) {
	i, err := s.catalog.Instance(ctx, id)
	if err == nil && i.Deletion != nil {
		err = catalog.ErrNotFound
	}
	return i, missing(err, id)
}

// Instances lists the backup instances of a vault that are not deleted.
func (a Acting) Instances(ctx context.Context, vault resource.ID, p Page) ([]resource.Instance, error) {
	return look(ctx, a, instances+"read", vault, func() ([]resource.Instance, error) {
		if _, err := a.s.catalog.Vault(ctx, string(vault)); err != nil {
			return nil, missing(err, vault)
		}
		return a.s.catalog.InstancesIn(ctx, vault, false, p.catalog())
	})
}

// change moves an instance to another state; moved tells whether it was in
// another.
func (a Acting) change(ctx context.Context, id resource.ID, action string, c resource.ProtectionChange) (out resource.Instance, moved bool, err error) {
	out, err = act(ctx, a, instances+action+"/action", id, func() (resource.Instance, error) {
		i, err := a.s.live(ctx, id)
		if err != nil {
			return i, err
		}
		// Nothing is written where nothing changes.
		if _, would, err := i.State.After(c); err != nil || !would {
			return i, err
		}
		return a.s.changeInstance(ctx, i.ID, func(old *resource.Instance) (resource.Instance, error) {
			if old == nil {
				return i, missing(catalog.ErrNotFound, id)
			}
			n := *old
			to, would, err := n.State.After(c)
			if err != nil {
				return n, err
			}
			moved = would
			if would && to == resource.ProtectionConfigured {
				n.Since = time.Now().UTC() // slots of the time between were not missed
			}
			n.State = to
			return n, nil
		})
	})
	return out, moved, err
}

// StopProtection ends backups and keeps all points for ever.
func (a Acting) StopProtection(ctx context.Context, id resource.ID) (resource.Instance, bool, error) {
	i, moved, err := a.change(ctx, id, "stopProtection", resource.StopProtection)
	if err == nil && moved {
		a.s.forgetCaptures(ctx, i)
	}
	return i, moved, err
}

// SuspendBackups ends backups; points expire by their rules, but for the last.
func (a Acting) SuspendBackups(ctx context.Context, id resource.ID) (resource.Instance, bool, error) {
	return a.change(ctx, id, "suspendBackups", resource.SuspendBackups)
}

// ResumeProtection undoes StopProtection.
func (a Acting) ResumeProtection(ctx context.Context, id resource.ID) (resource.Instance, bool, error) {
	return a.change(ctx, id, "resumeProtection", resource.ResumeProtection)
}

// ResumeBackups undoes SuspendBackups.
func (a Acting) ResumeBackups(ctx context.Context, id resource.ID) (resource.Instance, bool, error) {
	return a.change(ctx, id, "resumeBackups", resource.ResumeBackups)
}

// DeleteInstance ends the protection of a disk and deletes its points: at once,
// or after the time in which it can be undeleted, by the vault's setting.
// secureByDefault is the rule of api-versions from 2025-09-01 on. False: it is
// not there.
func (a Acting) DeleteInstance(ctx context.Context, id resource.ID, secureByDefault bool) (bool, error) {
	return act(ctx, a, instances+"delete", id, func() (bool, error) {
		i, none, err := a.s.known(ctx, id)
		if err != nil || none || i.Deletion != nil {
			return false, err
		}
		v, err := a.s.catalog.Vault(ctx, i.Vault)
		if err != nil {
			return false, err
		}
		now := time.Now().UTC()
		removal := retention.Remove(v.SoftDelete, secureByDefault, now)
		i, err = a.s.changeInstance(ctx, i.ID, func(old *resource.Instance) (resource.Instance, error) {
			if old == nil {
				return i, missing(catalog.ErrNotFound, id)
			}
			n := *old
			to, _, err := n.State.After(resource.Delete)
			if err != nil {
				return n, err
			}
			if n.State, _, err = to.After(resource.Deleted); err != nil {
				return n, err
			}
			n.Deletion = &resource.Deletion{Time: now, Purge: removal.Purge, Activity: a.who.Activity}
			return n, nil
		})
		if err != nil {
			return false, err
		}
		a.s.forgetCaptures(ctx, i)
		if !removal.Soft {
			return true, a.s.purge(ctx, i, now)
		}
		return true, nil
	})
}

// DeletedInstances lists the deleted instances of a vault that can be undeleted.
func (a Acting) DeletedInstances(ctx context.Context, vault resource.ID, p Page) ([]resource.Instance, error) {
	return look(ctx, a, vaults+"deletedBackupInstances/read", vault, func() ([]resource.Instance, error) {
		if _, err := a.s.catalog.Vault(ctx, string(vault)); err != nil {
			return nil, missing(err, vault)
		}
		return a.s.catalog.InstancesIn(ctx, vault, true, p.catalog())
	})
}

// DeletedInstance gives a deleted instance by the ID that it had.
func (a Acting) DeletedInstance(ctx context.Context, id resource.ID) (resource.Instance, error) {
	return look(ctx, a, vaults+"deletedBackupInstances/read", id, func() (resource.Instance, error) { return a.s.deleted(ctx, id) })
}

func (s *Service) deleted(ctx context.Context, id resource.ID) (resource.Instance, error) {
	i, err := s.catalog.Instance(ctx, id)
	if err == nil && i.Deletion == nil {
		err = catalog.ErrNotFound
	}
	return i, missing(err, id)
}

// Undelete takes a deletion back, by the ID that the instance had. Its
// protection is stopped then, until it is resumed.
func (a Acting) Undelete(ctx context.Context, id resource.ID) (resource.Instance, error) {
	return act(ctx, a, vaults+"deletedBackupInstances/undelete/action", id, func() (resource.Instance, error) {
		i, err := a.s.deleted(ctx, id)
		if err != nil {
			return i, err
		}
		// The disk may be protected in another vault by now.
		if err := a.s.alone(ctx, InstanceRequest{ID: id, Disk: i.DiskID}); err != nil {
			return i, err
		}
		return a.s.changeInstance(ctx, i.ID, func(old *resource.Instance) (resource.Instance, error) {
			if old == nil || old.Deletion == nil {
				return i, missing(catalog.ErrNotFound, id)
			}
			n := *old
			if !time.Now().Before(n.Deletion.Purge) {
				return i, missing(catalog.ErrNotFound, id) // its points are going already
			}
			to, _, err := n.State.After(resource.Undelete)
			n.State, n.Deletion = to, nil
			return n, err
		})
	})
}

// forgetCaptures removes what is kept beside the disk of an instance that is not
// backed up any more: it takes up room that grows as the disk is written to. The
// next backup, if there ever is one, reads all of the disk. It is no failure of
// the request if that fails, since the disk may be gone or its machine be off.
func (s *Service) forgetCaptures(ctx context.Context, i resource.Instance) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgetLimit)
	defer cancel()
	// A running backup would keep its capture after this. Who deletes need not
	// wait for it: purge comes here again.
	unlock, err := s.disks.lock(ctx, i.Disk)
	if err != nil {
		return
	}
	defer unlock()
	s.dropCaptures(ctx, i)
}

// forgetLimit bounds how long a request waits for captures to go.
const forgetLimit = 10 * time.Second

// dropCaptures is forgetCaptures for who holds the lock of the disk.
func (s *Service) dropCaptures(ctx context.Context, i resource.Instance) {
	var last []byte
	if points, err := s.catalog.Points(ctx, i.ID); err == nil && len(points) > 0 {
		last = points[0].CaptureBase
	}
	_ = capture.Forget(ctx, i.ID, i.Disk, last)
}

// purge removes a deleted instance and its points for good: first the points,
// then its record, then the row, so that a crash in between leaves a deleted
// instance that is purged again.
func (s *Service) purge(ctx context.Context, i resource.Instance, now time.Time) error {
	if i.Deletion == nil || now.Before(i.Deletion.Purge) {
		return fmt.Errorf("the backup instance %s is not to be purged", i.ID)
	}
	if paused, err := s.catalog.Fact(ctx, catalog.RetentionPaused); err != nil || paused != "" {
		return err // a person confirms first
	}
	unlock, err := s.disks.lock(ctx, i.Disk)
	if err != nil {
		return err
	}
	defer unlock()
	s.dropCaptures(ctx, i)
	points, err := s.catalog.Points(ctx, i.ID)
	if err != nil {
		return err
	}
	for _, p := range points {
		for _, q := range p.Placements {
			st, _, err := s.openKnown(ctx, q.Store, "")
			if err != nil {
				return err
			}
			if err := st.DeletePoint(ctx, p.ID); err != nil && !problem.Is(err, problem.RecoveryPointNotFound) {
				return err
			}
		}
	}
	st, _, err := s.openKnown(ctx, i.Store, "")
	if err != nil {
		return err
	}
	if err := st.PutRecord(ctx, recordInstance, i.ID, json.RawMessage("null")); err != nil {
		return err
	}
	_, err = s.catalog.RemoveInstance(ctx, i.ID)
	return err
}
