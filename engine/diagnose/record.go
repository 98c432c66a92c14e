package diagnose

import (
	"time"

	"github.com/diskvault/diskvault/base/meter"
)

// Kind tells runs apart that must not be compared.
type Kind string

// The kinds of runs.
const (
	Full        Kind = "full"
	Incremental Kind = "incremental"
	Resumed     Kind = "resumed"
)

// Record is all that is known of a run.
type Record struct {
	Instance string // ID
	Kind     Kind
	Source   string // kind of the source: file, block…
	Store    string // ID
	Settings string // what changes how much work a byte is: block size, compression

	Due   time.Time // of its slot; zero: somebody asked for it at Asked
	Asked time.Time
	Start time.Time // zero: it waits for its turn
	End   time.Time // zero: it is not over

	Work    Work
	Left    int64 // bytes not yet dealt with, of a run that is not over
	Changes Changes
	Limit   int64 // bytes read in a second at most; 0: no limit
	// Attempts is how often the run was begun, and Restarts how often its process;
	// both from 1, 0 if unknown.
	Attempts, Restarts int
	Partial            int64 // bytes that an interrupted run had dealt with

	Meter meter.Record
	// Slow: it was diagnosed as slow; Failed: it made no point. Neither is
	// compared with.
	Slow, Failed bool
}

// Work counts bytes by what had to be done with them.
type Work struct {
	Provisioned, Allocated int64
	Changed                int64 // as change tracking reported; without it, allocated
	Read                   int64
	Zero, Unchanged, Known int64
	New                    int64 // compressed, encrypted and stored
	Stored                 int64
}

// Changes is how the run knew what to read.
type Changes struct {
	Tracked bool
	Reason  string // why not
}

// History is what a run is compared with.
type History struct {
	Runs []Record // of any instances, in any order
	// Calibration are the rates that this host has shown; nil: not measured.
	Calibration *Rates
}

// The phases of the account, as those of the engine. A run's wall time is their
// sum.
const (
	due        = "P0" // due time to dispatch
	admission  = "P1"
	preflight  = "P2"
	quiesce    = "P3"
	snapshot   = "P4"
	discovery  = "P5"
	transfer   = "P6"
	commit     = "P7"
	cleanup    = "P8"
	phaseCount = 9
)

var phaseOrder = [phaseCount]string{due, admission, preflight, quiesce, snapshot, discovery, transfer, commit, cleanup}

// phases maps the engine's names. Its quiesce is the taking of the capture:
// nothing freezes a guest.
var phases = map[string]string{
	"prepare": preflight, "preflight": preflight, "quiesce": snapshot, "discover": discovery,
	"transfer": transfer, "commit": commit, "cleanup": cleanup,
}

// seconds gives the time in each phase, queues included.
func (r Record) seconds(now time.Time) map[string]float64 {
	out := map[string]float64{}
	for _, p := range r.Meter.Phases {
		id, ok := phases[p.Phase]
		if !ok {
			id = preflight
		}
		out[id] += p.Seconds
	}
	start := r.Start
	if start.IsZero() {
		start = now
	}
	asked := r.Asked
	if asked.IsZero() {
		asked = start
	}
	if !r.Due.IsZero() {
		out[due] += max(0, asked.Sub(r.Due).Seconds())
	}
	out[admission] += max(0, start.Sub(asked).Seconds())
	return out
}

// current is the phase that the run is in.
func (r Record) current() string {
	n := len(r.Meter.Phases)
	if r.Start.IsZero() || n == 0 {
		return admission
	}
	if id, ok := phases[r.Meter.Phases[n-1].Phase]; ok {
		return id
	}
	return preflight
}

// stage adds up what the attempts of a run account for one stage.
func (r Record) stage(name string) (sum meter.StageRecord, ok bool) {
	sum.Stage, sum.Timers = name, map[string]float64{}
	for _, s := range r.Meter.Stages {
		if s.Stage != name {
			continue
		}
		ok = true
		sum.Workers = max(sum.Workers, s.Workers)
		sum.Work += s.Work
		sum.Starved += s.Starved
		sum.Backpressured += s.Backpressured
		sum.Limited += s.Limited
		sum.Backoff += s.Backoff
		sum.Locked += s.Locked
		sum.Bytes += s.Bytes
		sum.Age, sum.Held = max(sum.Age, s.Age), max(sum.Held, s.Held)
		for t, v := range s.Timers {
			sum.Timers[t] += v
		}
	}
	return sum, ok
}

func (r Record) seam(name string) (meter.SeamRecord, bool) {
	for _, s := range r.Meter.Seams {
		if s.Seam == name && s.Count > 0 {
			return s, true
		}
	}
	return meter.SeamRecord{}, false
}
