package job

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
)

// EngineOptions say how queued jobs are run. The zero value takes jobs in and
// runs none.
type EngineOptions struct {
	Sites []string // locations whose disks this host reaches; AnySite: all
	Slots int      // how many jobs run on this host at a time; the Runner's slots bound it as well
	// Attempts is how often a job is tried that fails for a reason that may
	// pass; 0: 4.
	Attempts int
	// Backoff is the time before the second attempt; it doubles with each
	// further one, up to an hour. 0: 1 minute.
	Backoff time.Duration
	// Trouble hears what keeps the queue from working; nil: nobody does.
	Trouble func(error)
}

// AnySite stands for all locations, in a deployment of one host.
const AnySite = "*"

// Do does the work of a queued job.
type Do func(ctx context.Context, j resource.Job, run *Run) (Outcome, error)

// Engine runs queued jobs: those that nobody waits for. A job is in the catalog
// before it is queued, and the catalog says how it ended. Its methods are safe
// for concurrent use.
type Engine struct {
	catalog *catalog.Catalog
	runner  *Runner
	options EngineOptions
	do      Do
	tickets *tickets

	cancel context.CancelFunc
	loop   sync.WaitGroup
}

// sweepEvery is how often the engine looks for jobs without a ticket.
const sweepEvery = 15 * time.Second

// NewEngine makes the engine of a process that owns its data folder, and puts
// the jobs back into the queue that such a process left behind when it died.
func NewEngine(ctx context.Context, c *catalog.Catalog, r *Runner, o EngineOptions, do Do) (*Engine, error) {
	if o.Attempts == 0 {
		o.Attempts = 4
	}
	if o.Backoff == 0 {
		o.Backoff = time.Minute
	}
	e := &Engine{catalog: c, runner: r, options: o, do: do}
	var err error
	if e.tickets, err = newTickets(ctx, c, r.host, o.Sites, o.Slots, e.punch); err != nil {
		return nil, err
	}
	return e, e.recover(ctx, r.host)
}

// recover puts jobs back whose process is dead: all of this host, and those of
// others of which nothing is heard. A job that took its process down again and
// again fails.
func (e *Engine) recover(ctx context.Context, host string) error {
	reason := problem.New(problem.OperationInterrupted, "The process that ran this job ended before the job did.")
	live := e.runner.Live()
	n, err := e.catalog.Requeue(ctx, host, func(id string) bool { _, ok := live[id]; return ok }, e.options.Attempts, resource.FailureOf(reason), time.Now())
	if err != nil {
		return err
	}
	if n > 0 {
		if err := e.catalog.SetFact(ctx, catalog.PointsStale, "yes"); err != nil {
			return err
		}
	}
	if err := e.tickets.tidy(ctx, func(t ticket) bool {
		j, err := e.catalog.Job(ctx, t.Job)
		// A ticket bears the number of the attempts before it.
		return errors.Is(err, catalog.ErrNotFound) || err == nil && (j.Host == "" || j.Attempt != t.Attempt+1)
	}); err != nil {
		return err
	}
	return e.sweep(ctx)
}

// sweep gives a ticket to every job that waits: to most of them again, which
// changes nothing.
func (e *Engine) sweep(ctx context.Context) error {
	after := ""
	for {
		jobs, err := e.catalog.Waiting(ctx, after, 1000)
		if err != nil || len(jobs) == 0 {
			return err
		}
		if err := e.ticket(ctx, jobs); err != nil {
			return err
		}
		after = jobs[len(jobs)-1].ID
	}
}

// Add queues a job. If the instance has a queued job of the same operation
// that has not ended, it is a UserErrorMaxConcurrentOperationLimitReached
// problem; restores do not hinder one another.
func (e *Engine) Add(ctx context.Context, j resource.Job) error {
	if err := e.catalog.AddJob(ctx, j); err != nil {
		return err
	}
	return e.Ticket(ctx, []resource.Job{j})
}

// Ticket has jobs run that are in the catalog already. If it fails, or the
// process dies before it, a later sweep does it.
func (e *Engine) Ticket(ctx context.Context, jobs []resource.Job) error { return e.ticket(ctx, jobs) }

func (e *Engine) ticket(ctx context.Context, jobs []resource.Job) error {
	type when struct {
		site string
		at   time.Time
	}
	groups := map[when][]ticket{}
	for _, j := range jobs {
		w := when{site: j.Site}
		if slices.Contains(e.options.Sites, AnySite) {
			w.site = AnySite
		}
		if j.Retry != nil {
			w.at = *j.Retry
		}
		groups[w] = append(groups[w], ticket{j.ID, j.Attempt})
	}
	for w, ts := range groups {
		if err := e.tickets.add(ctx, w.site, w.at, ts...); err != nil {
			return err
		}
	}
	return nil
}

// Start runs jobs until Stop. Without slots it does nothing.
func (e *Engine) Start(ctx context.Context) error {
	if e.options.Slots == 0 {
		return nil
	}
	if err := e.tickets.client.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	e.loop.Go(func() {
		tick := time.NewTicker(sweepEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			// The host's own jobs are alive: their process is this one.
			if err := e.recover(ctx, ""); err != nil && ctx.Err() == nil && e.options.Trouble != nil {
				e.options.Trouble(err)
			}
		}
	})
	return nil
}

// Stop lets running jobs end, until ctx does: then they go back into the queue
// and go on from what is stored.
func (e *Engine) Stop(ctx context.Context) error {
	if e.cancel == nil {
		return nil
	}
	e.cancel()
	e.loop.Wait()
	err := e.tickets.client.Stop(ctx)
	if ctx.Err() != nil {
		err = e.tickets.client.StopAndCancel(context.WithoutCancel(ctx))
	}
	return err
}

// punch runs the job of a ticket, if it still waits.
func (e *Engine) punch(ctx context.Context, t ticket) (again time.Time, err error) {
	j, mine, err := e.catalog.Claim(ctx, t.Job, t.Attempt, e.runner.host, time.Now())
	if err != nil || !mine {
		return time.Time{}, err
	}
	var retry *time.Time
	spec := Spec{
		Operation: j.Operation, Trigger: j.Trigger, InstanceID: j.InstanceID, Instance: j.Instance, Asked: j.Created, Row: &j,
		Upkeep: j.Operation == resource.OperationCopy,
		Retry: func(err error) (time.Time, bool) {
			switch {
			case ctx.Err() != nil: // the process must go
				now := time.Now()
				retry = &now
			case j.Attempt < e.options.Attempts && resource.FailureOf(err).Retryable():
				at := time.Now().Add(min(e.options.Backoff<<(j.Attempt-1), time.Hour))
				retry = &at
			default:
				return time.Time{}, false
			}
			return *retry, true
		},
	}
	err = e.runner.Do(ctx, spec, func(ctx context.Context, run *Run) (Outcome, error) { return e.do(ctx, j, run) })
	if errors.Is(err, ErrClosed) {
		// The process leaves: the job has not begun.
		return time.Time{}, e.catalog.Release(context.WithoutCancel(ctx), j.ID)
	}
	if retry != nil {
		// The next attempt has a ticket of its own, by the number of those
		// that were.
		j.Retry = retry
		return time.Time{}, e.ticket(context.WithoutCancel(ctx), []resource.Job{j})
	}
	return time.Time{}, nil
}

// Cancel ends a job, queued or not, wherever it runs; it may take a second.
// A job that has ended is a Conflict problem.
func (r *Runner) Cancel(ctx context.Context, id string) error {
	ended, found, err := r.catalog.AskCancel(ctx, id, resource.FailureOf(problem.New(problem.OperationInterrupted, "The job was cancelled before it began.")), time.Now())
	switch {
	case err != nil:
		return err
	case !found:
		return problem.New(problem.JobNotFound, "There is no job %q.", id)
	case ended:
		return problem.New(problem.ResourceExists, "The job %q has ended already.", id).Do("Nothing is to be done.")
	}
	return nil
}
