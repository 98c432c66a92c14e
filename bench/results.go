package main

import (
	"fmt"
	"os"
	"slices"
	"time"
)

// A result is all runs of one contestant at one row.
type result struct {
	Row        string        `json:"row"`
	Contestant string        `json:"contestant"`
	Runs       []measurement `json:"runs"`
}

// best is the run with the least wall time.
func (r result) best() measurement {
	return slices.MinFunc(r.Runs, func(a, b measurement) int { return compareFloat(a.Seconds, b.Seconds) })
}

// durable is the least time with fsync; it may be another run's than best.
func (r result) durable() float64 {
	return slices.MinFunc(r.Runs, func(a, b measurement) int { return compareFloat(a.DurableSeconds, b.DurableSeconds) }).DurableSeconds
}

// peak is the highest memory over all runs, stored the largest growth: the
// best run may not hide a bad one in these.
func (r result) peak() int64 {
	return slices.MaxFunc(r.Runs, func(a, b measurement) int { return int(a.PeakBytes - b.PeakBytes) }).PeakBytes
}

func (r result) stored() int64 {
	return slices.MaxFunc(r.Runs, func(a, b measurement) int { return int(a.StoredBytes - b.StoredBytes) }).StoredBytes
}

func compareFloat(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// results keeps them in the order in which they first came.
type results struct {
	list  []result
	start time.Time
}

func (r *results) add(row, contestant string, m measurement) {
	say("%6.0f s  %-24s %-20s %8.2f s  %5.0f MiB memory  %6.0f MiB stored", time.Since(r.start).Seconds(),
		row, contestant, m.Seconds, float64(m.PeakBytes)/(1<<20), float64(m.StoredBytes)/(1<<20))
	for i := range r.list {
		if r.list[i].Row == row && r.list[i].Contestant == contestant {
			r.list[i].Runs = append(r.list[i].Runs, m)
			return
		}
	}
	r.list = append(r.list, result{row, contestant, []measurement{m}})
}

func (r *results) get(row, contestant string) (result, bool) {
	for _, one := range r.list {
		if one.Row == row && one.Contestant == contestant {
			return one, true
		}
	}
	return result{}, false
}

// say tells the person at the terminal how far the work is.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
