package meter

import (
	"maps"
	"math"
	"time"
)

// Record is the account of a job as data: what is stored with the job, shown
// by the command line and judged by the diagnosis. Durations are seconds.
type Record struct {
	Phases []PhaseRecord `json:"phases"`
	Stages []StageRecord `json:"stages"`
	Queues []QueueRecord `json:"queues,omitempty"`
	Seams  []SeamRecord  `json:"seams,omitempty"`

	Waits    []WaitRecord       `json:"waits,omitempty"`
	Progress ProgressRecord     `json:"progress,omitzero"`
	Windows  []Window           `json:"windows,omitempty"`
	Signals  map[string]float64 `json:"signals,omitempty"` // of the surroundings
	Absent   map[string]string  `json:"absent,omitempty"`  // signals that could not be had, and why
}

// PhaseRecord is the time spent in one phase.
type PhaseRecord struct {
	Phase   string  `json:"phase"`
	Seconds float64 `json:"seconds"`
	Mark    int64   `json:"mark"` // progress mark, in the unit of the phase
}

// StageRecord adds up the states of a stage's workers; for a finished stage
// their sum is workers times the stage's wall time.
type StageRecord struct {
	Stage         string             `json:"stage"`
	Workers       int                `json:"workers"`
	Work          float64            `json:"work"`
	Starved       float64            `json:"starved"`
	Backpressured float64            `json:"backpressured"`
	Limited       float64            `json:"limited"`
	Backoff       float64            `json:"backoff"`
	Locked        float64            `json:"locked"`
	Bytes         int64              `json:"bytes"`
	Timers        map[string]float64 `json:"timers,omitempty"`

	// While the stage runs: for how long by now the worker that has been at one
	// piece of work longest, and the one that has been held up by a limit or a
	// wait before a retry.
	Age  float64 `json:"age,omitempty"`
	Held float64 `json:"held,omitempty"`
}

// QueueRecord counts samples by how full the queue was: up to a quarter, a
// half, three quarters, and above.
type QueueRecord struct {
	Queue    string   `json:"queue"`
	Capacity int      `json:"capacity"`
	Quarters [4]int64 `json:"quarters"`
}

// SeamRecord is a latency histogram. Bucket 0 counts operations below one
// microsecond, bucket i those from 2^(i-1) up to 2^i microseconds.
type SeamRecord struct {
	Seam    string  `json:"seam"`
	Count   int64   `json:"count"`
	Errors  int64   `json:"errors"`
	Seconds float64 `json:"seconds"`
	Max     float64 `json:"max"`
	Buckets []int64 `json:"buckets"`
}

// Record gives the account so far; it may be asked for while the job runs.
func (m *Meter) Record() Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.ended
	if now.IsZero() {
		now = time.Now()
	}
	r := Record{Phases: m.phaseRecords(now), Stages: []StageRecord{}}
	for _, s := range m.stages {
		r.Stages = append(r.Stages, s.record(now))
	}
	for _, q := range m.queues {
		qr := QueueRecord{Queue: q.name, Capacity: q.capacity}
		for i := range q.quarters {
			qr.Quarters[i] = q.quarters[i].Load()
		}
		r.Queues = append(r.Queues, qr)
	}
	for _, s := range m.seams {
		r.Seams = append(r.Seams, s.record())
	}
	for _, w := range m.waits {
		r.Waits = append(r.Waits, w.record(now))
	}
	r.Progress = m.progress.record(now, m.ended.IsZero())
	r.Windows = m.timeline.windows()
	r.Signals, r.Absent = maps.Clone(m.signals), maps.Clone(m.absent)
	return r
}

func (m *Meter) phaseRecords(now time.Time) []PhaseRecord {
	var out []PhaseRecord
	at := map[string]int{}
	for i, p := range m.phases {
		end := now
		if i+1 < len(m.phases) {
			end = m.phases[i+1].start
		}
		k, seen := at[p.name]
		if !seen {
			k = len(out)
			at[p.name] = k
			out = append(out, PhaseRecord{Phase: p.name})
		}
		out[k].Seconds += end.Sub(p.start).Seconds()
		out[k].Mark += p.mark.Load()
	}
	return out
}

func (s *Stage) record(now time.Time) StageRecord {
	r := StageRecord{Stage: s.name, Workers: len(s.workers), Bytes: s.bytes.Load()}
	for i := range s.workers {
		t, state, since := s.workers[i].totals(now)
		switch state {
		case Work:
			r.Age = max(r.Age, since.Seconds())
		case Limited, Backoff:
			r.Held = max(r.Held, since.Seconds())
		}
		r.Work += t[Work].Seconds()
		r.Starved += t[Starved].Seconds()
		r.Backpressured += t[Backpressured].Seconds()
		r.Limited += t[Limited].Seconds()
		r.Backoff += t[Backoff].Seconds()
		r.Locked += t[Locked].Seconds()
	}
	s.timers.Range(func(k, v any) bool {
		if r.Timers == nil {
			r.Timers = map[string]float64{}
		}
		r.Timers[k.(string)] = time.Duration(v.(*Timer).ns.Load()).Seconds()
		return true
	})
	return r
}

func (s *Seam) record() SeamRecord {
	r := SeamRecord{
		Seam: s.name, Count: s.count.Load(), Errors: s.errors.Load(),
		Seconds: time.Duration(s.ns.Load()).Seconds(), Max: time.Duration(s.max.Load()).Seconds(),
	}
	last := 0
	for i := range s.buckets {
		if s.buckets[i].Load() > 0 {
			last = i + 1
		}
	}
	for i := range last {
		r.Buckets = append(r.Buckets, s.buckets[i].Load())
	}
	return r
}

// Quantile gives the latency, in seconds, that the share q of the operations
// did not exceed; zero without operations. It is exact to its bucket, within a
// factor of two.
func (r SeamRecord) Quantile(q float64) float64 {
	want := int64(math.Ceil(q * float64(r.Count)))
	var seen int64
	for i, n := range r.Buckets {
		if seen += n; seen >= want && n > 0 {
			return min(r.Max, float64(int64(1)<<i)/1e6)
		}
	}
	return r.Max
}

// Bottleneck names the stage that holds the pipeline back, by the crossing
// rule: its input queue is mostly full and its output queue mostly empty. It
// is empty when no stage stands out. stages are in pipeline order and
// queues[i] lies between stages[i] and stages[i+1].
func Bottleneck(stages []StageRecord, queues []QueueRecord) string {
	full := func(q QueueRecord) float64 { return share(q, 3) }
	empty := func(q QueueRecord) float64 { return share(q, 0) }
	best, bestScore := "", 0.0
	for i, s := range stages {
		score := 1.0
		if i > 0 && i-1 < len(queues) {
			score = min(score, full(queues[i-1]))
		}
		if i < len(queues) {
			score = min(score, empty(queues[i]))
		}
		if score > 0.5 && score > bestScore {
			best, bestScore = s.Stage, score
		}
	}
	return best
}

func share(q QueueRecord, quarter int) float64 {
	var sum int64
	for _, n := range q.Quarters {
		sum += n
	}
	if sum == 0 {
		return 0
	}
	return float64(q.Quarters[quarter]) / float64(sum)
}
