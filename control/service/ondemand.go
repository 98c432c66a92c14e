package service

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/access"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/retention"
)

// queuedRequest is what a queued job is to do.
type queuedRequest struct {
	Tag   string `json:"tag,omitempty"`   // retention tag; empty: as the schedule's rules say, or the default one
	Point string `json:"point,omitempty"` // to be restored
	To    string `json:"to,omitempty"`    // path of the target
	Store string `json:"store,omitempty"` // ID of the one that points are copied to
}

// day is the span over which requests on demand are counted.
const day = 24 * time.Hour

// AdhocRequest asks for a backup on demand.
type AdhocRequest struct {
	ID   resource.ID // of the backup instance
	Rule string      // name of the policy's backup rule; empty: the one it has
	Tag  string      // a retention tag of the policy, in any case; empty: the default one
	// PerDay is how many of them an instance may have in 24 hours; 0: any
	// number.
	PerDay int
}

// Backup queues a backup and returns its job at once.
func (a Acting) Backup(ctx context.Context, r AdhocRequest) (resource.Job, error) {
	return act(ctx, a, instances+"backup/action", r.ID, func() (resource.Job, error) {
		i, err := a.s.live(ctx, r.ID)
		if err != nil {
			return resource.Job{}, err
		}
		if err := backsUp(i); err != nil {
			return resource.Job{}, err
		}
		p, err := a.s.catalog.Policy(ctx, i.Vault, i.Policy)
		if err != nil {
			return resource.Job{}, missing(err, i.PolicyID())
		}
		if r.Rule != "" && !strings.EqualFold(r.Rule, RuleName(p)) {
			return resource.Job{}, problem.New(problem.BackupRuleUnknown, "The policy %q has no backup rule %q; it has %q.", p.Name, r.Rule, RuleName(p))
		}
		tag := r.Tag
		for _, each := range p.Retention {
			if strings.EqualFold(each.Tag, tag) {
				tag = each.Tag
			}
		}
		rule, err := p.Rule(tag)
		if err != nil {
			return resource.Job{}, err
		}
		if err := a.within(ctx, i, resource.OperationBackup, r.PerDay); err != nil {
			return resource.Job{}, err
		}
		request, err := json.Marshal(queuedRequest{Tag: rule.Tag})
		if err != nil {
			return resource.Job{}, err
		}
		j := a.s.jobOf(ctx, i, resource.OperationBackup, request)
		j.Trigger, j.Tag, j.Caller, j.Activity = resource.OnDemand, rule.Tag, a.who.Name, a.who.Activity
		return j, a.s.enqueue(ctx, j)
	})
}

// RuleName is the name of a policy's backup rule as clients know it.
func RuleName(p resource.Policy) string {
	switch {
	case p.Schedule.Name != "":
		return p.Schedule.Name
	case strings.HasSuffix(p.Schedule.Interval, "/P1D"):
		return "BackupDaily"
	}
	return "BackupHourly"
}

// backsUp refuses backups of an instance whose state allows none.
func backsUp(i resource.Instance) error {
	if i.State.BacksUp() {
		return nil
	}
	return problem.New(problem.ProtectionStateConflict, "The backup instance %q is in the state %s, in which it is not backed up.", i.Name, i.State).With("state", string(i.State))
}

// within holds the number of requests on demand.
func (a Acting) within(ctx context.Context, i resource.Instance, operation string, most int) error {
	if most <= 0 {
		return nil
	}
	n, err := a.s.catalog.CountJobs(ctx, i.ID, operation, time.Now().Add(-day))
	if err != nil {
		return err
	}
	if n >= most {
		return problem.New(problem.DailyLimitReached, "The backup instance %q has had %d jobs of the kind %s on demand within 24 hours; %d is the limit.", i.Name, n, operation, most)
	}
	return nil
}

// jobOf begins the job of an instance.
func (s *Service) jobOf(ctx context.Context, i resource.Instance, operation string, request json.RawMessage) resource.Job {
	site := resource.HomeLocation
	if v, err := s.catalog.Vault(ctx, i.Vault); err == nil {
		site = v.Location
	}
	return resource.Job{
		ID: uuid.NewString(), InstanceID: i.ID, Instance: i.FriendlyName, Operation: operation, Status: resource.Queued, Created: time.Now().UTC(),
		Vault: i.Vault, Policy: i.Policy, DiskID: i.DiskID, Site: site, Request: request,
	}
}

// enqueue adds a job to the queue. Without a queue, which only a server has, it
// is refused: nobody would run it.
func (s *Service) enqueue(ctx context.Context, j resource.Job) error {
	e := s.queue()
	if e == nil {
		return problem.New(problem.NoServer, "No server runs that would do the job.")
	}
	return e.Add(ctx, j)
}

// DiskRestoreRequest asks that a recovery point become a new disk.
type DiskRestoreRequest struct {
	ID       resource.ID // of the backup instance
	Point    string      // ID of the recovery point
	Target   resource.ID // the disk to be made
	Location string      // that the new disk is to have; empty: the vault's
	PerDay   int         // as AdhocRequest.PerDay
}

// TagFolder is the tag of a resource group that says in which folder disks
// restored into it are made; without it they lie beside the disk they show.
const TagFolder = "diskvault-folder"

// ValidateForRestore checks all that a restore takes, and changes nothing.
func (a Acting) ValidateForRestore(ctx context.Context, r DiskRestoreRequest) error {
	_, err := look(ctx, a, instances+"validateRestore/action", r.ID, func() (struct{}, error) {
		_, _, _, err := a.s.restorable(ctx, r, access.ValidateRestore)
		return struct{}{}, err
	})
	return err
}

// RestoreDisk queues a restore and returns its job at once.
func (a Acting) RestoreDisk(ctx context.Context, r DiskRestoreRequest) (resource.Job, error) {
	return act(ctx, a, instances+"restore/action", r.ID, func() (resource.Job, error) {
		i, p, to, err := a.s.restorable(ctx, r, access.Restore)
		if err != nil {
			return resource.Job{}, err
		}
		if err := a.within(ctx, i, resource.OperationRestore, r.PerDay); err != nil {
			return resource.Job{}, err
		}
		request, err := json.Marshal(queuedRequest{Point: p.ID, To: to})
		if err != nil {
			return resource.Job{}, err
		}
		j := a.s.jobOf(ctx, i, resource.OperationRestore, request)
		j.Trigger, j.Point, j.PointAt, j.Target, j.Caller, j.Activity = resource.OnDemand, p.ID, &p.Time, r.Target, a.who.Name, a.who.Activity
		return j, a.s.enqueue(ctx, j)
	})
}

// restorable checks a request, and says what it means: the instance, which may
// be stopped, the point, and the path of the new disk.
func (s *Service) restorable(ctx context.Context, r DiskRestoreRequest, w access.Work) (i resource.Instance, p catalog.Point, to string, err error) {
	if i, err = s.live(ctx, r.ID); err != nil {
		return i, p, "", err
	}
	v, err := s.catalog.Vault(ctx, i.Vault)
	if err != nil {
		return i, p, "", missing(err, r.ID.Parent())
	}
	points, err := s.catalog.Points(ctx, i.ID)
	if err != nil {
		return i, p, "", err
	}
	if p, err = pointOf(points, i.Name, r.Point); err != nil {
		return i, p, "", err
	}
	if err := resource.CheckInstanceName(r.Target.Name()); err != nil {
		return i, p, "", err
	}
	if r.Target.Type() != resource.TypeDisk {
		return i, p, "", problem.New(problem.ResourceIDInvalid, "%s is not the ID of a disk.", r.Target)
	}
	if r.Location != "" && !resource.SameLocation(r.Location, v.Location) {
		return i, p, "", problem.New(problem.LocationConflict, "A disk is restored in the location of its vault, %s, and not in %s.", v.Location, r.Location)
	}
	if v.CrossSubscriptionRestore != "Enabled" && i.DiskID != "" && r.Target.Subscription() != i.DiskID.Subscription() {
		return i, p, "", problem.New(problem.CrossRestoreOff, "The vault %q restores into the disk's own subscription only.", v.Name)
	}
	if _, err := catalog.Resource[resource.Disk](ctx, s.catalog, r.Target); err == nil {
		return i, p, "", problem.New(problem.SameNameDisk, "There is a disk %q in the resource group %q already.", r.Target.Name(), r.Target.Group())
	} else if !errors.Is(err, catalog.ErrNotFound) {
		return i, p, "", err
	}
	report, err := s.preflight(ctx, i, w, r.Target.GroupID())
	if err == nil {
		err = report.Err()
	}
	if err != nil {
		return i, p, "", err
	}
	g, err := s.group(ctx, r.Target.GroupID())
	if err != nil {
		return i, p, "", err
	}
	folder := g.Tags[TagFolder]
	if folder == "" && strings.HasPrefix(i.Disk, "/dev/") {
		return i, p, "", problem.New(problem.InvalidArgument, "The disk %q is a device, so it must be said where the new one is to lie.", i.FriendlyName).
			Do("Tag the target resource group with " + TagFolder + " and the path of a folder.")
	}
	if folder == "" {
		folder = filepath.Dir(i.Disk)
	}
	return i, p, filepath.Join(folder, r.Target.Name()+".img"), nil
}

func pointOf(points []catalog.Point, instance, id string) (catalog.Point, error) {
	for _, p := range points {
		if p.ID == id {
			return p, nil
		}
	}
	return catalog.Point{}, problem.New(problem.RecoveryPointNotFound, "The backup instance %q has no recovery point %q.", instance, id)
}

// RecoveryPointsRequest chooses points of an instance.
type RecoveryPointsRequest struct {
	ID           resource.ID
	Since, Until time.Time // by their time; Until is not included; zero: no bound
	After        string    // ID of the last point of the page before
	Limit        int       // 0: all
}

// RecoveryPoints lists points of an instance, newest first, with their expiry
// and why they are kept.
func (a Acting) RecoveryPoints(ctx context.Context, r RecoveryPointsRequest) ([]resource.RecoveryPoint, error) {
	return look(ctx, a, instances+"recoveryPoints/read", r.ID, func() ([]resource.RecoveryPoint, error) {
		i, err := a.s.live(ctx, r.ID)
		if err != nil {
			return nil, err
		}
		all, err := a.s.view(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		out := []resource.RecoveryPoint{}
		behind := r.After == ""
		for _, p := range all {
			if behind && !p.Time.Before(r.Since) && (r.Until.IsZero() || p.Time.Before(r.Until)) {
				out = append(out, p)
			}
			behind = behind || p.ID == r.After
			if r.Limit > 0 && len(out) == r.Limit {
				break
			}
		}
		return out, nil
	})
}

// RecoveryPoint gives one point of an instance.
func (a Acting) RecoveryPoint(ctx context.Context, id resource.ID, point string) (resource.RecoveryPoint, error) {
	all, err := a.RecoveryPoints(ctx, RecoveryPointsRequest{ID: id})
	for _, p := range all {
		if strings.EqualFold(p.ID, point) {
			return p, err
		}
	}
	if err == nil {
		err = problem.New(problem.RecoveryPointNotFound, "The backup instance %q has no recovery point %q.", id.Name(), point)
	}
	return resource.RecoveryPoint{}, err
}

// VaultJobs lists jobs of a vault, newest first, those that run with their
// live progress. The filter's vault is the one given.
func (a Acting) VaultJobs(ctx context.Context, vault resource.ID, f catalog.JobFilter) ([]resource.Job, error) {
	return look(ctx, a, vaults+"backupJobs/read", vault, func() ([]resource.Job, error) {
		if _, err := a.s.catalog.Vault(ctx, string(vault)); err != nil {
			return nil, missing(err, vault)
		}
		f.Vault = vault
		jobs, err := a.s.catalog.Jobs(ctx, f)
		live := a.s.jobs.Live()
		for n, j := range jobs {
			if now, ok := live[j.ID]; ok {
				jobs[n] = now
			}
		}
		return jobs, err
	})
}

// VaultJob gives a job of a vault.
func (a Acting) VaultJob(ctx context.Context, vault resource.ID, id string) (resource.Job, error) {
	return look(ctx, a, vaults+"backupJobs/read", vault, func() (resource.Job, error) { return a.s.jobIn(ctx, vault, id) })
}

func (s *Service) jobIn(ctx context.Context, vault resource.ID, id string) (resource.Job, error) {
	j, err := s.catalog.Job(ctx, id)
	if errors.Is(err, catalog.ErrNotFound) || err == nil && !resource.VaultID(j.Vault).Same(vault) {
		return j, problem.New(problem.JobNotFound, "The vault %q has no job %q.", vault.Name(), id)
	}
	if now, ok := s.jobs.Live()[id]; ok {
		return now, nil
	}
	return j, err
}

// CancelJob ends a job of a vault, wherever it runs. What it has stored is kept
// for the next run.
func (a Acting) CancelJob(ctx context.Context, vault resource.ID, id string) error {
	_, err := act(ctx, a, vaults+"backupJobs/cancel/action", vault, func() (struct{}, error) {
		if _, err := a.s.jobIn(ctx, vault, id); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, a.s.jobs.Cancel(ctx, id)
	})
	return err
}

// Audit gives lines of the audit log, newest first.
func (a Acting) Audit(ctx context.Context, f catalog.AuditFilter) ([]resource.Entry, error) {
	return look(ctx, a, "Microsoft.Insights/eventtypes/values/read", f.Target, func() ([]resource.Entry, error) {
		return a.s.catalog.Audit(ctx, f)
	})
}

// RetentionPaused says since when retention waits for a person's word; empty:
// it does not.
func (a Acting) RetentionPaused(ctx context.Context) (string, error) {
	return look(ctx, a, vaults+"read", "", func() (string, error) { return a.s.catalog.Fact(ctx, catalog.RetentionPaused) })
}

// ConfirmRetention says that the rules are as they should be after the catalog
// was rebuilt: from now on points expire again.
func (a Acting) ConfirmRetention(ctx context.Context) (struct{}, error) {
	return act(ctx, a, vaults+"write", "", func() (struct{}, error) {
		paused, err := a.s.catalog.Fact(ctx, catalog.RetentionPaused)
		if err == nil && paused == "" {
			err = problem.New(problem.NothingToConfirm, "Retention is not paused.")
		}
		if err == nil {
			err = a.s.catalog.SetFact(ctx, catalog.RetentionPaused, "")
		}
		return struct{}{}, err
	})
}

// confirmRetention is the use case of Client.ConfirmRetention.
func (s *Service) confirmRetention(ctx context.Context, _ call, _ struct{}) (struct{}, error) {
	return s.As(Local()).ConfirmRetention(ctx)
}

// SimulatePolicy says what a policy would run and keep in some days.
func (a Acting) SimulatePolicy(ctx context.Context, p resource.Policy, from time.Time, days int) (retention.Simulation, error) {
	return look(ctx, a, policies+"read", p.ResourceID(), func() (retention.Simulation, error) { return retention.Simulate(p, from, days) })
}
