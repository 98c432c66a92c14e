package retention

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/control/resource"
)

var day0 = time.Date(2026, 3, 1, 1, 0, 0, 0, time.UTC)

func at(days int) time.Time { return day0.AddDate(0, 0, days) }

func TestDecide(t *testing.T) {
	points := []Point{
		{"new", at(22), "Default", "P30D"},
		{"odd", at(21), "Default", "soon"},
		{"mid", at(20), "Default", "P30D"},
		{"held", at(1), "Default", ""},
		{"old", at(0), "Default", "P30D"},
	}
	got := print(Decide(points, false, at(40)))
	want := `new keep -: it is the newest point, which retention never removes; the rule Default keeps it for 30 days, until 2026-04-22 01:00 UTC
odd keep -: its retention cannot be read ("soon" is not a duration such as P30D, P2W, P6M or P1Y), so nothing removes it
mid keep 2026-04-20: the rule Default keeps it for 30 days, until 2026-04-20 01:00 UTC
held keep -: no rule limits it: it is kept until somebody deletes it
old go 2026-03-31: no rule keeps it any longer: the rule Default kept it for 30 days
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for _, d := range Decide(points, true, at(4000)) {
		if !d.Keep {
			t.Errorf("paused, and %s is let go", d.ID)
		}
	}
}

func TestNewestIsNeverLetGo(t *testing.T) {
	seed := time.Now().UnixNano()
	r := rand.New(rand.NewSource(seed))
	for range 500 {
		var points []Point
		for i := range 1 + r.Intn(20) {
			points = append(points, Point{fmt.Sprint(i), at(r.Intn(1000)), "Default", resource.Duration(fmt.Sprintf("P%dD", 1+r.Intn(40)))})
		}
		for _, d := range Decide(points, false, at(r.Intn(3000))) {
			if d.ID == points[0].ID && (!d.Keep || d.Expiry != nil) {
				t.Fatalf("seed %d: the newest point is let go: %+v", seed, d)
			}
			if len(d.Reasons) == 0 {
				t.Fatalf("seed %d: no reason for %+v", seed, d)
			}
		}
	}
}

func print(ds []Decision) string {
	var b strings.Builder
	for _, d := range ds {
		keep, expiry := "go", "-"
		if d.Keep {
			keep = "keep"
		}
		if d.Expiry != nil {
			expiry = d.Expiry.Format(time.DateOnly)
		}
		fmt.Fprintf(&b, "%s %s %s: %s\n", d.ID, keep, expiry, strings.Join(d.Reasons, "; "))
	}
	return b.String()
}
