package meter

import (
	"maps"
	"sync"
	"time"
)

// wait is time in which a phase was not allowed to go on.
type wait struct {
	phase, reason, detail string
	start, end            time.Time // end: zero while it lasts; guarded by the meter's mu
}

// WaitRecord is time in which a phase was not allowed to go on.
type WaitRecord struct {
	Phase   string  `json:"phase"`
	Reason  string  `json:"reason"`           // instance lock, store lock…
	Detail  string  `json:"detail,omitempty"` // who holds it, as far as known
	Seconds float64 `json:"seconds"`
	Open    bool    `json:"open,omitempty"` // it lasts
}

func (w *wait) record(now time.Time) WaitRecord {
	r := WaitRecord{Phase: w.phase, Reason: w.reason, Detail: w.detail, Open: w.end.IsZero()}
	if !r.Open {
		now = w.end
	}
	r.Seconds = now.Sub(w.start).Seconds()
	return r
}

// shortWait is not worth a record: a lock that was free costs less.
const shortWait = 10 * time.Millisecond

// Wait says that the running phase cannot go on until end is called, and why.
// end may be called more than once.
func (m *Meter) Wait(reason, detail string) (end func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &wait{phase: m.phases[len(m.phases)-1].name, reason: reason, detail: detail, start: time.Now()}
	m.waits = append(m.waits, w)
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		w.end = time.Now()
		if w.end.Sub(w.start) < shortWait {
			for i, x := range m.waits {
				if x == w {
					m.waits = append(m.waits[:i], m.waits[i+1:]...)
					break
				}
			}
		}
	})
}

// Surroundings replaces the signals of the surroundings, by name, and why
// others are absent. The maps are copied.
func (m *Meter) Surroundings(signals map[string]float64, absent map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.signals, m.absent = maps.Clone(signals), maps.Clone(absent)
}

// progress watches the progress marks: when they last moved, and how long they
// stood still between two moves. The meter's mu guards it.
type progress struct {
	mark  int64 // of all phases, and the phases themselves
	moved time.Time
	gaps  Seam
}

// ProgressRecord tells how evenly a job got on, to a fifth of a second.
type ProgressRecord struct {
	Idle float64 `json:"idle,omitempty"` // seconds since the last mark, while the job runs
	P90  float64 `json:"p90"`            // of the gaps between marks
	Max  float64 `json:"max"`
}

// look sees whether the job got on since the last look.
func (m *Meter) look(now time.Time) {
	mark := int64(len(m.phases))
	for _, p := range m.phases {
		mark += p.mark.Load()
	}
	g := &m.progress
	if g.moved.IsZero() {
		g.moved = m.start
	}
	if mark == g.mark {
		return
	}
	g.gaps.add(now.Sub(g.moved), nil)
	g.mark, g.moved = mark, now
}

func (g *progress) record(now time.Time, running bool) ProgressRecord {
	gaps := g.gaps.record()
	r := ProgressRecord{P90: gaps.Quantile(0.9), Max: gaps.Max}
	if running && !g.moved.IsZero() {
		r.Idle = now.Sub(g.moved).Seconds()
	}
	return r
}
