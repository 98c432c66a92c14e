// Package upkeep is the work on a store that nobody waits for: collecting,
// compacting, scrubbing. It lets backups and restores go first.
package upkeep

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// Share is the part of the time that upkeep works while others are to go first.
const Share = 0.1

// Front knows the jobs that go before upkeep. The zero value is ready; it is
// safe for concurrent use.
type Front struct {
	mu      sync.Mutex
	jobs    map[string]bool
	changed chan struct{} // closed when a job ends
}

// Enter notes that a job runs; leave must be called once when it has ended.
func (f *Front) Enter(job string) (leave func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.jobs == nil {
		f.jobs = map[string]bool{}
		f.changed = make(chan struct{})
	}
	f.jobs[job] = true
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.jobs, job)
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// Running lists the jobs; ended is closed when one of them has ended.
func (f *Front) Running() (jobs []string, ended <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.jobs)), f.changed
}

// Pace makes upkeep yield to the jobs at the front, and keeps account of it. It
// is for one upkeep job, whose goroutines may share it.
type Pace struct {
	front *Front

	mu      sync.Mutex
	yielded time.Duration
	beside  map[string]time.Duration
}

// NewPace makes the pace of an upkeep job.
func NewPace(f *Front) *Pace { return &Pace{front: f, beside: map[string]time.Duration{}} }

// Yield waits after some work, so that upkeep takes no more than Share of the
// time while anybody is at the front. When the last of them has ended it returns.
func (p *Pace) Yield(ctx context.Context, worked time.Duration) error {
	rest := time.Duration(float64(worked) * (1/Share - 1))
	began := time.Now()
	for {
		jobs, ended := p.front.Running()
		if len(jobs) == 0 {
			return nil
		}
		p.note(jobs, worked)
		worked = 0
		wait := time.NewTimer(rest - time.Since(began))
		select {
		case <-wait.C:
			p.waited(time.Since(began))
			return nil
		case <-ended:
			wait.Stop()
			if jobs, _ := p.front.Running(); len(jobs) == 0 {
				p.waited(time.Since(began))
				return nil
			}
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		}
	}
}

func (p *Pace) note(jobs []string, worked time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, j := range jobs {
		p.beside[j] += worked
	}
}

func (p *Pace) waited(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.yielded += d
}

// Account is what the pace of an upkeep job cost it, and whom it ran beside.
type Account struct {
	YieldedSeconds float64  `json:"yieldedSeconds"` // waited so that others went first
	Beside         []Beside `json:"beside,omitempty"`
}

// Beside is a job that the upkeep may have slowed.
type Beside struct {
	Job     string  `json:"jobId"`
	Seconds float64 `json:"workedSeconds"` // that upkeep worked while the job ran
}

// Account gives the account so far.
func (p *Pace) Account() Account {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := Account{YieldedSeconds: p.yielded.Seconds()}
	for _, j := range slices.Sorted(maps.Keys(p.beside)) {
		a.Beside = append(a.Beside, Beside{j, p.beside[j].Seconds()})
	}
	return a
}
