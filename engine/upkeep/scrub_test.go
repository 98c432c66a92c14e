package upkeep

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// With four percent a day all of a store is read back in 25 days, and not much
// more than that, however often is looked.
func TestScrubReadsAllInItsTime(t *testing.T) {
	for _, every := range []time.Duration{10 * time.Minute, time.Hour, 7 * time.Hour} {
		r := rand.New(rand.NewPCG(1, uint64(every)))
		var all []Scrubbed
		total := int64(0)
		for n := range 100 {
			s := Scrubbed{ID: fmt.Sprint(n), Bytes: 1 + r.Int64N(32<<20)}
			all, total = append(all, s), total+s.Bytes
		}
		began := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		read, debt := int64(0), int64(0)
		var chosen []Scrubbed
		now := began
		for ; now.Sub(began) < 25*24*time.Hour+2*every; now = now.Add(every) {
			chosen, debt = PlanScrub(all, ScrubBudget{Share: DefaultScrubShare}, now, every, debt)
			for _, c := range chosen {
				read += c.Bytes
				for i := range all {
					if all[i].ID == c.ID {
						all[i].Verified = now
					}
				}
			}
		}
		for _, s := range all {
			if s.Verified.IsZero() {
				t.Fatalf("every %v: %s of %d bytes was never read", every, s.ID, s.Bytes)
			}
		}
		if days := now.Sub(began).Hours() / 24; float64(read) > float64(total)*DefaultScrubShare*(days+1)+32<<20 {
			t.Errorf("every %v: %d of %d bytes were read in %.1f days", every, read, total, days)
		}
	}
}

func TestScrubKeepsItsBounds(t *testing.T) {
	at := func(hour int) time.Time { return time.Date(2026, 3, 1, hour, 30, 0, 0, time.UTC) }
	all := []Scrubbed{{"new", 100, at(2)}, {"never", 100, time.Time{}}, {"old", 100, at(1)}}
	night := []Window{{22 * time.Hour, 4 * time.Hour}}
	for _, c := range []struct {
		name    string
		budget  ScrubBudget
		now     time.Time
		elapsed time.Duration
		debt    int64
		want    string
		left    int64
	}{
		{"the longest ago first", ScrubBudget{Share: 2. / 3}, at(5), 24 * time.Hour, 0, "never old ", 0},
		{"the excess is debt", ScrubBudget{Share: 0.5}, at(5), 24 * time.Hour, 0, "never old ", 50},
		{"debt is paid", ScrubBudget{Share: 0.5}, at(5), 24 * time.Hour, 50, "never ", 0},
		{"debt is not left behind", ScrubBudget{Share: 0.5}, at(5), 12 * time.Hour, 100, "", 25},
		{"a rate", ScrubBudget{Share: 1000, Rate: 1}, at(5), 100 * time.Second, 0, "never ", 0},
		{"out of the window", ScrubBudget{Share: 1, Windows: night}, at(5), 24 * time.Hour, 7, "", 7},
		{"over midnight", ScrubBudget{Share: 1, Windows: night}, at(23), 6 * time.Hour, 0, "never old new ", 0},
		{"a part of the window", ScrubBudget{Share: 1, Windows: night}, at(3), 2 * time.Hour, 0, "never ", 0},
		{"after a pause", ScrubBudget{Share: 1. / 3}, at(5), 1000 * time.Hour, 0, "never ", 0},
		{"nothing", ScrubBudget{}, at(5), 24 * time.Hour, 0, "", 0},
	} {
		chosen, left := PlanScrub(all, c.budget, c.now, c.elapsed, c.debt)
		got := ""
		for _, s := range chosen {
			got += s.ID + " "
		}
		if got != c.want || left != c.left {
			t.Errorf("%s: %q, debt %d; want %q, %d", c.name, got, left, c.want, c.left)
		}
	}
}
