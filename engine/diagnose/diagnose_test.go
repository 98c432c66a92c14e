package diagnose

import (
	"encoding/json"
	"flag"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata anew")

func set(w *world, signals map[string]float64) { maps.Copy(w.signals, signals) }

// Each cause once, as it shows in a record; the lookalikes that it must not be
// taken for are ruled out by the same record.
var single = []struct {
	code  string
	base  func() world
	state State
	lost  float64 // seconds that it costs; 0: not to be told
	make  func(w *world)
}{
	{"START_DELAYED", night, Slower, 3600, func(w *world) { w.queue += 3600 }},
	{"START_DELAYED", night, Slower, 7200, func(w *world) { w.dispatch = 7200 }},
	{"LOCK_WAIT", night, Slower, 3000, func(w *world) { w.lock = 3000 }},
	{"LIMIT_CONFIGURED", night, Slower, 6300, func(w *world) { w.limit = 5e6 }},
	{"MAP_SLOW", night, Slower, 3600, func(w *world) { w.discovery = 3600; set(w, map[string]float64{"S.extents": 1.2e6}) }},
	{"CBT_LOST", night, LongerExplained, 0, func(w *world) {
		w.read, w.changed, w.same, w.untracked = 480e9, 480e9, 450e9, "the bitmap is inconsistent"
	}},
	{"CHURN_HIGH", night, LongerExplained, 0, func(w *world) { w.read, w.changed, w.new = 240e9, 240e9, 200e9 }},
	{"CHANGE_INFLATED", night, LongerExplained, 0, func(w *world) { w.read, w.changed, w.same = 450e9, 450e9, 420e9 }},
	{"DEDUP_LOST", night, LongerExplained, 0, func(w *world) {
		w.new, w.known, w.same, w.ratio = 20e9*3, 0, 0, 1 // see the base below
		w.read, w.changed = 60e9, 60e9
	}},
	{"SOURCE_CONTENTION", night, Slower, 0, func(w *world) {
		w.rates.Read, w.getP50 = 4e6, 0.4
		set(w, map[string]float64{"D.src.othersShare": 0.8, "D.src.rAwaitMs": 30, "H.psi.ioSome": 0.6, "D.src.othersCorrelation": -0.7})
	}},
	{"SOURCE_SLOW", night, Slower, 0, func(w *world) {
		w.rates.Read, w.getP50 = 4e6, 0.05
		set(w, map[string]float64{"D.src.othersShare": 0.02, "D.src.rSizeBytes": 65536, "D.src.rotational": 1, "D.src.depth": 1})
	}},
	{"SOURCE_DEGRADED", night, Slower, 0, func(w *world) {
		w.rates.Read = 4e6
		set(w, map[string]float64{"X.md.active": 1, "X.md.degraded": 1, "D.src.rAwaitMs": 30})
	}},
	{"SOURCE_CAPPED", night, Slower, 0, func(w *world) {
		w.rates.Read = 5e6
		w.rate = func(t float64) float64 {
			if t < 900 {
				return 4
			}
			return 1
		}
		set(w, map[string]float64{"D.src.othersShare": 0.02, "D.src.rAwaitMs": 30})
	}},
	{"CODEC_CPU", night, Slower, 0, func(w *world) {
		w.rates.Encode = 2e6
		set(w, map[string]float64{"H.cpu.busy": 0.98, "H.cpu.own": 0.95})
	}},
	{"NO_HW_ACCEL", night, Slower, 0, func(w *world) {
		w.rates.Decide = 3e6
		set(w, map[string]float64{"H.cpu.aes": 0, "H.cpu.vector": 0, "H.cpu.busy": 0.95, "H.cpu.own": 0.9})
	}},
	{"CPU_STARVED", night, Slower, 0, func(w *world) {
		w.rates.Decide, w.rates.Encode = 6e6, 2.5e6
		set(w, map[string]float64{"H.cpu.throttled": 0.8, "H.cpu.pressure": 0.8, "H.cpu.own": 0.1})
	}},
	{"SERIAL_STAGE", night, Slower, 0, func(w *world) { w.put = 1; w.rates.Put = 1.4e6 * 2; w.new *= 2; w.read += 20e9; w.changed += 20e9 }},
	{"MEM_PRESSURE", night, Slower, 0, func(w *world) {
		w.rates.Decide = 3e6
		set(w, map[string]float64{"H.mem.pressureFull": 0.5, "H.mem.swapInBytes": 8e6, "H.mem.refaultBytes": 2e8})
	}},
	{"NET_SATURATED", remote, Slower, 0, func(w *world) {
		w.rates.Put = 1e6
		set(w, map[string]float64{"N.if.txShare": 0.97, "N.if.ownShare": 0.2, "N.tcp.rttMs": 80, "N.tcp.rttInflation": 20})
	}},
	{"NET_PATH_DEFECT", remote, Slower, 0, func(w *world) {
		w.rates.Put = 1e6
		set(w, map[string]float64{"N.tcp.retransShare": 0.03})
	}},
	{"NET_PATH_DEFECT", remote, Slower, 0, func(w *world) {
		w.rates.Put = 1e6
		set(w, map[string]float64{"N.if.speed": 12.5e6})
	}},
	{"NET_LATENCY_BOUND", remote, Slower, 0, func(w *world) {
		w.rates.Put = 1e6
		set(w, map[string]float64{"N.tcp.rttMs": 180, "N.tcp.minRttMs": 170, "N.tcp.windowLimited": 0.6})
	}},
	{"TARGET_THROTTLED", remote, Slower, 0, func(w *world) { w.throttled, w.backoff = 0.3, 0.7 }},
	{"TARGET_UNSTABLE", remote, Slower, 0, func(w *world) { w.errors, w.backoff, w.putTail = 0.05, 0.6, 40 }},
	{"TARGET_DISK_SLOW", night, Slower, 0, func(w *world) {
		w.rates.Put = 1e6
		set(w, map[string]float64{"D.dst.wAwaitMs": 60, "D.dst.fAwaitMs": 90, "D.dst.busy": 0.99})
	}},
	{"TARGET_NEAR_FULL", night, Slower, 0, func(w *world) {
		w.rates.Put = 1e6
		set(w, map[string]float64{"R.freeShare": 0.02})
	}},
	{"MAINTENANCE_OVERLAP", night, Slower, 0, func(w *world) {
		w.rates.Put = 1e6
		set(w, map[string]float64{"R.maintenance.timeShare": 0.9, "R.maintenance.ioShare": 0.7, "R.maintenance.bytes": 61e6, "R.maintenance.verify": 1, "D.dst.wAwaitMs": 41, "D.dst.busy": 0.99, "D.dst.othersShare": 0.1})
	}},
	{"INDEX_SLOW", night, Slower, 3600, func(w *world) { w.opening = 3600 }},
	{"INDEX_SLOW", night, Slower, 0, func(w *world) { w.rates.Decide = 3e6 }},
	{"RETRY_OR_RESTART_LOOP", night, Looping, 0, func(w *world) { w.attempts, w.discovery = 5, 3000 }},
	{"TAIL_PHASE", night, Slower, 3000, func(w *world) { w.commit = 3000 }},
}

func dedupBase() world { // a store that knows nearly all
	w := night()
	w.read, w.changed, w.known, w.same, w.new = 60e9, 60e9, 54e9, 0, 6e9
	w.untracked = ""
	return w
}

func TestEachCause(t *testing.T) {
	seen := map[string]bool{}
	for i, x := range single {
		base := x.base
		if x.code == "DEDUP_LOST" {
			base = dedupBase
		}
		w := base()
		x.make(&w)
		r := w.run()
		report := Verdict(r, history(base, uint64(i)), time.Time{}, Settings{})
		seen[x.code] = true
		if report.State != x.state {
			t.Errorf("%d %s: the state is %s, want %s (%.0f s of %.0f to %.0f; usual %+v)", i, x.code, report.State, x.state, report.Elapsed, report.Expected.P10, report.Expected.P90, report.Causes)
		}
		if len(report.Causes) == 0 || report.Causes[0].Code != x.code {
			t.Errorf("%d %s: found %s", i, x.code, codes(report))
			continue
		}
		first := report.Causes[0]
		if x.lost > 0 && math.Abs(first.Blame-x.lost) > 0.25*x.lost {
			t.Errorf("%d %s: blamed for %.0f s, it cost %.0f", i, x.code, first.Blame, x.lost)
		}
		for _, id := range ruleOf(first.ID).lookalikes {
			like := ruleOf(id).code
			out := slices.ContainsFunc(first.RuledOut, func(o RuledOut) bool { return o.Code == like && o.Because != "" })
			also := slices.ContainsFunc(report.Causes, func(c Cause) bool { return c.Code == like })
			if !out && !also {
				t.Errorf("%d %s: nothing is said of its lookalike %s", i, x.code, like)
			}
		}
		if len(first.Evidence) == 0 || len(first.Actions) == 0 {
			t.Errorf("%d %s: without evidence or action", i, x.code)
		}
		wellFormed(t, x.code, report)
	}
	for _, r := range rules {
		if r.needs == "" && !seen[r.code] && r.id != "C33" && r.id != "C35" { // those have tests of their own
			t.Errorf("no record shows %s", r.code)
		}
	}
}

func codes(r Report) string {
	var out []string
	for _, c := range r.Causes {
		out = append(out, c.Code)
	}
	return strings.Join(out, ", ")
}

// wellFormed holds for every report.
func wellFormed(t *testing.T, name string, r Report) {
	t.Helper()
	sum := r.Unexplained
	for _, c := range r.Causes {
		sum += c.Blame
		if c.Confidence < shown || c.Confidence > 0.95 {
			t.Errorf("%s: confidence %v of %s", name, c.Confidence, c.Code)
		}
		for _, a := range c.Actions {
			if a.Saves > c.Blame+0.1 {
				t.Errorf("%s: %s saves %v s of %v", name, a.ID, a.Saves, c.Blame)
			}
		}
	}
	if sum > r.Excess+0.5 {
		t.Errorf("%s: %v s are explained of %v", name, sum, r.Excess)
	}
	if len(r.Causes) > maxCauses {
		t.Errorf("%s: %d causes", name, len(r.Causes))
	}
	if s := r.Split.Work + r.Split.Rate + r.Split.Wait; s != 0 && math.Abs(s-1) > 0.02 {
		t.Errorf("%s: split %+v", name, r.Split)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if strings.Contains(r.Sentence(), "NaN") || strings.Contains(r.Sentence(), "Inf") {
		t.Errorf("%s: %s", name, r.Sentence())
	}
}

func TestHealthyRunsAreSilent(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	shown := 0
	for i := range 300 {
		base := night
		if i%2 == 1 {
			base = remote
		}
		w := base().vary(r)
		if i%5 == 0 { // a short one
			for _, v := range []*float64{&w.read, &w.changed, &w.same, &w.known, &w.new} {
				*v /= 50
			}
		}
		report := Verdict(w.run(), history(base, r.Uint64()), time.Time{}, Settings{})
		if codes(report) == "WORK_AS_EXPECTED" || codes(report) == "CHURN_HIGH" {
			shown++ // the largest amount of work of twenty nights
		} else if report.State != OnTime || len(report.Causes) > 0 {
			t.Fatalf("seed %d, run %d: %s %s, %v s of %+v", seed, i, report.State, codes(report), report.Elapsed, report.Expected)
		}
	}
	if shown > 3 {
		t.Errorf("seed %d: %d of 300 healthy runs were said to be long", seed, shown)
	}
}

func TestMoreWorkIsNoFault(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 0))
	for range 100 {
		w := night().vary(r)
		for _, v := range []*float64{&w.read, &w.changed, &w.same, &w.known, &w.new} {
			*v *= 5
		}
		report := Verdict(w.run(), history(night, r.Uint64()), time.Time{}, Settings{})
		if report.State != LongerExplained || report.Split.Work < 0.7 || report.Slow() {
			t.Fatalf("%s %+v %s", report.State, report.Split, codes(report))
		}
	}
}

// A first backup has nothing to be compared with.
func TestFirstBackup(t *testing.T) {
	w := night()
	w.kind, w.untracked, w.read, w.new, w.known, w.same = Full, "first backup of this disk", 250e9, 200e9, 0, 0
	w.rates.Put = 40e6
	report := Verdict(w.run(), History{}, time.Time{}, Settings{})
	if report.State != OnTime || report.Expected.Source != Default || strings.Contains(report.Sentence(), "usual") {
		t.Errorf("%s %+v: %s", report.State, report.Expected, report.Sentence())
	}
	w.rates.Put = 30e6
	w.commit = 40000 // what is slow is found without a history, too
	if report := Verdict(w.run(), History{}, time.Time{}, Settings{}); codes(report) != "TAIL_PHASE" {
		t.Errorf("%s %s", report.State, codes(report))
	}
	// With rates as they should be the expectation was wrong.
	w = night()
	w.kind, w.untracked = Full, "first backup of this disk"
	w.rates = shipped
	w.snapshot = 9000
	report = Verdict(w.run(), History{}, time.Time{}, Settings{})
	if report.State != LongerExplained || codes(report) != "WORK_AS_EXPECTED" {
		t.Errorf("%s %s", report.State, codes(report))
	}
}

func TestUnknownIsAnAnswer(t *testing.T) {
	w := night()
	w.rates.Put = 1e6 // slow, and nothing says why
	report := Verdict(w.run(), history(night, 1), time.Time{}, Settings{})
	if report.State != Unknown || len(report.Causes) != 0 || report.Unexplained != report.Excess || report.Excess < 3000 {
		t.Errorf("%s %s %v of %v", report.State, codes(report), report.Unexplained, report.Excess)
	}
	if !strings.Contains(report.Sentence(), "is not known") {
		t.Error(report.Sentence())
	}
}

// The record is judged with every signal taken away: no cause comes of what is
// not known, and nothing breaks.
func TestAbsentSignalsAreNoEvidence(t *testing.T) {
	for i, x := range single {
		base := x.base
		if x.code == "DEDUP_LOST" {
			base = dedupBase
		}
		w := base()
		x.make(&w)
		h := history(base, uint64(i))
		before := Verdict(w.run(), h, time.Time{}, Settings{})
		for n, name := range slices.Sorted(maps.Keys(w.signals)) {
			if n%4 != i%4 && os.Getenv("DISKVAULT_LONG") == "" {
				continue
			}
			less := w
			less.signals = maps.Clone(w.signals)
			delete(less.signals, name)
			less.absent = map[string]string{name: "no permission"}
			report := Verdict(less.run(), h, time.Time{}, Settings{})
			wellFormed(t, x.code+" without "+name, report)
			for _, c := range report.Causes {
				if !slices.ContainsFunc(before.Causes, func(b Cause) bool { return b.Code == c.Code }) {
					at := slices.IndexFunc(rules, func(r rule) bool { return r.code == c.Code })
					if slices.Contains(rules[at].must.signals, name) {
						t.Errorf("%s without %s: now also %s", x.code, name, c.Code)
					}
				}
			}
			if len(report.Absent) != 1 || report.Absent[0] != (Absent{name, "no permission"}) {
				t.Errorf("absent: %+v", report.Absent)
			}
		}
	}
}

func TestTwoFaults(t *testing.T) {
	w := night()
	w.queue = 3600
	w.rates.Put = 1e6
	set(&w, map[string]float64{"D.dst.wAwaitMs": 60, "D.dst.fAwaitMs": 90, "D.dst.busy": 0.99})
	report := Verdict(w.run(), history(night, 3), time.Time{}, Settings{})
	if !strings.Contains(codes(report), "START_DELAYED") || !strings.Contains(codes(report), "TARGET_DISK_SLOW") {
		t.Errorf("found %s", codes(report))
	}
	wellFormed(t, "two", report)
}

func TestSymptomsAreFolded(t *testing.T) {
	w := remote()
	w.throttled, w.errors, w.backoff = 0.3, 0.1, 0.7
	report := Verdict(w.run(), history(remote, 3), time.Time{}, Settings{})
	if codes(report) != "TARGET_THROTTLED" {
		t.Errorf("found %s", codes(report))
	}
}

func TestSlowRunsAreNotComparedWith(t *testing.T) {
	h := history(night, 5)
	w := night()
	w.rates.Put = 1e6
	for i := range 12 { // most of the history was slow
		slow := w
		slow.start = monday.Add(-time.Duration(i+1) * time.Hour)
		x := slow.run()
		x.Slow = true
		h.Runs = append(h.Runs, x)
	}
	if report := Verdict(w.run(), h, time.Time{}, Settings{}); report.State != Unknown {
		t.Errorf("a slow night became the usual one: %s", report.State)
	}
}

// A limit is found although the run also had far more to do than those before.
func TestALimitBesideMoreWork(t *testing.T) {
	w := night()
	for _, v := range []*float64{&w.read, &w.changed, &w.same, &w.known, &w.new} {
		*v *= 2
	}
	w.limit = 10e6
	report := Verdict(w.run(), history(night, 5), time.Time{}, Settings{})
	if report.State != Slower || report.Causes[0].Code != "LIMIT_CONFIGURED" || report.Split.Wait < 0.5 {
		t.Errorf("%s %s %+v", report.State, codes(report), report.Split)
	}
	wellFormed(t, "limit", report)
}

// Nights that stored nothing do not tell how fast storing is; the first backup
// does.
func TestRatesOfOtherKinds(t *testing.T) {
	idle := func() world {
		w := night()
		w.new, w.known, w.same = 1e5, 0, 40e9
		return w
	}
	h := history(idle, 5)
	first := night()
	first.kind, first.start = Full, monday.AddDate(0, 0, -30)
	h.Runs = append(h.Runs, first.run())
	if r, want := learn(h.Runs[:20], h).rates.Put, 2*first.rates.Put; math.Abs(r-want) > 0.1*want { // two workers
		t.Errorf("storing at %v, want %v", r, want)
	}
}

func TestThresholds(t *testing.T) {
	w := night()
	w.commit = 3000
	if s := Verdict(w.run(), history(night, 5), time.Time{}, Settings{MinExcess: 2 * time.Hour}).State; s != OnTime {
		t.Errorf("late by less than the setting: %s", s)
	}
}

// live makes of a run one that has come some way.
func live(r Record, part float64) (Record, time.Time) {
	r.End = time.Time{}
	r.Left = int64(float64(r.Work.Read) * (1 - part))
	scale := func(v *int64) { *v = int64(float64(*v) * part) }
	for _, v := range []*int64{&r.Work.Read, &r.Work.Zero, &r.Work.Unchanged, &r.Work.Known, &r.Work.New, &r.Work.Stored} {
		scale(v)
	}
	r.Meter.Phases = r.Meter.Phases[:4]
	r.Meter.Phases[3].Seconds *= part
	for i := range r.Meter.Stages {
		s := &r.Meter.Stages[i]
		s.Work *= part
		s.Limited *= part
		s.Backoff *= part
		scale(&s.Bytes)
		for name := range s.Timers {
			s.Timers[name] *= part
		}
	}
	now := r.Start
	for _, p := range r.Meter.Phases {
		now = now.Add(seconds2(p.Seconds))
	}
	return r, now
}

func TestWhileItRuns(t *testing.T) {
	h := history(night, 9)
	r, now := live(night().run(), 0.3)
	report := Verdict(r, h, now, Settings{})
	if report.State != OnTime || report.Remaining == nil {
		t.Fatalf("%s %+v", report.State, report.Remaining)
	}
	want := report.Elapsed / 0.3 * 0.7
	if left := report.Remaining; left.P10 > want || left.P90 < want || math.Abs(left.P50-want) > 0.15*want {
		t.Errorf("%v s are left, the estimate is %+v", want, *left)
	}
	// One that will be late is found before it is.
	w := night()
	w.rates.Put = 1e6
	set(&w, map[string]float64{"D.dst.wAwaitMs": 60, "D.dst.fAwaitMs": 90, "D.dst.busy": 0.99})
	r, now = live(w.run(), 0.1)
	report = Verdict(r, h, now, Settings{})
	if report.State != Slower || codes(report) != "TARGET_DISK_SLOW" || report.Elapsed > report.Expected.P90 {
		t.Errorf("%s %s after %v s of %+v", report.State, codes(report), report.Elapsed, report.Expected)
	}
}

func TestStalledAndWaiting(t *testing.T) {
	h := history(night, 9)
	r, now := live(night().run(), 0.3)
	r.Meter.Progress.Idle = 200
	r.Meter.Stages[2].Age = 200
	report := Verdict(r, h, now, Settings{})
	if report.State != Stalled || codes(report) != "HUNG_IO" {
		t.Errorf("%s %s", report.State, codes(report))
	}
	r.Meter.Stages[2].Age = 0 // nothing moves, and nobody knows why
	if report := Verdict(r, h, now, Settings{}); report.State != Unknown {
		t.Errorf("%s %s", report.State, codes(report))
	}
	r.Meter.Stages[2].Held = 190
	r.Meter.Seams = append(r.Meter.Seams, histogram("bucket.throttled", 100, 0.01, 0.01, 0))
	if report := Verdict(r, h, now, Settings{}); report.State != Waiting || codes(report) != "TARGET_THROTTLED" {
		t.Errorf("%s %s", report.State, codes(report))
	}
	queued := Record{Instance: "vm1", Kind: Incremental, Source: "file", Store: "s", Settings: "64Ki", Asked: monday}
	report = Verdict(queued, h, monday.Add(10*time.Minute), Settings{})
	if report.State != Waiting || codes(report) != "START_DELAYED" || report.Causes[0].Blame < 500 {
		t.Errorf("in the queue: %s %s", report.State, codes(report))
	}
	if report := Verdict(queued, h, monday.Add(30*time.Second), Settings{}); report.State != OnTime {
		t.Errorf("for half a minute in the queue: %s", report.State)
	}
}

func TestWatchShowsWhatLasts(t *testing.T) {
	var w Watch
	var got []State
	for _, s := range []State{OnTime, Slower, OnTime, Slower, Slower, Slower, Stalled, Slower, OnTime, OnTime} {
		if shown, changed := w.See(s); changed {
			got = append(got, shown)
		}
	}
	if !slices.Equal(got, []State{Slower, OnTime}) {
		t.Errorf("alerts: %v", got)
	}
}

func TestTable(t *testing.T) {
	if len(rules) != 35 {
		t.Errorf("%d causes", len(rules))
	}
	codes := map[string]bool{}
	for i, r := range rules {
		codes[r.code] = true
		if r.title == "" || r.meaning == "" || len(r.phases) == 0 || len(r.lookalikes) == 0 {
			t.Errorf("%s %s lacks something", r.id, r.code)
		}
		if r.needs == "" && (r.must.judge == nil || r.blame == nil || len(r.actions) == 0) {
			t.Errorf("%s is no rule", r.code)
		}
		for _, id := range append(slices.Clone(r.lookalikes), r.under) {
			if id != "" && ruleOf(id).code == "" {
				t.Errorf("%s names %s, which is no cause", r.code, id)
			}
		}
		for j := range rules[:i] {
			if rules[j].id == r.id || rules[j].code == r.code {
				t.Errorf("%s is there twice", r.id)
			}
		}
	}
	used := map[string]bool{}
	for _, e := range All() {
		for _, s := range e.Signals {
			used[s] = true
			if _, ok := signals[s]; !ok {
				t.Errorf("%s looks at %s, which is not in the table of signals", e.Code, s)
			}
		}
	}
	for name := range night().run().facts(monday) {
		if _, ok := signals[name]; !ok {
			t.Errorf("the fact %s is not in the table of signals", name)
		}
	}
}

// The JSON of a report is an interface: what it looks like is kept.
func TestGolden(t *testing.T) {
	for _, name := range []string{"MAINTENANCE_OVERLAP", "LIMIT_CONFIGURED", "CBT_LOST", "NET_LATENCY_BOUND"} {
		at := slices.IndexFunc(single, func(x struct {
			code  string
			base  func() world
			state State
			lost  float64
			make  func(w *world)
		}) bool {
			return x.code == name
		})
		w := single[at].base()
		single[at].make(&w)
		report := Verdict(w.run(), history(single[at].base, 1), time.Time{}, Settings{})
		text, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, "\n"+report.Sentence()+"\n"...)
		path := filepath.Join("testdata", strings.ToLower(name)+".golden")
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(text) != string(want) {
			t.Errorf("%s is not what was kept (-update writes it):\n%s", path, text)
		}
	}
}

// The judgement of a run with a full history; it is made every ten seconds.
func BenchmarkVerdict(b *testing.B) {
	w := night()
	single[0].make(&w)
	r, h := w.run(), history(night, 1)
	b.ReportAllocs()
	for b.Loop() {
		Verdict(r, h, time.Time{}, Settings{})
	}
}
