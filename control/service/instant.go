package service

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/disk/capture"
	"github.com/diskvault/diskvault/engine/attach/export"
	"github.com/diskvault/diskvault/engine/attach/overlay"
)

// InstantRequest asks for a disk that can be used at once, while it is restored.
type InstantRequest struct {
	PointsRequest
	Point string `json:"point,omitempty"` // ID, its beginning, a time, or latest
	To    string `json:"to"`              // absolute path of a new file
	NBDPlace
}

// InstantResult tells what an instant restore did.
type InstantResult struct {
	JobID     string    `json:"jobId"`
	Instance  string    `json:"instance"`
	Point     string    `json:"point"`
	PointTime time.Time `json:"pointTime"`
	Target    string    `json:"target"`
	Method    string    `json:"method"`           // reflink or nbd
	Reason    string    `json:"reason,omitempty"` // why it was not a reflink: a clause
	URL       string    `json:"url,omitempty"`    // while it was filled
	// Verified: every block that was filled in had its hash. A reflink is not
	// read.
	Verified        bool    `json:"verified"`
	Resumed         bool    `json:"resumed"`
	ReadySeconds    float64 `json:"readySeconds"` // until the disk could be used
	DurationSeconds float64 `json:"durationSeconds"`
}

const (
	methodReflink = "reflink"
	methodNBD     = "nbd"
	// partName is what follows the name of a disk that is not whole yet.
	partName = ".instant"
)

// instant is the use case of Client.Instant.
func (s *Service) instant(ctx context.Context, c call, r InstantRequest) (InstantResult, error) {
	var result InstantResult
	asked := time.Now()
	if overlay.Tidy(r.To+partName, r.To) {
		return result, problem.New(problem.TargetExists, "%s is whole already: the restore before ended just when it was done.", r.To)
	}
	if _, err := os.Lstat(r.To); err == nil {
		return result, problem.New(problem.TargetExists, "%s exists already, and an instant restore makes a new file.", r.To).
			Do("Choose another path, or restore without --instant and with --overwrite.")
	}
	a, err := s.attach(ctx, r.PointsRequest, r.Point, "instant restore")
	if err != nil {
		return result, err
	}
	defer a.end()
	err = s.jobs.Do(ctx, c.beside(resource.OperationRestore, a), func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		result = InstantResult{JobID: run.ID, Instance: a.instance, Point: a.point.ID, PointTime: a.point.Time, Target: r.To, Method: methodReflink}
		defer s.front.Enter(run.ID)()
		run.Meter.Phase("clone")
		why, err := s.cloneTo(a, r.To)
		if err != nil {
			return job.Outcome{}, err
		}
		if why != "" {
			result.Method, result.Reason = methodNBD, why
			if err := s.hydrate(ctx, c, r, a, run, &result, asked); err != nil {
				return job.Outcome{}, err
			}
		} else {
			result.ReadySeconds = time.Since(asked).Seconds()
		}
		result.DurationSeconds = time.Since(asked).Seconds()
		return job.Outcome{Result: result}, nil
	})
	return result, err
}

// cloneTo makes the target a clone of a capture that is kept beside the source.
func (s *Service) cloneTo(a *attached, to string) (why string, err error) {
	if _, err := os.Lstat(to + partName); err == nil {
		return "an interrupted restore is gone on with", nil // clients may have written to it
	}
	why, err = capture.CloneKept(a.point.CaptureBase, a.point.Size, to)
	switch {
	case errors.Is(err, os.ErrExist):
		err = problem.Wrap(err, problem.TargetExists, "%s exists already.", to)
	case err != nil:
		err = problem.Wrap(err, problem.TargetNotWritable, "%s cannot be made.", to)
	}
	return why, err
}

// hydrate offers the disk over NBD, from the point where the file does not have
// it yet, and fills the file meanwhile. It returns when the file is whole and no
// client uses it.
func (s *Service) hydrate(ctx context.Context, c call, r InstantRequest, a *attached, run *job.Run, result *InstantResult, asked time.Time) (err error) {
	d, resumed, err := overlay.Open(a.image, r.To+partName, "root "+a.point.Root.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	result.Resumed = resumed
	e, err := s.offer(c, r.NBDPlace, d, a)
	if err != nil {
		return err
	}
	result.URL = e.URL()
	result.ReadySeconds = time.Since(asked).Seconds()
	c.notice(resource.Notice{
		Message:           a.instance + " as of " + moment(a.point.Time) + " can be used at " + e.URL() + " while it is restored to " + r.To + "; what is written to it stays.",
		RecommendedAction: "The file gets its name when it is whole. Interrupted, the same command goes on.",
	})
	serving, end := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- e.Serve(serving) }()
	err = s.fill(ctx, c, r, d, run, e)
	end()
	if e := <-served; err == nil {
		err = e
	}
	// What clients wrote last is in the file as well.
	if e := d.Flush(context.WithoutCancel(ctx)); err == nil {
		err = e
	}
	if err == nil {
		result.Verified = true
	}
	return err
}

// fill makes the file whole, gives it its name, and waits until no client
// uses it.
func (s *Service) fill(ctx context.Context, c call, r InstantRequest, d *overlay.Disk, run *job.Run, e *export.Export) error {
	run.Meter.Phase("transfer")
	var done atomic.Int64
	started := time.Now()
	run.Follow(func() resource.Progress {
		p := resource.Progress{Phase: "transfer", Done: done.Load(), Total: d.Size()}
		p.Rate = float64(p.Done) / max(time.Since(started).Seconds(), 0.001)
		if left := float64(p.Total-p.Done) / max(p.Rate, 1); time.Since(started) > time.Second && p.Done > 0 {
			p.ETA = &resource.ETA{P10: left, P50: left, P90: left}
		}
		return p
	})
	if err := d.Fill(ctx, &done); err != nil {
		if ctx.Err() != nil {
			err = problem.Wrap(context.Canceled, problem.OperationInterrupted, "The instant restore to %s was interrupted. What it had written, and what clients had, is kept in %s; the same command goes on from there.", r.To, filepath.Base(r.To)+partName)
		}
		return err
	}
	run.Meter.Phase("commit")
	if err := d.Finish(r.To); err != nil {
		return err
	}
	run.Meter.Phase("attached")
	if e.Idle() == 0 {
		c.notice(resource.Notice{Message: r.To + " is whole. The export lasts until its last client has left, or Ctrl-C."})
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		// A small disk is whole before anybody could connect; and tools connect
		// anew for each of their steps.
		patience := 5 * time.Second
		if e.Used() {
			patience = time.Second
		}
		if e.Idle() >= patience {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
