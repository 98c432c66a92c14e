package service

import (
	"context"
	"sort"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
)

// status is the use case of Client.Status.
func (s *Service) status(ctx context.Context, c call, _ struct{}) (StatusResult, error) {
	result := StatusResult{Home: s.folder.Path(), Instances: []InstanceStatus{}, Running: []resource.Job{}, Stores: []resource.Store{}, Notices: []resource.Notice{}}
	instances, err := s.catalog.Instances(ctx)
	if err != nil {
		return result, err
	}
	last, err := s.catalog.LastJobs(ctx)
	if err != nil {
		return result, err
	}
	live := s.jobs.Live()
	running := map[string]bool{}
	for _, j := range live {
		result.Running = append(result.Running, j)
		running[j.InstanceID] = j.Operation == resource.OperationBackup
	}
	sort.Slice(result.Running, func(a, b int) bool { return result.Running[a].Created.Before(result.Running[b].Created) })
	for _, i := range instances {
		views, err := s.view(ctx, i.ID)
		if err != nil {
			return result, err
		}
		row := InstanceStatus{Instance: i, State: "NoPoint", Points: len(views)}
		if len(views) > 0 {
			row.LastPoint = &views[0]
			row.State = "Protected"
			if views[0].Consistency == string(store.Inconsistent) {
				row.State = "Inconsistent"
			}
		}
		if j, ok := last[i.ID]; ok {
			if now, ok := live[j.ID]; ok {
				j = now
			}
			row.LastJob = &j
			if j.Status == resource.Failed || j.Status == resource.Cancelled {
				row.State = "Failed"
			}
		}
		if running[i.ID] {
			row.State = "Running"
		}
		result.Instances = append(result.Instances, row)
	}
	if result.Stores, err = s.catalog.Stores(ctx); err != nil {
		return result, err
	}
	if result.Stores == nil {
		result.Stores = []resource.Store{}
	}
	paused, err := s.catalog.Fact(ctx, catalog.RetentionPaused)
	if err != nil {
		return result, err
	}
	if paused != "" {
		result.Notices = append(result.Notices, resource.Notice{Name: "RetentionPaused",
			Message: "Retention is paused, since " + paused + ": no point is deleted by a rule."})
	}
	if len(instances) > 0 {
		result.Notices = append(result.Notices, resource.Notice{Name: "NoServer",
			Message: "No server runs, so nothing is backed up by itself.", RecommendedAction: "Run `diskvault backup` from cron or a systemd timer."})
	}
	return result, nil
}

// listJobs is the use case of Client.Jobs.
func (s *Service) listJobs(ctx context.Context, c call, r JobsRequest) ([]resource.Job, error) {
	f := catalog.JobFilter{ID: r.ID, Status: r.Status, Since: r.Since, Limit: r.Limit}
	if r.Instance != "" {
		i, err := s.instance(ctx, r.Instance, r.Path)
		if err != nil {
			return nil, err
		}
		f.Instance = i.ID
	}
	jobs, err := s.catalog.Jobs(ctx, f)
	if err != nil {
		return nil, err
	}
	if len(jobs) == 0 && r.ID != "" {
		return nil, problem.New(problem.JobNotFound, "There is no job %q.", r.ID)
	}
	live := s.jobs.Live()
	out := []resource.Job{}
	for _, j := range jobs {
		if now, ok := live[j.ID]; ok {
			j = now
		}
		out = append(out, j)
	}
	return out, nil
}
