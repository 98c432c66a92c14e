package diagnose

import (
	"math"
	"time"

	"github.com/diskvault/diskvault/base/meter"
)

// facts are the signals of a run, by name: those recorded from its surroundings
// and those made from its account. What cannot be said is not there.
func (r Record) facts(now time.Time) map[string]float64 {
	f := map[string]float64{}
	for name, v := range r.Meter.Signals {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			f[name] = v
		}
	}
	phase := r.seconds(now)
	f["J.wait.dispatch"], f["J.wait.queue"] = phase[due], phase[admission]
	f["J.discovery"], f["J.snapshot"], f["J.opening"], f["J.tail"] = phase[discovery], phase[snapshot], phase[preflight], phase[commit]+phase[cleanup]
	f["J.wait.lock"], f["J.wait.holder"] = 0, 0
	for _, w := range r.Meter.Waits {
		f["J.wait.lock"] += w.Seconds
		if w.Detail != "" {
			f["J.wait.holder"] = 1
		}
	}
	f["J.opening"] = max(0, f["J.opening"]-f["J.wait.lock"])
	f["J.progress.gap"] = r.Meter.Progress.P90
	f["J.idle"] = r.Meter.Progress.Idle
	r.workFacts(f)
	if p6 := phase[transfer]; p6 > 0 {
		r.stageFacts(f, p6)
		r.windowFacts(f)
	}
	r.seamFacts(f)
	r.pipeFacts(f)
	return f
}

func truthOf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (r Record) workFacts(f map[string]float64) {
	w := r.Work
	changed := float64(w.Changed)
	different := float64(w.Known + w.New)
	if !r.Changes.Tracked {
		changed = different // all was read; what differs is what changed
	}
	f["J.incremental"], f["J.untracked"] = truthOf(r.Kind == Incremental), truthOf(!r.Changes.Tracked)
	f["S.changesReason"] = truthOf(r.Changes.Reason != "")
	f["J.bytes.read"], f["J.bytes.changed"], f["J.bytes.different"], f["J.bytes.new"] = float64(w.Read), changed, different, float64(w.New)
	f["J.bytes.provisioned"], f["J.bytesRemaining"] = float64(w.Provisioned), float64(r.Left)
	if changed > 0 {
		f["J.newPerChanged"] = float64(w.New) / changed
	}
	f["J.changedPerNew"] = changed / max(1, float64(w.New))
	if all := float64(w.Zero + w.Unchanged + w.Known + w.New); all > 0 {
		f["J.zeroShare"], f["J.sameShare"] = float64(w.Zero)/all, float64(w.Unchanged)/all
		f["J.transferred"] = all / (all + float64(r.Left))
	}
	if w.New >= 1<<20 && w.Stored > 0 {
		f["J.storedPerNew"] = float64(w.Stored) / float64(w.New)
	}
	if r.Attempts > 0 {
		f["J.attempts"] = float64(r.Attempts)
	}
	if r.Restarts > 0 {
		f["J.restarts"] = float64(r.Restarts)
	}
	if put, ok := r.stage("put"); ok && w.Stored >= 1<<20 {
		f["J.sentPerStored"] = float64(put.Bytes) / float64(w.Stored)
	}
}

// stageFacts tell what the workers did in p6 seconds of transfer.
func (r Record) stageFacts(f map[string]float64, p6 float64) {
	of := func(sum float64, s meter.StageRecord) float64 { return sum / (p6 * float64(max(1, s.Workers))) }
	f["J.bytesPerSecond"] = float64(r.Work.Read) / p6
	var busiest, next meter.StageRecord
	var limited, backoff, working float64
	for _, name := range []string{"read", "cpu", "put"} {
		s, ok := r.stage(name)
		if !ok {
			continue
		}
		working += s.Work
		limited, backoff = max(limited, of(s.Limited, s)), max(backoff, of(s.Backoff, s))
		if busiest.Workers == 0 || of(s.Work, s) > of(busiest.Work, busiest) {
			busiest, next = s, busiest
		} else if next.Workers == 0 || of(s.Work, s) > of(next.Work, next) {
			next = s
		}
		f["J.operationAge"] = max(f["J.operationAge"], s.Age)
	}
	f["J.limited"], f["J.backoff"], f["J.concurrency"] = limited, backoff, working/p6
	if busiest.Workers > 0 {
		f["J.busiest.work"], f["J.busiest.workers"] = of(busiest.Work, busiest), float64(busiest.Workers)
		f["J.others.work"] = of(next.Work, next)
	}
	if r.Limit > 0 {
		f["J.limitReached"] = float64(r.Work.Read) / p6 / float64(r.Limit)
	} else {
		f["J.limitReached"] = 0
	}
	x := r.rates()
	if s, ok := r.stage("read"); ok {
		f["J.read.work"] = of(s.Work, s)
		if x.Read > 0 {
			f["J.read.bytesPerSecond"] = x.Read
		}
	}
	if s, ok := r.stage("put"); ok {
		f["J.put.work"] = of(s.Work, s)
		if x.Put > 0 {
			f["J.put.bytesPerSecond"] = x.Put
		}
	}
	if s, ok := r.stage("cpu"); ok {
		f["J.cpu.workers"] = float64(s.Workers)
		if s.Work > 0 {
			f["J.cryptShare"] = min(1, (s.Timers["decide"]+s.Timers["encrypt"])/s.Work)
		}
		if x.Decide > 0 {
			f["J.decideNsPerByte"] = 1e9 / x.Decide
		}
	}
}

// early is how long queues and caches fill, so that the rate says nothing.
const early = 30.0

// windowFacts tell what held the transfer back, and how even its rate was.
func (r Record) windowFacts(f map[string]float64) {
	times := map[string]float64{}
	var all float64
	var rates []float64
	line := r.pipeline()
	for _, w := range r.Meter.Windows {
		if phases[w.Phase] != transfer || w.Seconds < 1 {
			continue
		}
		all += w.Seconds
		times[line.bottleneck(w)] += w.Seconds
		if w.From >= early {
			rates = append(rates, float64(w.Stages["read"].Bytes)/w.Seconds)
		}
	}
	if all == 0 {
		return
	}
	for _, s := range []string{"read", "decide", "compress", "encrypt", "put"} {
		f["J."+s+".bottleneck"] = times[s] / all
	}
	if len(rates) < 6 {
		return
	}
	rates = rates[:len(rates)-1] // the last one ends with the work
	mean, deviation := spread(rates)
	if mean <= 0 {
		return
	}
	f["J.variation"] = deviation / mean
	f["J.stepDown"] = stepDown(rates)
}

func spread(v []float64) (mean, deviation float64) {
	for _, x := range v {
		mean += x / float64(len(v))
	}
	for _, x := range v {
		deviation += (x - mean) * (x - mean) / float64(len(v))
	}
	return mean, math.Sqrt(deviation)
}

// stepDown is by how much the rate fell at one moment, if it was even before
// and after; else zero.
func stepDown(rates []float64) (best float64) {
	const least = 4 // windows on each side
	for i := least; i+least <= len(rates); i++ {
		before, d1 := spread(rates[:i])
		after, d2 := spread(rates[i:])
		if before > 0 && d1 < 0.1*before && d2 < 0.1*max(after, 1) {
			best = max(best, 1-after/before)
		}
	}
	return best
}

// pipeline are the stages of the transfer in order.
type pipeline [3]meter.StageRecord

func (r Record) pipeline() (p pipeline) {
	for i, name := range []string{"read", "cpu", "put"} {
		p[i], _ = r.stage(name)
	}
	return p
}

// bottleneck names what held a window back, by the crossing rule; empty: no
// stage stood out.
func (p pipeline) bottleneck(w meter.Window) string {
	name := meter.Bottleneck(p[:], []meter.QueueRecord{{Quarters: w.Queues["read-cpu"]}, {Quarters: w.Queues["cpu-put"]}})
	for _, s := range p {
		switch {
		case s.Stage != name:
		case name == "cpu":
			step := "decide"
			for _, t := range []string{"compress", "encrypt"} {
				if s.Timers[t] > s.Timers[step] {
					step = t
				}
			}
			return step
		case w.Stages[name].Work < 0.7*w.Seconds*float64(max(1, s.Workers)):
			return "" // it does not work: it waits, or stands still
		}
	}
	return name
}

func (r Record) seamFacts(f map[string]float64) {
	if s, ok := r.seam("source.read"); ok {
		f["J.source.p50"], f["J.source.p99"] = s.Quantile(0.5), s.Quantile(0.99)
		f["J.source.tail"] = s.Quantile(0.99) / max(1e-6, s.Quantile(0.5))
		f["J.source.errors"] = float64(s.Errors)
	}
	var requests, failed, throttled float64
	for _, s := range r.Meter.Seams {
		switch s.Seam {
		case "bucket.put", "bucket.get", "bucket.stat", "bucket.list", "bucket.delete":
			requests += float64(s.Count)
			if s.Seam == "bucket.put" || s.Seam == "bucket.list" || s.Seam == "bucket.delete" {
				failed += float64(s.Errors) // not found is an answer to the others
			}
		case "bucket.throttled":
			throttled += float64(s.Count)
		}
	}
	if requests > 0 {
		f["O.requests"], f["O.throttled"] = requests, throttled
		f["O.throttledShare"] = throttled / requests
		f["O.errorShare"] = max(0, failed-throttled) / requests
	}
	if s, ok := r.seam("bucket.put"); ok {
		f["O.put.p50"], f["O.put.p99"] = s.Quantile(0.5), s.Quantile(0.99)
		if put, ok := r.stage("put"); ok && put.Bytes > 0 {
			f["O.objectBytes"] = float64(put.Bytes) / float64(s.Count)
		}
	}
}

// pipeFacts tell whether requests in flight bound the rate of storing.
func (r Record) pipeFacts(f map[string]float64) {
	put, ok := r.stage("put")
	object, latency := f["O.objectBytes"], f["O.put.p50"]
	if !ok || object == 0 || latency == 0 || put.Work == 0 {
		return
	}
	rate := float64(put.Bytes) / (put.Work / float64(max(1, put.Workers)))
	f["O.pipeBound"] = rate / (float64(max(1, put.Workers)) * object / latency)
	if line, ok := f["N.if.speed"]; ok && line > 0 {
		f["J.put.requestPerTransfer"] = latency / (object / line)
	}
}
