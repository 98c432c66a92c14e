package service

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
)

// CopyStoreRequest asks that another store gets the recovery points of one.
type CopyStoreRequest struct {
	PointsRequest              // the store to copy from, and the disk; no disk: all
	To            StoreRequest `json:"to"`
	LimitRate     int64        `json:"limitRate,omitempty"` // bytes per second; 0: none
}

// CopyStoreResult tells what was copied.
type CopyStoreResult struct {
	JobID           string              `json:"jobId"`
	From            string              `json:"from"`
	To              string              `json:"to"`
	Status          resource.Status     `json:"status"`
	There           int                 `json:"there"` // points that both stores had
	Copied          []CopiedPoint       `json:"copied"`
	Failed          []FailedCopy        `json:"failed"`
	Records         int                 `json:"records"` // configuration records written
	Bytes           store.CopyBytes     `json:"bytes"`
	MovedFrames     int64               `json:"movedFrames"`    // sent as they were
	GatheredFrames  int64               `json:"gatheredFrames"` // made anew of what was missing
	Warnings        []string            `json:"warnings,omitempty"`
	DurationSeconds float64             `json:"durationSeconds"`
	Phases          []meter.PhaseRecord `json:"phases"`
	Stages          []meter.StageRecord `json:"stages"`
}

// CopiedPoint names a recovery point that was copied.
type CopiedPoint struct {
	ID       string    `json:"id"`
	Instance string    `json:"instance"` // its name
	Time     time.Time `json:"time"`
}

// FailedCopy is a recovery point that could not be copied.
type FailedCopy struct {
	CopiedPoint
	Code problem.Code  `json:"code"`
	Lost []store.Range `json:"lost,omitempty"` // of the disk, that the source does not have
}

// copyStore is the use case of Client.CopyStore.
func (s *Service) copyStore(ctx context.Context, c call, r CopyStoreRequest) (CopyStoreResult, error) {
	var result CopyStoreResult
	from, options, err := s.copySource(ctx, r)
	if err != nil {
		return result, err
	}
	to, err := s.stores.open(ctx, r.To.URL, r.To.Key)
	if err != nil {
		return result, err
	}
	if err := from.MayCopyTo(to); err != nil {
		return result, err
	}
	if _, err := s.register(ctx, to, false); err != nil {
		return result, err
	}
	spec := c.spec(resource.OperationCopy)
	if r.Instance != "" {
		spec.InstanceID, spec.Instance = options.Instances[0], r.Instance
	}
	err = s.jobs.Do(ctx, spec, s.shared(func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		started := time.Now()
		instance := ""
		if len(options.Instances) == 1 {
			instance = options.Instances[0]
		}
		var err error
		if options.Placed, options.Omitted, err = s.catalog.Placed(ctx, to.Header().StoreID.String(), instance); err != nil {
			return job.Outcome{}, err
		}
		done, err := s.runCopy(ctx, from, to, options, run)
		result = copyResult(done)
		result.JobID, result.From, result.To = run.ID, from.URL(), to.URL()
		result.DurationSeconds = time.Since(started).Seconds()
		if err != nil {
			return job.Outcome{Result: result}, interruptedCopy(ctx, err, result)
		}
		run.Meter.Finish()
		record := run.Meter.Record()
		result.Phases, result.Stages = record.Phases, record.Stages
		return job.Outcome{Result: result, Warnings: len(result.Warnings) > 0}, nil
	}))
	return result, err
}

// runCopy copies as part of a job, and has the catalog know of what the destination
// has now.
func (s *Service) runCopy(ctx context.Context, from, to *store.Store, o store.CopyOptions, run *job.Run) (store.CopyResult, error) {
	var live gauge
	run.Follow(func() resource.Progress {
		p := live.progress()
		p.Phase = "copy"
		return p
	})
	o.Meter, o.Progress = run.Meter, live.set
	sampling, stop := context.WithCancel(ctx)
	go sample(sampling, run.Meter)
	done, err := from.Copy(ctx, to, o)
	stop()
	return done, errors.Join(err, s.catalog.AddPlacements(context.WithoutCancel(ctx), to.Header().StoreID.String(), done.Placed, time.Now()))
}

// copySource opens the store to copy from and chooses what is copied.
func (s *Service) copySource(ctx context.Context, r CopyStoreRequest) (*store.Store, store.CopyOptions, error) {
	options := store.CopyOptions{LimitRate: r.LimitRate}
	if r.Instance == "" {
		st, _, err := s.openStore(ctx, r.StoreRequest)
		return st, options, err
	}
	sel, err := s.selectPoints(ctx, r.PointsRequest)
	if err != nil {
		return nil, options, err
	}
	options.Instances = []string{sel.points[0].Instance}
	if sel.store != nil {
		return sel.store, options, nil
	}
	i, err := s.instance(ctx, r.Instance, r.Path)
	if err != nil {
		return nil, options, err
	}
	st, _, err := s.openKnown(ctx, i.Store, r.Key)
	return st, options, err
}

func copyResult(done store.CopyResult) CopyStoreResult {
	result := CopyStoreResult{
		Status: resource.Completed, There: done.There, Copied: []CopiedPoint{}, Failed: []FailedCopy{}, Records: done.Records,
		Bytes: done.Bytes, MovedFrames: done.Moved, GatheredFrames: done.Gathered, Warnings: slices.Clone(done.Notices),
	}
	for _, p := range done.Copied {
		result.Copied = append(result.Copied, CopiedPoint{p.ID, p.Name, p.Time})
	}
	for _, f := range done.Failed {
		result.Failed = append(result.Failed, FailedCopy{CopiedPoint{f.Point, f.Name, f.Time}, problem.From(f.Err).Code, f.Lost})
		result.Warnings = append(result.Warnings, f.String())
	}
	if len(result.Warnings) > 0 {
		result.Status = resource.CompletedWithWarnings
	}
	return result
}

// interruptedCopy says, when a person interrupted a copy, what became of its work.
func interruptedCopy(ctx context.Context, err error, r CopyStoreResult) error {
	if ctx.Err() == nil || !errors.Is(err, context.Canceled) && !problem.Is(err, problem.OperationInterrupted) {
		return err
	}
	return problem.Wrap(context.Canceled, problem.OperationInterrupted, "The copy to %s was interrupted when it had copied %d recovery points. What it had sent of the next one is kept; the same command goes on from there.", r.To, len(r.Copied)).
		With("storedBytes", r.Bytes.Stored)
}

// sample looks at the queues of a job five times a second.
func sample(ctx context.Context, m *meter.Meter) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.Sample()
		case <-ctx.Done():
			return
		}
	}
}
