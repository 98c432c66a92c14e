// Package retention decides which recovery points a policy still wants, and
// says why. It is a pure function of points, rules and a given now; it owns no
// clock and deletes nothing.
package retention

import (
	"fmt"
	"time"

	"github.com/diskvault/diskvault/control/resource"
)

// Point is what the decision needs to know of a recovery point.
type Point struct {
	ID       string
	Time     time.Time
	Tag      string
	Duration resource.Duration // empty: kept until somebody deletes it
}

// Decision is what is to become of a point.
type Decision struct {
	ID      string
	Keep    bool
	Expiry  *time.Time // when a rule lets go of it; nil: at no known time
	Reasons []string   // of keeping it, or of letting it go
}

// Decide judges the points of one instance, which are given newest first, in the
// order of their making: their times may tell another order where a clock was
// set back. The newest point is always kept and has no expiry: it expires only
// once there is a newer one. While paused nothing is let go. Decisions come in
// the order of the points.
func Decide(points []Point, paused bool, now time.Time) []Decision {
	var out []Decision
	for i, p := range points {
		d := Decision{ID: p.ID}
		if i == 0 {
			d.Keep = true
			d.Reasons = append(d.Reasons, "it is the newest point, which retention never removes")
		}
		switch expiry, err := p.Duration.After(p.Time); {
		case p.Duration == "":
			d.Keep = true
			d.Reasons = append(d.Reasons, "no rule limits it: it is kept until somebody deletes it")
		case err != nil:
			d.Keep = true
			d.Reasons = append(d.Reasons, fmt.Sprintf("its retention cannot be read (%v), so nothing removes it", err))
		default:
			if i > 0 {
				d.Expiry = &expiry
			}
			if now.Before(expiry) {
				d.Keep = true
				d.Reasons = append(d.Reasons, fmt.Sprintf("the rule %s keeps it for %s, until %s", p.Tag, p.Duration.Words(), expiry.Format("2006-01-02 15:04 UTC")))
			}
		}
		if paused {
			d.Keep = true
			d.Reasons = append(d.Reasons, "retention is paused since the catalog was rebuilt, until somebody confirms it")
		}
		if !d.Keep {
			d.Reasons = []string{fmt.Sprintf("no rule keeps it any longer: the rule %s kept it for %s", p.Tag, p.Duration.Words())}
		}
		out = append(out, d)
	}
	return out
}
