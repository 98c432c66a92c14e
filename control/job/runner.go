package job

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
)

const (
	watchEvery = 200 * time.Millisecond // how often a watcher hears of progress
	saveEvery  = time.Second            // how often progress reaches the catalog
)

// Runner runs jobs and keeps their rows. Its methods are safe for concurrent
// use.
type Runner struct {
	catalog *catalog.Catalog
	host    string
	queue   *Queue

	mu      sync.Mutex
	running map[string]*Run
}

// NewRunner makes the runner of a data folder, whose owner the process must
// be: jobs that a dead process left unfinished are ended here, so that no job
// stays "in progress" for ever.
func NewRunner(ctx context.Context, c *catalog.Catalog, slots int) (*Runner, error) {
	reason := problem.New(problem.OperationInterrupted, "The process that ran this job ended before the job did.")
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	if _, err := c.EndOrphans(ctx, host, resource.FailureOf(reason), time.Now()); err != nil {
		return nil, err
	}
	return &Runner{catalog: c, host: host, queue: NewQueue(slots), running: map[string]*Run{}}, nil
}

// Close lets no further job begin; those that wait return ErrClosed and leave
// no row. Running jobs go on.
func (r *Runner) Close() { r.queue.Close() }

// Spec says which job is asked for.
type Spec struct {
	Operation  string
	Trigger    string
	InstanceID string // empty while the instance is not known yet
	Instance   string
	Upkeep     bool                    // takes no turn of others: it runs beside them and yields
	Asked      time.Time               // when a person or a schedule first asked for it
	Queued     func(position int)      // hears the position while it waits; may be nil
	Progress   func(resource.Progress) // hears of progress, five times a second; may be nil

	// Row is the row of a queued job that this process has claimed; nil for a
	// job that somebody waits for.
	Row *resource.Job
	// Retry decides, for a queued job, whether one that failed is put back
	// into the queue, and until when it waits there; nil: never.
	Retry func(error) (at time.Time, ok bool)
}

// Run is a running job, as its work sees it.
type Run struct {
	ID    string
	Meter *meter.Meter

	mu     sync.Mutex
	job    resource.Job
	source func() resource.Progress
}

// Describe says which instance the job turned out to be about.
func (r *Run) Describe(instanceID, instance string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.job.InstanceID, r.job.Instance = instanceID, instance
}

// Note adds to what the job's row says. Its progress comes from Follow.
func (r *Run) Note(write func(*resource.Job)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	write(&r.job)
}

// Follow sets where the live progress of the job comes from. The function
// must be safe to call until the work returns.
func (r *Run) Follow(source func() resource.Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.source = source
}

// snapshot gives the job as it stands.
func (r *Run) snapshot() resource.Job {
	r.mu.Lock()
	source := r.source
	r.mu.Unlock()
	var p resource.Progress
	if source != nil {
		p = source()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if source != nil {
		p.JobID, p.Operation, p.Instance = r.job.ID, r.job.Operation, r.job.Instance
		r.job.Detail, r.job.ETA = &p, p.ETA
		r.job.Progress = resource.Amount{Done: p.Done, Total: p.Total}
	}
	j := r.job
	if j.Start != nil && j.End == nil {
		j.Seconds = time.Since(*j.Start).Seconds()
	}
	return j
}

// Outcome is what the work of a job gives back.
type Outcome struct {
	Result   any  // kept with the job as JSON
	Warnings bool // done, but a person should look
}

// Do waits for a turn, runs the work and records how it ended. Whatever the
// work returns, the job's row tells it; a cancelled context makes the job
// Cancelled. If the queue closes before the job begins, the error is
// ErrClosed and there is no trace of the job.
func (r *Runner) Do(ctx context.Context, spec Spec, work func(context.Context, *Run) (Outcome, error)) error {
	now := time.Now()
	run := &Run{ID: uuid.NewString(), job: resource.Job{
		InstanceID: spec.InstanceID, Instance: spec.Instance, Operation: spec.Operation, Trigger: spec.Trigger, Status: resource.Queued, Created: now, Host: r.host,
	}}
	run.job.ID = run.ID
	if spec.Row != nil {
		run.ID, run.job = spec.Row.ID, *spec.Row
	}
	r.add(run)
	defer r.remove(run)

	leave, err := r.wait(ctx, run, spec)
	if err != nil {
		return err
	}
	defer leave()

	start := time.Now()
	run.mu.Lock()
	run.Meter = meter.New("prepare")
	run.job.Status, run.job.Start = resource.InProgress, &start
	run.mu.Unlock()
	if err := r.catalog.PutJob(ctx, run.snapshot()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := r.follow(ctx, run, spec.Progress, cancel)
	outcome, err := r.safely(ctx, run, work)
	stop()
	return r.finish(ctx, run, outcome, err, spec.Retry)
}

// wait lets the job queue. A row is only written if it has to wait.
func (r *Runner) wait(ctx context.Context, run *Run, spec Spec) (leave func(), err error) {
	if spec.Upkeep {
		return func() {}, r.queue.Pass()
	}
	kept := context.WithoutCancel(ctx)
	var once sync.Once
	waited := false
	var saveErr error
	positions := make(chan int, 64)
	ended := make(chan struct{})
	go func() { // the queue must not wait for the catalog or a slow watcher
		defer close(ended)
		for p := range positions {
			once.Do(func() {
				waited = spec.Row == nil
				saveErr = r.catalog.PutJob(kept, run.snapshot())
			})
			if spec.Queued != nil {
				spec.Queued(p)
			}
		}
	}()
	leave, err = r.queue.Enter(ctx, spec.Asked, func(position int) {
		select {
		case positions <- position:
		default: // the next move tells
		}
	})
	close(positions)
	<-ended
	switch {
	case err == nil && saveErr != nil:
		leave()
		return nil, saveErr
	case err == nil:
		return leave, nil
	case errors.Is(err, ErrClosed):
		if waited {
			err = errors.Join(err, r.catalog.RemoveJob(kept, run.ID))
		}
		return nil, err
	}
	return nil, r.finish(ctx, run, Outcome{}, err, spec.Retry)
}

// safely turns a panic of the work into an error, so that one job cannot take
// those of other callers with it.
func (r *Runner) safely(ctx context.Context, run *Run, work func(context.Context, *Run) (Outcome, error)) (o Outcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = crash(p)
		}
	}()
	return work(ctx, run)
}

// follow passes progress on until the function that it returns is called.
// It cancels the job when somebody asked for that in the catalog.
func (r *Runner) follow(ctx context.Context, run *Run, watch func(resource.Progress), end context.CancelCauseFunc) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		saved := time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			j := run.snapshot()
			if watch != nil && j.Detail != nil {
				watch(*j.Detail)
			}
			if time.Since(saved) >= saveEvery {
				// A failed save only makes the catalog late; the final
				// save of the job reports what is wrong.
				_ = r.catalog.PutJob(ctx, j)
				saved = time.Now()
				if asked, err := r.catalog.CancelAsked(ctx, j.ID, r.host); err == nil && asked {
					end(errAsked)
				}
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// errAsked is the cause of a job's end that somebody asked for. Unlike one that
// ends because its process must go, such a job is not put back.
var errAsked = errors.New("somebody asked for it")

func (r *Runner) finish(ctx context.Context, run *Run, outcome Outcome, err error, retry func(error) (time.Time, bool)) error {
	j := run.snapshot()
	end := time.Now()
	j.End, j.Detail, j.ETA = &end, nil, nil
	if j.Start != nil {
		j.Seconds = end.Sub(*j.Start).Seconds()
	}
	if run.Meter != nil {
		run.Meter.Finish()
		record := run.Meter.Record()
		j.Record = &record
	}
	switch {
	case err == nil && outcome.Warnings:
		j.Status = resource.CompletedWithWarnings
	case err == nil:
		j.Status = resource.Completed
	case ctx.Err() != nil:
		if !problem.Is(err, problem.OperationInterrupted) {
			err = problem.Wrap(err, problem.OperationInterrupted, "The job was cancelled.")
		}
		j.Status = resource.Cancelled
	default:
		j.Status = resource.Failed
	}
	j.Error = resource.FailureOf(err)
	if err != nil && retry != nil && !errors.Is(context.Cause(ctx), errAsked) {
		if at, ok := retry(err); ok {
			if saveErr := r.catalog.PutBack(context.WithoutCancel(ctx), j, at); saveErr != nil {
				return errors.Join(err, saveErr)
			}
			return err
		}
	}
	if err == nil && outcome.Result != nil {
		data, jerr := json.Marshal(outcome.Result)
		if jerr != nil {
			return jerr
		}
		j.Result = data
	}
	if saveErr := r.catalog.PutJob(context.WithoutCancel(ctx), j); saveErr != nil && err == nil {
		return saveErr
	}
	return err
}

// Live gives the running and waiting jobs of this process, by ID.
func (r *Runner) Live() map[string]resource.Job {
	r.mu.Lock()
	runs := make([]*Run, 0, len(r.running))
	for _, run := range r.running {
		runs = append(runs, run)
	}
	r.mu.Unlock()
	out := make(map[string]resource.Job, len(runs))
	for _, run := range runs {
		out[run.ID] = run.snapshot()
	}
	return out
}

func (r *Runner) add(run *Run) {
	r.mu.Lock()
	r.running[run.ID] = run
	r.mu.Unlock()
}

func (r *Runner) remove(run *Run) {
	r.mu.Lock()
	delete(r.running, run.ID)
	r.mu.Unlock()
}
