package service

import (
	"context"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/store"
)

// DeletePointsRequest names recovery points of one disk.
type DeletePointsRequest struct {
	PointsRequest
	IDs  []string `json:"ids"`            // IDs, their beginnings, times, or latest
	Last bool     `json:"last,omitempty"` // even the last good one
}

// DeletePointsResult tells what is gone.
type DeletePointsResult struct {
	Instance string   `json:"instance"`
	Deleted  []string `json:"deleted"`
	Left     int      `json:"left"`
}

// deletePoints is the use case of Client.DeletePoints: points go from all stores
// that hold them, or from the one that is named. No other point is touched; the space comes back when the store is collected.
func (s *Service) deletePoints(ctx context.Context, c call, r DeletePointsRequest) (DeletePointsResult, error) {
	sel, err := s.selectPoints(ctx, r.PointsRequest)
	if err != nil {
		return DeletePointsResult{}, err
	}
	result := DeletePointsResult{Instance: sel.instance, Deleted: []string{}}
	going := map[string]bool{}
	for _, name := range r.IDs {
		p, err := choose(sel.points, sel.instance, name)
		if err != nil {
			return result, err
		}
		going[p.ID] = true
	}
	if !r.Last && !goodOneStays(sel.points, going) {
		return result, problem.New(problem.LastPoint, "Then no good recovery point of %q would be left.", sel.instance)
	}
	known := s.catalog != nil && s.catalogErr == nil
	if known {
		// If this process dies between store and catalog, the next that asks for
		// points looks at the store.
		if err := s.catalog.SetFact(ctx, catalog.PointsStale, "yes"); err != nil {
			return result, err
		}
	}
	for _, p := range sel.points {
		if !going[p.ID] {
			result.Left++
			continue
		}
		// The vault tier last: what fails on the way leaves the copy that is to
		// live longest.
		for _, q := range p.Placements {
			st := sel.store
			if st == nil {
				if st, _, err = s.openKnown(ctx, q.Store, r.Key); err != nil {
					return result, err
				}
			}
			if err := st.DeletePoint(ctx, p.ID); err != nil && (sel.store != nil || !problem.Is(err, problem.RecoveryPointNotFound)) {
				return result, err
			}
			if known {
				if err := s.catalog.RemovePlacements(context.WithoutCancel(ctx), q.Store, []string{p.ID}); err != nil {
					return result, err
				}
			}
		}
		result.Deleted = append(result.Deleted, p.ID)
	}
	return result, nil
}

// goodOneStays tells whether a point at one moment is left, if there is one.
func goodOneStays(points []catalog.Point, going map[string]bool) bool {
	good := false
	for _, p := range points {
		if p.Consistency == store.Inconsistent {
			continue
		}
		if !going[p.ID] {
			return true
		}
		good = true
	}
	return !good
}
