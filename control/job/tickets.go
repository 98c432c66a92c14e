package job

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"

	"github.com/diskvault/diskvault/control/catalog"
)

// ticket is what the queue engine, River, knows of a job: that it exists. All
// else stands in the catalog's row, which alone says whether the job is still
// to be run. So a ticket may be lost or come twice without harm, and another
// engine could take River's place.
type ticket struct {
	Job     string `json:"job"`
	Attempt int    `json:"attempt"`
}

// Kind implements river.JobArgs.
func (ticket) Kind() string { return "diskvault" }

// tickets hands out tickets to the hosts of a deployment.
type tickets struct {
	client interface {
		Start(ctx context.Context) error
		Stop(ctx context.Context) error
		StopAndCancel(ctx context.Context) error
		InsertMany(ctx context.Context, params []river.InsertManyParams) ([]*rivertype.JobInsertResult, error)
		JobList(ctx context.Context, params *river.JobListParams) (*river.JobListResult, error)
	}
	discard func(ctx context.Context, id int64) error
}

// puncher does the job of a ticket. A time says that the ticket counts again
// from then on.
type puncher func(ctx context.Context, t ticket) (again time.Time, err error)

type worker struct {
	river.WorkerDefaults[ticket]
	punch puncher
}

// Timeout implements river.Worker: a backup takes as long as it takes.
func (*worker) Timeout(*river.Job[ticket]) time.Duration { return -1 }

// Work implements river.Worker. Errors are those of the catalog: how a job
// itself ended stands in its row.
func (w *worker) Work(ctx context.Context, j *river.Job[ticket]) error {
	again, err := w.punch(ctx, j.Args)
	if err == nil && !again.IsZero() {
		return river.JobSnooze(max(time.Until(again), 0))
	}
	return err
}

// newTickets opens the engine on the catalog's database and brings its tables
// to their present form. slots 0 makes one that only takes tickets in.
func newTickets(ctx context.Context, c *catalog.Catalog, host string, sites []string, slots int, punch puncher) (*tickets, error) {
	db, pool := c.Queue()
	if pool != nil {
		return openTickets(ctx, riverpgxv5.New(pool), host, sites, slots, punch)
	}
	return openTickets(ctx, riversqlite.New(db), host, sites, slots, punch)
}

func openTickets[Tx any](ctx context.Context, driver riverdriver.Driver[Tx], host string, sites []string, slots int, punch puncher) (*tickets, error) {
	silent := slog.New(slog.NewTextHandler(io.Discard, nil)) // what a person must know stands in the catalog
	m, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: silent})
	if err != nil {
		return nil, err
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	config := &river.Config{Logger: silent, ID: host, JobTimeout: -1, CompletedJobRetentionPeriod: time.Hour, CancelledJobRetentionPeriod: time.Hour, DiscardedJobRetentionPeriod: time.Hour}
	if slots > 0 {
		config.Queues, config.Workers = map[string]river.QueueConfig{}, river.NewWorkers()
		for _, site := range sites {
			config.Queues[queueOf(site)] = river.QueueConfig{MaxWorkers: slots}
		}
		if err := river.AddWorkerSafely(config.Workers, &worker{punch: punch}); err != nil {
			return nil, err
		}
	}
	client, err := river.NewClient(driver, config)
	if err != nil {
		return nil, err
	}
	return &tickets{client, func(ctx context.Context, id int64) error {
		now := time.Now().UTC()
		_, err := driver.GetExecutor().JobUpdateFull(ctx, &riverdriver.JobUpdateFullParams{
			ID: id, StateDoUpdate: true, State: rivertype.JobStateDiscarded, FinalizedAtDoUpdate: true, FinalizedAt: &now,
		})
		return err
	}}, nil
}

var notInQueueName = regexp.MustCompile(`[^a-z0-9]+`)

// queueOf is the queue of a site: the hosts that reach its disks take from it.
func queueOf(site string) string {
	return strings.Trim("site-"+notInQueueName.ReplaceAllString(strings.ToLower(site), "-"), "-")
}

// waiting are the states of a ticket that is still good.
var waiting = []rivertype.JobState{
	rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateRunning, rivertype.JobStateScheduled,
}

func readTicket(data []byte) (t ticket, err error) { return t, json.Unmarshal(data, &t) }

// add gives out a ticket for each attempt of a job, once.
func (t *tickets) add(ctx context.Context, site string, at time.Time, ts ...ticket) error {
	var params []river.InsertManyParams
	for _, one := range ts {
		o := &river.InsertOpts{Queue: queueOf(site), MaxAttempts: 100, UniqueOpts: river.UniqueOpts{ByArgs: true, ByQueue: true, ByState: waiting}}
		if at.After(time.Now()) {
			o.ScheduledAt = at
		}
		params = append(params, river.InsertManyParams{Args: one, InsertOpts: o})
	}
	if len(params) == 0 {
		return nil
	}
	_, err := t.client.InsertMany(ctx, params)
	return err
}

// tidy discards tickets that a dead process was working on: their jobs are
// ticketed anew.
func (t *tickets) tidy(ctx context.Context, dead func(ticket) bool) error {
	list, err := t.client.JobList(ctx, river.NewJobListParams().Kinds(ticket{}.Kind()).States(rivertype.JobStateRunning).First(1000))
	if err != nil {
		return err
	}
	for _, row := range list.Jobs {
		one, err := readTicket(row.EncodedArgs)
		if err == nil && !dead(one) {
			continue
		}
		if derr := t.discard(ctx, row.ID); derr != nil {
			return errors.Join(err, derr)
		}
	}
	return nil
}
