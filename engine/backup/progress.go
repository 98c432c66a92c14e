package backup

import (
	"slices"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/store"
)

// Progress is where a run stands. Done and Total are bytes of the disk that
// are dealt with, and that are to be; holes count in neither.
type Progress struct {
	Phase      string      `json:"phase"`
	Done       int64       `json:"done"`
	Total      int64       `json:"total"`
	Bytes      store.Bytes `json:"bytes"`
	Rate       float64     `json:"rate"`       // bytes dealt with in a second, of the transfer so far
	Bottleneck string      `json:"bottleneck"` // stage that holds the run back; empty: none stands out
	ETA        ETA         `json:"eta"`
}

// ETA is how many seconds are left, as a range: in one run of ten it takes
// less than P10, in one of ten more than P90. Zero values: not known yet.
type ETA struct {
	P10 float64 `json:"p10"`
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
}

// Progress may be asked for while Do runs, by any goroutine.
func (r *Run) Progress() Progress {
	record := r.options.Meter.Record()
	r.mu.Lock()
	line, writer, began := r.line, r.writer, r.began
	p := Progress{Total: r.total}
	r.mu.Unlock()
	if n := len(record.Phases); n > 0 {
		p.Phase = record.Phases[n-1].Phase
	}
	if line == nil {
		return p
	}
	p.Done = min(line.done.Load(), p.Total)
	p.Bytes = writer.Bytes()
	p.Bytes.Read = line.read.Load()
	elapsed := time.Since(began).Seconds()
	if elapsed > 0 {
		p.Rate = float64(p.Done) / elapsed
	}
	p.Bottleneck = bottleneck(record)
	if p.Phase == phaseTransfer {
		var before *store.Bytes
		if r.options.Parent != nil {
			before = &r.options.Parent.Bytes
		}
		p.ETA = estimate(elapsed, p.Total-p.Done, p.Bytes, before, record)
	}
	return p
}

// bottleneck looks at the stages and queues of the attempt at hand, which are
// the last of their names.
func bottleneck(record meter.Record) string {
	var stages []meter.StageRecord
	for _, name := range []string{"read", "cpu", "put"} {
		for _, s := range slices.Backward(record.Stages) {
			if s.Stage == name {
				stages = append(stages, s)
				break
			}
		}
	}
	var queues []meter.QueueRecord
	for _, name := range []string{"read-cpu", "cpu-put"} {
		for _, q := range slices.Backward(record.Queues) {
			if q.Queue == name {
				queues = append(queues, q)
				break
			}
		}
	}
	if len(stages) != 3 || len(queues) != 2 {
		return ""
	}
	return meter.Bottleneck(stages, queues)
}

// estimate gives the time left. New data is compressed, encrypted and sent,
// all else only read and hashed, so the two are estimated apart: what a byte
// of each has cost so far, times how many of each may be left. How many is the
// uncertain part: between the mix of this run so far and that of the run before.
func estimate(elapsed float64, left int64, seen store.Bytes, before *store.Bytes, record meter.Record) ETA {
	const tooEarly = 1.0 // second: queues are still filling
	total := seen.Zero + seen.Unchanged + seen.Known + seen.New
	if elapsed < tooEarly || total == 0 {
		return ETA{}
	}
	perNew, perOther := costs(elapsed, seen, record)
	now := float64(seen.New) / float64(total)
	low, high := now, now
	if before != nil && before.Read > 0 {
		then := min(1, float64(before.New)/float64(before.Read))
		low, high = min(now, then), max(now, then)
	}
	at := func(share float64) float64 { return float64(left) * (share*perNew + (1-share)*perOther) }
	// The rest of the spread is what runs of one machine differ by.
	return ETA{P10: 0.8 * at(low), P50: at((low + high) / 2), P90: 1.3 * at(high)}
}

// costs splits the time so far between new data and the rest, by what the
// timers of the stage cpu say each took.
func costs(elapsed float64, seen store.Bytes, record meter.Record) (perNew, perOther float64) {
	total := float64(seen.Zero + seen.Unchanged + seen.Known + seen.New)
	perByte := elapsed / total
	for _, s := range record.Stages {
		if s.Stage != "cpu" || s.Work == 0 || seen.New == 0 {
			continue
		}
		extra := s.Timers["compress"] + s.Timers["encrypt"]
		basic := max(s.Work-extra, 0)
		scale := elapsed / s.Work // wall seconds of the run for a second of work
		perOther = basic * scale / total
		perNew = perOther + extra*scale/float64(seen.New)
		return perNew, perOther
	}
	return perByte, perByte
}
