package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Each real peer backs a small disk up three times and restores it; restores
// compares every byte. So a peer whose command line changed fails here, not
// after minutes of measuring.
func TestPeersDoEveryRow(t *testing.T) {
	needTools(t, "restic", "kopia", "borg", "zstd", "mke2fs", "debugfs", "e2fsck")
	folder := t.TempDir()
	l := library{folder: filepath.Join(folder, "data"), scale: 1.0 / 256, trees: []string{tree(t)}}
	database, err := l.database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(folder, "run")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	peers, err := choose(everyone(""), "restic,borg,"+kopiaS2)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{folder: work, contestants: peers, rounds: 1, results: &results{start: time.Now()}}
	all := map[string]bool{rowFull: true, rowUnchanged: true, rowRestore: true, rowChanged: true}
	if err := b.systemRows(t.Context(), database, all); err != nil {
		t.Fatal(err)
	}
	for _, row := range systemRowNames {
		for _, p := range peers {
			r, ok := b.results.get(row, p.name)
			if !ok || r.best().Seconds <= 0 || r.peak() <= 0 {
				t.Errorf("%s, %s: %+v", row, p.name, r)
			}
			if grew := r.stored() > 0; ok && row != rowRestore && row != rowUnchanged && !grew {
				t.Errorf("%s, %s: the store did not grow", row, p.name)
			}
		}
	}
	left, err := os.ReadDir(work)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestParseRefusesWhatItCannotDo(t *testing.T) {
	discard, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer discard.Close()
	for _, args := range [][]string{{}, {"fulll"}, {"full", "restore"}, {"full", "--rounds", "0"}, {"full", "--scale", "2"}, {"full", "--out", "x.txt"}} {
		if o, err := parse(args, discard); err == nil {
			t.Errorf("%q was taken as %+v", args, o)
		}
	}
	o, err := parse([]string{"all", "--work", "w", "--rounds", "5", "--out", "a.md", "--out", "b.json"}, discard)
	if err != nil || o.row != "all" || o.work != "w" || o.rounds != 5 || len(o.out) != 2 {
		t.Errorf("got %+v, %v", o, err)
	}
}

func TestChoose(t *testing.T) {
	for only, want := range map[string]int{"": 6, "peers": 4, "kopia": 2, "restic,borg": 2, kopiaS2: 1, "diskvault": 2, diskvaultFast: 1} {
		got, err := choose(everyone(""), only)
		if err != nil || len(got) != want {
			t.Errorf("--only %q chose %v (%v), want %d", only, names(got), err, want)
		}
	}
	if _, err := choose(everyone(""), "tar"); err == nil {
		t.Error("an unknown tool was chosen")
	}
}
