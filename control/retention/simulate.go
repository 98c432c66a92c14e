package retention

import (
	"fmt"
	"slices"
	"time"

	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/schedule"
)

// Simulation is what a policy would do if every backup succeeded at its slot.
type Simulation struct {
	Words     string     // of the schedule
	Runs      []Run      // oldest first
	Most      int        // the largest number of points at a time, the newest included
	Kept      []Decision // at the end, newest first; each by its Run's ID
	Footprint Footprint  // of the policy in the long run
}

// Run is one backup of a simulation.
type Run struct {
	ID     string // the slot in UTC, as RFC 3339 writes it
	Slot   time.Time
	Tag    string
	Reason string    // why it got the tag
	Expiry time.Time // when its rule lets go of it, once there is a newer one
}

// Simulate runs a policy over a number of days from a moment on, for a disk that
// has no points yet. Its problems are those of Check.
func Simulate(p resource.Policy, from time.Time, days int) (Simulation, error) {
	f, err := Check(p)
	if err != nil {
		return Simulation{}, err
	}
	s, err := schedule.Parse(p.Schedule)
	if err != nil {
		return Simulation{}, err
	}
	sim := Simulation{Words: s.Words(), Footprint: f}
	st := State{Protection: resource.ProtectionConfigured}
	until := from.AddDate(0, 0, days)
	var points []Point // newest first
	var last time.Time
	var gone []int
	for slot := range s.Slots(from, until) {
		t, err := Scheduled(p, last, slot)
		if err != nil {
			return Simulation{}, err
		}
		ends, err := t.Rule.Duration.After(slot)
		if err != nil {
			return Simulation{}, fmt.Errorf("the rule %s: %w", t.Rule.Tag, err)
		}
		last = slot
		id := slot.UTC().Format(time.RFC3339)
		sim.Runs = append(sim.Runs, Run{id, slot, t.Rule.Tag, t.Reason, ends})
		points = slices.Insert(points, 0, Point{ID: id, Created: slot, Time: slot, Tag: t.Rule.Tag, Duration: t.Rule.Duration, Good: true})
		gone = Expire(gone[:0], points, st, slot)
		for _, i := range slices.Backward(gone) {
			points = slices.Delete(points, i, i+1)
		}
		sim.Most = max(sim.Most, len(points))
	}
	for _, d := range Decide(points, st, until) {
		if d.Keep {
			sim.Kept = append(sim.Kept, d)
		}
	}
	return sim, nil
}
