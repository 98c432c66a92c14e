package service

import (
	"sync"
	"time"

	"github.com/diskvault/diskvault/control/resource"
)

// gauge turns done and total of a task, in whatever unit, into progress.
type gauge struct {
	mu          sync.Mutex
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

func (g *gauge) progress() resource.Progress {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := resource.Progress{Phase: "verify", Done: g.done, Total: g.total}
	if s := time.Since(g.began).Seconds(); !g.began.IsZero() && s > 0 {
		p.Rate = float64(g.done) / s
	}
	return p
}
