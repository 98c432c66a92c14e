package meter

import (
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-6 }

func TestPhasesAddUpToTheWallTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New("a")
		time.Sleep(time.Second)
		m.Phase("b")
		m.Mark(3)
		time.Sleep(2 * time.Second)
		m.Phase("b") // goes on
		m.Mark(4)
		time.Sleep(time.Second)
		m.Phase("a") // again
		time.Sleep(4 * time.Second)
		if live := m.Record(); !near(live.Phases[0].Seconds, 5) {
			t.Errorf("while it runs: %+v", live.Phases)
		}
		m.Finish()
		time.Sleep(time.Hour)
		m.Phase("late")
		m.Finish()
		r := m.Record()
		if len(r.Phases) != 2 || r.Phases[0].Phase != "a" || !near(r.Phases[0].Seconds, 5) || !near(r.Phases[1].Seconds, 3) || r.Phases[1].Mark != 7 {
			t.Errorf("%+v", r.Phases)
		}
	})
}

func states1(s StageRecord) float64 {
	return s.Work + s.Starved + s.Backpressured + s.Limited + s.Backoff + s.Locked
}

func TestStatesAddUpToWorkersTimesWallTime(t *testing.T) {
	seed := rand.Uint64()
	synctest.Test(t, func(t *testing.T) {
		m := New("transfer")
		const workers = 3
		s := m.Stage("cpu", workers)
		start := time.Now()
		var wg sync.WaitGroup
		for i := range workers {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				w := s.Worker(i)
				for range 100 {
					w.Enter(State(r.IntN(int(states))))
					time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
					s.Add(10)
				}
			})
		}
		for range 10 { // in the middle, too
			time.Sleep(time.Second)
			if got, want := states1(m.Record().Stages[0]), workers*time.Since(start).Seconds(); !near(got, want) {
				t.Fatalf("seed %d: states add up to %f s, want %f", seed, got, want)
			}
		}
		wg.Wait()
		time.Sleep(time.Second)
		m.Finish()
		r := m.Record().Stages[0]
		if got, want := states1(r), workers*time.Since(start).Seconds(); !near(got, want) {
			t.Errorf("seed %d: states add up to %f s, want %f", seed, got, want)
		}
		if r.Bytes != workers*100*10 || r.Workers != workers {
			t.Errorf("%+v", r)
		}
	})
}

func TestDoneEndsTheAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New("a")
		w := m.Stage("put", 1).Worker(0)
		w.Enter(Backoff)
		time.Sleep(time.Second)
		w.Done()
		time.Sleep(time.Hour)
		w.Enter(Locked)
		if r := m.Record().Stages[0]; !near(r.Backoff, 1) || !near(states1(r), 1) {
			t.Errorf("%+v", r)
		}
	})
}

func TestSeam(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New("a")
		s := m.Seam("put")
		if m.Seam("put") != s {
			t.Error("one name, two seams")
		}
		for _, d := range []time.Duration{0, time.Microsecond, 3 * time.Microsecond, time.Second} {
			start := time.Now()
			time.Sleep(d)
			var err error
			if d == time.Second {
				err = errors.New("slow and wrong")
			}
			s.Observe(start, err)
		}
		r := m.Record().Seams[0]
		if r.Count != 4 || r.Errors != 1 || !near(r.Seconds, 1.000004) || !near(r.Max, 1) {
			t.Errorf("%+v", r)
		}
		// 0: below 1 us; 1: 1 us; 2: 2 and 3 us; 20: from 2^19 us.
		want := map[int]int64{0: 1, 1: 1, 2: 1, 20: 1}
		if len(r.Buckets) != 21 {
			t.Fatalf("buckets %v", r.Buckets)
		}
		for i, n := range r.Buckets {
			if n != want[i] {
				t.Errorf("bucket %d: %d, want %d", i, n, want[i])
			}
		}
	})
}

func TestQueueQuarters(t *testing.T) {
	m := New("a")
	n := 0
	m.Queue("q", 7, func() int { return n })
	for n = range 8 {
		m.Sample()
	}
	n = 100 // more than it can hold
	m.Sample()
	if got := m.Record().Queues[0].Quarters; got != [4]int64{2, 2, 2, 3} {
		t.Errorf("%v", got)
	}
	m.Queue("none", 0, func() int { return 0 })
	m.Sample()
}

func TestBottleneck(t *testing.T) {
	stages := []StageRecord{{Stage: "read"}, {Stage: "cpu"}, {Stage: "put"}}
	full, empty, half := QueueRecord{Quarters: [4]int64{0, 0, 1, 9}}, QueueRecord{Quarters: [4]int64{9, 1, 0, 0}}, QueueRecord{Quarters: [4]int64{3, 2, 2, 3}}
	for want, queues := range map[string][]QueueRecord{
		"read": {empty, empty}, "cpu": {full, empty}, "put": {full, full}, "": {half, half},
	} {
		if got := Bottleneck(stages, queues); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := Bottleneck(stages, []QueueRecord{{}, {}}); got != "" {
		t.Errorf("nothing measured, yet %q", got)
	}
}

// Everything at once; the race detector judges.
func TestConcurrentUse(t *testing.T) {
	m := New("a")
	s := m.Stage("cpu", 4)
	n := 0
	var mu sync.Mutex
	m.Queue("q", 4, func() int { mu.Lock(); defer mu.Unlock(); n++; return n % 5 })
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			w := s.Worker(i)
			for k := range 500 {
				w.Enter(State(k % int(states)))
				s.Timer("hash").Since(time.Now())
				m.Seam("read").Observe(time.Now(), nil)
				s.Add(1)
				m.Mark(1)
				m.Sample()
				if k%50 == 0 {
					m.Phase([]string{"a", "b"}[k/50%2])
					m.Record()
				}
			}
			w.Done()
		})
	}
	wg.Wait()
	m.Finish()
	r := m.Record()
	var marks int64
	for _, p := range r.Phases {
		marks += p.Mark
	}
	if marks != 2000 || r.Stages[0].Bytes != 2000 || r.Seams[0].Count != 2000 {
		t.Errorf("something was not counted: %d marks, %+v", marks, r.Stages[0])
	}
}

func TestAFullQueueCountsAsFullWhateverItsCapacity(t *testing.T) {
	for capacity := 1; capacity <= 16; capacity++ {
		if quarter(0, capacity) != 0 || quarter(capacity, capacity) != 3 {
			t.Errorf("capacity %d: empty %d, full %d", capacity, quarter(0, capacity), quarter(capacity, capacity))
		}
	}
	if quarter(1, 2) != 1 || quarter(3, 4) != 2 || quarter(5, 4) != 3 {
		t.Errorf("a half is %d, three quarters are %d", quarter(1, 2), quarter(3, 4))
	}
}
