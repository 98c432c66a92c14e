package service

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/access"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/home"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/retention"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/engine/restore"
)

// doQueued does the work of a job that nobody waits for.
func (s *Service) doQueued(ctx context.Context, j resource.Job, run *job.Run) (job.Outcome, error) {
	var r queuedRequest
	if err := json.Unmarshal(j.Request, &r); err != nil {
		return job.Outcome{}, problem.Wrap(err, problem.InvalidArgument, "The job %s cannot be read.", j.ID)
	}
	found, err := s.catalog.InstancesNamed(ctx, j.InstanceID)
	if err != nil {
		return job.Outcome{}, err
	}
	if len(found) == 0 {
		return job.Outcome{}, problem.New(problem.InstanceNotFound, "The backup instance %q is gone.", j.Instance)
	}
	switch j.Operation {
	case resource.OperationBackup:
		return s.queuedBackup(ctx, j, found[0], r, run)
	case resource.OperationCopy:
		return s.queuedCopy(ctx, j, found[0], r, run)
	case resource.OperationRestore:
		return s.queuedRestore(ctx, j, found[0], r, run)
	}
	return job.Outcome{}, problem.New(problem.InvalidArgument, "This diskvault does not know the operation %q.", j.Operation)
}

func (s *Service) queuedBackup(ctx context.Context, j resource.Job, i resource.Instance, r queuedRequest, run *job.Run) (job.Outcome, error) {
	// The same checks as before protection, since roles and states change.
	if err := backsUp(i); err != nil {
		return job.Outcome{}, err
	}
	report, err := s.preflight(ctx, i, access.Backup, "")
	if err == nil {
		err = report.Err()
	}
	if err != nil {
		return job.Outcome{}, s.troubled(ctx, i, err)
	}
	points, err := s.catalog.Points(ctx, i.ID)
	if err != nil {
		return job.Outcome{}, err
	}
	if err := retention.Admit(operational(points)); err != nil {
		return job.Outcome{}, err
	}
	if r.Tag == "" && j.Slot != nil {
		if r.Tag, err = s.scheduledTag(ctx, i, *j.Slot); err != nil {
			return job.Outcome{}, err
		}
	}
	src, err := disk.Probe(ctx, i.Disk)
	if err != nil {
		return job.Outcome{}, s.troubled(ctx, i, err)
	}
	var result BackupResult
	outcome, err := s.first(func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		var err error
		result, err = s.backupSource(ctx, quiet(), BackupRequest{Instance: i.ID, Disk: i.Disk, Path: i.Disk, RetentionTag: r.Tag, Trigger: j.Trigger}, src, run)
		return job.Outcome{Result: result, Warnings: result.Status == resource.CompletedWithWarnings}, err
	})(ctx, run)
	if err != nil {
		return outcome, s.troubled(ctx, i, err)
	}
	kept := context.WithoutCancel(ctx) // the point exists
	run.Note(func(j *resource.Job) {
		j.Point, j.PointAt, j.Tag = result.RecoveryPoint.ID, &result.RecoveryPoint.Time, result.RecoveryPoint.RetentionTag
	})
	if j.Slot != nil {
		if err := s.catalog.SetGoodSlot(kept, i.ID, *j.Slot); err != nil {
			return outcome, err
		}
	}
	if err := s.mended(kept, i); err != nil {
		return outcome, err
	}
	// If this fails, the scheduler sees to it later.
	_ = s.queueCopies(kept, i.ID)
	return outcome, nil
}

// quiet is a call that nobody hears.
func quiet() call { return call{asked: time.Now(), emit: func(home.Event) {}} }

// scheduledTag is the retention tag of the backup for a slot.
func (s *Service) scheduledTag(ctx context.Context, i resource.Instance, slot time.Time) (string, error) {
	p, err := s.catalog.Policy(ctx, i.Vault, i.Policy)
	if err != nil {
		return "", missing(err, i.PolicyID())
	}
	last, err := s.catalog.GoodSlot(ctx, i.ID)
	if err != nil {
		return "", err
	}
	t, err := retention.Scheduled(p, last, slot)
	return t.Rule.Tag, err
}

// troubled moves an instance to ProtectionError if a person has to mend what a
// backup failed for. It returns the error of the backup.
func (s *Service) troubled(ctx context.Context, i resource.Instance, err error) error {
	f := resource.FailureOf(err)
	if ctx.Err() != nil || f.Retryable() || f.Kind != problem.Refused && f.Kind != problem.NotFound {
		return err
	}
	// If this fails the job still says why.
	_, _ = s.changeInstance(ctx, i.ID, func(old *resource.Instance) (resource.Instance, error) {
		if old == nil {
			return i, catalog.ErrNotFound
		}
		n := *old
		to, _, err := n.State.After(resource.BackupsFail)
		if err != nil && n.State != resource.ProtectionError {
			return n, err
		}
		n.State, n.Error = to, f
		return n, nil
	})
	return err
}

// mended moves an instance out of ProtectionError after a backup.
func (s *Service) mended(ctx context.Context, i resource.Instance) error {
	if i.State != resource.ProtectionError {
		return nil
	}
	_, err := s.changeInstance(ctx, i.ID, func(old *resource.Instance) (resource.Instance, error) {
		if old == nil {
			return i, missing(catalog.ErrNotFound, i.ResourceID())
		}
		n := *old
		if to, moved, err := n.State.After(resource.BackupsWork); err == nil && moved {
			n.State, n.Error = to, nil
		}
		return n, nil
	})
	return err
}

func (s *Service) queuedRestore(ctx context.Context, j resource.Job, i resource.Instance, r queuedRequest, run *job.Run) (job.Outcome, error) {
	report, err := s.preflight(ctx, i, access.Restore, j.Target.GroupID())
	if err == nil {
		err = report.Err()
	}
	if err != nil {
		return job.Outcome{}, err
	}
	points, err := s.catalog.Points(ctx, i.ID)
	if err != nil {
		return job.Outcome{}, err
	}
	p, err := pointOf(points, i.Name, r.Point)
	if err != nil {
		return job.Outcome{}, err
	}
	at, err := s.locate(ctx, p, "")
	if err != nil {
		return job.Outcome{}, err
	}
	if err := os.MkdirAll(filepath.Dir(r.To), 0o750); err != nil {
		return job.Outcome{}, problem.Wrap(err, problem.TargetNotWritable, "The folder of the new disk, %s, cannot be made.", filepath.Dir(r.To))
	}
	return s.first(func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		// A file that is there is not touched, unless an attempt of this very
		// restore left it: that is known by what it left beside it.
		engine := restore.New(restore.Options{Store: at.store, Point: at.point, To: r.To, Meter: run.Meter})
		run.Follow(func() resource.Progress { return restoreProgress(engine.Progress()) })
		began := time.Now()
		done, err := engine.Do(ctx)
		if err != nil {
			return job.Outcome{}, at.elsewhere(err)
		}
		result := RestoreResult{JobID: run.ID, Store: at.store.URL(), Instance: i.Name, Point: p.ID, PointTime: p.Time, Target: done.Target,
			Bytes:    RestoreBytes{Written: done.Written, Zero: done.Zero, Skipped: done.Skipped},
			Verified: done.Verified, Resumed: done.Resumed, Warnings: done.Warnings, DurationSeconds: time.Since(began).Seconds(), Phases: run.Meter.Record().Phases}
		if err := s.bornOf(context.WithoutCancel(ctx), j.Target, i, p, r.To); err != nil {
			return job.Outcome{Result: result}, err
		}
		return job.Outcome{Result: result, Warnings: len(done.Warnings) > 0}, nil
	})(ctx, run)
}

// bornOf makes the resource of a restored disk.
func (s *Service) bornOf(ctx context.Context, id resource.ID, i resource.Instance, p catalog.Point, path string) error {
	old, err := catalog.Resource[resource.Disk](ctx, s.catalog, i.DiskID)
	if err != nil {
		old = resource.Disk{} // the disk itself may be gone: that is what restores are for
	}
	v, err := s.catalog.Vault(ctx, i.Vault)
	if err != nil {
		return missing(err, resource.VaultID(i.Vault))
	}
	_, err = putResource(ctx, s, id, func(have *resource.Disk) (resource.Disk, error) {
		if have != nil {
			return *have, nil
		}
		return resource.Disk{ID: id, Location: v.Location, SKU: old.SKU, Source: path, Size: p.Size, UniqueID: uuid.NewString(), Created: time.Now().UTC()}, nil
	})
	return err
}
