package resource

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
)

func TestNames(t *testing.T) {
	for _, c := range []struct {
		check func(string) error
		name  string
		good  bool
	}{
		{CheckVaultName, "default", true},
		{CheckVaultName, "v1", true},
		{CheckVaultName, "v", false},
		{CheckVaultName, "1v", false},
		{CheckVaultName, "v-", false},
		{CheckVaultName, "a b", false},
		{CheckVaultName, strings.Repeat("a", 50), true},
		{CheckVaultName, strings.Repeat("a", 51), false},
		{CheckPolicyName, "pol", true},
		{CheckPolicyName, "po", false},
		{CheckPolicyName, strings.Repeat("p", 150), true},
		{CheckPolicyName, strings.Repeat("p", 151), false},
		{CheckInstanceName, "d", true},
		{CheckInstanceName, "web-01.prod_", true},
		{CheckInstanceName, "web.", false},
		{CheckInstanceName, "-web", false},
		{CheckInstanceName, "we/b", false},
		{CheckInstanceName, "", false},
		{CheckInstanceName, strings.Repeat("d", 80), true},
		{CheckInstanceName, strings.Repeat("d", 81), false},
	} {
		err := c.check(c.name)
		if (err == nil) != c.good {
			t.Errorf("%q: got %v, want good=%v", c.name, err, c.good)
		}
		if err != nil && !problem.Is(err, problem.InvalidArgument) {
			t.Errorf("%q: %v is no InvalidArgument", c.name, err)
		}
	}
}

func TestNameOf(t *testing.T) {
	for path, want := range map[string]string{
		"/vms/web.img":        "web vms-web",
		"/vms/web.IMG":        "web vms-web",
		"/dev/vg/root":        "vg-root",
		"/dev/sda":            "sda",
		"/vms/.img":           "img vms-.img",
		"/vms/a b:c":          "a-b-c vms-a-b-c",
		"/--":                 "disk disk",
		"/x/ÄÖ.raw":           "disk x",
		"/v/" + long(90):      long(72) + " v-" + long(70),
		"/vms/disk.qcow2":     "disk vms-disk",
		"/vms/2026-01-01.img": "2026-01-01 vms-2026-01-01",
		"qemu+unix:///run/web/qmp.sock?device=sys":                              "sys web-sys",
		"qemu+unix:///run/web.sock":                                             "web",
		"qemu+unix:///run/web/qmp.sock?device=/machine/peripheral/v0&fleece=/x": "v0 web-v0",
		"rbd:pool/web":                       "web pool-web",
		"lvm:vg/root":                        "root vg-root",
		"nbd://host:10809/web":               "web",
		"nbd://host":                         "host",
		"nbd+unix:///?socket=/run/disk.sock": "disk",
	} {
		got := NameOf(path)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
		for _, n := range got {
			if err := CheckInstanceName(n); err != nil {
				t.Errorf("%s gives an illegal name: %v", path, err)
			}
		}
	}
}

func long(n int) string { return strings.Repeat("n", n) }

func TestDuration(t *testing.T) {
	from := time.Date(2024, 1, 31, 12, 0, 0, 0, time.UTC)
	for d, want := range map[Duration]string{
		"P30D": "2024-03-01", "P2W": "2024-02-14", "P1Y": "2025-01-31", "P1D": "2024-02-01",
	} {
		got, err := d.After(from)
		if err != nil || got.Format(time.DateOnly) != want {
			t.Errorf("%s: got %v, %v; want %s", d, got, err, want)
		}
	}
	for _, d := range []Duration{"", "30D", "P0D", "P-1D", "PT1H", "P1D1W", "P123456D"} {
		if got, err := d.After(from); err == nil {
			t.Errorf("%q was taken for %v", d, got)
		}
	}
	if got := Duration("P30D").Words() + ", " + Duration("P1W").Words(); got != "30 days, 1 week" {
		t.Error(got)
	}
}

func TestPolicyRule(t *testing.T) {
	p := DefaultPolicy("default", time.Now())
	if r, err := p.Rule(""); err != nil || r.Tag != DefaultTag {
		t.Errorf("empty tag: %v, %v", r, err)
	}
	if _, err := p.Rule("Weekly"); !problem.Is(err, problem.RetentionTagNotFound) {
		t.Errorf("unknown tag: %v", err)
	}
}

func TestFailureKeepsWhatAPersonNeeds(t *testing.T) {
	err := problem.Wrap(errors.New("disk on fire"), problem.SourceReadFailed, "Cannot read %s.", "/dev/x").With("offset", 42.0)
	data, jerr := json.Marshal(FailureOf(err))
	if jerr != nil {
		t.Fatal(jerr)
	}
	var f Failure
	if jerr := json.Unmarshal(data, &f); jerr != nil {
		t.Fatal(jerr)
	}
	again := f.Problem()
	if again.Error() != err.Error() || again.Kind != err.Kind || again.Code != err.Code || len(again.Actions) != len(err.Actions) || again.Details["offset"] != 42.0 {
		t.Errorf("got %#v, want %#v", again, err)
	}
	if FailureOf(nil) != nil {
		t.Error("no error became a failure")
	}
}
