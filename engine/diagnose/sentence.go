package diagnose

import (
	"fmt"
	"math"
	"strings"
)

// Sentence tells a person what the report says, in a few words with numbers.
func (r Report) Sentence() string {
	var b strings.Builder
	took := "took"
	if r.Remaining != nil || r.State == Waiting || r.State == Stalled {
		took = "has been running for"
	}
	fmt.Fprintf(&b, "The backup %s %s; ", took, duration(r.Elapsed))
	span := duration(r.Expected.P10) + " to " + duration(r.Expected.P90)
	switch {
	case r.State == LongerExplained && r.usual.Runs > 0:
		fmt.Fprintf(&b, "others before took %s to %s, with less work.", duration(r.usual.P10), duration(r.usual.P90))
	case r.Expected.Source == OfInstance || r.Expected.Source == OfSimilar:
		fmt.Fprintf(&b, "%s were to be expected for its work.", span)
	default:
		fmt.Fprintf(&b, "this hardware should manage its work in %s.", span)
	}
	if r.State == OnTime {
		return b.String()
	}
	for _, c := range r.Causes {
		probably := ""
		if c.Confidence < 0.7 {
			probably = "probably "
		}
		title := ruleOf(c.ID).title
		if c.Blame >= 1 {
			fmt.Fprintf(&b, " %s of the extra time: %s%s", duration(c.Blame), probably, title)
		} else {
			fmt.Fprintf(&b, " %s%s", strings.ToUpper(title[:1]), title[1:])
		}
		if text := evidenceText(c.Evidence); text != "" {
			fmt.Fprintf(&b, " (%s)", text)
		}
		b.WriteString(".")
	}
	switch {
	case len(r.Causes) == 0 && r.Excess >= 1:
		fmt.Fprintf(&b, " What takes %s too long is not known.", duration(r.Excess))
	case r.Unexplained >= 1:
		fmt.Fprintf(&b, " %s are not explained.", duration(r.Unexplained))
	}
	return b.String()
}

// evidenceText names the first two numbers that are not as usual.
func evidenceText(all []Evidence) string {
	var out []string
	for _, e := range all {
		s, ok := signals[e.Signal]
		if !ok || s.unit == yes || len(out) == 2 {
			continue
		}
		if e.Baseline != nil && math.Abs(e.Value-*e.Baseline) <= 0.2*math.Abs(*e.Baseline) {
			continue
		}
		text := s.says + " " + s.unit.text(e.Value)
		if e.Baseline != nil {
			text += ", usually " + s.unit.text(*e.Baseline)
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// Advice lists what to do about the causes, most useful first.
func (r Report) Advice() (out []string) {
	for _, c := range r.Causes {
		for _, a := range c.Actions {
			out = append(out, a.Text)
		}
	}
	return out
}
