package service

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/retention"
	"github.com/diskvault/diskvault/engine/attach/export"
	"github.com/diskvault/diskvault/store"
)

// points is the use case of Client.Points.
func (s *Service) points(ctx context.Context, c call, r PointsRequest) ([]resource.RecoveryPoint, error) {
	if r.URL != "" {
		sel, err := s.storePoints(ctx, r)
		if err != nil {
			return nil, err
		}
		return views(sel.points, map[string]string{sel.id: sel.store.URL()}, retention.State{Protection: resource.ProtectionConfigured}, time.Now()), nil
	}
	if err := s.syncPoints(ctx); err != nil {
		return nil, err
	}
	i, err := s.instance(ctx, r.Instance, r.Path)
	if err != nil {
		return nil, err
	}
	return s.view(ctx, i.ID)
}

// view gives the points of an instance as people see them, newest first.
func (s *Service) view(ctx context.Context, instanceID string) ([]resource.RecoveryPoint, error) {
	points, err := s.catalog.Points(ctx, instanceID)
	if err != nil {
		return nil, err
	}
	paused, err := s.catalog.Fact(ctx, catalog.RetentionPaused)
	if err != nil {
		return nil, err
	}
	known, err := s.catalog.Stores(ctx)
	if err != nil {
		return nil, err
	}
	urls := map[string]string{}
	for _, row := range known {
		urls[row.ID] = row.URL
	}
	state := retention.State{Protection: resource.ProtectionConfigured, Paused: paused != ""}
	found, err := s.catalog.InstancesNamed(ctx, instanceID)
	if err != nil {
		return nil, err
	}
	for _, i := range found {
		if i.ID == instanceID {
			state = stateOf(i, paused != "")
		}
	}
	out := views(points, urls, state, time.Now())
	return out, s.grouped(ctx, points, out)
}

// stateOf is what holds for the points of an instance.
func stateOf(i resource.Instance, paused bool) retention.State {
	st := retention.State{Protection: i.State, Paused: paused}
	if i.Deletion != nil {
		st.Purge = i.Deletion.Purge
	}
	return st
}

// views says what people see of points. What becomes of one in a store depends on
// the others there, and on nothing else.
func views(points []catalog.Point, urls map[string]string, state retention.State, now time.Time) []resource.RecoveryPoint {
	facts := map[string][]retention.Point{} // by store
	for _, p := range points {
		for _, q := range p.Placements {
			facts[q.Store] = append(facts[q.Store], retention.Point{ID: p.ID, Created: p.Created, Time: p.Time, Tag: p.RetentionTag,
				Duration: resource.Duration(q.Keep), Good: p.Consistency == store.CrashConsistent})
		}
	}
	type place struct{ store, point string }
	decisions := map[place]retention.Decision{}
	for id, in := range facts {
		for _, d := range retention.Decide(in, state, now) {
			decisions[place{id, d.ID}] = d
		}
	}
	out := []resource.RecoveryPoint{}
	for _, p := range points {
		view := resource.RecoveryPoint{
			ID: p.ID, Time: p.Time, Root: p.Root.String(), Consistency: string(p.Consistency), Reason: p.Reason,
			RetentionTag: p.RetentionTag, SizeBytes: p.Size, StoredBytes: p.Bytes.Stored, VerifiedAt: p.Verified, Placements: []resource.Placement{},
		}
		for n, q := range p.Placements {
			d := decisions[place{q.Store, p.ID}]
			v := resource.Placement{Store: urls[q.Store], Tier: q.Tier, State: "Committed", CommittedAt: q.Committed, VerifiedAt: q.Verified, Expiry: d.Expiry, KeptBecause: d.Reasons}
			if q.Verified != nil {
				v.State = "Verified"
			}
			view.Placements = append(view.Placements, v)
			if n == 0 {
				view.Expiry, view.KeptBecause = d.Expiry, d.Reasons
			} else if d.Expiry == nil || view.Expiry != nil && d.Expiry.After(*view.Expiry) {
				view.Expiry = d.Expiry
			}
		}
		out = append(out, view)
	}
	return out
}

// selection is what a request about points turned out to mean.
type selection struct {
	instance string          // its name
	id       string          // of the store
	store    *store.Store    // that was asked for by its URL; nil: each point is where its placements say
	points   []catalog.Point // newest first; never empty
}

// selectPoints finds the points of the instance that a request names, in the
// catalog or, with a URL, in the store itself: so a machine that has nothing
// but the store and a key can restore.
func (s *Service) selectPoints(ctx context.Context, r PointsRequest) (selection, error) {
	if r.URL != "" {
		return s.storePoints(ctx, r)
	}
	if err := s.syncPoints(ctx); err != nil {
		return selection{}, err
	}
	i, err := s.instance(ctx, r.Instance, r.Path)
	if err != nil {
		return selection{}, err
	}
	points, err := s.catalog.Points(ctx, i.ID)
	if err != nil {
		return selection{}, err
	}
	if len(points) == 0 {
		return selection{}, problem.New(problem.RecoveryPointNotFound, "The disk %q has no recovery point yet.", i.Name).
			Do("Make one: diskvault backup " + i.Disk)
	}
	return selection{instance: i.Name, points: points}, nil
}

func (s *Service) storePoints(ctx context.Context, r PointsRequest) (selection, error) {
	st, err := s.stores.open(ctx, r.URL, r.Key)
	if err != nil {
		return selection{}, err
	}
	id := st.Header().StoreID.String()
	instances := map[string][]catalog.Point{}
	names := map[string]string{}
	var damaged error
	for p, err := range st.Points(ctx) {
		if err != nil {
			if p.ID == "" {
				return selection{}, err
			}
			damaged = err
			continue
		}
		if r.Instance == p.Instance || r.Instance == p.Name || r.Instance == p.Disk || r.Path != "" && r.Path == p.Disk {
			instances[p.Instance] = append(instances[p.Instance], catalog.Point{Point: p, Store: id, Placements: []catalog.Placement{{Store: id, Tier: resource.OperationalTier, Committed: p.Created, Keep: p.Retention}}})
			names[p.Instance] = p.Name
		}
	}
	switch {
	case len(instances) == 0 && damaged != nil:
		return selection{}, damaged
	case len(instances) == 0:
		return selection{}, problem.New(problem.InstanceNotFound, "The store %s has no recovery point of %q.", st.URL(), r.Instance)
	case len(instances) > 1:
		var ids []string
		for i, ps := range instances {
			ids = append(ids, i+" ("+ps[0].Disk+")")
		}
		sort.Strings(ids)
		return selection{}, problem.New(problem.InstanceAmbiguous, "%q fits %d disks of the store: %s.", r.Instance, len(ids), strings.Join(ids, ", ")).
			Do("Name it by its ID.")
	}
	for i, points := range instances {
		sort.Slice(points, func(a, b int) bool { return points[a].Created.After(points[b].Created) })
		return selection{names[i], id, st, points}, nil
	}
	panic("unreachable: one instance was found")
}

// timeLayouts are the ways in which a person may write a time. Without a zone
// it is UTC, as diskvault prints it.
var timeLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly}

// choose finds one of the points, newest first, by what a person wrote.
func choose(points []catalog.Point, instance, text string) (catalog.Point, error) {
	if text == "" || text == "latest" {
		for _, p := range points {
			if p.CaptureMethod != export.Method { // what somebody tried out on a point is no backup
				return p, nil
			}
		}
		return points[0], nil
	}
	var found []catalog.Point
	for _, p := range points {
		if p.ID == text {
			return p, nil
		}
		if len(text) >= 4 && strings.HasPrefix(p.ID, strings.ToLower(text)) {
			found = append(found, p)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	if len(found) > 1 {
		return catalog.Point{}, problem.New(problem.InvalidArgument, "%d recovery points of %q begin with %q.", len(found), instance, text).
			Do("Give more of its ID; `diskvault points " + instance + "` lists them.")
	}
	for _, layout := range timeLayouts {
		t, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		var best *catalog.Point
		for _, p := range points {
			if p.CaptureMethod != export.Method && !p.Time.After(t) && (best == nil || p.Time.After(best.Time)) {
				best = &p
			}
		}
		if best == nil {
			return catalog.Point{}, notThere(instance, fmt.Sprintf("no recovery point from %s or before", t.UTC().Format("2006-01-02 15:04:05 UTC")))
		}
		return *best, nil
	}
	return catalog.Point{}, notThere(instance, fmt.Sprintf("no recovery point %q", text))
}

func notThere(instance, what string) error {
	return problem.New(problem.RecoveryPointNotFound, "The disk %q has %s.", instance, what).
		Do("`diskvault points " + instance + "` lists them.")
}
