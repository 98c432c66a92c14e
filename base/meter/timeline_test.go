package meter

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// run lets a job go on for a while as its owner does: five samples a second.
func run(m *Meter, d time.Duration, each func()) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(200 * time.Millisecond)
		each()
		m.Sample()
	}
}

func TestTimelineAddsUp(t *testing.T) {
	for _, length := range []time.Duration{time.Second, 25 * time.Second, 15 * time.Minute, 3 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			m := New("transfer")
			s := m.Stage("read", 2)
			n := 0
			m.Queue("read-cpu", 4, func() int { n++; return n % 5 })
			s.Worker(0).Enter(Work)
			s.Worker(1).Enter(Limited)
			run(m, length, func() { s.Add(7) })
			s.Worker(0).Done()
			s.Worker(1).Done()
			m.Finish()
			r := m.Record()
			if len(r.Windows) == 0 || len(r.Windows) >= maxWindows {
				t.Fatalf("%s: %d windows", length, len(r.Windows))
			}
			var seconds, work, held float64
			var bytes, samples int64
			for i, w := range r.Windows {
				if d := w.From - seconds; d > 0.001*float64(i+1) || d < -0.001*float64(i+1) {
					t.Errorf("%s: window %d begins at %v, want %v", length, i, w.From, seconds)
				}
				seconds += w.Seconds
				work += w.Stages["read"].Work
				held += w.Stages["read"].Held
				bytes += w.Stages["read"].Bytes
				for _, n := range w.Queues["read-cpu"] {
					samples += n
				}
			}
			want := length.Seconds()
			off := 0.001 * float64(len(r.Windows)+1)
			for name, got := range map[string]float64{"wall time": seconds, "work": work, "held": held} {
				if got < want-off-0.2 || got > want+off {
					t.Errorf("%s: windows add up to %v s of %s", length, got, name)
				}
			}
			if bytes != r.Stages[0].Bytes {
				t.Errorf("%s: %d of %d bytes in windows", length, bytes, r.Stages[0].Bytes)
			}
			if samples != int64(length/(200*time.Millisecond)) {
				t.Errorf("%s: %d samples in windows", length, samples)
			}
			text, err := json.Marshal(r.Windows)
			if err != nil || len(text) > 20<<10 {
				t.Errorf("%s: %d bytes of windows, %v", length, len(text), err)
			}
		})
	}
}

func TestWindowsEndWithTheirPhase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New("prepare")
		run(m, 3*time.Second, func() {})
		m.Phase("transfer")
		run(m, 14*time.Second, func() {})
		m.Phase("short")
		time.Sleep(50 * time.Millisecond)
		m.Phase("commit")
		run(m, time.Second, func() {})
		m.Finish()
		var got []string
		for _, w := range m.Record().Windows {
			got = append(got, w.Phase)
		}
		if want := []string{"prepare", "transfer", "transfer", "commit"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New("prepare")
		m.Wait("lock", "nobody")() // free at once
		end := m.Wait("lock", "backup of x")
		time.Sleep(time.Minute)
		if w := m.Record().Waits; len(w) != 1 || !w[0].Open || !near(w[0].Seconds, 60) {
			t.Errorf("while it lasts: %+v", w)
		}
		m.Phase("transfer")
		end()
		time.Sleep(time.Minute)
		end()
		if w := m.Record().Waits; len(w) != 1 || w[0] != (WaitRecord{Phase: "prepare", Reason: "lock", Detail: "backup of x", Seconds: 60}) {
			t.Errorf("%+v", w)
		}
	})
}

func TestProgressGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New("transfer")
		for range 20 {
			run(m, 2*time.Second, func() {})
			m.Mark(1)
		}
		run(m, 90*time.Second, func() {})
		p := m.Record().Progress
		if p.Idle < 89 || p.Idle > 91 {
			t.Errorf("idle for %v s, want 90", p.Idle)
		}
		if p.P90 < 2 || p.P90 > 4.2 {
			t.Errorf("gaps of %v s, want about 2", p.P90)
		}
		m.Mark(1)
		m.Finish()
		if p := m.Record().Progress; p.Max < 89 || p.Idle != 0 {
			t.Errorf("%+v", p)
		}
	})
}

func TestAgeOfWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New("transfer")
		s := m.Stage("put", 3)
		s.Worker(0).Enter(Work)
		s.Worker(2).Enter(Backoff)
		time.Sleep(time.Minute)
		s.Worker(1).Enter(Work)
		time.Sleep(time.Minute)
		if r := m.Record().Stages[0]; !near(r.Age, 120) || !near(r.Held, 120) {
			t.Errorf("%+v", r)
		}
		for i := range 3 {
			s.Worker(i).Done()
		}
		if r := m.Record().Stages[0]; r.Age != 0 || r.Held != 0 {
			t.Errorf("after the end: %+v", r)
		}
	})
}

func TestQuantile(t *testing.T) {
	var s Seam
	if q := s.record().Quantile(0.5); q != 0 {
		t.Errorf("of nothing: %v", q)
	}
	for range 98 {
		s.add(3*time.Millisecond, nil)
	}
	s.add(time.Second, nil)
	s.add(time.Second, errors.New("late"))
	r := s.record()
	if q := r.Quantile(0.5); q < 0.003 || q > 0.006 {
		t.Errorf("p50 %v", q)
	}
	if q := r.Quantile(0.99); q != 1 {
		t.Errorf("p99 %v", q)
	}
}

// What five samples a second and the record of a run cost; the diagnosis may
// cost a hundredth of a processor.
func BenchmarkSample(b *testing.B) {
	m := New("transfer")
	for _, name := range []string{"read", "cpu", "put", "tree"} {
		s := m.Stage(name, 8)
		for i := range 8 {
			s.Worker(i).Enter(Work)
		}
	}
	for _, name := range []string{"read-cpu", "cpu-put"} {
		m.Queue(name, 4, func() int { return 2 })
	}
	for b.Loop() {
		m.Sample()
		m.mu.Lock()
		m.timeline.end = m.timeline.end.Add(-time.Second)
		m.mu.Unlock()
	}
}
