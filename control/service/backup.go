package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/capture"
	"github.com/diskvault/diskvault/engine/backup"
	"github.com/diskvault/diskvault/store"
)

// backup is the use case of Client.Backup.
func (s *Service) backup(ctx context.Context, c call, r BackupRequest) (BackupResult, error) {
	var result BackupResult
	path, known, err := s.diskPath(ctx, r)
	if err != nil {
		return result, err
	}
	if known == nil {
		// A disk that is not protected yet is refused before there is a
		// job; a protected one that cannot be read is a failed job.
		src, err := disk.Probe(ctx, path)
		if err != nil {
			return result, err
		}
		if known, err = s.match(ctx, c, r, src); err != nil {
			return result, err
		}
	}
	spec := c.spec(resource.OperationBackup)
	if known != nil {
		spec.InstanceID, spec.Instance = known.ID, known.Name
	}
	err = s.jobs.Do(ctx, spec, s.first(func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		src, err := disk.Probe(ctx, path)
		if err != nil {
			return job.Outcome{}, err
		}
		result, err = s.backupSource(ctx, c, r, src, run)
		if err != nil && !problem.Is(err, problem.OperationInterrupted) {
			err = s.kept(ctx, err, src.Path, 0) // interrupted before there was anything to keep
		}
		return job.Outcome{Result: result, Warnings: result.Status == resource.CompletedWithWarnings}, err
	}))
	if err != nil {
		return result, err
	}
	s.copyAfter(ctx, c, &result)
	return result, nil
}

// diskPath finds out what a person meant by DISK: a path, or the name of a
// protected disk where there is no such path. The instance is given where the
// words alone name it.
func (s *Service) diskPath(ctx context.Context, r BackupRequest) (string, *resource.Instance, error) {
	_, err := os.Lstat(r.Path)
	exists := err == nil
	found, err := s.named(ctx, r.Disk, r.Path)
	if err != nil {
		return "", nil, err
	}
	if !exists && len(found) == 1 && r.Name == "" {
		return found[0].Disk, &found[0], nil
	}
	if r.Path == "" {
		return r.Disk, nil, nil // a URL, which the probe judges
	}
	return r.Path, nil, nil
}

// backupSource runs one backup as a job.
func (s *Service) backupSource(ctx context.Context, c call, r BackupRequest, src *disk.Source, run *job.Run) (BackupResult, error) {
	nothing := BackupResult{JobID: run.ID, Disk: src.Path}
	// One operation at a time on a disk: two would only read it twice.
	waited := run.Meter.Wait("disk lock", "another operation on "+src.Path)
	unlock, err := s.disks.lock(ctx, src.Path)
	waited()
	if err != nil {
		return nothing, err
	}
	defer unlock()
	i, made, err := s.instanceFor(ctx, c, r, src)
	if err != nil {
		return nothing, err
	}
	return s.backupInstance(ctx, c, r, src, run, i, made, nil)
}

// backupInstance backs up a disk that the caller holds the lock of. made tells
// what its protection made, if it was not protected before. In a consistency
// group it is captured when the others are; nil: it stands alone.
func (s *Service) backupInstance(ctx context.Context, c call, r BackupRequest, src *disk.Source, run *job.Run, i resource.Instance, made *Created, group *meeting) (BackupResult, error) {
	result := BackupResult{JobID: run.ID, Disk: src.Path}
	result.Created = made
	result.Instance, result.InstanceID = i.Name, i.ID
	run.Describe(i.ID, i.Name)

	st, row, err := s.openKnown(ctx, i.Store, r.Key)
	if err != nil {
		return result, err
	}
	if r.URL != "" && made == nil {
		if err := s.sameStore(ctx, r, i, row); err != nil {
			return result, err
		}
	}
	if err := s.remindRecoveryKey(ctx, c, st, row); err != nil {
		return result, err
	}
	for _, n := range st.Notices() {
		c.notice(resource.Notice{Name: "Store", Message: n})
	}
	if err := s.syncPoints(ctx); err != nil {
		return result, err
	}
	policy, err := s.catalog.Policy(ctx, i.Vault, i.Policy)
	if err != nil {
		return result, err
	}
	rule, err := policy.Rule(r.RetentionTag)
	if err != nil {
		return result, err
	}
	points, err := s.catalog.Points(ctx, i.ID)
	if err != nil {
		return result, err
	}
	if src.Format.Container() && !src.Inside() {
		c.notice(resource.Notice{Name: "ContainerFormat", Message: fmt.Sprintf("%s is a %s container. It is backed up as it is, byte for byte: a restore gives the same container, not the disk inside.", src.Path, src.Format)})
	}
	result.First = len(points) == 0
	if result.First {
		s.firstNotices(c, src, row)
	}

	options := backup.Options{
		Store: st, Source: src, Meter: run.Meter,
		Point: store.Point{
			Instance: i.ID, Name: i.Name, Disk: i.Disk, Vault: i.Vault, Policy: i.Policy, Trigger: r.trigger(),
			RetentionTag: rule.Tag, Retention: string(rule.Duration), VaultRetention: string(rule.VaultDuration),
		},
		Compression: store.Compression(r.Compression), FullScan: r.FullScan, AllowInconsistent: r.AllowInconsistent, AllowUnreadable: r.AllowUnreadable, AcceptReplaced: r.AcceptReplaced, LimitRate: r.LimitRate,
		Capturer: capture.Options{Owner: i.ID, StallBudget: r.StallBudget}, FullReadEvery: time.Duration(r.FullReadDays) * 24 * time.Hour,
	}
	for _, p := range points {
		if p.Store == row.ID && placedIn(p, row.ID) {
			options.Parent = &p.Point
			break
		}
	}
	if group != nil {
		options.Capturer, options.Point.Group, options.Point.GroupInstances = group, group.id, group.instances
	}
	engine := backup.New(options)
	run.Follow(func() resource.Progress { return backupProgress(engine.Progress()) })
	watched := s.watch(ctx, src, row, run)
	done, err := engine.Do(ctx)
	watched()
	for _, n := range done.Notices {
		c.notice(resource.Notice{Name: "Capture", Message: n})
	}
	if err != nil {
		return result, s.kept(ctx, err, i.Name, engine.Progress().Bytes.Stored)
	}
	if err := s.resealMoved(ctx, i); err != nil {
		return result, err
	}
	result.SourceKind, result.StoreID, result.Compression, result.LimitRate = string(src.Kind), row.ID, r.Compression, r.LimitRate
	if result, err = s.finishBackup(ctx, result, i, src, row, done, run); err != nil {
		return result, err
	}
	result.Verdict = s.judge(ctx, result, i, run, r.MinExcess)
	return result, nil
}

// resealMoved writes the record of an instance anew if its disk lies elsewhere
// than the catalog knows. All else that the record says is as it is now, which
// may be something else than when the backup began.
func (s *Service) resealMoved(ctx context.Context, i resource.Instance) error {
	old, err := s.catalog.InstancesNamed(ctx, i.ID)
	if err != nil || len(old) == 1 && old[0].Disk == i.Disk {
		return err
	}
	_, err = s.changeInstance(context.WithoutCancel(ctx), i.ID, func(old *resource.Instance) (resource.Instance, error) {
		if old == nil {
			return i, nil
		}
		n := *old
		n.Disk = i.Disk
		return n, nil
	})
	return err
}

// instanceFor gives the instance of a source, and protects it if it has none;
// then it tells what that made.
func (s *Service) instanceFor(ctx context.Context, c call, r BackupRequest, src *disk.Source) (resource.Instance, *Created, error) {
	// Two first backups at a time must not make two stores, or two instances
	// of one name.
	unlock, err := s.disks.lock(ctx, "")
	if err != nil {
		return resource.Instance{}, nil, err
	}
	defer unlock()
	known, err := s.match(ctx, c, r, src)
	if err != nil {
		return resource.Instance{}, nil, err
	}
	if known != nil {
		return *known, nil, nil
	}
	i, made, err := s.protect(ctx, c, r, src)
	return i, &made, err
}

// finishBackup makes the catalog know what the store already holds.
func (s *Service) finishBackup(ctx context.Context, result BackupResult, i resource.Instance, src *disk.Source, row resource.Store, done backup.Result, run *job.Run) (BackupResult, error) {
	ctx = context.WithoutCancel(ctx) // the point exists; that must be told
	if err := s.catalog.PutPoint(ctx, row.ID, done.Point); err != nil {
		return result, err
	}
	var err error
	i.Size = src.Size
	i.Kind = string(src.Kind)
	if i.Identity, err = json.Marshal(src.Identity); err != nil {
		return result, err
	}
	if err := s.catalog.PutInstance(ctx, i); err != nil {
		return result, err
	}
	view, err := s.view(ctx, i.ID)
	if err != nil {
		return result, err
	}
	for _, p := range view {
		if p.ID == done.Point.ID {
			p.KeptBecause = nil
			result.RecoveryPoint = p
		}
	}
	run.Meter.Finish()
	record := run.Meter.Record()
	result.Phases, result.Stages = record.Phases, record.Stages
	for _, p := range record.Phases {
		result.DurationSeconds += p.Seconds
	}
	result.Status = resource.Completed
	result.Capture = Capture{done.Capture.Method, done.Capture.Seconds}
	t := done.ChangeTracking
	result.ChangeTracking = ChangeTracking{Method: t.Method, Reason: t.Reason, Planned: t.Planned, Dropped: t.Dropped, Missed: t.Missed}
	result.Bytes = done.Point.Bytes
	result.ResumedBytes, result.Attempts = done.Resumed, done.Attempts
	result.Warnings = done.Warnings
	if done.Point.Consistency == store.Inconsistent && len(result.Warnings) == 0 {
		reason := done.Point.Reason
		if reason == "" {
			reason = "no one point in time could be proven"
		}
		result.Warnings = []string{"The recovery point is marked inconsistent: " + strings.TrimSuffix(reason, ".") + "."}
	}
	if len(result.Warnings) > 0 {
		result.Status = resource.CompletedWithWarnings
	}
	return result, nil
}

// kept says, when a person interrupted a backup, what became of its work.
func (s *Service) kept(ctx context.Context, err error, name string, stored int64) error {
	if ctx.Err() == nil || !errors.Is(err, context.Canceled) && !problem.Is(err, problem.OperationInterrupted) {
		return err
	}
	if stored == 0 {
		return problem.Wrap(context.Canceled, problem.OperationInterrupted, "The backup of %s was interrupted before it had stored anything.", name)
	}
	return problem.Wrap(context.Canceled, problem.OperationInterrupted, "The backup of %s was interrupted. The %s that it had stored are kept; the next run uses them.", name, byteText(stored)).
		With("storedBytes", stored)
}

// sameStore refuses a store other than the one that the instance has.
func (s *Service) sameStore(ctx context.Context, r BackupRequest, i resource.Instance, row resource.Store) error {
	b, err := openBucket(ctx, r.URL)
	if err != nil {
		return err
	}
	defer b.Close()
	h, err := store.Identify(ctx, b)
	if err != nil {
		return err
	}
	if h.StoreID.String() != row.ID {
		return problem.New(problem.InvalidArgument, "The disk %q is backed up to %s; a disk keeps its store.", i.Name, row.URL).
			Do("Leave --store away.", "To back the disk up to another store as well, protect it under another name: --name.")
	}
	return nil
}

// syncPoints makes the catalog agree with the stores if a process died while
// it may have committed a point. A store that cannot be read now is asked
// again the next time; until then the catalog keeps what it has.
func (s *Service) syncPoints(ctx context.Context) error {
	stale, err := s.catalog.Fact(ctx, catalog.PointsStale)
	if err != nil || stale == "" {
		return err
	}
	known, err := s.catalog.Stores(ctx)
	if err != nil {
		return err
	}
	complete := true
	for _, row := range known {
		points, err := s.pointsOf(ctx, row)
		if err != nil {
			complete = false
			continue
		}
		if _, _, err := s.catalog.SetPoints(ctx, row.ID, points); err != nil {
			return err
		}
	}
	if !complete {
		return ctx.Err()
	}
	return s.catalog.SetFact(ctx, catalog.PointsStale, "")
}

// pointsOf reads all points of a store; one that is damaged must neither hide
// the others nor be forgotten, so it is an error.
func (s *Service) pointsOf(ctx context.Context, row resource.Store) ([]store.Point, error) {
	st, _, err := s.openKnown(ctx, row.ID, "")
	if err != nil {
		return nil, err
	}
	listed, err := s.listed(ctx, row.ID)
	if err != nil {
		return nil, err
	}
	var points []store.Point
	for p, err := range st.Points(ctx) {
		if old, ok := listed[p.ID]; ok && problem.Is(err, problem.StoreDamaged) {
			p, err = old, nil // it stays listed, for a check to say what became of it
		}
		if problem.Is(err, problem.StoreDamaged) {
			continue
		}
		if err != nil {
			return nil, err
		}
		points = append(points, p)
	}
	return points, nil
}

// firstNotices says plainly what is not yet safe after a first backup.
func (s *Service) firstNotices(c call, src *disk.Source, row resource.Store) {
	if path, ok := strings.CutPrefix(row.URL, "file:"); ok {
		path = strings.TrimPrefix(path, "//")
		if device, shared := src.SharesDisk(path); shared {
			c.notice(resource.Notice{
				Name:              "StoreOnSourceDevice",
				Message:           fmt.Sprintf("The store %s lies on the same device as the disk (%s): if it fails, both are lost.", path, device),
				RecommendedAction: "Make a store elsewhere: diskvault store create URL",
			})
		}
	}
	c.notice(resource.Notice{
		Name:              "NoServer",
		Message:           "No server runs, so nothing is backed up by itself: the schedule of the policy is not carried out.",
		RecommendedAction: "Run `diskvault backup` from cron or a systemd timer.",
	})
}

func backupProgress(p backup.Progress) resource.Progress {
	out := resource.Progress{Phase: p.Phase, Done: p.Done, Total: p.Total, Rate: p.Rate, Bottleneck: p.Bottleneck, Stored: p.Bytes.Stored}
	if p.ETA.P90 > 0 {
		out.ETA = &resource.ETA{P10: p.ETA.P10, P50: p.ETA.P50, P90: p.ETA.P90}
	}
	return out
}
