// Package diagnose says whether a backup takes longer than it should, and why.
//
// It is pure: the record of a run and those of runs before go in, a report comes
// out. Nothing here reads a clock or a file. What a rule may look at are named
// numbers, the signals; one that could not be measured is absent and is evidence
// for nothing. See docs/troubleshooting for the words that users read.
package diagnose

import (
	"cmp"
	"slices"
	"time"
)

// Report is the judgement of one run. Its JSON is part of the interface.
type Report struct {
	State       State    `json:"state"`
	Elapsed     float64  `json:"elapsedSeconds"`
	Expected    Expected `json:"expectedSeconds"`
	Excess      float64  `json:"excessSeconds"` // behind the p90 of what was to be expected
	Split       Split    `json:"split"`
	Timeline    []Span   `json:"timeline"`
	Causes      []Cause  `json:"causes"` // at most three, the most costly first
	Unexplained float64  `json:"unexplainedSeconds"`
	Absent      []Absent `json:"absentSignals"`
	// Remaining is the time left of a run that is not over; nil: it is, or
	// nothing can be said yet.
	Remaining *Remaining `json:"remainingSeconds,omitempty"`

	usual Expected // how long runs took before, whatever their work
}

// Split says what made a run longer: more work, a lower rate, or waiting. The
// parts add up to 1; all are 0 if the run is not late.
type Split struct {
	Work float64 `json:"work"`
	Rate float64 `json:"rate"`
	Wait float64 `json:"wait"`
}

// Span is a part of the run in which one stage held the others back. From and
// To are times of the day in UTC.
type Span struct {
	From       string `json:"from"`
	To         string `json:"to"`
	Phase      string `json:"phase"`
	Bottleneck string `json:"bottleneck"` // empty: none stood out
}

// Cause is a finding.
type Cause struct {
	Code       string     `json:"code"`
	ID         string     `json:"id"`
	Confidence float64    `json:"confidence"` // below 0.7: probably
	Blame      float64    `json:"blameSeconds"`
	Evidence   []Evidence `json:"evidence"`
	RuledOut   []RuledOut `json:"ruledOut"`
	Actions    []Action   `json:"actions"`
}

// Evidence is a number that speaks for a cause. Units are in the table of
// signals.
type Evidence struct {
	Signal   string   `json:"signal"`
	Value    float64  `json:"value"`
	Baseline *float64 `json:"baseline,omitempty"` // median of comparable runs
	Window   string   `json:"window,omitempty"`
}

// RuledOut is a lookalike, and why it is not the cause.
type RuledOut struct {
	Code    string `json:"code"`
	Because string `json:"because"`
}

// Action is something that helps.
type Action struct {
	ID        string  `json:"id"`
	Automatic bool    `json:"automatic"` // diskvault could do it by itself
	Saves     float64 `json:"savesSeconds"`
	Risk      string  `json:"risk"`
	Text      string  `json:"-"`
}

// Absent is a signal that could not be had.
type Absent struct {
	Signal string `json:"signal"`
	Why    string `json:"why"`
}

const (
	shown     = 0.5 // a cause of less confidence is not shown
	certain   = 0.6 // makes a run unfit to be compared with
	maxCauses = 3
)

// Verdict judges a run. history may hold any runs; those that can be compared
// are chosen. now is the end of the record: for a run that is over it is not
// looked at. The zero Settings are the defaults.
func Verdict(r Record, history History, now time.Time, s Settings) Report {
	s = s.withDefaults()
	if !r.End.IsZero() {
		now = r.End
	}
	c := compare(r, history, now, s)
	report := Report{
		Elapsed: c.elapsed, Expected: c.expected, Timeline: c.timeline(), Causes: []Cause{}, Absent: c.absentSignals(), Remaining: c.remaining, usual: c.usual,
	}
	report.State = c.state()
	if !report.State.Late() {
		return report
	}
	report.Excess, report.Split = c.excess(), c.split()
	found := c.causes()
	report.Causes = attribute(found, report.Excess)
	report.Unexplained = report.Excess
	for _, x := range report.Causes {
		report.Unexplained -= x.Blame
	}
	if asExpected(report.Causes) {
		report.Unexplained = 0 // the work explains all of it
		if report.State == Slower {
			report.State = LongerExplained
		}
	}
	report.Unexplained = round(max(0, report.Unexplained))
	if len(report.Causes) == 0 && (report.State == Slower || report.State == Stalled) {
		report.State = Unknown
	}
	return report
}

// attribute ranks causes by what they cost, folds those that another explains
// under it, and gives each its share of the excess, so that they never add up
// to more.
func attribute(found []Cause, excess float64) []Cause {
	found = slices.DeleteFunc(found, func(x Cause) bool {
		by := ruleOf(x.ID).under
		return slices.ContainsFunc(found, func(y Cause) bool { return y.ID == by && y.Confidence >= certain })
	})
	slices.SortStableFunc(found, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(b.Blame*b.Confidence, a.Blame*a.Confidence), cmp.Compare(b.Confidence, a.Confidence), cmp.Compare(a.ID, b.ID))
	})
	left := excess
	for i := range found {
		x := &found[i]
		whole := x.Blame
		x.Blame = round(min(whole, max(0, left)))
		left -= x.Blame
		for k := range x.Actions {
			x.Actions[k].Saves = round(min(x.Actions[k].Saves, x.Blame))
		}
	}
	return found[:min(len(found), maxCauses)]
}

// Slow tells whether a run was diagnosed as slow, so that later ones are not
// compared with it.
func (r Report) Slow() bool {
	return slices.ContainsFunc(r.Causes, func(x Cause) bool { return x.Confidence >= certain && ruleOf(x.ID).fault })
}
