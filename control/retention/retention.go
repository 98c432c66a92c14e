// Package retention decides which recovery points a policy still wants, which
// rule a new point follows, and what a policy would hold; it says why. Its
// functions are pure: they take now as an argument, own no clock and delete
// nothing.
package retention

import (
	"fmt"
	"time"

	"github.com/diskvault/diskvault/control/resource"
)

// Point is what the decision needs to know of a recovery point in one tier. It
// carries its own duration: a policy that is edited governs new points only.
type Point struct {
	ID string
	// Created is when the tier began to hold it; its duration counts from then.
	Created time.Time
	// Time is the moment that its content shows.
	Time     time.Time
	Tag      string
	Duration resource.Duration // empty: kept until somebody deletes it
	// Good tells that it is of one point in time and that no damage of it is
	// known: it is what somebody would want to restore.
	Good bool
}

// State is what holds for all points of an instance.
type State struct {
	Protection resource.Protection
	// Paused: the catalog was rebuilt, and nobody has confirmed the rules yet.
	Paused bool
	// Purge is when the points of a soft-deleted instance go; Removal sets it.
	Purge time.Time
}

// Decision is what is to become of a point.
type Decision struct {
	ID      string
	Keep    bool
	Expiry  *time.Time // when a rule lets go of it; nil: at no known time
	Reasons []string   // of keeping it, or of letting it go
}

// why is a set of reasons. Those up to purging keep a point.
type why uint16

const (
	newest     why = 1 << iota // there is no newer point
	newestGood                 // there is a newer one, but no newer good one
	noRule
	oddRule // its duration cannot be read
	ruled   // its duration has not passed
	paused
	stopped
	held // the state of the instance lets nothing expire
	softDeleted
	expired
	purged
)

const keeps = newest | newestGood | noRule | oddRule | ruled | paused | stopped | held | softDeleted

// judge says what becomes of points[i]. The expiry is zero if no rule lets go of
// the point at a known time.
func judge(points []Point, i, good int, st State, now time.Time) (w why, expiry time.Time) {
	p := &points[i]
	if st.Paused {
		w |= paused
	}
	if st.Protection == resource.SoftDeleted {
		// Somebody deleted the instance: then its newest point goes too.
		if st.Purge.IsZero() || now.Before(st.Purge) {
			return w | softDeleted, st.Purge
		}
		return w | purged, st.Purge
	}
	switch i {
	case 0:
		w |= newest
	case good:
		w |= newestGood
	}
	switch {
	case st.Protection == resource.ProtectionStopped:
		w |= stopped
	case !st.Protection.Expires():
		w |= held
	}
	if p.Duration == "" {
		return w | noRule, time.Time{}
	}
	ends, err := p.Duration.After(counted(p, now))
	switch {
	case err != nil:
		return w | oddRule, time.Time{}
	case now.Before(ends):
		w |= ruled
	default:
		w |= expired
	}
	if w&(newest|newestGood|stopped|held) != 0 {
		return w, time.Time{}
	}
	return w, ends
}

// counted is the moment from which the duration of a point counts. A store
// gives its points rising times of creation even after its clock was wrong; if
// they lie in the future, points would pile up until then, so the moment of
// the content counts instead.
func counted(p *Point, now time.Time) time.Time {
	if p.Created.After(now) && p.Time.Before(p.Created) {
		return p.Time
	}
	return p.Created
}

// firstGood is the place of the newest good point; -1 if there is none.
func firstGood(points []Point) int {
	for i := range points {
		if points[i].Good {
			return i
		}
	}
	return -1
}

// Expire appends to dst the places of the points that are to go, and returns
// it: Decide without the words, for thousands of instances. The points of one
// instance are given newest first, in the order of their making: their times
// may tell another order where a clock was set back.
func Expire(dst []int, points []Point, st State, now time.Time) []int {
	good := firstGood(points)
	for i := range points {
		if w, _ := judge(points, i, good, st, now); w&keeps == 0 {
			dst = append(dst, i)
		}
	}
	return dst
}

// Decide judges the points of one instance, given as for Expire. The newest
// point, and the newest good one if that is another, are kept whatever their
// rules say, and have no expiry: it begins once there is a newer one. Decisions
// come in the order of the points.
func Decide(points []Point, st State, now time.Time) []Decision {
	good := firstGood(points)
	out := make([]Decision, len(points))
	for i := range points {
		w, expiry := judge(points, i, good, st, now)
		out[i] = Decision{ID: points[i].ID, Keep: w&keeps != 0, Reasons: words(w, &points[i], st, now)}
		if !expiry.IsZero() {
			out[i].Expiry = &expiry
		}
	}
	return out
}

// words says the reasons: those that keep a point, else those that let it go.
func words(w why, p *Point, st State, now time.Time) []string {
	var out []string
	say := func(bit why, format string, args ...any) {
		if w&bit != 0 {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	say(newest, "it is the newest point, which retention never removes")
	say(newestGood, "it is the newest good point, which retention never removes: the newer ones are inconsistent or damaged")
	say(stopped, "protection was stopped with its points kept for ever")
	say(held, "nothing expires while the instance is in the state %s", st.Protection)
	if st.Purge.IsZero() {
		say(softDeleted, "the instance is soft-deleted, and it is not known when it may be purged")
	} else {
		say(softDeleted, "the instance is soft-deleted; it can be undeleted until %s", clock(st.Purge))
	}
	say(noRule, "no rule limits it: it is kept until somebody deletes it")
	if w&oddRule != 0 {
		_, err := p.Duration.After(p.Created)
		say(oddRule, "its retention cannot be read (%v), so nothing removes it", err)
	}
	if w&ruled != 0 {
		ends, _ := p.Duration.After(counted(p, now))
		say(ruled, "the rule %s keeps it for %s, until %s", p.Tag, p.Duration.Words(), clock(ends))
	}
	say(paused, "retention is paused since the catalog was rebuilt, until somebody confirms it")
	if w&keeps == 0 {
		say(expired, "no rule keeps it any longer: the rule %s kept it for %s", p.Tag, p.Duration.Words())
		say(purged, "the instance was deleted, and could be undeleted until %s", clock(st.Purge))
	}
	return out
}

func clock(t time.Time) string {
	return t.UTC().Format("2006-01-02 15:04 UTC")
}
