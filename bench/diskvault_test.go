package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// standIn is a program that keeps to diskvault's command line contract as far
// as this room uses it. It stores by copying.
const standIn = `#!/bin/sh
set -eu
[ "$1" = --home ] && home=$2 && shift 2
verb=$1 && shift
case "$verb" in
backup)
	[ "$2 $3 $4" = "--full-scan -o json" ]
	mkdir -p "$home/store"
	cp --sparse=always "$1" "$home/store/image$(ls "$home/store" | wc -l)"
	echo '{"instance":"disk-1","status":"Completed","recoveryPoint":{"consistency":"CONSISTENCY"}}'
	;;
restore)
	[ "$1 $2 $4 $5" = "disk-1 --to -o json" ]
	cp --sparse=always "$home/store/$(ls "$home/store" | tail -n 1)" "$3"
	DAMAGE
	echo '{"verified":true,"durationSeconds":1,"phases":[{"phase":"transfer","seconds":1},{"phase":"commit","seconds":0.000001}]}'
	;;
esac
`

func runStandIn(t *testing.T, replacements ...string) (*bench, error) {
	t.Helper()
	folder := t.TempDir()
	program := filepath.Join(folder, "diskvault")
	script := strings.NewReplacer(append(replacements, "CONSISTENCY", "crashConsistent", "DAMAGE", ":")...).Replace(standIn)
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	before, after := filepath.Join(folder, "before.img"), filepath.Join(folder, "after.img")
	for _, image := range []string{before, after} {
		if err := writeDatabase(t.Context(), image, 64); err != nil {
			t.Fatal(err)
		}
	}
	if err := updateDatabase(after, 64, 3); err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(folder, "run")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	b := &bench{folder: work, contestants: []contestant{diskvaultContestant(diskvaultDefault, program, "")},
		rounds: 2, results: &results{start: time.Now()}}
	d := dataset{Images: []string{"before.img", "after.img"}, folder: folder}
	err := b.systemRows(t.Context(), d, map[string]bool{rowUnchanged: true, rowRestore: true, rowChanged: true})
	if err == nil {
		err = b.sparseRows(t.Context(), d)
	}
	return b, err
}

func TestDiskvaultIsDrivenByItsContract(t *testing.T) {
	b, err := runStandIn(t)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{rowFull, rowUnchanged, rowChanged, rowAlone, rowSpread} {
		r, ok := b.results.get(row, diskvaultDefault)
		if !ok || len(r.Runs) != 2 || r.stored() != 64*pageBytes {
			t.Errorf("%s: %+v; want two runs that stored %d bytes each", row, r, 64*pageBytes)
		}
	}
	r, _ := b.results.get(rowRestore, diskvaultDefault)
	if len(r.Runs) != 2 || r.best().DurableSeconds <= r.best().Seconds {
		t.Errorf("the phase \"commit\" was not told apart: %+v", r)
	}
}

func TestWrongResultsAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ old, new, says string }{
		"inconsistent point": {"CONSISTENCY", "inconsistent", "did not complete with a consistent point"},
		"one byte restored wrong": {"DAMAGE", `printf x | dd of="$3" bs=1 seek=100000 conv=notrunc status=none`,
			"differs in 4096 bytes"},
		"a byte too many restored": {"DAMAGE", `printf x >> "$3"`, "has 524289"},
	} {
		if _, err := runStandIn(t, c.old, c.new); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
