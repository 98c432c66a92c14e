package service

import (
	"context"
	"fmt"
	"slices"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
)

// located is a recovery point in the store that it is read from.
type located struct {
	store  *store.Store
	point  store.Point // with the place of its tree in that store
	others []string    // URLs of the other stores that hold it
	notice string      // why it is not read from the first of its placements; empty: it is
}

// locate chooses the store that a point is read from: one of the operational
// tier, or else one of the vault tier; one that does not answer, or has lost the
// point, is passed over. If there is none, the error is that of the first.
func (s *Service) locate(ctx context.Context, p catalog.Point, key string) (located, error) {
	var first error
	var found located
	for _, q := range p.Placements {
		if found.store != nil {
			if row, ok, err := s.storeRow(ctx, q.Store); err != nil {
				return found, err
			} else if ok {
				found.others = append(found.others, row.URL)
			}
			continue
		}
		st, row, err := s.openKnown(ctx, q.Store, key)
		point := p.Point
		if err == nil {
			point, err = st.Point(ctx, p.ID)
			if q.Store == p.Store && err != nil && !problem.Is(err, problem.RecoveryPointNotFound) {
				point, err = p.Point, nil // the catalog knows what it says
			}
		}
		if ctx.Err() != nil {
			return found, context.Cause(ctx)
		}
		if err != nil && first == nil {
			first, found.notice = err, fmt.Sprintf("The recovery point cannot be read from %s (%v)", row.URL, err)
		}
		if err == nil {
			found.store, found.point = st, point
			if first != nil {
				found.notice += ", so it is read from " + row.URL + "."
			}
		}
	}
	if found.store == nil {
		return found, first
	}
	return found, nil
}

// locate is as that of the service; a store that was asked for by its URL is
// the only one.
func (sel selection) locate(ctx context.Context, s *Service, p catalog.Point, key string) (located, error) {
	if sel.store != nil {
		return located{store: sel.store, point: p.Point}, nil
	}
	return s.locate(ctx, p, key)
}

// elsewhere adds to an error of reading a point that other stores hold it too.
func (l located) elsewhere(err error) error {
	if len(l.others) == 0 || !problem.Is(err, problem.StoreDamaged) && !problem.Is(err, problem.StoreUnreachable) && !problem.Is(err, problem.RecoveryPointNotFound) {
		return err
	}
	p := problem.From(err)
	var actions []string
	for _, url := range l.others {
		actions = append(actions, "The recovery point is in "+url+" as well. Read it from there: --store '"+url+"'")
	}
	return p.Do(append(actions, p.Actions...)...).With("otherStores", l.others)
}

// storeRow gives what the catalog knows of a store.
func (s *Service) storeRow(ctx context.Context, id string) (resource.Store, bool, error) {
	known, err := s.catalog.Stores(ctx)
	if n := slices.IndexFunc(known, func(row resource.Store) bool { return row.ID == id }); n >= 0 {
		return known[n], true, err
	}
	return resource.Store{}, false, err
}

// placedIn tells whether a store holds a point.
func placedIn(p catalog.Point, storeID string) bool {
	return slices.ContainsFunc(p.Placements, func(q catalog.Placement) bool { return q.Store == storeID })
}

// operational counts the points that the operational tier holds.
func operational(points []catalog.Point) (n int) {
	for _, p := range points {
		if slices.ContainsFunc(p.Placements, func(q catalog.Placement) bool { return q.Tier == resource.OperationalTier }) {
			n++
		}
	}
	return n
}
