package schedule

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	slot := at(t, "2026-11-23T22:00:00Z")
	herd := func(n int, takes ...time.Duration) (due []Due) {
		for i := range n {
			due = append(due, Due{ID: fmt.Sprintf("disk%02d", i), Earliest: slot, Until: slot.Add(StartWindow), Takes: takes[i%len(takes)]})
		}
		return due
	}
	hourly := herd(2, 30*time.Minute)
	for i := range hourly {
		hourly[i].ID, hourly[i].Until = "hourly"+hourly[i].ID, slot.Add(time.Hour)
	}
	early := herd(1, time.Minute)
	early[0].Earliest = slot.Add(-time.Minute)
	var b strings.Builder
	for _, c := range []struct {
		what     string
		due      []Due
		ends     []time.Time
		parallel int
	}{
		{"room for all", herd(3, 20*time.Minute), nil, 4},
		{"two at a time, the longest first", herd(6, 10*time.Minute, 40*time.Minute, 20*time.Minute), nil, 2},
		{"more than the window holds: the shortest first", herd(8, 10*time.Minute, 100*time.Minute), nil, 2},
		{"late even so", herd(5, 100*time.Minute, 50*time.Minute), []time.Time{slot.Add(30 * time.Minute)}, 1},
		{"never measured", herd(3, 0, 40*time.Minute, 20*time.Minute), nil, 1},
		{"none measured, no number given", herd(2, 0), nil, 0},
		{"two run already", herd(3, 30*time.Minute), []time.Time{slot.Add(15 * time.Minute), slot.Add(25 * time.Minute)}, 2},
		{"three run though two may", herd(2, 30*time.Minute), []time.Time{slot.Add(35 * time.Minute), slot.Add(15 * time.Minute), slot.Add(25 * time.Minute)}, 2},
		{"hourly ones have less time", append(herd(3, 50*time.Minute), hourly...), nil, 2},
		{"one is due earlier", append(herd(2, 50*time.Minute), early...), nil, 1},
		{"a run that should have ended", herd(1, time.Minute), []time.Time{slot.Add(-time.Hour)}, 1},
		{"nothing", nil, nil, 1},
	} {
		fmt.Fprintln(&b, c.what)
		for _, s := range Spread(c.due, c.ends, c.parallel, slot.Add(-2*time.Minute)) {
			fmt.Fprintf(&b, "  %s %s late=%v: %s\n", s.At.Format("15:04"), s.ID, s.Late, s.Reason)
		}
	}
	golden(t, "spread", b.String())
}

// Whatever comes, no more run at once than may, nothing starts before its time,
// and no place stays free while a backup waits.
func TestSpreadProperty(t *testing.T) {
	seed := time.Now().UnixNano()
	r := rand.New(rand.NewSource(seed))
	now := at(t, "2026-11-23T22:00:00Z")
	minutes := func(n int) time.Duration { return time.Duration(r.Intn(n)) * time.Minute }
	for range 300 {
		var due []Due
		takes := map[string]time.Duration{}
		for i := range 1 + r.Intn(60) {
			earliest := now.Add(minutes(180))
			d := Due{ID: fmt.Sprint(i), Earliest: earliest, Until: earliest.Add(minutes(120)), Takes: time.Minute + minutes(60)}
			due = append(due, d)
			takes[d.ID] = d.Takes
		}
		parallel := 1 + r.Intn(6)
		starts := Spread(due, nil, parallel, now)
		if len(starts) != len(due) {
			t.Fatalf("seed %d: %d starts for %d", seed, len(starts), len(due))
		}
		running := func(at time.Time) (n int) {
			for _, s := range starts {
				if !s.At.After(at) && s.At.Add(takes[s.ID]).After(at) {
					n++
				}
			}
			return n
		}
		for _, s := range starts {
			d := due[slices.IndexFunc(due, func(d Due) bool { return d.ID == s.ID })]
			if s.At.Before(d.Earliest) || s.Late != s.At.After(d.Until) {
				t.Fatalf("seed %d: %+v for %+v", seed, s, d)
			}
			if n := running(s.At); n > parallel {
				t.Fatalf("seed %d: %d run at once, %d may", seed, n, parallel)
			}
			if before := s.At.Add(-time.Second); !before.Before(d.Earliest) && running(before) < parallel {
				t.Fatalf("seed %d: %s waits until %s while a place is free", seed, s.ID, s.At)
			}
		}
	}
}

func BenchmarkSpread(b *testing.B) {
	slot := at(b, "2026-11-23T22:00:00Z")
	var due []Due
	for i := range 10000 {
		due = append(due, Due{ID: fmt.Sprint(i), Earliest: slot, Until: slot.Add(StartWindow), Takes: time.Duration(10+i%300) * time.Second})
	}
	for b.Loop() {
		Spread(due, nil, 64, slot)
	}
}

func BenchmarkDecide(b *testing.B) {
	s := parse(b, "R/2026-01-01T00:00:00+01:00/PT1H", "Europe/Berlin")
	now := at(b, "2026-11-23T22:30:00Z")
	st := State{Since: at(b, "2026-01-01T00:00:00Z"), LastSlot: at(b, "2026-11-23T22:00:00Z")}
	for b.Loop() {
		s.Decide(st, now)
	}
}
