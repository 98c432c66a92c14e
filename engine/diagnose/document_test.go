package diagnose

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const documentHead = `# Backup is taking longer than expected

` + "`diskvault diagnose`" + ` says whether a backup took longer than it should, and why. It names the
causes with their share of the extra time, the numbers that show them, what was ruled out,
and what to do. ` + "`diskvault backup -o json`" + ` has the same as ` + "`verdict`" + `.

    diskvault diagnose                 the newest backup
    diskvault diagnose web-root        the newest backup of a disk
    diskvault diagnose 3f2a -o json    that of a job

## What is expected

Not what the last backup took. The time is predicted from the backup's own work (bytes read, new
bytes) and the rates of the last 20 like it: the same disk, the same kind (full, incremental,
resumed), the same store and settings, none of them slow itself. With fewer than 5, backups of
other disks of the same kind are taken; then what this host was measured to manage, then a default;
the words are then not "usual" but "this hardware should manage".

| state | meaning |
|---|---|
| OnTime | within what was expected |
| LongerExplained | more work than usual, at the usual rate |
| Waiting | for a minute or more it was not allowed to go on |
| Slower | late by more than 20 % and 5 minutes (` + "`--diagnosis-min-excess`" + `, DISKVAULT_DIAGNOSIS_MIN_EXCESS) |
| Stalled | nothing moved for two minutes, or for ten times the usual gap |
| Looping | begun three times or more |
| Unknown | late, and no cause is known well enough; what was not measured is listed |

A cause needs its conditions to hold; what else speaks for it raises its confidence, what speaks
against it lowers it. Below 50 % it is not shown, below 70 % it is "probably". A number that could
not be measured is evidence for nothing. The shares never add up to more than the extra time; the
rest is said to be not explained.

## Causes

Each can be looked up: ` + "`diskvault explain CODE`" + `. This table is made from the rules:
` + "`go test ./engine/diagnose -update`" + `.

| code | what is so | what to do |
|---|---|---|
`

// The page for users lists what the rules know.
func TestDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString(documentHead)
	var later []string
	for _, e := range All() {
		if e.Needs != "" {
			later = append(later, fmt.Sprintf("- %s: %s (diskvault has no %s)\n", e.Code, e.Title, e.Needs))
			continue
		}
		var todo []string
		for _, a := range e.Actions {
			todo = append(todo, a.Text)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", e.Code, e.Title, strings.Join(todo, " "))
	}
	fmt.Fprintf(&b, "\nThese are known and not looked for, since nothing in diskvault can meet or measure them yet:\n\n%s", strings.Join(later, ""))
	path := filepath.Join("..", "..", "docs", "troubleshooting", "backup-taking-longer-than-expected.md")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Errorf("%s is not what the rules say; run: go test ./engine/diagnose -update", path)
	}
}
