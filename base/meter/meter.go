// Package meter accounts for every second of a job: phases that follow one
// another without a gap, and pipeline workers that are at each moment in
// exactly one state. A job's record is made from it, and a diagnosis from the
// record: what is not a number here cannot be explained later.
package meter

import (
	"sync"
	"sync/atomic"
	"time"
)

// State is what a pipeline worker is doing at a moment.
type State int

const (
	Work          State = iota // its own operation: pread, hash and encode, put
	Starved                    // waits on an empty input queue
	Backpressured              // waits on a full output queue
	Limited                    // waits for a configured rate limit
	Backoff                    // sleeps before a retry
	Locked                     // waits for a lock or a memory budget in this process
	states
)

// Meter is the account of one job. All methods are safe for concurrent use.
type Meter struct {
	start  time.Time
	mu     sync.Mutex
	phases []phase  // guarded by mu; the last one is running until Finish
	stages []*Stage // guarded by mu
	queues []*Queue // guarded by mu
	seams  []*Seam  // guarded by mu
	ended  time.Time

	waits    []*wait            // guarded by mu
	signals  map[string]float64 // guarded by mu
	absent   map[string]string  // guarded by mu
	timeline timeline           // guarded by mu
	progress progress           // guarded by mu
}

type phase struct {
	name  string
	start time.Time
	mark  *atomic.Int64
}

// New starts the account; the first phase runs from now.
func New(firstPhase string) *Meter {
	m := &Meter{start: time.Now()}
	m.phases = []phase{{firstPhase, m.start, new(atomic.Int64)}}
	return m
}

// Phase ends the running phase and begins the next at the same instant, so
// that the phases always add up to the wall time. A phase that came before
// may come again; its seconds add up.
func (m *Meter) Phase(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ended.IsZero() || m.phases[len(m.phases)-1].name == name {
		return
	}
	now := time.Now()
	m.endWindow(now) // so that a window is of one phase
	m.phases = append(m.phases, phase{name, now, new(atomic.Int64)})
}

// Mark is the progress mark of the running phase: it must move whenever the
// phase gets anything done, in whatever unit the phase counts.
func (m *Meter) Mark(n int64) {
	m.mu.Lock()
	mark := m.phases[len(m.phases)-1].mark
	m.mu.Unlock()
	mark.Add(n)
}

// Finish ends the last phase. Later calls change nothing.
func (m *Meter) Finish() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended.IsZero() {
		m.ended = time.Now()
		m.look(m.ended)
		m.endWindow(m.ended)
	}
}

// Stage declares a pipeline stage with a fixed number of workers.
func (m *Meter) Stage(name string, workers int) *Stage {
	s := &Stage{name: name, workers: make([]Worker, workers)}
	now := time.Now()
	for i := range s.workers {
		s.workers[i].since = now
		s.workers[i].state = Starved
	}
	m.mu.Lock()
	m.stages = append(m.stages, s)
	m.mu.Unlock()
	return s
}

// Queue declares a real queue between two stages; occupancy is asked for at
// each Sample.
func (m *Meter) Queue(name string, capacity int, occupancy func() int) *Queue {
	q := &Queue{name: name, capacity: capacity, occupancy: occupancy}
	m.mu.Lock()
	m.queues = append(m.queues, q)
	m.mu.Unlock()
	return q
}

// Seam declares a place where the engine meets something it does not own
// (source read, bucket put, fsync, index lookup) and keeps a latency histogram.
func (m *Meter) Seam(name string) *Seam {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.seams {
		if s.name == name {
			return s
		}
	}
	s := &Seam{name: name}
	m.seams = append(m.seams, s)
	return s
}

// Sample reads the occupancy of each queue once, looks whether the progress
// marks moved, and ends a window of the time line when it is full. The owner of
// the job calls it five times a second.
func (m *Meter) Sample() {
	m.mu.Lock()
	queues := m.queues
	m.mu.Unlock()
	for _, q := range queues {
		q.sample()
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ended.IsZero() {
		return
	}
	m.look(now)
	if m.timeline.due(now, m.start) {
		m.endWindow(now)
	}
}

// Stage is a step of the pipeline.
type Stage struct {
	name    string
	workers []Worker
	bytes   atomic.Int64
	timers  sync.Map // name -> *atomic.Int64, nanoseconds
}

// Worker gives the account of worker i, which one goroutine at a time may use.
func (s *Stage) Worker(i int) *Worker { return &s.workers[i] }

// Add counts bytes that the stage has dealt with.
func (s *Stage) Add(bytes int64) { s.bytes.Add(bytes) }

// Timer is a named share of the stage's work time (decide, compress, encrypt),
// for steps that have no queue of their own between them.
func (s *Stage) Timer(name string) *Timer {
	v, _ := s.timers.LoadOrStore(name, new(Timer))
	return v.(*Timer)
}

// Timer adds up durations.
type Timer struct{ ns atomic.Int64 }

// Since adds the time from start to now and returns now, so that a chain of
// steps reads the clock once for each step.
func (t *Timer) Since(start time.Time) time.Time {
	now := time.Now()
	t.ns.Add(int64(now.Sub(start)))
	return now
}

// Worker is the state account of one worker.
type Worker struct {
	mu    sync.Mutex // held for nanoseconds: by the worker at a change, by Record
	state State
	since time.Time
	total [states]time.Duration
	done  bool
}

// Enter changes the worker's state.
func (w *Worker) Enter(s State) {
	now := time.Now()
	w.mu.Lock()
	if !w.done {
		w.total[w.state] += now.Sub(w.since)
		w.state, w.since = s, now
	}
	w.mu.Unlock()
}

// Done ends the account of the worker.
func (w *Worker) Done() {
	w.Enter(Work)
	w.mu.Lock()
	w.done = true
	w.mu.Unlock()
}

// totals also gives the state that the worker is in, and since when; of one
// that has ended, Starved.
func (w *Worker) totals(now time.Time) (t [states]time.Duration, state State, since time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t = w.total
	if w.done {
		return t, Starved, 0
	}
	since = max(0, now.Sub(w.since)) // it may have changed since now was read
	t[w.state] += since
	return t, w.state, since
}

// Queue is the occupancy histogram of a queue, in quarters of its capacity.
type Queue struct {
	name      string
	capacity  int
	occupancy func() int
	quarters  [4]atomic.Int64
}

func (q *Queue) sample() {
	q.quarters[quarter(q.occupancy(), q.capacity)].Add(1)
}

// quarter is 0 for an empty queue and one filled to a quarter at most, 3 for a
// full one.
func quarter(n, capacity int) int {
	if capacity <= 0 {
		return 0
	}
	return min(3, max(0, (4*n+capacity-1)/capacity-1))
}

// Seam is a latency histogram with buckets that double from 1 microsecond.
type Seam struct {
	name    string
	count   atomic.Int64
	errors  atomic.Int64
	ns      atomic.Int64
	max     atomic.Int64
	buckets [40]atomic.Int64
}

// Observe counts one operation that began at start and has just ended.
func (s *Seam) Observe(start time.Time, err error) { s.add(time.Since(start), err) }

func (s *Seam) add(d time.Duration, err error) {
	s.count.Add(1)
	s.ns.Add(int64(d))
	if err != nil {
		s.errors.Add(1)
	}
	for old := s.max.Load(); int64(d) > old && !s.max.CompareAndSwap(old, int64(d)); old = s.max.Load() {
	}
	b := 0
	for us := d.Microseconds(); us > 0 && b < len(s.buckets)-1; us >>= 1 {
		b++
	}
	s.buckets[b].Add(1)
}
