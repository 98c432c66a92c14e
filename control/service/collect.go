package service

import (
	"context"
	"errors"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/home"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/engine/upkeep"
	"github.com/diskvault/diskvault/store"
)

// CollectRequest asks to remove what nothing refers to any more.
type CollectRequest struct {
	StoreRequest
	Grace     time.Duration `json:"grace"`     // how long condemned packs stay
	MaxUnused float64       `json:"maxUnused"` // share of the bytes in use; negative: compact nothing
}

// CollectResult tells what became of the space.
type CollectResult struct {
	JobID string `json:"jobId"`
	Store string `json:"store"`
	store.CollectReport
	upkeep.Account
	DurationSeconds float64             `json:"durationSeconds"`
	Phases          []meter.PhaseRecord `json:"phases"`
}

// collectEvery is how often a server collects each store.
const collectEvery = 24 * time.Hour

// CollectDue collects the stores that no server has collected for a day, one
// after the other. One that fails is tried again after an hour.
func (s *Service) CollectDue(ctx context.Context, now time.Time) error {
	known, err := s.catalog.Stores(ctx)
	if err != nil {
		return err
	}
	var failed error
	for _, row := range known {
		turn := catalog.Collected + row.ID
		mine, err := s.catalog.TakeTurn(ctx, turn, now.Add(-collectEvery), now)
		if err != nil {
			return errors.Join(failed, err)
		}
		if !mine {
			continue
		}
		c := call{asked: now, trigger: resource.Scheduled, emit: func(home.Event) {}}
		_, err = s.collectStore(ctx, c, CollectRequest{StoreRequest: StoreRequest{URL: row.URL}, Grace: store.DefaultGrace, MaxUnused: store.DefaultMaxUnused})
		if err != nil {
			_, again := s.catalog.TakeTurn(context.WithoutCancel(ctx), turn, now, now.Add(time.Hour-collectEvery))
			failed = errors.Join(failed, err, again)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return failed
}

// collectStore is the use case of Client.CollectStore.
func (s *Service) collectStore(ctx context.Context, c call, r CollectRequest) (CollectResult, error) {
	var result CollectResult
	st, row, err := s.openStore(ctx, r.StoreRequest)
	if err != nil {
		return result, err
	}
	spec := c.spec(resource.OperationCollect)
	spec.Upkeep = true
	err = s.jobs.Do(ctx, spec, s.shared(func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		var live gauge
		run.Follow(live.progress)
		pace := upkeep.NewPace(&s.front)
		started := time.Now()
		report, err := st.Collect(ctx, store.CollectOptions{
			Grace: r.Grace, MaxUnused: r.MaxUnused, Yield: pace.Yield, Progress: live.step, Meter: run.Meter,
		})
		if err != nil {
			return job.Outcome{}, err
		}
		run.Meter.Finish()
		result = CollectResult{
			JobID: run.ID, Store: row.URL, CollectReport: report, Account: pace.Account(),
			DurationSeconds: time.Since(started).Seconds(), Phases: run.Meter.Record().Phases,
		}
		return job.Outcome{Result: result}, nil
	}))
	return result, err
}
