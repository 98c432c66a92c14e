package main

import "slices"

// A verdict is one figure of diskvault beside its bound.
type verdict struct {
	Row       string  `json:"row"`
	What      string  `json:"what"`
	Figure    float64 `json:"figure"`    // diskvault's
	Reference float64 `json:"reference"` // the peer's; 0 where the bound is absolute
	Against   string  `json:"against"`   // name of the reference
	Unit      string  `json:"unit"`
	Ratio     float64 `json:"ratio"` // Figure over Reference; the figure itself where the bound is absolute
	AtMost    float64 `json:"atMost"`
	Met       bool    `json:"met"`
}

const (
	seconds   = "s"
	mebibytes = "MiB"
)

func wall(r result) float64      { return r.best().Seconds }
func storedMiB(r result) float64 { return float64(r.stored()) / (1 << 20) }
func peakMiB(r result) float64   { return float64(r.peak()) / (1 << 20) }
func readMiB(r result) float64   { return float64(r.best().ReadBytes) / (1 << 20) }

// comparisons are the bounds that the project set itself, checked against what
// was measured. A row that was not run gives none.
func comparisons(r *results, peers []string) []verdict {
	var out []verdict
	against := func(row, subject, referenceRow, reference, what, unit string, figure func(result) float64, atMost float64) {
		own, ok := r.get(row, subject)
		other, okOther := r.get(referenceRow, reference)
		if !ok || !okOther || figure(other) == 0 {
			return
		}
		v := verdict{Row: row, What: what, Figure: figure(own), Reference: figure(other), Against: reference, Unit: unit, AtMost: atMost}
		if referenceRow != row {
			v.Against = referenceRow
		}
		v.Ratio = v.Figure / v.Reference
		v.Met = v.Ratio <= atMost
		out = append(out, v)
	}
	bounded := func(row, subject, what string, figure func(result) float64, atMost float64) {
		if own, ok := r.get(row, subject); ok {
			x := figure(own)
			out = append(out, verdict{Row: row, What: what, Figure: x, Unit: mebibytes, Ratio: x, AtMost: atMost, Met: x <= atMost})
		}
	}

	against(rowFull, diskvaultDefault, rowFull, kopiaZstd, "time, default", seconds, wall, 0.75)
	against(rowFull, diskvaultDefault, rowFull, kopiaZstd, "store, default", mebibytes, storedMiB, 1)
	against(rowFull, diskvaultFast, rowFull, kopiaS2, "time, fast", seconds, wall, 0.70)
	against(rowFull, diskvaultFast, rowFull, kopiaS2, "store, fast", mebibytes, storedMiB, 1)
	against(rowUnchanged, diskvaultDefault, rowUnchanged, fastest(r, rowUnchanged, []string{kopiaZstd, kopiaS2}, wall), "time", seconds, wall, 0.60)
	against(rowChanged, diskvaultDefault, rowChanged, kopiaZstd, "time, default", seconds, wall, 0.60)
	against(rowChanged, diskvaultFast, rowChanged, kopiaS2, "time, fast", seconds, wall, 0.60)
	against(rowRestore, diskvaultDefault, rowRestore, fastest(r, rowRestore, peers, wall), "time, verification included", seconds, wall, 0.30)
	against(rowRestore, diskvaultDefault, rowRestore, fastest(r, rowRestore, peers, result.durable), "time with fsync", seconds, result.durable, 0.35)
	bounded(rowDatabase, diskvaultDefault, "stored for the updated pages", storedMiB, 110)
	against(rowSpread, diskvaultDefault, rowAlone, diskvaultDefault, "time", seconds, wall, 1.3)
	bounded(rowSpread, diskvaultDefault, "peak memory", peakMiB, 256)
	against(rowCopy, diskvaultDefault, rowFull, diskvaultDefault, "time", seconds, wall, 0.60)
	against(rowTracked, diskvaultDefault, rowTracked, kopiaZstd, "time", seconds, wall, 0.25)
	against(rowTenfold, diskvaultDefault, rowTracked, diskvaultDefault, "time", seconds, wall, 1.5)
	bounded(rowTracked, diskvaultDefault, "read, with 256 MiB changed", readMiB, 1.1*trackedPieces)
	against(rowCollect, diskvaultDefault, rowCollect, fastest(r, rowCollect, peers, wall), "time", seconds, wall, 0.30)
	bounded(rowCollect, diskvaultDefault, "peak memory", peakMiB, 256)
	against(rowCollectBeside, diskvaultDefault, rowCollectAlone, diskvaultDefault, "time", seconds, wall, 1.10)
	against(rowCollectSpace, diskvaultDefault, rowCollectLive, diskvaultDefault, "store", mebibytes, storedMiB, 1.10)
	if row := hungriest(r, diskvaultDefault, diskvaultFast); row != nil {
		x := peakMiB(*row)
		out = append(out, verdict{Row: "all", What: "peak memory (" + row.Row + ", " + row.Contestant + ")",
			Figure: x, Unit: mebibytes, Ratio: x, AtMost: 256, Met: x <= 256})
	}
	return out
}

// fastest names the contestant with the least figure in a row; empty if none ran.
func fastest(r *results, row string, contestants []string, figure func(result) float64) string {
	name, least := "", 0.0
	for _, c := range contestants {
		if one, ok := r.get(row, c); ok && (name == "" || figure(one) < least) {
			name, least = c, figure(one)
		}
	}
	return name
}

// hungriest is the result of these contestants with the highest memory.
func hungriest(r *results, contestants ...string) *result {
	var most *result
	for i, one := range r.list {
		if slices.Contains(contestants, one.Contestant) && (most == nil || one.peak() > most.peak()) {
			most = &r.list[i]
		}
	}
	return most
}
