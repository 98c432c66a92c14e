package retention

import (
	"fmt"
	"slices"
	"time"

	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/schedule"
)

// Tagging is the rule that a new point follows.
type Tagging struct {
	Rule   resource.RetentionRule
	Reason string
}

// Scheduled chooses the rule of a scheduled backup that has succeeded: the rule
// of the smallest priority in whose period no scheduled backup succeeded before
// it, else the default rule. A run that fails so leaves the tag to the next.
//
// Slot is the slot that the backup was for, not its start: the start window
// must not carry the last backup of a day over midnight. Last is the slot of
// the scheduled backup of the disk that succeeded last; zero if none did. Days
// begin at midnight in the policy's time zone, weeks on Monday.
//
// Points made on demand follow the rule of the tag that was asked for, which
// resource.Policy.Rule finds; they take no tag from a scheduled one.
func Scheduled(p resource.Policy, last, slot time.Time) (Tagging, error) {
	zone, err := schedule.Location(p.Schedule.TimeZone)
	if err != nil {
		return Tagging{}, err
	}
	slot = slot.In(zone)
	for _, r := range claimants(p) {
		begins := periodOf(r.Criterion, slot)
		// If the last success lies in another period, whichever, a clock that
		// was wrong cannot take the tag from all later points.
		if !last.IsZero() && periodOf(r.Criterion, last.In(zone)).Equal(begins) {
			continue
		}
		return Tagging{r, fmt.Sprintf("it is the first scheduled backup of the %s that succeeded", period(r.Criterion, begins))}, nil
	}
	r, err := p.Rule("")
	return Tagging{r, "no other rule claims it"}, err
}

// claimants are the rules besides the default one, in the order in which they
// may claim a point.
func claimants(p resource.Policy) []resource.RetentionRule {
	var rules []resource.RetentionRule
	for _, r := range p.Retention {
		if !r.Default {
			rules = append(rules, r)
		}
	}
	slices.SortStableFunc(rules, func(a, b resource.RetentionRule) int { return a.Priority - b.Priority })
	return rules
}

// periodOf is the first day of the period around t, at midnight in UTC whatever
// the zone of t, so that days can be compared.
func periodOf(c resource.Criterion, t time.Time) time.Time {
	y, m, d := t.Date()
	switch c {
	case resource.FirstOfWeek:
		d -= (int(t.Weekday()) + 6) % 7
	case resource.FirstOfMonth:
		d = 1
	case resource.FirstOfYear:
		m, d = time.January, 1
	}
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

func period(c resource.Criterion, begins time.Time) string {
	switch c {
	case resource.FirstOfWeek:
		return "week of " + begins.Format("Monday, 2006-01-02")
	case resource.FirstOfMonth:
		return "month " + begins.Format("2006-01")
	case resource.FirstOfYear:
		return "year " + begins.Format("2006")
	}
	return "day " + begins.Format(time.DateOnly)
}
