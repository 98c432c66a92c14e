package store

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"time"
)

// oneAtATime leaves as little as can be to the scheduler of goroutines, and
// little to the garbage collector, which would take half of the time.
func oneAtATime(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	percent := debug.SetGCPercent(800)
	t.Cleanup(func() {
		runtime.GOMAXPROCS(before)
		debug.SetGCPercent(percent)
	})
}

// Worlds of many seeds keep all points. DISKVAULT_SEED=n lives through one of
// them again, DISKVAULT_SEEDS=n through more.
func TestSimulation(t *testing.T) {
	oneAtATime(t)
	first, n, most := uint64(0), seeds(t, 100), 300
	if one, err := strconv.ParseUint(os.Getenv("DISKVAULT_SEED"), 10, 64); err == nil {
		first, most = one, 1<<30
		if os.Getenv("DISKVAULT_SEEDS") == "" {
			n = 1
		}
	}
	began := time.Now()
	steps, tasks, failed := 0, 0, 0
	for seed := first; seed < first+n; seed++ {
		w, err := simulate(t, seed)
		if err != nil {
			if t.Errorf("seed %d: %v", seed, err); failed == 0 {
				t.Log("\n" + w.story(most))
			}
			if failed++; failed == 5 {
				break
			}
		}
		steps += w.steps
		tasks += w.started
		if n == 1 {
			t.Logf("%+v\n%s", w.plan, w.story(most))
		}
	}
	t.Logf("%d seeds from %d: %d tasks in %d steps, %s", n, first, tasks, steps, time.Since(began).Round(time.Millisecond))
}

// A seed must tell the same story each time, or it would be of no help.
func TestASeedTellsTheSameStory(t *testing.T) {
	oneAtATime(t)
	for seed := range uint64(10) {
		one, err := simulate(t, seed)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		two, err := simulate(t, seed)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if one.hash != two.hash || one.steps != two.steps {
			t.Errorf("seed %d told two stories, of %d and %d steps", seed, one.steps, two.steps)
		}
	}
}
