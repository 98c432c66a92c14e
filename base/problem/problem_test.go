package problem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"testing"
)

func TestTableSpeaksPlainly(t *testing.T) {
	code := regexp.MustCompile(`^[A-Z][A-Za-z0-9]+$`)
	kinds := map[Kind]bool{Failed: true, Usage: true, Refused: true, NotFound: true, Interrupted: true, Busy: true}
	seen := map[Code]bool{}
	for _, e := range table {
		if !code.MatchString(string(e.Code)) {
			t.Errorf("%q is no code", e.Code)
		}
		if seen[e.Code] {
			t.Errorf("%s stands in the table twice", e.Code)
		}
		seen[e.Code] = true
		if !kinds[e.Kind] {
			t.Errorf("%s has no kind: %q", e.Code, e.Kind)
		}
		if !strings.HasSuffix(e.Meaning, ".") {
			t.Errorf("%s: the meaning is no sentence: %q", e.Code, e.Meaning)
		}
		if len(e.Actions) == 0 {
			t.Errorf("%s says nothing of what to do next", e.Code)
		}
		for _, a := range e.Actions {
			if !strings.HasSuffix(a, ".") && !strings.HasSuffix(a, "`") {
				t.Errorf("%s: the action is no sentence: %q", e.Code, a)
			}
		}
	}
}

func TestAllIsSortedAndACopy(t *testing.T) {
	all := All()
	if len(all) != len(table) {
		t.Fatalf("%d of %d rows", len(all), len(table))
	}
	for i := 1; i < len(all); i++ {
		if all[i-1].Code >= all[i].Code {
			t.Errorf("%s before %s", all[i-1].Code, all[i].Code)
		}
	}
	first := table[0]
	all[0].Meaning = "changed"
	if table[0].Meaning != first.Meaning || Lookup(all[0].Code).Meaning == "changed" {
		t.Error("All lends the table out")
	}
}

func TestWrap(t *testing.T) {
	err := fmt.Errorf("while reading: %w", Wrap(fs.ErrPermission, SourcePermissionDenied, "May not read %s.", "/dev/x").With("disk", "/dev/x"))
	if !Is(err, SourcePermissionDenied) || Is(err, SourceInUse) || Is(errors.New("x"), InternalError) || Is(nil, InternalError) {
		t.Error("Is does not tell codes apart")
	}
	if !errors.Is(err, fs.ErrPermission) {
		t.Error("the cause cannot be reached")
	}
	p := From(err)
	if p.Kind != Refused || p.Details["disk"] != "/dev/x" || len(p.Actions) == 0 {
		t.Errorf("%#v", p)
	}
	if got := p.Error(); got != "May not read /dev/x. (permission denied)" {
		t.Errorf("%q", got)
	}
	if got := New(SourceInUse, "Busy.").Error(); got != "Busy." {
		t.Errorf("%q", got)
	}
}

func TestDoLeavesTheTableAlone(t *testing.T) {
	before := strings.Join(Lookup(StoreFull).Actions, "|")
	New(StoreFull, "Full.").Do("Other.")
	if strings.Join(Lookup(StoreFull).Actions, "|") != before {
		t.Error("the actions of one case changed the table")
	}
}

func TestFrom(t *testing.T) {
	if From(nil) != nil {
		t.Error("no error became a problem")
	}
	if p := From(fmt.Errorf("read: %w", context.Canceled)); p.Code != OperationInterrupted || p.Kind != Interrupted {
		t.Errorf("a cancelled context is %s", p.Code)
	}
	if p := From(errors.New("odd thing")); p.Code != InternalError || !strings.Contains(p.Error(), "odd thing") {
		t.Errorf("an unknown error is %v", p)
	}
	if e := Lookup("NoSuchCode"); e.Code != InternalError {
		t.Errorf("an unknown code is %s", e.Code)
	}
	if Known("NoSuchCode") || !Known(StoreFull) {
		t.Error("Known does not know the table")
	}
}
