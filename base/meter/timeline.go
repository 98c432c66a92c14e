package meter

import (
	"math"
	"time"
)

// The time line keeps at most maxWindows windows; then two become one and all
// are twice as long. So a night's run costs what one of a quarter of an hour does.
const (
	firstWindow = 10 * time.Second
	maxWindows  = 90
)

// Window is what happened between two moments of a job.
type Window struct {
	From    float64                `json:"from"`    // seconds since the start
	Seconds float64                `json:"seconds"` // its length
	Phase   string                 `json:"phase"`   // at its end
	Stages  map[string]StageWindow `json:"stages,omitempty"`
	Queues  map[string][4]int64    `json:"queues,omitempty"` // samples, as in QueueRecord
}

// StageWindow is the part of a stage's account that lies in a window, in
// seconds of all its workers.
type StageWindow struct {
	Work  float64 `json:"work"`
	Held  float64 `json:"held,omitempty"` // limited, in back-off or locked
	Bytes int64   `json:"bytes,omitempty"`
}

// timeline folds the account into windows. The meter's mu guards it.
type timeline struct {
	width  time.Duration
	end    time.Time // of the last window; zero: the start of the job
	before Window    // totals at end
	done   []Window
}

func (t *timeline) due(now, start time.Time) bool {
	if t.width == 0 {
		t.width, t.end = firstWindow, start
	}
	return now.Sub(t.end) >= t.width
}

// endWindow adds what happened since the last window ended.
func (m *Meter) endWindow(now time.Time) {
	t := &m.timeline
	t.due(now, m.start)
	if now.Sub(t.end) < 200*time.Millisecond {
		return // the rest behind the last full one says nothing
	}
	total := Window{Stages: map[string]StageWindow{}, Queues: map[string][4]int64{}}
	for _, s := range m.stages { // attempts have stages of the same names
		r, sum := s.record(now), total.Stages[s.name]
		sum.Work += r.Work
		sum.Held += r.Limited + r.Backoff + r.Locked
		sum.Bytes += r.Bytes
		total.Stages[s.name] = sum
	}
	for _, q := range m.queues {
		sum := total.Queues[q.name]
		for i := range q.quarters {
			sum[i] += q.quarters[i].Load()
		}
		total.Queues[q.name] = sum
	}
	w := total.minus(t.before)
	w.From, w.Seconds, w.Phase = millis(t.end.Sub(m.start).Seconds()), millis(now.Sub(t.end).Seconds()), m.phases[len(m.phases)-1].name
	t.before, t.end = total, now
	t.done = append(t.done, w)
	if len(t.done) == maxWindows {
		for i := range maxWindows / 2 {
			t.done[i] = t.done[2*i].plus(t.done[2*i+1])
		}
		t.done = t.done[:maxWindows/2]
		t.width *= 2
	}
}

func (t *timeline) windows() []Window {
	return append([]Window(nil), t.done...)
}

// minus gives the growth since before; a stage that did nothing is left out.
func (w Window) minus(before Window) Window {
	out := Window{Stages: map[string]StageWindow{}, Queues: map[string][4]int64{}}
	for name, s := range w.Stages {
		b := before.Stages[name]
		d := StageWindow{Work: millis(s.Work - b.Work), Held: millis(s.Held - b.Held), Bytes: s.Bytes - b.Bytes}
		if d != (StageWindow{}) {
			out.Stages[name] = d
		}
	}
	for name, q := range w.Queues {
		for i, n := range before.Queues[name] {
			q[i] -= n
		}
		if q != [4]int64{} {
			out.Queues[name] = q
		}
	}
	return out
}

// plus joins a window with the one that follows.
func (w Window) plus(next Window) Window {
	out := Window{From: w.From, Seconds: millis(w.Seconds + next.Seconds), Phase: next.Phase, Stages: map[string]StageWindow{}, Queues: map[string][4]int64{}}
	for _, part := range []Window{w, next} {
		for name, s := range part.Stages {
			sum := out.Stages[name]
			out.Stages[name] = StageWindow{Work: millis(sum.Work + s.Work), Held: millis(sum.Held + s.Held), Bytes: sum.Bytes + s.Bytes}
		}
		for name, q := range part.Queues {
			sum := out.Queues[name]
			for i, n := range q {
				sum[i] += n
			}
			out.Queues[name] = sum
		}
	}
	return out
}

// millis cuts seconds to three digits: windows are stored as text.
func millis(seconds float64) float64 { return math.Round(seconds*1000) / 1000 }
