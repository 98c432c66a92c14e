package backup

import (
	"math"
	"testing"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/store"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-6*math.Max(1, math.Abs(b)) }

func TestEstimateCountsNewDataApart(t *testing.T) {
	const mb = 1 << 20
	record := meter.Record{Stages: []meter.StageRecord{{Stage: "cpu", Work: 10, Timers: map[string]float64{"compress": 8, "encrypt": 1}}}}
	seen := store.Bytes{New: 100 * mb, Unchanged: 900 * mb}
	// 10 s for this: 1 s over all 1000 MB, 9 s over the 100 MB that were new.
	perNew, perOther := costs(10, seen, record)
	if !near(perOther*1000*mb, 1) || !near((perNew-perOther)*100*mb, 9) {
		t.Fatalf("a MB costs %g s if new, %g s if not", perNew*mb, perOther*mb)
	}
	same := estimate(10, 1000*mb, seen, nil, record)
	if !near(same.P50, 10) || same.P10 >= same.P50 || same.P90 <= same.P50 {
		t.Errorf("the same mix again: %+v", same)
	}
	// If the run before had nothing but new data, the range must reach there.
	wide := estimate(10, 1000*mb, seen, &store.Bytes{Read: mb, New: mb}, record)
	if !near(wide.P10, same.P10) || wide.P90 < 1.29*1000*mb*perNew {
		t.Errorf("with another mix before: %+v", wide)
	}
	if got := estimate(0.2, mb, seen, nil, record); got != (ETA{}) {
		t.Errorf("too early for an estimate: %+v", got)
	}
}

// A source that was read twice has each stage twice; the last ones count.
func TestBottleneckOfTheAttemptAtHand(t *testing.T) {
	stages := []meter.StageRecord{{Stage: "read"}, {Stage: "cpu"}, {Stage: "put"}}
	full, empty := [4]int64{0, 0, 0, 9}, [4]int64{9}
	record := meter.Record{
		Stages: append(stages, stages...),
		Queues: []meter.QueueRecord{
			{Queue: "read-cpu", Quarters: full}, {Queue: "cpu-put", Quarters: full},
			{Queue: "read-cpu", Quarters: full}, {Queue: "cpu-put", Quarters: empty},
		},
	}
	if got := bottleneck(record); got != "cpu" {
		t.Errorf("the bottleneck is %q", got)
	}
}
