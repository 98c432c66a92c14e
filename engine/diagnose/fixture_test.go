package diagnose

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/diskvault/diskvault/base/meter"
)

var monday = time.Date(2026, 3, 2, 2, 0, 0, 0, time.UTC)

// world describes a run; run plays it through an ideal pipeline. Rates are in
// bytes a second of one worker.
type world struct {
	kind              Kind
	start             time.Time
	size              float64
	read, changed     float64
	same, known, new  float64
	ratio             float64 // stored for new
	rates             Rates
	readers, cpu, put int
	untracked         string // reason; empty: tracked

	queue, dispatch, lock, opening, snapshot, discovery, commit float64
	limit                                                       float64 // bytes a second; 0: none
	backoff                                                     float64 // share of the put workers' time
	errors, throttled                                           float64 // shares of the requests
	getP50, putTail                                             float64 // seconds of a read; slowest put as a factor
	readTail                                                    float64
	rate                                                        func(t float64) float64 // of the transfer, from its beginning; nil: even
	signals                                                     map[string]float64
	absent                                                      map[string]string
	attempts, restarts                                          int
	resend                                                      float64 // sent for stored
}

// night is a healthy incremental of a 500 GB disk: 40 GB read, 20 GB new, in
// about half an hour, bound by the store.
func night() world {
	return world{
		kind: Incremental, start: monday, size: 500e9, read: 40e9, changed: 40e9, same: 10e9, known: 8e9, new: 20e9, ratio: 0.5,
		rates: Rates{Read: 60e6, Decide: 400e6, Encode: 150e6, Put: 3e6}, readers: 2, cpu: 4, put: 2,
		queue: 2, opening: 3, snapshot: 1, discovery: 4, commit: 5, getP50: 0.03, putTail: 2, readTail: 4, attempts: 1, restarts: 1, resend: 1,
		signals: map[string]float64{
			"D.src.rAwaitMs": 2, "D.src.rSizeBytes": 1 << 20, "D.src.depth": 3, "D.src.busy": 0.3, "D.src.bytesPerSecond": 25e6, "D.src.othersShare": 0.3, "D.src.othersCorrelation": 0.1, "D.src.rotational": 0,
			"D.dst.wAwaitMs": 9, "D.dst.fAwaitMs": 12, "D.dst.depth": 2, "D.dst.busy": 0.5, "D.dst.bytesPerSecond": 6e6, "D.dst.othersShare": 0.1, "D.dst.rotational": 0,
			"H.cpu.cores": 4, "H.cpu.busy": 0.5, "H.cpu.own": 0.3, "H.cpu.steal": 0.001, "H.cpu.throttled": 0, "H.cpu.pressure": 0.1, "H.cpu.frequency": 0.98, "H.cpu.overheated": 0, "H.cpu.aes": 1, "H.cpu.vector": 1, "H.cpu.virtual": 1,
			"H.mem.pressureFull": 0.0002, "H.mem.swapInBytes": 0, "H.mem.refaultBytes": 1e6, "H.mem.oomKills": 0, "H.mem.gcShare": 0.02, "H.mem.heapShare": 0.3, "H.psi.ioSome": 0.1,
			"R.freeShare": 0.5, "R.freeInodeShare": 0.9, "R.maintenance.timeShare": 0, "R.maintenance.ioShare": 0, "R.maintenance.bytes": 0, "R.maintenance.verify": 0,
			"S.extents": 5000, "X.md.active": 0, "X.md.degraded": 0,
		},
	}
}

// remote is night with a store on the other side of a network.
func remote() world {
	w := night()
	for name := range w.signals {
		if name[0] == 'D' && name[2] == 'd' {
			delete(w.signals, name)
		}
	}
	delete(w.signals, "R.freeShare")
	delete(w.signals, "R.freeInodeShare")
	maps.Copy(w.signals, map[string]float64{
		"N.if.txShare": 0.2, "N.if.speed": 125e6, "N.if.halfDuplex": 0, "N.if.errors": 0, "N.if.carrierChanges": 0, "N.if.ownShare": 0.9,
		"N.tcp.retransShare": 0.0001, "N.tcp.rttMs": 5, "N.tcp.minRttMs": 4, "N.tcp.rttInflation": 1.2, "N.tcp.windowLimited": 0.02,
	})
	return w
}

// run gives the record of a finished run.
func (w world) run() Record {
	var m meter.Record
	per := func(bytes, rate float64, workers int) float64 { return bytes / (rate * float64(workers)) }
	stored := w.new * w.ratio
	sent := stored * w.resend
	busy := []float64{per(w.read, w.rates.Read, w.readers), per(w.read, w.rates.Decide, w.cpu) + per(w.new, w.rates.Encode, w.cpu), per(sent, w.rates.Put, w.put)}
	p6, bound := 0.0, 0
	for i, s := range busy {
		if s > p6 {
			p6, bound = s, i
		}
	}
	held := 0.0
	if w.limit > 0 && w.read/w.limit > p6 {
		held, bound = w.read/w.limit-busy[0], -1
		p6 = w.read / w.limit
	}
	p6 *= 1.02 // workers are never all at work
	backoff := p6 * w.backoff / (1 - w.backoff)
	p6 += backoff

	phase := func(name string, s float64) {
		m.Phases = append(m.Phases, meter.PhaseRecord{Phase: name, Seconds: s, Mark: 1})
	}
	phase("prepare", w.lock+w.opening)
	phase("quiesce", w.snapshot)
	phase("discover", w.discovery)
	phase("transfer", p6)
	phase("commit", w.commit)
	if w.lock > 0 {
		m.Waits = []meter.WaitRecord{{Phase: "prepare", Reason: "lock", Detail: "Verify of disk", Seconds: w.lock}}
	}
	decide, encode := w.read/w.rates.Decide, w.new/w.rates.Encode
	m.Stages = []meter.StageRecord{
		{Stage: "read", Workers: w.readers, Work: busy[0] * float64(w.readers), Limited: held * float64(w.readers), Bytes: int64(w.read)},
		{Stage: "cpu", Workers: w.cpu, Work: decide + encode, Bytes: int64(w.read), Timers: map[string]float64{"decide": decide, "compress": 0.85 * encode, "encrypt": 0.15 * encode}},
		{Stage: "put", Workers: w.put, Work: busy[2] * float64(w.put), Backoff: backoff * float64(w.put), Bytes: int64(sent)},
	}
	w.windows(&m, p6, bound, busy)
	puts := max(1, sent/16e6)
	m.Seams = []meter.SeamRecord{
		histogram("source.read", w.read/4e6, w.getP50, w.getP50*w.readTail, 0),
		histogram("bucket.put", puts, 16e6/w.rates.Put, 16e6/w.rates.Put*w.putTail, puts*(w.errors+w.throttled)),
	}
	if w.throttled > 0 {
		m.Seams = append(m.Seams, histogram("bucket.throttled", puts*w.throttled, 0.01, 0.01, 0))
	}
	m.Progress = meter.ProgressRecord{P90: 0.4, Max: 3}
	m.Signals, m.Absent = maps.Clone(w.signals), maps.Clone(w.absent)

	asked := w.start.Add(-seconds2(w.queue))
	r := Record{
		Instance: "vm1", Kind: w.kind, Source: "file", Store: "s", Settings: "64Ki",
		Asked: asked, Start: w.start, Limit: int64(w.limit), Attempts: w.attempts, Restarts: w.restarts,
		Work: Work{
			Provisioned: int64(w.size), Allocated: int64(w.size / 2), Changed: int64(w.changed), Read: int64(w.read),
			Zero: int64(w.read - w.same - w.known - w.new), Unchanged: int64(w.same), Known: int64(w.known), New: int64(w.new), Stored: int64(stored),
		},
		Changes: Changes{Tracked: w.untracked == "", Reason: w.untracked}, Meter: m,
	}
	if w.dispatch > 0 {
		r.Due = asked.Add(-seconds2(w.dispatch))
	}
	var sum float64
	for _, p := range m.Phases {
		sum += p.Seconds
	}
	r.End = w.start.Add(seconds2(sum))
	return r
}

func seconds2(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// windows makes the time line of the transfer: queues before the stage that
// bounds are full, those behind it empty.
func (w world) windows(m *meter.Record, p6 float64, bound int, busy []float64) {
	before := 0.0
	for _, p := range m.Phases[:3] {
		before += p.Seconds
	}
	width := 10.0
	for p6/width > 80 {
		width *= 2
	}
	full, empty, half := [4]int64{0, 0, 2, 48}, [4]int64{48, 2, 0, 0}, [4]int64{12, 13, 13, 12}
	between := [2][4]int64{half, half}
	switch bound {
	case 0:
		between = [2][4]int64{empty, empty}
	case 1:
		between = [2][4]int64{full, empty}
	case 2:
		between = [2][4]int64{full, full}
	}
	whole := 0.0
	speed := w.rate
	if speed == nil {
		r := rand.New(rand.NewPCG(1, 2))
		speed = func(float64) float64 { return 0.8 + 0.4*r.Float64() }
	}
	var speeds []float64
	for at := 0.0; at < p6; at += width {
		s := speed(at)
		speeds = append(speeds, s)
		whole += s
	}
	for i, s := range speeds {
		length := min(width, p6-float64(i)*width)
		part := length / p6
		m.Windows = append(m.Windows, meter.Window{
			From: before + float64(i)*width, Seconds: length, Phase: "transfer",
			Stages: map[string]meter.StageWindow{
				"read": {Work: m.Stages[0].Work * part, Bytes: int64(w.read * s / whole)},
				"cpu":  {Work: m.Stages[1].Work * part, Bytes: int64(w.read * s / whole)},
				"put":  {Work: m.Stages[2].Work * part, Bytes: int64(w.new * w.ratio * s / whole)},
			},
			Queues: map[string][4]int64{"read-cpu": between[0], "cpu-put": between[1]},
		})
	}
}

// histogram has 98 of 100 operations at p50 and two at p99.
func histogram(name string, count, p50, p99, errors float64) meter.SeamRecord {
	s := meter.SeamRecord{Seam: name, Count: int64(max(1, count)), Errors: int64(errors), Seconds: count * p50, Max: max(p50, p99), Buckets: make([]int64, 40)}
	bucket := func(seconds float64) int {
		b := 0
		for us := int64(seconds * 1e6); us > 0; us >>= 1 {
			b++
		}
		return b
	}
	slow := s.Count / 50
	s.Buckets[bucket(p50)] += s.Count - slow
	s.Buckets[bucket(p99)] += slow
	return s
}

// history is twenty healthy nights like base, with the differences that nights
// have.
func history(base func() world, seed uint64) History {
	r := rand.New(rand.NewPCG(seed, 7))
	var h History
	for i := range 20 {
		w := base()
		w.start = monday.AddDate(0, 0, -1-i)
		h.Runs = append(h.Runs, w.vary(r).run())
	}
	return h
}

// vary makes of a world another healthy one.
func (w world) vary(r *rand.Rand) world {
	churn := 0.7 + 0.6*r.Float64()
	for _, v := range []*float64{&w.read, &w.changed, &w.same, &w.known, &w.new} {
		*v *= churn
	}
	luck := func(v *float64, by float64) { *v *= 1 - by + 2*by*r.Float64() }
	luck(&w.rates.Read, 0.08)
	luck(&w.rates.Decide, 0.08)
	luck(&w.rates.Encode, 0.08)
	luck(&w.rates.Put, 0.08)
	for _, v := range []*float64{&w.queue, &w.opening, &w.snapshot, &w.discovery, &w.commit} {
		luck(v, 0.4)
	}
	w.signals = maps.Clone(w.signals)
	for _, name := range slices.Sorted(maps.Keys(w.signals)) {
		v := w.signals[name]
		if s := signals[name]; s.unit != yes && s.unit != count {
			luck(&v, 0.1)
			w.signals[name] = v
		}
	}
	return w
}
