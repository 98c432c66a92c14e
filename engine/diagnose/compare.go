package diagnose

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// comparison is a run beside the runs that it is compared with: what rules
// look at.
type comparison struct {
	run      Record
	now      time.Time
	settings Settings

	runs       []Record // to compare with, newest first
	model      model
	expected   Expected
	usual      Expected // how long the runs took, whatever their work
	wanted     map[string]float64
	phase      map[string]float64 // seconds so far
	bottleneck string             // stage that bounds the transfer by the model
	elapsed    float64
	projected  float64 // elapsed in the end
	remaining  *Remaining

	facts   map[string]float64
	facts50 map[string]float64 // medians of the runs
	facts90 map[string]float64
}

func compare(r Record, h History, now time.Time, s Settings) *comparison {
	c := &comparison{run: r, now: now, settings: s}
	var basis Basis
	c.runs, basis = baselines(r, h, s)
	c.model = learn(c.runs, h)
	c.phase = r.seconds(now)
	c.elapsed = round(total(c.phase))
	whole := r
	if r.End.IsZero() {
		var before *Record
		if len(c.runs) > 0 {
			before = &c.runs[0]
		}
		c.remaining = remaining(r, before, c.phase[transfer], c.model.fixed[commit]+c.model.fixed[cleanup])
		whole = r.whole(before)
	}
	c.wanted, c.bottleneck = c.model.phases(whole)
	c.expected = c.model.predict(whole, c.runs, basis)
	if basis == OfInstance || basis == OfSimilar {
		took := each(c.runs, func(x Record) float64 { return total(x.seconds(x.End)) })
		c.usual = Expected{quantile(took, 0.1), medianOf(took), quantile(took, 0.9), basis, len(took)}
	}
	c.projected = c.elapsed
	if c.remaining != nil {
		c.projected += c.remaining.P50
	}
	c.facts = r.facts(now)
	c.baseline()
	c.derived(whole)
	return c
}

// whole is the run as it will be when what is left is dealt with, with the mix
// of work so far, or before anything was seen that of the run before.
func (r Record) whole(before *Record) Record {
	seen := r.Work.Zero + r.Work.Unchanged + r.Work.Known + r.Work.New
	mix := r.Work
	if seen == 0 && before != nil {
		mix = before.Work
		seen = mix.Zero + mix.Unchanged + mix.Known + mix.New
	}
	r.Work.Read += r.Left
	if seen > 0 {
		r.Work.New += int64(float64(r.Left) * float64(mix.New) / float64(seen))
		r.Work.Stored += int64(float64(r.Left) * float64(mix.Stored) / float64(seen))
	}
	return r
}

// baseline makes the median and the 90th percentile of each fact over the runs.
func (c *comparison) baseline() {
	values := map[string][]float64{}
	for _, x := range c.runs {
		for name, v := range x.facts(x.End) {
			values[name] = append(values[name], v)
		}
	}
	c.facts50, c.facts90 = map[string]float64{}, map[string]float64{}
	for name, v := range values {
		if len(v) >= c.settings.MinRuns {
			c.facts50[name], c.facts90[name] = medianOf(v), quantile(v, 0.9)
		}
	}
}

// derived are facts that only a comparison has.
func (c *comparison) derived(whole Record) {
	c.facts["J.noHistory"] = truthOf(len(c.runs) == 0)
	if len(c.runs) > 0 {
		mine, usual := c.model.total(whole), medianOf(each(c.runs, c.model.total))
		if usual > 0 {
			c.facts["J.work"] = mine / usual
		}
	}
	steady, known := 1.0, false
	have := c.run.rates()
	for _, x := range [][2]float64{{have.Read, c.model.rates.Read}, {have.Decide, c.model.rates.Decide}, {have.Encode, c.model.rates.Encode}, {have.Put, c.model.rates.Put}} {
		if x[0] > 0 && x[1] > 0 {
			steady, known = min(steady, x[0]/x[1]), true
		}
	}
	if known {
		c.facts["J.steady"] = steady
	}
}

func (c *comparison) asked() time.Time {
	for _, t := range []time.Time{c.run.Asked, c.run.Start} {
		if !t.IsZero() {
			return t
		}
	}
	return c.now
}

// excesses gives by how much each phase is behind the model.
func (c *comparison) excesses() map[string]float64 {
	out := map[string]float64{}
	ratio := 1.0
	if e := total(c.wanted); e > 0 && c.expected.P90 > 0 {
		ratio = c.expected.P90 / e
	}
	for _, p := range phaseOrder {
		if over := c.phase[p] - ratio*c.wanted[p]; over > 0 {
			out[p] = over
		}
	}
	// What a limit or a wait before retries took is excess whatever the work.
	held := c.phase[transfer] * max(c.facts["J.limited"]-c.facts50["J.limited"], c.facts["J.backoff"]-c.facts50["J.backoff"])
	if held > 1 {
		out[transfer] = max(out[transfer], held)
	}
	// A run that goes on is late in the phase that it is in.
	if c.remaining != nil {
		out[transfer] = max(out[transfer], c.projected-c.expected.P90)
	}
	return out
}

// waited is the time in which the run was not allowed to work.
func waited(r Record, now time.Time) float64 {
	p := r.seconds(now)
	sum := p[due] + p[admission]
	for _, w := range r.Meter.Waits {
		sum += w.Seconds
	}
	held := 0.0
	for _, name := range []string{"read", "put"} {
		if s, ok := r.stage(name); ok {
			held = max(held, (s.Limited+s.Backoff)/float64(max(1, s.Workers)))
		}
	}
	return sum + held
}

// waitedLonger is by how much longer than usual the run was not allowed to work.
func (c *comparison) waitedLonger() float64 {
	return max(0, waited(c.run, c.now)-medianOf(each(c.runs, func(x Record) float64 { return waited(x, x.End) })))
}

func (c *comparison) split() (s Split) {
	excess := c.excess()
	if excess <= 0 {
		return s
	}
	wait := waited(c.run, c.now)
	s.Wait = min(1, c.waitedLonger()/excess)
	work, rate := 0.0, 1.0
	took := max(1e-3, c.projected-wait)
	want := max(1e-3, total(c.wanted))
	if len(c.runs) > 0 {
		took0 := max(1e-3, medianOf(each(c.runs, func(x Record) float64 { return total(x.seconds(x.End)) - waited(x, x.End) })))
		want0 := max(1e-3, medianOf(each(c.runs, c.model.total)))
		work = max(0, math.Log(want/want0))
		rate = max(0, math.Log(took/took0)-math.Log(want/want0))
	}
	if work+rate > 0 {
		s.Work = (1 - s.Wait) * work / (work + rate)
		s.Rate = (1 - s.Wait) * rate / (work + rate)
	} else {
		s.Wait = 1
	}
	s.Work, s.Rate, s.Wait = hundredth(s.Work), hundredth(s.Rate), hundredth(s.Wait)
	return s
}

func hundredth(x float64) float64 { return math.Round(100*x) / 100 }

// timeline joins windows of one phase and bottleneck.
func (c *comparison) timeline() []Span {
	spans := []Span{}
	start := c.run.Start
	end, line := 0.0, c.run.pipeline()
	for _, w := range c.run.Meter.Windows {
		s := Span{Phase: cmp.Or(phases[w.Phase], preflight)}
		if s.Phase == transfer {
			s.Bottleneck = line.bottleneck(w)
		}
		at := func(seconds float64) string { return clock(start.Add(time.Duration(seconds * float64(time.Second)))) }
		s.From, s.To = at(w.From), at(w.From+w.Seconds)
		if n := len(spans); n > 0 && spans[n-1].Phase == s.Phase && spans[n-1].Bottleneck == s.Bottleneck && w.From <= end+1 {
			spans[n-1].To = s.To
		} else {
			spans = append(spans, s)
		}
		end = w.From + w.Seconds
	}
	return spans
}

// window is the time in which a stage was the bottleneck, for evidence.
func (c *comparison) window() string {
	from, to := 0.0, 0.0
	for i, w := range c.run.Meter.Windows {
		if i == 0 || to == 0 {
			from = w.From
		}
		to = w.From + w.Seconds
	}
	if to == 0 {
		return ""
	}
	at := func(s float64) string {
		return c.run.Start.Add(time.Duration(s * float64(time.Second))).UTC().Format("15:04")
	}
	return at(from) + "-" + at(to)
}

func (c *comparison) absentSignals() []Absent {
	out := []Absent{}
	for name, why := range c.run.Meter.Absent {
		out = append(out, Absent{name, why})
	}
	slices.SortFunc(out, func(a, b Absent) int { return cmp.Compare(a.Signal, b.Signal) })
	return out
}
