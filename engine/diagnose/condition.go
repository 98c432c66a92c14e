package diagnose

import (
	"fmt"
	"slices"
	"strconv"
)

// truth is that of a condition; a signal that is absent makes it unknown, which
// is evidence for nothing.
type truth int

const (
	no truth = iota
	unknown
	holds
)

// outcome is a condition judged: evidence if it holds, else why it does not.
type outcome struct {
	truth    truth
	evidence []Evidence
	because  string
}

// condition is one thing that a rule asks of a run.
type condition struct {
	signals []string
	judge   func(*comparison) outcome
}

func (c *comparison) evidence(name string) Evidence {
	e := Evidence{Signal: name, Value: precise(c.facts[name])}
	if b, ok := c.facts50[name]; ok {
		b = precise(b)
		e.Baseline = &b
	}
	if name[0] == 'D' || name[0] == 'R' || name[0] == 'N' {
		e.Window = c.window()
	}
	return e
}

// compareWith makes a condition of one signal; test tells whether the value
// holds, and what it should have been.
func compareWith(name string, test func(c *comparison, v float64) (ok, known bool, wanted string)) condition {
	return condition{[]string{name}, func(c *comparison) outcome {
		s := signals[name]
		v, ok := c.facts[name]
		if !ok {
			why := c.run.Meter.Absent[name]
			if why == "" {
				why = "not recorded"
			}
			return outcome{truth: unknown, because: fmt.Sprintf("not known (%s: %s)", s.says, why)}
		}
		ok, known, wanted := test(c, v)
		switch {
		case !known:
			return outcome{truth: unknown, because: fmt.Sprintf("%s: %s, with nothing to compare it with", s.says, s.unit.text(v))}
		case !ok:
			return outcome{because: fmt.Sprintf("%s: %s, not %s", s.says, s.unit.text(v), wanted)}
		}
		return outcome{truth: holds, evidence: []Evidence{c.evidence(name)}}
	}}
}

// over: the signal is at least limit.
func over(name string, limit float64) condition {
	return compareWith(name, func(_ *comparison, v float64) (bool, bool, string) {
		return v >= limit, true, signals[name].unit.text(limit) + " or more"
	})
}

// under: the signal is less than limit.
func under(name string, limit float64) condition {
	return compareWith(name, func(_ *comparison, v float64) (bool, bool, string) {
		return v < limit, true, "less than " + signals[name].unit.text(limit)
	})
}

// is: the signal is a fact.
func is(name string) condition {
	return compareWith(name, func(_ *comparison, v float64) (bool, bool, string) { return v != 0, true, "so" })
}

// isNot: the signal is no fact.
func isNot(name string) condition {
	return compareWith(name, func(_ *comparison, v float64) (bool, bool, string) { return v == 0, true, "otherwise" })
}

// grew: the signal is at least k times its baseline.
func grew(name string, k float64) condition { return grewFrom(name, name, k) }

// grewFrom is grew with the baseline of another signal.
func grewFrom(name, base string, k float64) condition {
	return compareWith(name, func(c *comparison, v float64) (bool, bool, string) {
		b, known := c.facts50[base]
		return v > 0 && v >= k*b, known, fmt.Sprintf("%.3g times the usual %s", k, signals[name].unit.text(b))
	})
}

// normal: the signal is less than k times its baseline.
func normal(name string, k float64) condition {
	return compareWith(name, func(c *comparison, v float64) (bool, bool, string) {
		b, known := c.facts50[name]
		return v < k*b || v == 0, known, fmt.Sprintf("near the usual %s", signals[name].unit.text(b))
	})
}

// fell: the signal is at most k times its baseline.
func fell(name string, k float64) condition {
	return compareWith(name, func(c *comparison, v float64) (bool, bool, string) {
		b, known := c.facts50[name]
		return v <= k*b && b > 0, known, fmt.Sprintf("at most %.3g of the usual %s", k, signals[name].unit.text(b))
	})
}

// beyond: the signal is more than least, than k times the median and than the
// 90th percentile of its baseline, as far as there is one.
func beyond(name string, least, k float64) condition {
	return compareWith(name, func(c *comparison, v float64) (bool, bool, string) {
		limit := max(least, k*c.facts50[name], c.facts90[name])
		return v > limit, true, "more than " + signals[name].unit.text(limit)
	})
}

// heldBack: the stage was the bottleneck for half of the transfer.
func heldBack(stage string) condition { return over("J."+stage+".bottleneck", 0.5) }

// all holds if every condition does.
func all(conditions ...condition) condition {
	return join(conditions, func(outcomes []outcome) outcome {
		out := outcome{truth: holds}
		for _, o := range outcomes {
			if o.truth < out.truth {
				out.truth, out.because = o.truth, o.because
			}
			out.evidence = append(out.evidence, o.evidence...)
		}
		if out.truth != holds {
			out.evidence = nil
		}
		return out
	})
}

// either holds if one condition does. Why it does not is what the first says.
func either(conditions ...condition) condition {
	return join(conditions, func(outcomes []outcome) outcome {
		out := outcome{because: outcomes[0].because}
		for _, o := range outcomes {
			if o.truth > out.truth {
				out.truth = o.truth
			}
			if o.truth == holds {
				out.evidence = append(out.evidence, o.evidence...)
			}
		}
		if out.truth == unknown { // then say what is not known
			for _, o := range outcomes {
				if o.truth == unknown {
					out.because = o.because
					break
				}
			}
		}
		return out
	})
}

func join(conditions []condition, rule func([]outcome) outcome) condition {
	var names []string
	for _, x := range conditions {
		names = append(names, x.signals...)
	}
	return condition{names, func(c *comparison) outcome {
		var outcomes []outcome
		for _, x := range conditions {
			outcomes = append(outcomes, x.judge(c))
		}
		return rule(outcomes)
	}}
}

// precise cuts a number to four digits: more say nothing.
func precise(v float64) float64 {
	out, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 4, 64), 64)
	if err != nil {
		return v
	}
	return out
}

// add appends evidence that is not there yet.
func add(to []Evidence, more []Evidence) []Evidence {
	for _, e := range more {
		if !slices.ContainsFunc(to, func(x Evidence) bool { return x.Signal == e.Signal }) {
			to = append(to, e)
		}
	}
	return to
}
