package resource

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// Duration is a calendar duration of ISO 8601 in days, weeks, months or
// years: P30D, P2W, P6M, P1Y.
type Duration string

var durationPattern = regexp.MustCompile(`^P([1-9][0-9]{0,4})([DWMY])$`)

// After gives the moment that lies the duration after t, by the calendar in
// UTC.
func (d Duration) After(t time.Time) (time.Time, error) {
	m := durationPattern.FindStringSubmatch(string(d))
	if m == nil {
		return time.Time{}, fmt.Errorf("%q is not a duration such as P30D, P2W, P6M or P1Y", string(d))
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return time.Time{}, err
	}
	t = t.UTC()
	switch m[2] {
	case "D":
		return t.AddDate(0, 0, n), nil
	case "W":
		return t.AddDate(0, 0, 7*n), nil
	case "M":
		return t.AddDate(0, n, 0), nil
	}
	return t.AddDate(n, 0, 0), nil
}

// Words says the duration in words: "30 days".
func (d Duration) Words() string {
	m := durationPattern.FindStringSubmatch(string(d))
	if m == nil {
		return string(d)
	}
	unit := map[string]string{"D": "day", "W": "week", "M": "month", "Y": "year"}[m[2]]
	if m[1] != "1" {
		unit += "s"
	}
	return m[1] + " " + unit
}
