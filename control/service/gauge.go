package service

import (
	"sync"
	"time"

	"github.com/diskvault/diskvault/control/resource"
)

// gauge turns done and total of a task, in whatever unit, into progress.
type gauge struct {
	mu          sync.Mutex
	phase       string // empty: verify
	done, total int64
	began       time.Time
}

func (g *gauge) set(done, total int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.began.IsZero() {
		g.began = time.Now()
	}
	g.done, g.total = done, total
}

// step is set for a task of several phases.
func (g *gauge) step(phase string, done, total int64) {
	g.mu.Lock()
	if g.phase != phase {
		g.phase, g.began = phase, time.Time{}
	}
	g.mu.Unlock()
	g.set(done, total)
}

func (g *gauge) progress() resource.Progress {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := resource.Progress{Phase: g.phase, Done: g.done, Total: g.total}
	if p.Phase == "" {
		p.Phase = "verify"
	}
	if s := time.Since(g.began).Seconds(); !g.began.IsZero() && s > 0 {
		p.Rate = float64(g.done) / s
	}
	return p
}
