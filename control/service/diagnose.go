package service

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/engine/diagnose"
	"github.com/diskvault/diskvault/engine/diagnose/signals"
)

// DiagnoseRequest names a backup: by the ID of its job, or how that begins, or
// the newest one of a disk; without either the newest of all.
type DiagnoseRequest struct {
	Job       string        `json:"job,omitempty"`
	Instance  string        `json:"instance,omitempty"` // as a person wrote it
	Path      string        `json:"path,omitempty"`
	MinExcess time.Duration `json:"minExcess,omitempty"` // 0: 5 min
}

// DiagnoseResult says why a backup took as long as it did.
type DiagnoseResult struct {
	JobID             string          `json:"jobId"`
	Instance          string          `json:"instance"`
	Verdict           diagnose.Report `json:"verdict"`
	Sentence          string          `json:"sentence"`
	RecommendedAction []string        `json:"recommendedAction"`
}

// Diagnose judges the speed of a backup that is over.
func (c Client) Diagnose(ctx context.Context, r DiagnoseRequest) (DiagnoseResult, error) {
	return ask[DiagnoseResult](ctx, c, "diagnose", r, nil)
}

// compared is how many jobs of a disk are looked at for runs to compare with.
const compared = 100

// diagnose is the use case of Client.Diagnose.
func (s *Service) diagnose(ctx context.Context, c call, r DiagnoseRequest) (DiagnoseResult, error) {
	var result DiagnoseResult
	f := catalog.JobFilter{ID: r.Job, Limit: compared}
	if r.Instance != "" {
		i, err := s.instance(ctx, r.Instance, r.Path)
		if err != nil {
			return result, err
		}
		f.Instance = i.ID
	}
	jobs, err := s.catalog.Jobs(ctx, f)
	if err != nil {
		return result, err
	}
	for _, j := range jobs {
		record, ok := s.recordOf(j)
		if !ok {
			continue
		}
		h, err := s.history(ctx, record)
		if err != nil {
			return result, err
		}
		v := diagnose.Verdict(record, h, time.Time{}, diagnose.Settings{MinExcess: r.MinExcess})
		return DiagnoseResult{JobID: j.ID, Instance: j.Instance, Verdict: v, Sentence: v.Sentence(), RecommendedAction: append([]string{}, v.Advice()...)}, nil
	}
	switch {
	case r.Job != "" && len(jobs) > 0:
		return result, problem.New(problem.InvalidArgument, "The job %s is no backup that has made a recovery point.", jobs[0].ID).
			Do("`diskvault jobs " + jobs[0].ID[:8] + "` shows how it stands.")
	case r.Job != "":
		return result, problem.New(problem.JobNotFound, "There is no job %q.", r.Job)
	}
	return result, problem.New(problem.JobNotFound, "There is no backup to diagnose yet.").Do("Back a disk up: diskvault backup PATH")
}

// watch writes into the record of a backup what happens on the host meanwhile.
func (s *Service) watch(ctx context.Context, src *disk.Source, row resource.Store, run *job.Run) (stop func()) {
	o := signals.Options{Source: signals.Device(src.Path), Remote: true, Maintenance: s.maintenance}
	if path, ok := strings.CutPrefix(row.URL, "file:"); ok {
		o.Folder, o.Remote = strings.TrimPrefix(path, "//"), false
		o.Store = signals.Device(o.Folder)
	}
	return signals.Watch(ctx, o, run.Meter)
}

// maintenance tells what else than backups and restores this process does now.
// It does not look at whose store it is: on one host they mostly share a disk.
func (s *Service) maintenance() (m signals.Maintenance) {
	for _, j := range s.jobs.Live() {
		switch j.Operation {
		case resource.OperationVerify:
			m.Verify = true
		case resource.OperationCollect, resource.OperationCopy:
		default:
			continue
		}
		if j.Status != resource.InProgress {
			continue
		}
		m.Running = true
		if j.Detail != nil {
			m.Rate += j.Detail.Rate
		}
	}
	return m
}

// judge says whether a backup that has just ended took longer than it should.
// That it cannot be said is no failure of the backup.
func (s *Service) judge(ctx context.Context, result BackupResult, i resource.Instance, run *job.Run, minExcess time.Duration) diagnose.Report {
	var j resource.Job
	run.Note(func(now *resource.Job) { j = *now })
	end := time.Now()
	record := run.Meter.Record()
	j.InstanceID, j.End, j.Record, j.Operation = i.ID, &end, &record, resource.OperationBackup
	r := recordFrom(j, result)
	h, err := s.history(ctx, r)
	if err != nil {
		h = diagnose.History{} // it is then judged as a first backup would be
	}
	return diagnose.Verdict(r, h, end, diagnose.Settings{MinExcess: minExcess})
}

// history are the runs of the same disk that were over before the run began.
func (s *Service) history(ctx context.Context, r diagnose.Record) (h diagnose.History, err error) {
	jobs, err := s.catalog.Jobs(ctx, catalog.JobFilter{Instance: r.Instance, Limit: compared})
	if err != nil {
		return h, err
	}
	for _, j := range jobs {
		if x, ok := s.recordOf(j); ok && x.End.Before(r.Start) {
			h.Runs = append(h.Runs, x)
		}
	}
	return h, nil
}

// recordOf gives the record of a backup that made a recovery point.
func (s *Service) recordOf(j resource.Job) (diagnose.Record, bool) {
	var result BackupResult
	done := j.Status == resource.Completed || j.Status == resource.CompletedWithWarnings
	if j.Operation != resource.OperationBackup || !done || j.Start == nil || j.End == nil || j.Record == nil || json.Unmarshal(j.Result, &result) != nil {
		return diagnose.Record{}, false
	}
	return recordFrom(j, result), true
}

func recordFrom(j resource.Job, b BackupResult) diagnose.Record {
	r := diagnose.Record{
		Instance: j.InstanceID, Kind: diagnose.Incremental, Source: b.SourceKind, Store: b.StoreID, Settings: b.Compression,
		Asked: j.Created, Start: *j.Start, End: *j.End, Limit: b.LimitRate, Attempts: b.Attempts, Restarts: max(1, j.Attempt), Partial: b.ResumedBytes,
		Work: diagnose.Work{
			Provisioned: b.Bytes.Provisioned, Allocated: b.Bytes.Allocated, Changed: b.Bytes.ReportedChanged, Read: b.Bytes.Read,
			Zero: b.Bytes.Zero, Unchanged: b.Bytes.Unchanged, Known: b.Bytes.Known, New: b.Bytes.New, Stored: b.Bytes.Stored,
		},
		Changes: diagnose.Changes{Tracked: b.ChangeTracking.Method != "none", Reason: b.ChangeTracking.Reason},
		Meter:   *j.Record, Slow: b.Verdict.Slow(),
	}
	switch {
	case b.First || b.ChangeTracking.Planned:
		r.Kind = diagnose.Full
	case b.ResumedBytes > 0:
		r.Kind = diagnose.Resumed
	}
	if j.Slot != nil {
		r.Due = *j.Slot
	}
	return r
}
