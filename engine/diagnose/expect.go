package diagnose

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Expected is how long the run should take, as a range, and what that rests on.
type Expected struct {
	P10    float64 `json:"p10"`
	P50    float64 `json:"p50"`
	P90    float64 `json:"p90"`
	Source Basis   `json:"source"`
	Runs   int     `json:"runs"`
}

// Basis is what an expectation rests on.
type Basis string

// Only the first two allow the words "slower than usual"; with the others a run
// is slower than the hardware should manage.
const (
	OfInstance  Basis = "instance"    // runs of this disk
	OfSimilar   Basis = "similar"     // of disks of the same kind of source and store
	Calibration Basis = "calibration" // what this host has shown
	Default     Basis = "default"     // shipped with the program
)

// Rates are what a pipeline manages, in bytes a second. Decide and Encode are
// of one processor.
type Rates struct {
	Read   float64 // from the source
	Decide float64 // zero test, hash, lookup
	Encode float64 // compress and encrypt
	Put    float64 // to the store
}

// shipped are low enough that a healthy machine of any kind manages them.
var shipped = Rates{Read: 60e6, Decide: 300e6, Encode: 120e6, Put: 25e6}

// Remaining is the time that is left, as a range.
type Remaining struct {
	P10 float64 `json:"p10"`
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	// Work that is left, in bytes: to be read and compared only, and to be stored.
	Compare int64 `json:"compareBytes"`
	Store   int64 `json:"storeBytes"`
}

// rates of a run: zero where nothing can be said.
func (r Record) rates() (x Rates) {
	per := func(bytes int64, seconds float64) float64 {
		if bytes < 1<<20 || seconds <= 0 {
			return 0
		}
		return float64(bytes) / seconds
	}
	if s, ok := r.stage("read"); ok {
		x.Read = per(r.Work.Read, s.Work/float64(max(1, s.Workers)))
	}
	if s, ok := r.stage("cpu"); ok {
		x.Decide = per(r.Work.Read, s.Timers["decide"])
		x.Encode = per(r.Work.New, s.Timers["compress"]+s.Timers["encrypt"])
	}
	if s, ok := r.stage("put"); ok {
		x.Put = per(s.Bytes, s.Work/float64(max(1, s.Workers)))
	}
	return x
}

// demand is how many seconds the slowest stage needs for the work of a run: the
// transfer cannot be faster.
func (x Rates) demand(r Record, workers float64) (seconds float64, stage string) {
	at := func(name string, s float64) {
		if s > seconds && !math.IsInf(s, 0) {
			seconds, stage = s, name
		}
	}
	at("read", float64(r.Work.Read)/x.Read)
	at("cpu", (float64(r.Work.Read)/x.Decide+float64(r.Work.New)/x.Encode)/workers)
	put, _ := r.stage("put")
	at("put", float64(max(put.Bytes, r.Work.Stored))/x.Put)
	return seconds, stage
}

// fill takes what x cannot say from y.
func (x Rates) fill(y Rates) Rates {
	return Rates{cmp.Or(x.Read, y.Read), cmp.Or(x.Decide, y.Decide), cmp.Or(x.Encode, y.Encode), cmp.Or(x.Put, y.Put)}
}

// baselines chooses the runs to compare with, newest first.
func baselines(r Record, h History, s Settings) (runs []Record, basis Basis) {
	fits := func(x Record, instance bool) bool {
		return !x.Slow && !x.Failed && !x.End.IsZero() && x.Kind == r.Kind && x.Store == r.Store && x.Settings == r.Settings &&
			(x.Instance == r.Instance) == instance && x.Source == r.Source && !x.Start.Equal(r.Start)
	}
	for _, b := range []Basis{OfInstance, OfSimilar} {
		var found []Record
		for _, x := range h.Runs {
			if fits(x, b == OfInstance) {
				found = append(found, x)
			}
		}
		slices.SortStableFunc(found, func(a, b Record) int { return b.Start.Compare(a.Start) })
		if len(found) >= s.MinRuns {
			return found[:min(len(found), s.MaxRuns)], b
		}
	}
	if h.Calibration != nil {
		return nil, Calibration
	}
	return nil, Default
}

// model predicts the seconds of each phase from a run's own work.
type model struct {
	rates Rates
	fixed map[string]float64 // phases that do not depend on the work
	flush float64            // seconds of the commit for each byte that is new
	ext   float64            // seconds of the discovery for each extent
}

// learn makes the model of comparable runs.
func learn(runs []Record, h History) model {
	m := model{fixed: map[string]float64{}}
	var known Rates
	known.Read = median(each(runs, func(r Record) float64 { return r.rates().Read }))
	known.Decide = median(each(runs, func(r Record) float64 { return r.rates().Decide }))
	known.Encode = median(each(runs, func(r Record) float64 { return r.rates().Encode }))
	known.Put = median(each(runs, func(r Record) float64 { return r.rates().Put }))
	if len(runs) > 0 {
		// Runs that stored next to nothing do not tell how fast that is; a first
		// backup to the same store may.
		var others []Record
		for _, x := range h.Runs {
			if !x.Slow && !x.Failed && x.Store == runs[0].Store && x.Settings == runs[0].Settings && x.Source == runs[0].Source {
				others = append(others, x)
			}
		}
		known = known.fill(Rates{
			Encode: median(each(others, func(r Record) float64 { return r.rates().Encode })),
			Put:    median(each(others, func(r Record) float64 { return r.rates().Put })),
		})
	}
	if h.Calibration != nil {
		known = known.fill(*h.Calibration)
	}
	m.rates = known.fill(shipped)
	for _, p := range phaseOrder {
		if p != transfer {
			m.fixed[p] = medianOf(each(runs, func(r Record) float64 { return r.seconds(r.End)[p] }))
		}
	}
	// The fixed part of the commit is what the quickest run took; the rest follows
	// the bytes. Likewise for the extents of a map.
	m.flush = slope(runs, commit, func(r Record) float64 { return float64(r.Work.New) }, m.fixed)
	m.ext = slope(runs, discovery, func(r Record) float64 { return r.Meter.Signals["S.extents"] }, m.fixed)
	return m
}

// slope fits a phase as fixed + work x slope, and replaces the fixed part. With
// hardly any difference in work there is nothing to fit.
func slope(runs []Record, phase string, work func(Record) float64, fixed map[string]float64) float64 {
	if len(runs) == 0 {
		return 0
	}
	var n, sx, sy, sxx, sxy float64
	low := math.Inf(1)
	for _, r := range runs {
		x, y := work(r), r.seconds(r.End)[phase]
		n, sx, sy, sxx, sxy = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y
		low = min(low, y)
	}
	spread := sxx/n - (sx/n)*(sx/n)
	if spread <= 0.01*(sx/n)*(sx/n) {
		return 0
	}
	b := (sxy/n - sx/n*sy/n) / spread
	if b <= 0 {
		return 0
	}
	fixed[phase] = max(0, min(low, sy/n-b*sx/n))
	return b
}

// phases predicts each phase of a run.
func (m model) phases(r Record) (out map[string]float64, bottleneck string) {
	out = map[string]float64{}
	for p, s := range m.fixed {
		out[p] = s
	}
	out[commit] += m.flush * float64(r.Work.New)
	out[discovery] += m.ext * r.Meter.Signals["S.extents"]
	workers := 1.0
	if s, ok := r.stage("cpu"); ok {
		workers = float64(max(1, s.Workers))
	}
	out[transfer], bottleneck = m.rates.demand(r, workers)
	return out, bottleneck
}

func (m model) total(r Record) float64 {
	phases, _ := m.phases(r)
	return total(phases)
}

func total(phases map[string]float64) (sum float64) {
	for _, p := range phaseOrder { // in order, so that the sum is always the same
		sum += phases[p]
	}
	return sum
}

// predict gives the range for a run whose like are runs.
func (m model) predict(r Record, runs []Record, basis Basis) Expected {
	e := m.total(r)
	low, mid, high := 0.5, 1.0, 2.0
	if len(runs) > 0 {
		ratios := each(runs, func(x Record) float64 {
			if e := m.total(x); e > 0 {
				return total(x.seconds(x.End)) / e
			}
			return 0
		})
		low, mid, high = quantile(ratios, 0.1), quantile(ratios, 0.5), quantile(ratios, 0.9)
	}
	return Expected{P10: round(e * low), P50: round(e * mid), P90: round(e * high), Source: basis, Runs: len(runs)}
}

// remaining estimates the time left of a transfer by class of work. before is
// the mix of the run before; nil: unknown.
func remaining(r Record, before *Record, transferred float64, after float64) *Remaining {
	seen := r.Work.Zero + r.Work.Unchanged + r.Work.Known + r.Work.New
	if r.current() != transfer || seen == 0 || transferred < 60 && float64(seen) < 0.02*float64(seen+r.Left) {
		return nil
	}
	s, ok := r.stage("cpu")
	other, fresh := transferred/float64(seen), transferred/float64(seen)
	if ok && s.Work > 0 && r.Work.New > 0 {
		extra := min(s.Timers["compress"]+s.Timers["encrypt"], s.Work)
		scale := transferred / s.Work // seconds of the run for a second of work
		other = (s.Work - extra) * scale / float64(seen)
		fresh = other + extra*scale/float64(r.Work.New)
	}
	now := float64(r.Work.New) / float64(seen)
	low, mid, high := now, now, now
	if before != nil {
		if all := before.Work.Zero + before.Work.Unchanged + before.Work.Known + before.Work.New; all > 0 {
			then := float64(before.Work.New) / float64(all)
			known := float64(seen) / float64(seen+r.Left)
			low, high = min(now, then), max(now, then)
			mid = known*now + (1-known)*then
		}
	}
	left := float64(r.Left)
	at := func(share float64) float64 { return left*(share*fresh+(1-share)*other) + after }
	return &Remaining{
		P10: round(0.8 * at(low)), P50: round(at(mid)), P90: round(1.3 * at(high)),
		Compare: int64(left * (1 - mid)), Store: int64(left * mid),
	}
}

func each[T any](runs []T, f func(T) float64) []float64 {
	out := make([]float64, 0, len(runs))
	for _, r := range runs {
		out = append(out, f(r))
	}
	return out
}

// median of what is not zero, which here means unknown.
func median(v []float64) float64 {
	return medianOf(slices.DeleteFunc(v, func(x float64) bool { return x == 0 }))
}

func medianOf(v []float64) float64 { return quantile(v, 0.5) }

// quantile interpolates between the two nearest values; 0 of none.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}

func round(seconds float64) float64 { return math.Round(seconds*10) / 10 }

func clock(t time.Time) string { return t.UTC().Format("15:04:05Z") }
