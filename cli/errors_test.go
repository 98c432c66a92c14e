package cli

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskvault/diskvault/base/problem"
)

var update = flag.Bool("update", false, "write docs/errors.md anew")

//go:generate go test . -run TestErrorsDocument -update

// docs/errors.md is what `diskvault explain` says, all of it.
func TestErrorsDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Errors\n\nEvery error of diskvault has a code that does not change. The command line prints the\nsentence of the case, then what to do; `diskvault explain CODE` prints what stands here.\nThis page is made from the table in `base/problem`: `go generate ./cli`.\n\n")
	b.WriteString("| kind | exit status | meaning |\n|---|---|---|\n")
	for _, k := range []struct {
		kind problem.Kind
		text string
	}{
		{problem.Failed, "the work was tried and did not succeed"},
		{problem.Busy, "it may succeed if tried again later"},
		{problem.Usage, "the request itself is wrong"},
		{problem.Refused, "policy, permission or the support matrix forbids it"},
		{problem.NotFound, "the thing named does not exist"},
		{problem.Interrupted, "a person or a shutdown ended it"},
	} {
		fmt.Fprintf(&b, "| %s | %d | %s |\n", k.kind, exitOf(k.kind), k.text)
	}
	for _, e := range problem.All() {
		fmt.Fprintf(&b, "\n## %s\n\n%s *(%s)*\n\n", e.Code, e.Meaning, e.Kind)
		for _, a := range e.Actions {
			fmt.Fprintf(&b, "- %s\n", a)
		}
	}
	path := filepath.Join("..", "docs", "errors.md")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Errorf("%s is not what the table says; run: go generate ./cli", path)
	}
}
