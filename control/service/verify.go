package service

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
)

// verify is the use case of Client.Verify.
func (s *Service) verify(ctx context.Context, c call, r VerifyRequest) (VerifyResult, error) {
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
	var parts []checked
	for _, p := range chosen {
		at, err := sel.locate(ctx, s, p, r.Key)
		if err != nil {
			return VerifyResult{}, err
		}
		if at.notice != "" {
			c.notice(resource.Notice{Name: "OtherPlacement", Message: at.notice})
		}
		n := slices.IndexFunc(parts, func(part checked) bool { return part.store == at.store })
		if n < 0 {
			n, parts = len(parts), append(parts, checked{store: at.store})
		}
		parts[n].ids = append(parts[n].ids, p.ID)
	}
	spec.InstanceID, spec.Instance = chosen[0].Instance, sel.instance
	return s.check(ctx, spec, parts, r.ReadData, r.Sample)
}

// verifyAll verifies all points of one store, or of all that are known.
func (s *Service) verifyAll(ctx context.Context, spec job.Spec, r VerifyRequest) (VerifyResult, error) {
	if r.URL != "" {
		st, err := s.stores.open(ctx, r.URL, r.Key)
		if err != nil {
			return VerifyResult{}, err
		}
		return s.check(ctx, spec, []checked{{store: st}}, r.ReadData, r.Sample)
	}
	known, err := s.catalog.Stores(ctx)
	if err != nil {
		return VerifyResult{}, err
	}
	if len(known) == 0 {
		return VerifyResult{}, problem.New(problem.StoreNotFound, "There is nothing to verify: no disk is protected yet.").
			Do("Protect one: diskvault backup PATH")
	}
	var all []checked
	for _, row := range known {
		st, err := s.stores.open(ctx, row.URL, r.Key)
		if err != nil {
			return VerifyResult{}, err
		}
		all = append(all, checked{store: st})
	}
	return s.check(ctx, spec, all, r.ReadData, r.Sample)
}

// checkStore is the use case of Client.CheckStore.
func (s *Service) checkStore(ctx context.Context, c call, r CheckStoreRequest) (VerifyResult, error) {
	st, _, err := s.openStore(ctx, r.StoreRequest)
	if err != nil {
		return VerifyResult{}, err
	}
	return s.check(ctx, c.spec(resource.OperationVerify), []checked{{store: st}}, r.ReadData, r.Sample)
}

// checked are points of a store that are checked together.
type checked struct {
	store *store.Store
	ids   []string // none: all
}

// check runs the check of some stores as one job.
func (s *Service) check(ctx context.Context, spec job.Spec, all []checked, readData bool, sample float64) (VerifyResult, error) {
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
		for _, part := range all {
			st, ids := part.store, part.ids
			expect, err := s.expected(ctx, st, ids)
			if err != nil {
				return job.Outcome{}, err
			}
			report, err := st.Check(ctx, store.CheckOptions{Points: ids, Expect: expect, ReadData: readData, Sample: sample, Meter: run.Meter, Progress: live.set})
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

// expected are the points that the catalog lists of a store, all of which must
// be there; none if only some are checked.
func (s *Service) expected(ctx context.Context, st *store.Store, ids []string) (all []string, err error) {
	if len(ids) > 0 {
		return nil, nil
	}
	if err := s.syncPoints(ctx); err != nil {
		return nil, err
	}
	listed, err := s.listed(ctx, st.Header().StoreID.String())
	for id := range listed {
		all = append(all, id)
	}
	return all, err
}

// listed are the points of a store, by ID, that the catalog knows.
func (s *Service) listed(ctx context.Context, storeID string) (map[string]store.Point, error) {
	points, err := s.catalog.PointsIn(ctx, storeID)
	all := map[string]store.Point{}
	for _, p := range points {
		all[p.ID] = p.Point
	}
	return all, err
}

// noteVerified marks points whose data were all read back. What was made
// after the check began was not part of it.
func (s *Service) noteVerified(ctx context.Context, st *store.Store, ids []string, at time.Time) error {
	if len(ids) > 0 {
		for _, id := range ids {
			if err := s.catalog.SetVerified(ctx, st.Header().StoreID.String(), id, at); err != nil {
				return err
			}
		}
		return nil
	}
	return s.catalog.SetStoreVerified(ctx, st.Header().StoreID.String(), at)
}

// damageProblem says what is lost, and where, in one sentence.
func damageProblem(damage []store.Damage, r VerifyResult) error {
	points, names := map[string]bool{}, map[string]bool{}
	var disks []string
	var bytes int64
	whole := 0 // points that are lost altogether
	for _, d := range damage {
		for _, l := range d.Losses {
			points[l.Point] = true
			if l.Name != "" && !names[l.Name] {
				names[l.Name] = true
				disks = append(disks, l.Name)
			}
			if len(l.Ranges) == 0 {
				whole++
			}
			for _, g := range l.Ranges {
				bytes += g.Length
			}
		}
	}
	found := fmt.Sprintf("%s of the store, the first is %s (%s)", damagedText(len(damage)), damage[0].Object, damage[0].What)
	of := ""
	if len(disks) > 0 {
		of = " (of " + strings.Join(disks, ", ") + ")"
	}
	var p *problem.Error
	switch {
	case len(points) == 0:
		p = problem.New(problem.DataNotVerified, "There is damage in %s; no recovery point depends on that.", found)
	case whole == len(points):
		p = problem.New(problem.DataNotVerified, "There is damage in %s: %d of %d recovery points%s cannot be read.", found, whole, r.Points, of).
			Do("Run the backup again: the new point is whole.", "Restore other points as usual; they are not affected.", "What was deleted on purpose is forgotten by `diskvault store rebuild-catalog`.")
	default:
		p = problem.New(problem.DataNotVerified, "There is damage in %s; because of it %d of %d recovery points%s miss %s in total.", found, len(points), r.Points, of, byteText(bytes))
	}
	return p.With("damage", damage).With("jobId", r.JobID)
}

func damagedText(n int) string {
	if n == 1 {
		return "1 object"
	}
	return fmt.Sprintf("%d objects", n)
}
