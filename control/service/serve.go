package service

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/retention"
	"github.com/diskvault/diskvault/control/schedule"
	enginekeep "github.com/diskvault/diskvault/engine/upkeep"
)

// ServeOptions say what a server does by itself.
type ServeOptions struct {
	Job job.EngineOptions // which jobs it runs, and how many at a time
	// Schedule makes it decide on backups and expiries as well. Several
	// servers of one database may do so at a time.
	Schedule bool
	// Scrub is the share of each store that is read back in a day, 0 to 1;
	// negative: nothing is.
	Scrub   float64
	Every   time.Duration // between two looks; 0: 15 seconds
	Trouble func(error)   // hears what went wrong and is tried again; nil: nobody does
}

// Serve runs queued jobs and carries out schedules until ctx ends; then running
// jobs have as long as grace to end by themselves, and go back into the queue
// after that.
func (s *Service) Serve(ctx context.Context, o ServeOptions, grace time.Duration) error {
	if s.catalogErr != nil {
		return s.catalogErr
	}
	o.Every = cmp.Or(o.Every, 15*time.Second)
	if o.Trouble == nil {
		o.Trouble = func(error) {}
	}
	if len(o.Job.Sites) == 0 {
		o.Job.Sites = []string{resource.HomeLocation}
	}
	o.Job.Trouble = o.Trouble
	engine, err := job.NewEngine(ctx, s.catalog, s.jobs, o.Job, s.doQueued)
	if err != nil {
		return err
	}
	s.serving.Lock()
	s.engine = engine
	s.serving.Unlock()
	if err := engine.Start(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	var forgot, filled time.Time
	var upkeep sync.WaitGroup
	var collecting sync.Mutex
	defer upkeep.Wait()
	for ctx.Err() == nil {
		if o.Schedule && time.Since(forgot) > time.Hour {
			if err := s.catalog.Forget(ctx, time.Now()); err != nil && ctx.Err() == nil {
				o.Trouble(err)
			}
			forgot = time.Now()
		}
		if o.Schedule && time.Since(filled) > vaultEvery {
			if _, err := s.FillVaults(ctx, time.Now()); err != nil && ctx.Err() == nil {
				o.Trouble(err)
			}
			filled = time.Now()
			// A collection of a store takes as long as it does, beside all else.
			if collecting.TryLock() {
				upkeep.Go(func() {
					defer collecting.Unlock()
					if err := s.CollectDue(ctx, time.Now()); err != nil && ctx.Err() == nil {
						o.Trouble(err)
					}
					if err := s.ScrubDue(ctx, cmp.Or(o.Scrub, enginekeep.DefaultScrubShare), time.Now()); err != nil && ctx.Err() == nil {
						o.Trouble(err)
					}
				})
			}
		}
		if o.Schedule {
			if err := s.pass(ctx, time.Now()); err != nil && ctx.Err() == nil {
				o.Trouble(err)
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	return engine.Stop(end)
}

// queue is where jobs go that nobody waits for; nil: no server runs.
func (s *Service) queue() *job.Engine {
	s.serving.Lock()
	defer s.serving.Unlock()
	return s.engine
}

// pass does all that time asks for. One part that fails does not keep the
// others from being done.
func (s *Service) pass(ctx context.Context, now time.Time) error {
	_, planErr := s.Plan(ctx, now)
	_, expireErr := s.Expire(ctx, now)
	return errors.Join(planErr, expireErr, s.Purge(ctx, now))
}

// portion is how many instances a pass looks at in one transaction.
const portion = 1000

// idle is when an instance is looked at again that is not backed up.
const idle = time.Hour

// Plan looks at all instances whose time has come and queues the backups that
// are due, each with its slot in one transaction: a slot is neither lost nor
// taken twice, whatever dies when. It returns how many it queued.
func (s *Service) Plan(ctx context.Context, now time.Time) (queued int, err error) {
	plans := planner{policies: map[string]rules{}, vaults: map[string]string{}}
	var failed error
	for after := ""; ; {
		due, err := s.catalog.Due(ctx, now, after, portion)
		if err != nil || len(due) == 0 {
			return queued, errors.Join(failed, err)
		}
		after = due[len(due)-1].ID
		var out []catalog.Plan
		var jobs []resource.Job
		for _, d := range due {
			switch d.State {
			case resource.ConfiguringProtection, resource.UpdatingProtection:
				if _, err := s.Settle(ctx, d.ID); err != nil {
					failed = err
				}
				continue // the next look plans it
			}
			p, err := plans.plan(ctx, s, d, now)
			if err != nil {
				failed = err
				p = catalog.Plan{ID: d.ID, Next: now.Add(idle)}
			}
			out = append(out, p)
		}
		if err := s.catalog.SetPlans(ctx, out); err != nil {
			return queued, err
		}
		for _, p := range out {
			if p.Job != nil {
				jobs = append(jobs, *p.Job)
			}
		}
		queued += len(jobs)
		if e := s.queue(); e != nil {
			if err := e.Ticket(ctx, jobs); err != nil {
				failed = err // a sweep does it later
			}
		}
	}
}

// planner remembers what many instances share.
type planner struct {
	policies map[string]rules
	vaults   map[string]string // locations
}

type rules struct {
	policy   resource.Policy
	schedule schedule.Schedule
	err      error
}

func (p planner) rules(ctx context.Context, s *Service, key string) rules {
	r, ok := p.policies[key]
	if !ok {
		id := resource.ID(key)
		if r.policy, r.err = s.catalog.Policy(ctx, string(id.Parent()), id.Name()); r.err == nil {
			r.schedule, r.err = schedule.Parse(r.policy.Schedule)
		}
		p.policies[key] = r
	}
	return r
}

func (p planner) location(ctx context.Context, s *Service, vault string) (string, error) {
	if at, ok := p.vaults[vault]; ok {
		return at, nil
	}
	v, err := s.catalog.Vault(ctx, vault)
	p.vaults[vault] = v.Location
	return v.Location, err
}

// plan decides about one instance.
func (p planner) plan(ctx context.Context, s *Service, d catalog.Planned, now time.Time) (catalog.Plan, error) {
	if !d.State.BacksUp() {
		return catalog.Plan{ID: d.ID, Next: now.Add(idle)}, nil
	}
	r := p.rules(ctx, s, d.Policy)
	if r.err != nil {
		return catalog.Plan{}, r.err
	}
	st := schedule.State{Since: d.Since, Running: d.Running}
	if r.policy.Modified.After(st.Since) {
		st.Since = r.policy.Modified
	}
	if d.LastSlot != nil {
		st.LastSlot = *d.LastSlot
	}
	what := r.schedule.Decide(st, now)
	switch what.Action {
	case schedule.Wait:
		return catalog.Plan{ID: d.ID, Next: what.At}, nil
	case schedule.Hold:
		return catalog.Plan{ID: d.ID, Next: now.Add(30 * time.Second)}, nil
	}
	location, err := p.location(ctx, s, r.policy.Vault)
	if err != nil {
		return catalog.Plan{}, err
	}
	slot := what.Slot
	return catalog.Plan{ID: d.ID, Slot: &slot, Next: r.schedule.Next(now), Job: &resource.Job{
		ID: uuid.NewString(), InstanceID: d.ID, Instance: d.Name, Operation: resource.OperationBackup, Trigger: resource.Scheduled, Status: resource.Queued,
		Created: now.UTC(), Vault: r.policy.Vault, Policy: r.policy.Name, DiskID: d.DiskID, Site: location, Slot: &slot, Reason: what.Reason,
		Caller: "schedule", Activity: uuid.NewString(), Request: []byte(`{}`),
	}}, nil
}

// Expire deletes the points that no rule keeps any longer: in each store for
// itself, so that a copy in the vault tier outlives that near the source. While retention is
// paused it deletes nothing. It returns how many it deleted.
func (s *Service) Expire(ctx context.Context, now time.Time) (deleted int, err error) {
	paused, err := s.catalog.Fact(ctx, catalog.RetentionPaused)
	if err != nil || paused != "" {
		return 0, err
	}
	// A point that the catalog has not heard of may be the newest.
	if err := s.syncPoints(ctx); err != nil {
		return 0, err
	}
	var failed error
	var gone []int
	var points []retention.Point
	for after := ""; ; {
		aging, err := s.catalog.Aging(ctx, now, after, 100)
		if err != nil || len(aging) == 0 {
			return deleted, errors.Join(failed, err)
		}
		after = aging[len(aging)-1].Instance
		for _, a := range aging {
			points = points[:0]
			for _, p := range a.Points {
				points = append(points, retention.Point{ID: p.ID, Created: p.Created, Time: p.Time, Tag: p.Tag, Duration: resource.Duration(p.Keep), Good: p.Good})
			}
			// Deleted instances are purged as a whole.
			if a.State == resource.SoftDeleted {
				continue
			}
			gone = retention.Expire(gone[:0], points, retention.State{Protection: a.State}, now)
			n, err := s.drop(ctx, a, gone)
			deleted += n
			if err != nil {
				failed = err // the points of other instances, in other stores, go all the same
			}
		}
		if ctx.Err() != nil {
			return deleted, context.Cause(ctx)
		}
	}
}

// drop deletes points of one instance from one store: there first, so that none is
// forgotten that is still there.
func (s *Service) drop(ctx context.Context, a catalog.Aging, gone []int) (int, error) {
	if len(gone) == 0 {
		return 0, nil
	}
	// Who stops protection and hears that it is done loses no point after
	// that.
	unlock, err := s.disks.lock(ctx, lockOf(a.Instance))
	if err != nil {
		return 0, err
	}
	defer unlock()
	now, err := s.catalog.InstancesNamed(ctx, a.Instance)
	if err != nil || len(now) == 0 || now[0].State != a.State {
		return 0, err // the next pass decides anew
	}
	if err := s.stands(ctx, a, gone); err != nil {
		return 0, err
	}
	var ids []string
	var failed error
	for _, n := range gone {
		p := a.Points[n]
		st, _, err := s.openKnown(ctx, a.Store, "")
		if err == nil {
			err = st.DeletePoint(ctx, p.ID)
		}
		if err != nil {
			failed = err
			break
		}
		ids = append(ids, p.ID)
	}
	if len(ids) == 0 {
		return 0, failed
	}
	return len(ids), errors.Join(failed, s.catalog.RemovePlacements(context.WithoutCancel(ctx), a.Store, ids))
}

// lockOf names the lock that is held while the state of an instance changes, or
// points are deleted because of it.
func lockOf(instanceID string) string { return "instance " + instanceID }

// stands checks that the point for whose sake others may go is really there: a
// catalog can be wrong, as when somebody else deletes points of the store.
func (s *Service) stands(ctx context.Context, a catalog.Aging, gone []int) error {
	for n, p := range a.Points {
		if slices.Contains(gone, n) || !p.Good && slices.ContainsFunc(a.Points[n:], func(p catalog.AgingPoint) bool { return p.Good }) {
			continue
		}
		st, _, err := s.openKnown(ctx, a.Store, "")
		if err != nil {
			return err
		}
		if _, err := st.Point(ctx, p.ID); err != nil {
			if problem.Is(err, problem.RecoveryPointNotFound) {
				return errors.Join(err, s.catalog.SetFact(ctx, catalog.PointsStale, "yes"))
			}
			return err
		}
		return nil
	}
	return problem.New(problem.LastPoint, "No recovery point of the instance %s would be left in the store %s, so none was deleted there.", a.Instance, a.Store)
}

// Purge removes the deleted instances that can no longer be undeleted.
func (s *Service) Purge(ctx context.Context, now time.Time) error {
	due, err := s.catalog.Purgeable(ctx, now)
	for _, i := range due {
		err = errors.Join(err, s.purge(ctx, i, now))
	}
	return err
}
