package retention

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/schedule"
)

// The limits of a disk's points in the operational tier. The vault tier has no
// limit of number.
const (
	MaxPoints    = 500 // at a time; further backups are refused
	MaxScheduled = 450 // that the rules of a policy may hold of them; the rest is for backups on demand
	maxVault     = resource.Duration("P99Y")
	maxDuration  = resource.Duration("P1Y")
)

// Admit returns a SnapshotLimitReached problem if a disk that has so many points
// in the operational tier can get no further one.
func Admit(points int) error {
	if points < MaxPoints {
		return nil
	}
	return problem.New(problem.SnapshotLimitReached, "The disk has %d recovery points in the operational tier; %d is the most there may be.", points, MaxPoints).
		With("points", points).With("maximum", MaxPoints)
}

// Footprint is what a policy holds of one disk once it has run for long enough.
type Footprint struct {
	PerDay int
	// Most is the largest number of points at a time that the rules ask for. The
	// newest point, which is kept beyond its rule, may be one more.
	Most int
	// Tags is how Most is made up, in the order of the rules.
	Tags []TagCount
	// LongestDefault is for how many days the default rule could keep points,
	// all else being equal.
	LongestDefault int
}

// TagCount is a number of points of one tag.
type TagCount struct {
	Tag    string
	Points int
}

// Check tells whether a policy can be used: PolicyScheduleInvalid,
// PolicyRetentionInvalid and PolicyLimitExceeded are its problems. All faults
// of the rules stand in the problem's details under "faults".
func Check(p resource.Policy) (Footprint, error) {
	s, err := schedule.Parse(p.Schedule)
	if err != nil {
		return Footprint{}, err
	}
	if err := checkRules(p); err != nil {
		return Footprint{}, err
	}
	f := footprint(p, s.PerDay())
	if f.Most <= MaxScheduled {
		return f, nil
	}
	var parts []string
	for _, t := range f.Tags {
		parts = append(parts, fmt.Sprintf("%d of %s", t.Points, t.Tag))
	}
	return f, problem.New(problem.PolicyLimitExceeded,
		"The policy %q would hold %d recovery points of a disk at a time (%s); scheduled backups may use %d of %d.",
		p.Name, f.Most, strings.Join(parts, ", "), MaxScheduled, MaxPoints).
		With("points", f.Most).With("maximum", MaxScheduled).With("perDay", f.PerDay).With("longestDefaultDays", f.LongestDefault).
		Do(fmt.Sprintf("Keep points of the default rule for at most %s, or back up less often than %s.", days(f.LongestDefault).Words(), times(f.PerDay)),
			"Copy points that must live longer to the vault tier, which has no limit of number.")
}

// checkRules looks at the retention rules by themselves.
func checkRules(p resource.Policy) error {
	var faults []string
	code := problem.PolicyRetentionInvalid
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	defaults := 0
	tags, criteria, priorities := map[string]bool{}, map[resource.Criterion]string{}, map[int]string{}
	for _, r := range p.Retention {
		tag := strings.ToLower(r.Tag)
		if r.Tag == "" {
			fault("A retention rule has no tag.")
		} else if tags[tag] {
			fault("Two retention rules have the tag %s.", r.Tag)
		}
		tags[tag] = true
		if r.Default {
			defaults++
			if r.Criterion != "" {
				fault("The default rule has the criterion %s; it is for the points that no criterion picks.", r.Criterion)
			}
		} else {
			switch other := criteria[r.Criterion]; {
			case !slices.Contains([]resource.Criterion{resource.FirstOfDay, resource.FirstOfWeek, resource.FirstOfMonth, resource.FirstOfYear}, r.Criterion):
				fault("The criterion %q of the rule %s cannot be used; there are FirstOfDay, FirstOfWeek, FirstOfMonth and FirstOfYear.", r.Criterion, r.Tag)
			case other != "":
				fault("The rules %s and %s have the same criterion %s, so one of them would never apply.", other, r.Tag, r.Criterion)
			}
			criteria[r.Criterion] = r.Tag
			if other := priorities[r.Priority]; other != "" {
				fault("The rules %s and %s have the same priority %d.", other, r.Tag, r.Priority)
			}
			priorities[r.Priority] = r.Tag
		}
	}
	if defaults != 1 {
		fault("The policy has %d default rules; it must have one.", defaults)
	}
	for _, r := range p.Retention {
		switch longer, err := exceeds(r.Duration, maxDuration); {
		case err != nil:
			fault("The duration of the rule %s is wrong: %v.", cmp.Or(r.Tag, "without a tag"), err)
		case longer:
			if len(faults) == 0 {
				code = problem.PolicyLimitExceeded
			}
			fault("The rule %s keeps points for %s; in the operational tier one year is the longest.", r.Tag, r.Duration.Words())
		}
		if r.VaultDuration == "" {
			continue
		}
		switch longer, err := exceeds(r.VaultDuration, maxVault); {
		case err != nil:
			fault("The duration of the rule %s in the vault tier is wrong: %v.", r.Tag, err)
		case longer:
			if len(faults) == 0 {
				code = problem.PolicyLimitExceeded
			}
			fault("The rule %s keeps points in the vault tier for %s; 99 years is the longest.", r.Tag, r.VaultDuration.Words())
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return problem.New(code, "%s", faults[0]).With("policy", p.Name).With("faults", faults)
}

// yearZero begins a year of 365 days, so that a year is no longer than that.
var yearZero = time.Date(2022, 1, 1, 0, 0, 0, 0, time.UTC)

func exceeds(d, most resource.Duration) (bool, error) {
	ends, err := d.After(yearZero)
	if err != nil {
		return false, err
	}
	limit, err := most.After(yearZero)
	return ends.After(limit), err
}

// footprint counts in whole days of UTC, so that the same rules give the same
// answer in every zone. Only the first slot of a day can be the first of
// anything; the others follow the default rule.
func footprint(p resource.Policy, perDay int) Footprint {
	f := Footprint{PerDay: perDay}
	f.Most, f.Tags = most(p, perDay)
	trial := p
	trial.Retention = slices.Clone(p.Retention)
	d := slices.IndexFunc(trial.Retention, func(r resource.RetentionRule) bool { return r.Default })
	low, high := 1, 365 // one day always fits: 366 first slots of a year and 23 others
	for low < high {
		middle := (low + high + 1) / 2
		trial.Retention[d].Duration = days(middle)
		if n, _ := most(trial, perDay); n <= MaxScheduled {
			low = middle
		} else {
			high = middle - 1
		}
	}
	f.LongestDefault = low
	return f
}

// most is the largest number of points at a time, and how it is made up.
func most(p resource.Policy, perDay int) (int, []TagCount) {
	const horizon = 2*366 + 31 // no point lives longer than a year
	order := claimants(p)
	// change[r][d] is by how many points of a rule a day holds more than the one before.
	change := make([][horizon + 1]int, len(p.Retention))
	add := func(r, day, n int) {
		ends, err := p.Retention[r].Duration.After(yearZero.AddDate(0, 0, day))
		if err != nil {
			return // Check refuses such a rule
		}
		change[r][day] += n
		change[r][min(horizon, int(ends.Sub(yearZero)/(24*time.Hour)))] -= n
	}
	fallback := slices.IndexFunc(p.Retention, func(r resource.RetentionRule) bool { return r.Default })
	for d := range horizon {
		day, first := yearZero.AddDate(0, 0, d), fallback
		for _, rule := range order {
			if periodOf(rule.Criterion, day).Equal(day) {
				first = slices.IndexFunc(p.Retention, func(r resource.RetentionRule) bool { return r.Tag == rule.Tag })
				break
			}
		}
		add(first, d, 1)
		add(fallback, d, perDay-1)
	}
	best, held := 0, make([]int, len(p.Retention))
	tags := make([]TagCount, len(p.Retention))
	for d := range horizon {
		sum := 0
		for r := range held {
			held[r] += change[r][d]
			sum += held[r]
		}
		if sum <= best || d < horizon-366 { // a year, once all durations have passed
			continue
		}
		best = sum
		for r, rule := range p.Retention {
			tags[r] = TagCount{rule.Tag, held[r]}
		}
	}
	return best, tags
}

func days(n int) resource.Duration { return resource.Duration(fmt.Sprintf("P%dD", n)) }

func times(perDay int) string {
	if perDay == 1 {
		return "once a day"
	}
	return fmt.Sprintf("%d times a day", perDay)
}
