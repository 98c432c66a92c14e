package service

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/engine/attach/fuse"
	"github.com/diskvault/diskvault/engine/attach/proof"
)

// FSCKRequest asks for the check of a point by the programs of its file systems.
type FSCKRequest struct {
	PointsRequest
	Point string `json:"point,omitempty"` // ID, its beginning, a time, or latest
}

// FSCKResult tells what the checkers found. It is kept with the job.
type FSCKResult struct {
	JobID           string         `json:"jobId"`
	Instance        string         `json:"instance"`
	Point           string         `json:"point"`
	PointTime       time.Time      `json:"pointTime"`
	Method          string         `json:"method"` // fsck
	Volumes         []proof.Volume `json:"volumes"`
	Verified        bool           `json:"verified"` // some volume is clean, and none is damaged
	Warnings        []string       `json:"warnings,omitempty"`
	DurationSeconds float64        `json:"durationSeconds"`
}

// fsck is the use case of Client.FSCK.
func (s *Service) fsck(ctx context.Context, c call, r FSCKRequest) (FSCKResult, error) {
	var result FSCKResult
	_, _ = fuse.Sweep() // what a killed check left is in nobody's way
	a, err := s.attach(ctx, r.PointsRequest, r.Point, "restore test")
	if err != nil {
		return result, err
	}
	defer a.end()
	err = s.jobs.Do(ctx, c.beside(resource.OperationVerify, a), func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		started := time.Now()
		result = FSCKResult{JobID: run.ID, Instance: a.instance, Point: a.point.ID, PointTime: a.point.Time, Method: "fsck"}
		run.Meter.Phase("verify")
		run.Follow(func() resource.Progress { return resource.Progress{Phase: "verify"} })
		d, err := s.scratch("", a)
		if err != nil {
			return job.Outcome{}, err
		}
		defer d.Close()
		dir, err := os.MkdirTemp("", "diskvault-verify-")
		if err != nil {
			return job.Outcome{}, problem.Wrap(err, problem.MountFailed, "No folder can be made for the check.")
		}
		defer os.Remove(dir)
		if result.Volumes, err = proof.FSCK(ctx, d, dir); err != nil {
			return job.Outcome{}, err
		}
		result.DurationSeconds = time.Since(started).Seconds()
		var damaged []string
		for _, v := range result.Volumes {
			switch v.Verdict {
			case proof.Clean:
				result.Verified = true
			case proof.Damaged:
				damaged = append(damaged, v.Name+" ("+v.Kind+")")
			default:
				result.Warnings = append(result.Warnings, "The volume "+v.Name+" was not checked: "+v.Reason+".")
			}
		}
		if len(damaged) > 0 {
			result.Verified = false
			return job.Outcome{}, problem.New(problem.FileSystemDamaged, "The checkers of the file systems found faults in the recovery point of %s: %s.", moment(a.point.Time), strings.Join(damaged, ", ")).
				Do("Check the file system on the disk itself: the point shows it as it was then.", "Check an older recovery point: add --point.").
				With("volumes", result.Volumes).With("jobId", run.ID)
		}
		return job.Outcome{Result: result, Warnings: len(result.Warnings) > 0}, nil
	})
	return result, err
}
