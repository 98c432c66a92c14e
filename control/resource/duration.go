package resource

import (
	"fmt"
	"strconv"
	"time"
)

// Duration is a calendar duration of ISO 8601 in days, weeks, months or
// years: P30D, P2W, P6M, P1Y.
type Duration string

// parse splits a duration into its number, 1 to 99999, and its unit. It
// allocates nothing: it runs for every recovery point whenever points expire.
func (d Duration) parse() (n int, unit byte, ok bool) {
	if len(d) < 3 || len(d) > 7 || d[0] != 'P' || d[1] == '0' {
		return 0, 0, false
	}
	for _, c := range []byte(d[1 : len(d)-1]) {
		if c < '0' || c > '9' {
			return 0, 0, false
		}
		n = n*10 + int(c-'0')
	}
	switch unit = d[len(d)-1]; unit {
	case 'D', 'W', 'M', 'Y':
		return n, unit, true
	}
	return 0, 0, false
}

// After gives the moment that lies the duration after t, by the calendar in
// UTC.
func (d Duration) After(t time.Time) (time.Time, error) {
	n, unit, ok := d.parse()
	if !ok {
		return time.Time{}, fmt.Errorf("%q is not a duration such as P30D, P2W, P6M or P1Y", string(d))
	}
	t = t.UTC()
	switch unit {
	case 'D':
		return t.AddDate(0, 0, n), nil
	case 'W':
		return t.AddDate(0, 0, 7*n), nil
	case 'M':
		return t.AddDate(0, n, 0), nil
	}
	return t.AddDate(n, 0, 0), nil
}

// Words says the duration in words: "30 days".
func (d Duration) Words() string {
	n, unit, ok := d.parse()
	if !ok {
		return string(d)
	}
	word := map[byte]string{'D': "day", 'W': "week", 'M': "month", 'Y': "year"}[unit]
	if n != 1 {
		word += "s"
	}
	return strconv.Itoa(n) + " " + word
}
