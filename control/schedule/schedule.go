// Package schedule says when a disk is to be backed up, and why then. Its
// functions are pure: they take now as an argument, own no clock, and their
// results carry a reason that a person can read.
//
// A schedule is a repeating interval of ISO 8601 in a time zone. Its slots lie
// on the wall clock of that zone: an anchor of 13:00 with PT4H gives 01:00,
// 05:00, … 21:00 on every day of the year. Where the clock is changed,
//
//   - a slot whose time does not exist lies at the first moment after the gap,
//     and is one with the slot that may lie there already;
//   - a slot whose time comes twice lies at the first of the two;
//   - where that would leave twice the interval or more between two slots, as
//     it does for an hourly schedule, the repeated hour gets a slot as well.
//
// So a day holds the same slots before and after the change, none is lost, and
// no two are further apart than one interval and one change of the clock.
package schedule

import (
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
)

// intervals are those that a policy may have.
var intervals = []struct {
	text  string
	every time.Duration
}{
	{"PT1H", time.Hour}, {"PT2H", 2 * time.Hour}, {"PT4H", 4 * time.Hour}, {"PT6H", 6 * time.Hour},
	{"PT8H", 8 * time.Hour}, {"PT12H", 12 * time.Hour}, {"P1D", 24 * time.Hour},
}

const day = 24 * time.Hour

// Schedule is a series of slots. Make it with Parse; it does not change.
type Schedule struct {
	anchor time.Time     // in zone; the first slot
	phase  time.Duration // of the first slot of a day, on the wall clock
	every  time.Duration // divides a day
	zone   *time.Location
	name   string // of the zone, as it was written
}

// Parse reads the schedule of a policy, or returns a PolicyScheduleInvalid
// problem. A number of repetitions is read and ignored: the series has no end.
// The offset in the start is honoured; the time zone then says how the series
// goes on.
func Parse(r resource.Schedule) (Schedule, error) {
	bad := func(format string, args ...any) (Schedule, error) {
		return Schedule{}, problem.New(problem.PolicyScheduleInvalid, format, args...).With("interval", r.Interval).With("timeZone", r.TimeZone)
	}
	parts := strings.Split(r.Interval, "/")
	if len(parts) != 3 || !repeats(parts[0]) {
		return bad("%q is no repeating interval.", r.Interval)
	}
	start, err := time.Parse(time.RFC3339, parts[1])
	if err != nil {
		if start, err = time.Parse("2006-01-02T15:04Z07:00", parts[1]); err != nil {
			return bad("The start %q is no date and time with an offset, such as 2026-01-01T22:00:00+00:00.", parts[1])
		}
	}
	every := time.Duration(0)
	for _, i := range intervals {
		if i.text == parts[2] {
			every = i.every
		}
	}
	if every == 0 {
		return bad("A disk cannot be backed up every %q: it is every 1, 2, 4, 6, 8 or 12 hours (PT1H to PT12H) or every day (P1D).", parts[2])
	}
	zone, err := Location(r.TimeZone)
	if err != nil {
		return Schedule{}, err
	}
	start = start.In(zone)
	wall := time.Duration(start.Hour())*time.Hour + time.Duration(start.Minute())*time.Minute +
		time.Duration(start.Second())*time.Second + time.Duration(start.Nanosecond())
	name := r.TimeZone
	if name == "" {
		name = "UTC"
	}
	return Schedule{anchor: start, phase: wall % every, every: every, zone: zone, name: name}, nil
}

// repeats tells whether s is R, or R and a number.
func repeats(s string) bool {
	n, ok := strings.CutPrefix(s, "R")
	return ok && strings.Trim(strings.TrimPrefix(n, "-"), "0123456789") == ""
}

// Every is the interval. A daily schedule's is 24 hours, whatever the length of
// the day.
func (s Schedule) Every() time.Duration { return s.every }

// PerDay is how many slots a day has that is 24 hours long.
func (s Schedule) PerDay() int { return int(day / s.every) }

// Zone is the time zone of the schedule, in which its days and weeks begin.
func (s Schedule) Zone() *time.Location { return s.zone }

// Words says the schedule in words: "every 4 hours from 01:00 in UTC".
func (s Schedule) Words() string {
	first := time.Time{}.Add(s.phase).Format("15:04")
	switch s.every {
	case time.Hour:
		return fmt.Sprintf("every hour from %s in %s", first, s.name)
	case day:
		return fmt.Sprintf("every day at %s in %s", first, s.name)
	}
	return fmt.Sprintf("every %s from %s in %s", spell(s.every), first, s.name)
}

// Slots gives the slots t with from <= t < to, in order.
func (s Schedule) Slots(from, to time.Time) iter.Seq[time.Time] {
	return func(yield func(time.Time) bool) {
		if from.Before(s.anchor) {
			from = s.anchor
		}
		// A day earlier, for the neighbor that decides on a repeated hour. The
		// dates are counted in UTC, where none is skipped.
		y, m, d := from.In(s.zone).Date()
		date := time.Date(y, m, d-1, 0, 0, 0, 0, time.UTC)
		var last time.Time
		for {
			for at := s.phase; at < day; at += s.every {
				t := moment(date, at, s.zone)
				if !t.After(last) {
					continue
				}
				for !last.IsZero() && t.Sub(last) >= 2*s.every {
					last = last.Add(s.every)
					if !last.Before(to) || !last.Before(from) && !yield(last) {
						return
					}
				}
				if last = t; !t.Before(to) || !t.Before(from) && !yield(t) {
					return
				}
			}
			date = date.AddDate(0, 0, 1)
		}
	}
}

// Next is the first slot after t.
func (s Schedule) Next(t time.Time) time.Time {
	far := t
	if far.Before(s.anchor) {
		far = s.anchor
	}
	for slot := range s.Slots(t.Add(1), far.Add(5*day)) {
		return slot
	}
	return time.Time{} // not reached: no zone has left out five days
}

// Last is the last slot at t or before; false if the series begins later.
func (s Schedule) Last(t time.Time) (last time.Time, ok bool) {
	// Mostly the slot is near; where a zone left out a day it is not.
	for _, back := range []time.Duration{2 * s.every, 5 * day} {
		for slot := range s.Slots(t.Add(-back), t.Add(1)) {
			last, ok = slot, true
		}
		if ok {
			break
		}
	}
	return last, ok
}

// moment gives the moment at which the clocks of the zone show the wall time
// on the date: the first one if they show it twice, the end of the gap if they
// skip it.
func moment(date time.Time, wall time.Duration, zone *time.Location) time.Time {
	// Read as UTC, which has no gaps, the wall time can be compared.
	want := time.Date(date.Year(), date.Month(), date.Day(), 0, 0, 0, int(wall), time.UTC)
	if zone == time.UTC {
		return want
	}
	t := time.Date(want.Year(), want.Month(), want.Day(), want.Hour(), want.Minute(), want.Second(), want.Nanosecond(), zone)
	start, end := t.ZoneBounds()
	switch shown := wallOf(t); {
	case shown.After(want): // time.Date used the offset from before the gap
		return start
	case shown.Before(want): // or the one from after it
		return end
	}
	if !start.IsZero() {
		_, offset := start.Add(-1).Zone()
		if earlier := want.Add(-time.Duration(offset) * time.Second).In(zone); earlier.Before(start) {
			return earlier
		}
	}
	return t
}

// wallOf is what the clock shows at t, read as if it were UTC.
func wallOf(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}
