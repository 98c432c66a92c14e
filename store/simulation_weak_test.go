//go:build weak

package store

import (
	"testing"
)

// guardSync is the promise of the storage that what it has put stays.
var guardSync = true

// Each guard has a reason: the simulation finds a world that goes wrong without
// it, and none with all of them.
func TestWorldsGoWrongWithoutAGuard(t *testing.T) {
	oneAtATime(t)
	for _, g := range []struct {
		name  string
		guard *bool
	}{
		{"a writer keeps clear of condemned packs", &guardCondemned},
		{"a session that is given up cannot commit", &guardFence},
		{"a collector marks again before it decides", &guardReview},
		{"a writer makes sure that its base is kept", &guardBase},
		{"a writer refers to what the nodes of its base name", &guardPlaces},
		{"a session that was removed does not come back", &guardRun},
		{"a list is void once a later one was decided", &guardNumber},
		{"a decision is void once its list is gone", &guardList},
		{"sessions that ended stay while packs are condemned", &guardEnded},
		{"the storage syncs", &guardSync},
	} {
		t.Run(g.name, func(t *testing.T) {
			*g.guard = false
			defer func() { *g.guard = true }()
			most := seeds(t, 3000)
			for seed := range most {
				if _, err := simulate(t, seed); err != nil {
					t.Logf("found at seed %d: %v", seed, err)
					return
				}
			}
			t.Errorf("%d worlds went well without it", most)
		})
	}
}
