package diagnose

import "time"

// State says how a run does, compared with what was to be expected.
type State string

// The states. Of several that hold, Stalled goes before Looping, Waiting,
// Slower, LongerExplained and OnTime.
const (
	OnTime          State = "OnTime"
	LongerExplained State = "LongerExplained" // more work, at the usual rate
	Waiting         State = "Waiting"         // not allowed to go on
	Slower          State = "Slower"
	Stalled         State = "Stalled"
	Looping         State = "Looping" // the same work again and again
	Unknown         State = "Unknown" // late, and no cause was found
)

// Late tells whether the state is one that a person should know of.
func (s State) Late() bool { return s != OnTime }

// Settings are the thresholds. A zero field is its default.
type Settings struct {
	MinExcess time.Duration // a run is slower if it is late by more than this: 5 min
	MinLate   float64       // and by more than this share of what was expected: 0.2
	MinWait   time.Duration // Waiting begins after: 60 s
	MinStall  time.Duration // Stalled begins after, or after ten usual gaps: 120 s
	MinRuns   int           // of which a comparison may be made: 5
	MaxRuns   int           // that are compared with: 20
	LoopsFrom int           // attempts that make a loop: 3
}

func (s Settings) withDefaults() Settings {
	or := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	or(&s.MinExcess, 5*time.Minute)
	or(&s.MinWait, time.Minute)
	or(&s.MinStall, 2*time.Minute)
	if s.MinLate <= 0 {
		s.MinLate = 0.2
	}
	if s.MinRuns <= 0 {
		s.MinRuns = 5
	}
	if s.MaxRuns <= 0 {
		s.MaxRuns = 20
	}
	if s.LoopsFrom <= 0 {
		s.LoopsFrom = 3
	}
	return s
}

// state is the first that holds.
func (c *comparison) state() State {
	running := c.run.End.IsZero()
	switch {
	case running && c.stalled():
		return Stalled
	case c.looping():
		return Looping
	case running && c.waitingNow() >= c.settings.MinWait.Seconds():
		return Waiting
	case c.slower():
		return Slower
	case c.longer() && c.waitedLonger() >= 0.5*(c.projected-c.usual.P90):
		return Slower // whatever its work: it was not allowed to do it
	case c.longer():
		return LongerExplained
	}
	return OnTime
}

func (c *comparison) stalled() bool {
	idle := c.run.Meter.Progress.Idle
	if c.waitingNow() >= c.settings.MinWait.Seconds() || c.run.Start.IsZero() {
		return false // it is known why nothing moves
	}
	gap, _ := c.facts90["J.progress.gap"]
	return idle >= max(c.settings.MinStall.Seconds(), 10*gap)
}

func (c *comparison) looping() bool {
	return c.run.Attempts >= c.settings.LoopsFrom || c.run.Restarts >= c.settings.LoopsFrom
}

// waitingNow is for how long the run has been waiting without a break.
func (c *comparison) waitingNow() float64 {
	if !c.run.End.IsZero() {
		return 0
	}
	if c.run.Start.IsZero() {
		return c.now.Sub(c.asked()).Seconds()
	}
	longest := 0.0
	for _, w := range c.run.Meter.Waits {
		if w.Open {
			longest = max(longest, w.Seconds)
		}
	}
	// Without any progress, workers in a limit or between attempts wait.
	for _, name := range []string{"read", "put"} {
		if s, ok := c.run.stage(name); ok && s.Held > 0 && s.Age < s.Held {
			longest = max(longest, min(s.Held, c.run.Meter.Progress.Idle))
		}
	}
	return longest
}

// late is by how many seconds the run is, or will be, behind what is expected
// of its own work.
func (c *comparison) late() float64 { return c.projected - c.expected.P90 }

func (c *comparison) slower() bool {
	return c.late() > c.settings.MinExcess.Seconds() && c.late() > c.settings.MinLate*c.expected.P90 && c.expected.P90 > 0
}

// longer: it does as well as it should with its work, but the work is more than
// in the runs before, or there are none.
func (c *comparison) longer() bool {
	over := c.projected - c.usual.P90
	return c.usual.Runs > 0 && over > c.settings.MinExcess.Seconds() && over > c.settings.MinLate*c.usual.P90
}

// excess is the time that causes may be blamed for.
func (c *comparison) excess() float64 {
	switch c.state() {
	case LongerExplained:
		return round(max(0, c.projected-c.usual.P90))
	case Waiting:
		return round(max(c.waitingNow(), c.late(), 0))
	case Stalled:
		return round(max(c.run.Meter.Progress.Idle, c.late(), 0))
	}
	if !c.slower() && c.longer() {
		return round(c.projected - c.usual.P90)
	}
	return round(max(0, c.late()))
}

// Watch shows a state only when it held in two evaluations one after another.
// The zero value is ready; it is not safe for concurrent use.
type Watch struct {
	shown, last State
}

// See takes the next evaluation and returns the state to show, and whether that
// has just changed: then an alert goes out, or clears.
func (w *Watch) See(s State) (State, bool) {
	if w.shown == "" {
		w.shown, w.last = OnTime, OnTime
	}
	changed := s == w.last && s != w.shown
	if changed {
		w.shown = s
	}
	w.last = s
	return w.shown, changed
}
