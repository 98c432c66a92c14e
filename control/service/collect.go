package service

import (
	"context"
	"time"

	"github.com/diskvault/diskvault/base/meter"
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
