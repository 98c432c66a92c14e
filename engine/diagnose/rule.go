package diagnose

import (
	"math"
	"slices"
)

// rule is how a cause is known, told from others, and mended.
type rule struct {
	id, code string
	title    string // a clause: what is so
	meaning  string
	phases   []string // in which its excess lies
	// needs is the part of diskvault without which nobody can meet the cause;
	// such a rule only stands here to be explained. Empty: it is judged.
	needs string
	under string // ID of the cause that it is but a symptom of, if both hold
	fault bool   // a run with it is not one to compare with
	work  bool   // it explains more work, not a lower rate

	must       condition
	supports   []condition
	refutes    []condition
	blame      func(*comparison) float64
	lookalikes []string // IDs
	actions    []Action
}

// rules are all causes, in the order of their IDs.
var rules = slices.Concat(beforeRules, discoveryRules, sourceRules, hostRules, networkRules, targetRules, runRules)

func ruleOf(id string) *rule {
	for i := range rules {
		if rules[i].id == id {
			return &rules[i]
		}
	}
	return &rule{id: id}
}

// Entry is a cause as documents and `diskvault explain` show it.
type Entry struct {
	Code       string
	ID         string
	Title      string
	Meaning    string
	Signals    []string // that it is known by
	Lookalikes []string // codes
	Actions    []Action
	Needs      string // why it is not judged yet; empty: it is
}

// All gives the table of causes.
func All() []Entry {
	var out []Entry
	for _, r := range rules {
		e := Entry{Code: r.code, ID: r.id, Title: r.title, Meaning: r.meaning, Actions: r.actions, Needs: r.needs}
		for _, x := range slices.Concat([]condition{r.must}, r.supports, r.refutes) {
			for _, s := range x.signals {
				if !slices.Contains(e.Signals, s) {
					e.Signals = append(e.Signals, s)
				}
			}
		}
		for _, id := range r.lookalikes {
			e.Lookalikes = append(e.Lookalikes, ruleOf(id).code)
		}
		out = append(out, e)
	}
	return out
}

// causes tests all rules whose phases hold the excess.
func (c *comparison) causes() []Cause {
	state := c.state()
	excess := c.excess()
	over := c.excesses()
	if state == Waiting || state == Stalled {
		over[c.run.current()] = max(over[c.run.current()], excess)
		for _, w := range c.run.Meter.Waits {
			if id, ok := phases[w.Phase]; ok && w.Open {
				over[id] = max(over[id], w.Seconds)
			}
		}
	}
	concerned := func(r rule) bool {
		if r.work {
			return state == LongerExplained || c.facts["J.noHistory"] != 0
		}
		if state == LongerExplained {
			return false
		}
		return state == Looping || slices.ContainsFunc(r.phases, func(p string) bool { return over[p] >= 0.1*excess && over[p] > 0 })
	}
	found := []Cause{}
	for _, r := range rules {
		if r.needs != "" || !concerned(r) {
			continue
		}
		if x, ok := c.test(r); ok {
			found = append(found, x)
		}
	}
	// That all is as it should be is no answer beside another one.
	if slices.ContainsFunc(found, func(x Cause) bool { return x.ID != "C35" && x.Confidence >= certain }) {
		found = slices.DeleteFunc(found, func(x Cause) bool { return x.ID == "C35" })
	}
	return found
}

func asExpected(causes []Cause) bool { return len(causes) == 1 && causes[0].ID == "C35" }

// test judges one rule.
func (c *comparison) test(r rule) (x Cause, ok bool) {
	o := r.must.judge(c)
	if o.truth != holds {
		return x, false
	}
	x = Cause{Code: r.code, ID: r.id, Confidence: certain, Evidence: add(nil, o.evidence), RuledOut: []RuledOut{}, Actions: slices.Clone(r.actions)}
	for _, s := range r.supports {
		if o := s.judge(c); o.truth == holds {
			x.Confidence += 0.1
			x.Evidence = add(x.Evidence, o.evidence)
		}
	}
	x.Confidence = min(0.95, x.Confidence)
	for _, s := range r.refutes {
		if s.judge(c).truth == holds {
			x.Confidence -= 0.3
		}
	}
	x.Confidence = hundredth(x.Confidence)
	if x.Confidence < shown {
		return x, false
	}
	x.Blame = r.blame(c)
	if math.IsNaN(x.Blame) || math.IsInf(x.Blame, 0) || x.Blame < 0 {
		x.Blame = 0
	}
	for i := range x.Actions {
		x.Actions[i].Saves = x.Blame
	}
	for _, id := range r.lookalikes {
		if out, ok := c.ruledOut(*ruleOf(id), r); ok {
			x.RuledOut = append(x.RuledOut, out)
		}
	}
	return x, true
}

// ruledOut says why a lookalike of a cause is not one itself; false if it may be.
func (c *comparison) ruledOut(r, cause rule) (RuledOut, bool) {
	switch {
	case r.under == cause.id:
		if r.must.judge(c).truth == holds {
			return RuledOut{r.code, "it follows from this"}, true
		}
	case r.id == "C35":
		return RuledOut{r.code, "there is a reason why so much had to be done"}, true
	}
	if r.needs != "" {
		return RuledOut{r.code, "cannot happen here: diskvault has no " + r.needs}, true
	}
	o := r.must.judge(c)
	if o.truth == holds {
		for _, s := range r.refutes {
			if o := s.judge(c); o.truth == holds && len(o.evidence) > 0 {
				e := o.evidence[0]
				return RuledOut{r.code, signals[e.Signal].says + ": " + signals[e.Signal].unit.text(e.Value)}, true
			}
		}
		return RuledOut{}, false
	}
	return RuledOut{r.code, o.because}, true
}

// lost is the excess of a phase.
func lost(phase string) func(*comparison) float64 {
	return func(c *comparison) float64 { return c.excesses()[phase] }
}

// waitedFor is the growth of a waiting time.
func waitedFor(names ...string) func(*comparison) float64 {
	return func(c *comparison) (sum float64) {
		for _, n := range names {
			sum += max(0, c.facts[n]-c.facts50[n])
		}
		return sum
	}
}

// slowed is the excess of the transfer for the part of it in which one of the
// stages held it back.
func slowed(stages ...string) func(*comparison) float64 {
	return func(c *comparison) float64 {
		part := 0.0
		for _, s := range stages {
			part += c.facts["J."+s+".bottleneck"]
		}
		if part == 0 {
			part = 1
		}
		return c.excesses()[transfer] * min(1, part)
	}
}

// ofTransfer is a share of the transfer's time.
func ofTransfer(share string) func(*comparison) float64 {
	return func(c *comparison) float64 {
		return min(c.excesses()[transfer], c.phase[transfer]*max(0, c.facts[share]-c.facts50[share]))
	}
}

// more is the time that the growth of an amount of bytes takes at the rate that
// this run had.
func more(name, base string) func(*comparison) float64 {
	return func(c *comparison) float64 {
		return max(0, c.facts[name]-c.facts50[base]) / max(1, c.facts["J.bytesPerSecond"])
	}
}
