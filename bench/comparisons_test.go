package main

import (
	"strings"
	"testing"
	"time"
)

func sample() *results {
	r := &results{start: time.Now()}
	put := func(row, who string, ms ...measurement) {
		r.list = append(r.list, result{row, who, ms})
	}
	put(rowFull, diskvaultDefault, measurement{Seconds: 9, PeakBytes: 300 << 20, StoredBytes: 100 << 20, Command: "/x/run/123/bin/diskvault --home /x/run/45/diskvault/data backup"},
		measurement{Seconds: 6, PeakBytes: 90 << 20, StoredBytes: 99 << 20})
	put(rowFull, kopiaZstd, measurement{Seconds: 10, StoredBytes: 100 << 20}, measurement{Seconds: 12, StoredBytes: 100 << 20})
	put(rowRestore, diskvaultDefault, measurement{Seconds: 4, DurableSeconds: 5})
	put(rowRestore, kopiaZstd, measurement{Seconds: 20, DurableSeconds: 20.5})
	put(rowRestore, borgZstd, measurement{Seconds: 10, DurableSeconds: 25})
	put(rowDatabase, diskvaultDefault, measurement{Seconds: 1, StoredBytes: 111 << 20})
	return r
}

func TestVerdicts(t *testing.T) {
	got := map[string]verdict{}
	for _, v := range comparisons(sample(), []string{kopiaZstd, borgZstd, resticDefault}) {
		got[v.Row+"/"+v.What] = v
	}
	check := func(key, against string, ratio float64, met bool) {
		t.Helper()
		v, ok := got[key]
		if !ok {
			t.Errorf("no verdict %q in %v", key, got)
			return
		}
		if v.Against != against || v.Ratio < ratio-1e-9 || v.Ratio > ratio+1e-9 || v.Met != met {
			t.Errorf("%s: %+v; want against %q, ratio %g, met %v", key, v, against, ratio, met)
		}
	}
	check("full/time, default", kopiaZstd, 0.6, true)
	// The largest store counts, not that of the fastest run.
	check("full/store, default", kopiaZstd, 1, true)
	// With fsync another peer is the fastest.
	check("restore/time, verification included", borgZstd, 0.4, false)
	check("restore/time with fsync", kopiaZstd, 5/20.5, true)
	check("database/stored for the updated pages", "", 111, false)
	// The highest memory counts, of any run.
	check("all/peak memory (full, diskvault)", "", 300, false)
	if len(got) != 6 {
		t.Errorf("rows that were not run have verdicts: %v", got)
	}
}

func TestMarkdownShowsFailuresAndNoTemporaryPaths(t *testing.T) {
	r := sample()
	text := report{Scale: 0.5, Rounds: 2, Incomplete: "the disk\nis full", Results: r.list, Verdicts: comparisons(r, []string{kopiaZstd, borgZstd})}.markdown()
	for _, want := range []string{
		"| full | time, default | 6.00 s | kopia zstd-fastest: 10.00 s | 0.60 | 0.75 | yes | |",
		"| database | stored for the updated pages | 111.0 MiB |  |  | 110 MiB | **no** | |",
		"| full | diskvault | 6.00 | 9.00, 6.00 |",
		"not the real size",
		"| **not complete** | the disk is full |",
		"`diskvault --home diskvault/data backup`",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "/run/") {
		t.Errorf("the report names temporary folders:\n%s", text)
	}
}
