// Package signals watches the host while a backup runs: disks, processors,
// memory, pressure, network and the room of the store, from what Linux tells in
// /proc and /sys. The kernel's counters are cumulative, so a signal is made of
// their growth; a counter that goes back (the device or container was made anew)
// loses one step and nothing else. What cannot be read is absent, with the reason.
package signals

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"
)

// Options say what is watched.
type Options struct {
	Root   string // of the file system; empty: /
	Source string // name of the source's block device, as sda; empty: none is known
	Store  string // of the store's
	Folder string // of the store, for its free room; empty: it is not on this host
	Remote bool   // the store is reached over the network
	// Maintenance tells of collections, verifications and copies of the same store
	// that run now; nil: that is not known.
	Maintenance func() Maintenance
}

// Maintenance is what runs beside a backup on its store.
type Maintenance struct {
	Running bool
	Verify  bool    // a verification or check is among it
	Rate    float64 // bytes a second, of all of it
}

// Sampler adds up what it sees. Its methods are for one goroutine.
type Sampler struct {
	o      Options
	last   time.Time
	before map[string]float64 // counters at last
	grown  map[string]float64 // their growth since the first sample
	wall   float64            // seconds between the first sample and the last
	means  map[string]*mean   // of what is no counter
	now    map[string]float64 // newest value of what is neither
	absent map[string]string  // by signal
	pair   correlation        // of our rate at the source with others'
	static bool
}

// mean of a value that is looked at now and then.
type mean struct{ sum, n float64 }

// New prepares a sampler; the first Sample begins.
func New(o Options) *Sampler {
	if o.Root == "" {
		o.Root = "/"
	}
	return &Sampler{
		o: o, before: map[string]float64{}, grown: map[string]float64{}, means: map[string]*mean{},
		now: map[string]float64{}, absent: map[string]string{},
	}
}

// Sample looks once; once a second is often enough.
func (s *Sampler) Sample(now time.Time) {
	counters := map[string]float64{}
	s.disk(counters, "src", s.o.Source)
	s.disk(counters, "dst", s.o.Store)
	s.own(counters)
	s.processors(counters)
	s.memory(counters)
	s.pressure(counters)
	s.room()
	s.maintenance()
	if s.o.Remote {
		s.network(counters)
		s.connections(counters)
	} else {
		s.missing("the store is on this host", networkSignals...)
	}
	if !s.static {
		s.static = true
		s.features()
		s.array()
	}
	if !s.last.IsZero() {
		s.wall += now.Sub(s.last).Seconds()
		step := map[string]float64{}
		for name, v := range counters {
			if old, ok := s.before[name]; ok && v >= old {
				step[name] = v - old
				s.grown[name] += v - old
			}
		}
		s.pair.add(step["own.read"], max(0, step["src.readBytes"]+step["src.writeBytes"]-step["own.read"]))
	}
	s.before, s.last = counters, now
}

// Signals gives what was seen so far, by the names of the diagnosis, and why the
// rest is absent.
func (s *Sampler) Signals() (signals map[string]float64, absent map[string]string) {
	out := maps.Clone(s.now)
	for name, m := range s.means {
		out[name] = m.sum / m.n
	}
	if s.wall > 0 {
		s.diskSignals(out, "src")
		s.diskSignals(out, "dst")
		s.hostSignals(out)
		s.networkRates(out)
		if m, disk := out["R.maintenance.bytes"], out["D.dst.bytesPerSecond"]; disk > idle {
			out["R.maintenance.ioShare"] = share(m, disk)
		}
	}
	absent = maps.Clone(s.absent)
	for name := range out {
		delete(absent, name)
	}
	return out, absent
}

// maintenance counts the time in which anything but backups used the store.
func (s *Sampler) maintenance() {
	if s.o.Maintenance == nil {
		s.missing("nobody tells", "R.maintenance.timeShare", "R.maintenance.ioShare", "R.maintenance.bytes", "R.maintenance.verify")
		return
	}
	s.missing("the store's disk is not known, or idle", "R.maintenance.ioShare")
	m, running := s.o.Maintenance(), 0.0
	if m.Running {
		running = 1
	}
	s.mean("R.maintenance.timeShare", running)
	s.mean("R.maintenance.bytes", m.Rate)
	if _, ok := s.now["R.maintenance.verify"]; !ok || m.Verify {
		s.now["R.maintenance.verify"] = 0
		if m.Verify {
			s.now["R.maintenance.verify"] = 1
		}
	}
}

func (s *Sampler) mean(name string, v float64) {
	m := s.means[name]
	if m == nil {
		m = &mean{}
		s.means[name] = m
	}
	m.sum, m.n = m.sum+v, m.n+1
}

func (s *Sampler) missing(why string, names ...string) {
	for _, n := range names {
		s.absent[n] = why
	}
}

func (s *Sampler) path(elements ...string) string {
	return filepath.Join(append([]string{s.o.Root}, elements...)...)
}

// read gives a small file, or says why the signals that come from it are absent.
func (s *Sampler) read(path string, names ...string) (string, bool) {
	data, err := os.ReadFile(s.path(path))
	if err == nil {
		return string(data), true
	}
	s.missing(reason(err), names...)
	return "", false
}

func reason(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "no permission"
	case errors.Is(err, fs.ErrNotExist):
		return "this kernel or container does not tell"
	}
	return err.Error()
}
