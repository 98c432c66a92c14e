package service

import (
	"context"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
)

// verify is the use case of Client.Verify.
func (s *Service) verify(ctx context.Context, c call, r VerifyRequest) (VerifyResult, error) {
	var ids []string
	spec := c.spec(resource.OperationVerify)
	if r.Instance == "" {
		if r.Point != "" {
			return VerifyResult{}, problem.New(problem.InvalidArgument, "A recovery point can only be named together with its disk.").
				Do("diskvault verify INSTANCE --point " + r.Point)
		}
		return s.verifyAll(ctx, spec, r)
	}
	sel, err := s.selectPoints(ctx, r.PointsRequest)
	if err != nil {
		return VerifyResult{}, err
	}
	chosen := sel.points
	if r.Point != "" {
		p, err := choose(sel.points, sel.instance, r.Point)
		if err != nil {
			return VerifyResult{}, err
		}
		chosen = chosen[:0:0]
		chosen = append(chosen, p)
	}
	for _, p := range chosen {
		ids = append(ids, p.ID)
	}
	spec.InstanceID, spec.Instance = chosen[0].Instance, sel.instance
	return s.check(ctx, spec, []*store.Store{sel.store}, ids, r.ReadData, r.Sample)
}

// verifyAll verifies all points of one store, or of all that are known.
func (s *Service) verifyAll(ctx context.Context, spec job.Spec, r VerifyRequest) (VerifyResult, error) {
	if r.URL != "" {
		st, err := s.stores.open(ctx, r.URL, r.Key)
		if err != nil {
			return VerifyResult{}, err
		}
		return s.check(ctx, spec, []*store.Store{st}, nil, r.ReadData, r.Sample)
	}
	known, err := s.catalog.Stores(ctx)
	if err != nil {
		return VerifyResult{}, err
	}
	if len(known) == 0 {
		return VerifyResult{}, problem.New(problem.StoreNotFound, "There is nothing to verify: no disk is protected yet.").
			Do("Protect one: diskvault backup PATH")
	}
	var all []*store.Store
	for _, row := range known {
		st, err := s.stores.open(ctx, row.URL, r.Key)
		if err != nil {
			return VerifyResult{}, err
		}
		all = append(all, st)
	}
	return s.check(ctx, spec, all, nil, r.ReadData, r.Sample)
}

// checkStore is the use case of Client.CheckStore.
func (s *Service) checkStore(ctx context.Context, c call, r CheckStoreRequest) (VerifyResult, error) {
	st, _, err := s.openStore(ctx, r.StoreRequest)
	if err != nil {
		return VerifyResult{}, err
	}
	return s.check(ctx, c.spec(resource.OperationVerify), []*store.Store{st}, nil, r.ReadData, r.Sample)
}

// check runs the check of some stores as one job. Empty ids mean all points.
func (s *Service) check(ctx context.Context, spec job.Spec, all []*store.Store, ids []string, readData bool, sample float64) (VerifyResult, error) {
	result := VerifyResult{Method: "structure"}
	if sample > 0 {
		result.Method = "sample"
	}
	if readData {
		result.Method = "data"
	}
	err := s.jobs.Do(ctx, spec, s.shared(func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		result.JobID = run.ID
		started := time.Now()
		var live gauge
		run.Follow(live.progress)
		run.Meter.Phase("verify")
		var damage []store.Damage
		for _, st := range all {
			report, err := st.Check(ctx, store.CheckOptions{Points: ids, ReadData: readData, Sample: sample, Meter: run.Meter, Progress: live.set})
			if err != nil {
				return job.Outcome{}, err
			}
			result.Points += int(report.Points)
			result.Nodes += report.Nodes
			result.Packs += report.Packs
			result.PacksRead += report.PacksRead
			result.BytesRead += report.BytesRead
			damage = append(damage, report.Damage...)
			if readData && len(report.Damage) == 0 {
				if err := s.noteVerified(ctx, st, ids, started); err != nil {
					return job.Outcome{}, err
				}
			}
		}
		result.DurationSeconds = time.Since(started).Seconds()
		result.Verified = len(damage) == 0
		if len(damage) > 0 {
			return job.Outcome{}, damageProblem(damage, result)
		}
		return job.Outcome{Result: result}, nil
	}))
	return result, err
}

// noteVerified marks points whose data were all read back. What was made
// after the check began was not part of it.
func (s *Service) noteVerified(ctx context.Context, st *store.Store, ids []string, at time.Time) error {
	if len(ids) > 0 {
		for _, id := range ids {
			if err := s.catalog.SetVerified(ctx, id, at); err != nil {
				return err
			}
		}
		return nil
	}
	return s.catalog.SetStoreVerified(ctx, st.Header().StoreID.String(), at)
}

// damageProblem says what is lost, and where, in one sentence.
func damageProblem(damage []store.Damage, r VerifyResult) error {
	lost := map[string]bool{}
	var names []string
	seen := map[string]bool{}
	var bytes int64
	for _, d := range damage {
		for _, l := range d.Losses {
			lost[l.Point] = true
			if !seen[l.Name] {
				seen[l.Name] = true
				names = append(names, l.Name)
			}
			for _, g := range l.Ranges {
				bytes += g.Length
			}
		}
	}
	if len(lost) == 0 {
		return problem.New(problem.DataNotVerified, "%d objects of the store are damaged, the first is %s (%s); no recovery point depends on them.", len(damage), damage[0].Object, damage[0].What).
			With("damage", damage).With("jobId", r.JobID)
	}
	return problem.New(problem.DataNotVerified, "%d objects of the store are damaged, the first is %s (%s). Because of it %d of %d recovery points (of %s) miss %s in total.",
		len(damage), damage[0].Object, damage[0].What, len(lost), r.Points, strings.Join(names, ", "), byteText(bytes)).
		With("damage", damage).With("jobId", r.JobID)
}
