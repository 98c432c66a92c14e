package schedule

import (
	_ "embed"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // the host may have no zones, or be a container without files

	"github.com/diskvault/diskvault/base/problem"
)

//go:embed windowszones.tsv
var windowsZonesTSV string

// windowsZones gives the IANA zone of a Windows name in small letters.
var windowsZones = sync.OnceValue(func() map[string]string {
	m := map[string]string{"coordinated universal time": "Etc/UTC"}
	for line := range strings.Lines(windowsZonesTSV) {
		if windows, iana, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
			m[strings.ToLower(windows)] = iana
		}
	}
	return m
})

// Location finds a time zone by its Windows name ("W. Europe Standard Time",
// in any case) or its IANA name ("Europe/Berlin"). Empty means UTC. An unknown
// name is a PolicyScheduleInvalid problem.
func Location(name string) (*time.Location, error) {
	if name == "" || strings.EqualFold(name, "UTC") {
		return time.UTC, nil
	}
	iana := name
	if known, ok := windowsZones()[strings.ToLower(name)]; ok {
		iana = known
	}
	zone, err := time.LoadLocation(iana)
	if err != nil || iana == "Local" { // the host's own zone is nobody's policy
		return nil, problem.Wrap(err, problem.PolicyScheduleInvalid, "%q is no time zone that is known.", name).
			With("timeZone", name).
			Do("Use a Windows name such as W. Europe Standard Time, or an IANA name such as Europe/Berlin.")
	}
	return zone, nil
}
