package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/engine/restore"
)

// restore is the use case of Client.Restore.
func (s *Service) restore(ctx context.Context, c call, r RestoreRequest) (RestoreResult, error) {
	var result RestoreResult
	sel, err := s.selectPoints(ctx, r.PointsRequest)
	if err != nil {
		return result, err
	}
	point, err := choose(sel.points, sel.instance, r.Point)
	if err != nil {
		return result, err
	}
	at, err := sel.locate(ctx, s, point, r.Key)
	if err != nil {
		return result, err
	}
	if at.notice != "" {
		c.notice(resource.Notice{Name: "OtherPlacement", Message: at.notice})
	}
	spec := c.spec(resource.OperationRestore)
	spec.InstanceID, spec.Instance = point.Instance, sel.instance
	err = s.jobs.Do(ctx, spec, s.first(func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		engine := restore.New(restore.Options{
			Store: at.store, Point: at.point, To: r.To, Overwrite: r.Overwrite, Dense: r.Sparse == "never", AllowDamaged: r.AllowDamaged, Meter: run.Meter,
		})
		run.Follow(func() resource.Progress { return restoreProgress(engine.Progress()) })
		started := time.Now()
		done, err := engine.Do(ctx)
		if err != nil {
			if ctx.Err() != nil && (errors.Is(err, context.Canceled) || problem.Is(err, problem.OperationInterrupted)) {
				err = problem.Wrap(context.Canceled, problem.OperationInterrupted, "The restore of %s to %s was interrupted. What it had written is kept; the same command goes on from there.", sel.instance, r.To)
			}
			return job.Outcome{}, at.elsewhere(err)
		}
		result = RestoreResult{
			JobID: run.ID, Instance: sel.instance, Point: point.ID, PointTime: point.Time, Target: done.Target,
			Bytes:    RestoreBytes{Written: done.Written, Zero: done.Zero, Skipped: done.Skipped},
			Verified: done.Verified, Resumed: done.Resumed, Lost: done.Lost, Warnings: done.Warnings, DurationSeconds: time.Since(started).Seconds(), Store: at.store.URL(),
			Phases: run.Meter.Record().Phases,
		}
		return job.Outcome{Result: result, Warnings: len(done.Warnings) > 0 || len(done.Lost) > 0}, nil
	}))
	return result, err
}

func restoreProgress(p restore.Progress) resource.Progress {
	out := resource.Progress{Phase: p.Phase, Done: p.Done, Total: p.Total, Rate: p.Rate}
	if p.Left > 0 {
		out.ETA = &resource.ETA{P10: p.Left, P50: p.Left, P90: p.Left}
	}
	return out
}

// first is shared, and upkeep yields to the job.
func (s *Service) first(work func(context.Context, *job.Run) (job.Outcome, error)) func(context.Context, *job.Run) (job.Outcome, error) {
	return s.shared(func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		defer s.front.Enter(run.ID)()
		return work(ctx, run)
	})
}

// shared lets a job use stores beside others; exclusive keeps all others out.
func (s *Service) shared(work func(context.Context, *job.Run) (job.Outcome, error)) func(context.Context, *job.Run) (job.Outcome, error) {
	return func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		s.use.RLock()
		defer s.use.RUnlock()
		return work(ctx, run)
	}
}

func (s *Service) exclusive(work func(context.Context, *job.Run) (job.Outcome, error)) func(context.Context, *job.Run) (job.Outcome, error) {
	return func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		s.use.Lock()
		defer s.use.Unlock()
		return work(ctx, run)
	}
}

// byteText says an amount as a person reads it, in binary units.
func byteText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	f, unit := float64(n), 0
	for f >= 1024 && unit < 6 {
		f, unit = f/1024, unit+1
	}
	return fmt.Sprintf("%.1f %s", f, [...]string{"", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}[unit])
}
