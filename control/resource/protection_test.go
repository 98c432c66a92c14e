package resource

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/diskvault/diskvault/base/problem"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The whole state machine, as a table that a person can check.
func TestProtectionMoves(t *testing.T) {
	changes := []ProtectionChange{Configure, Configured, ConfigureFailed, Update, BackupsFail, BackupsWork, StopProtection, SuspendBackups,
		ResumeProtection, ResumeBackups, Delete, Deleted, Undelete}
	if len(changes) != len(protectionMoves) {
		t.Fatalf("%d changes tested, there are %d", len(changes), len(protectionMoves))
	}
	var b strings.Builder
	for _, from := range Protections {
		fmt.Fprintf(&b, "%s: backs up %v, expires %v\n", from, from.BacksUp(), from.Expires())
		for _, c := range changes {
			to, changed, err := from.After(c)
			switch {
			case err != nil && !problem.Is(err, problem.ProtectionStateConflict):
				t.Errorf("%s, %s: %v", from, c, err)
			case err != nil && (to != from || changed):
				t.Errorf("%s, %s is refused and yet leads to %s", from, c, to)
			case err == nil && !changed:
				fmt.Fprintf(&b, "  %s: nothing to do\n", c)
			case err == nil:
				fmt.Fprintf(&b, "  %s -> %s\n", c, to)
			}
		}
	}
	if *update {
		if err := os.WriteFile("testdata/protection.txt", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/protection.txt")
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got\n%s", b.String())
	}
}
