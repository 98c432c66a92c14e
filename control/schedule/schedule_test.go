package schedule

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name + ".txt"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

func parse(t testing.TB, interval, zone string) Schedule {
	t.Helper()
	s, err := Parse(resource.Schedule{Interval: interval, TimeZone: zone})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestParse(t *testing.T) {
	var b strings.Builder
	for _, r := range []resource.Schedule{
		{Interval: "R/2020-04-05T13:00:00+00:00/PT4H"},
		{Interval: "R/2020-04-05T13:00:00Z/PT1H", TimeZone: "UTC"},
		{Interval: "R5/2020-04-05T13:00+00:00/PT2H", TimeZone: "Coordinated Universal Time"},
		{Interval: "R-1/2020-04-05T13:00:00.5+02:00/PT6H", TimeZone: "W. Europe Standard Time"},
		{Interval: "R/2020-04-05T13:00:00+00:00/PT8H", TimeZone: "w. europe standard time"},
		{Interval: "R/2020-04-05T13:00:00+05:30/PT12H", TimeZone: "Asia/Kolkata"},
		{Interval: "R/2021-07-08T22:00:00+02:00/P1D", TimeZone: "Europe/Berlin"},
		{Interval: "R/2021-01-08T22:00:00+02:00/P1D", TimeZone: "Europe/Berlin"},
		{Interval: "R/13:00:00/PT4H"},
		{Interval: "R/2020-04-05T13:00:00/PT4H"},
		{Interval: "R/2020-04-05T13:00:00+00:00/PT3H"},
		{Interval: "R/2020-04-05T13:00:00+00:00/P1W"},
		{Interval: "R/2020-04-05T13:00:00+00:00/PT24H"},
		{Interval: "Rx/2020-04-05T13:00:00+00:00/PT4H"},
		{Interval: "2020-04-05T13:00:00+00:00/PT4H"},
		{Interval: ""},
		{Interval: "R/2020-04-05T13:00:00+00:00/PT4H", TimeZone: "Middle Earth"},
		{Interval: "R/2020-04-05T13:00:00+00:00/PT4H", TimeZone: "Local"},
		{Interval: "R/2020-04-05T13:00:00+00:00/PT4H", TimeZone: "../../etc/passwd"},
	} {
		s, err := Parse(r)
		fmt.Fprintf(&b, "%s %q: ", r.Interval, r.TimeZone)
		if err != nil {
			if !problem.Is(err, problem.PolicyScheduleInvalid) {
				t.Errorf("%v: %v", r, err)
			}
			fmt.Fprintln(&b, problem.From(err).Message)
			continue
		}
		fmt.Fprintf(&b, "%s, %d a day, window %s\n", s.Words(), s.PerDay(), s.Window())
	}
	golden(t, "parse", b.String())
}

// Slots lie on the wall clock, through every change of it.
func TestSlotsOverClockChanges(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct{ what, interval, zone, from, to string }{
		{"anchor 13:00, every 4 hours", "R/2020-04-05T13:00:00+00:00/PT4H", "UTC", "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"},
		{"a start in the future", "R/2026-11-23T13:00:00+00:00/PT6H", "UTC", "2026-11-23T00:00:00Z", "2026-11-24T08:00:00Z"},
		{"gap: daily at 02:30", "R/2026-01-01T02:30:00+01:00/P1D", "Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z"},
		{"overlap: daily at 02:30", "R/2026-01-01T02:30:00+01:00/P1D", "Europe/Berlin", "2026-10-23T12:00:00Z", "2026-10-26T12:00:00Z"},
		{"gap: hourly", "R/2026-01-01T00:00:00+01:00/PT1H", "Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T03:30:00Z"},
		{"overlap: hourly", "R/2026-01-01T00:00:00+01:00/PT1H", "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T03:30:00Z"},
		{"gap: every 2 hours", "R/2026-01-01T00:00:00+01:00/PT2H", "Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T06:30:00Z"},
		{"overlap: every 2 hours", "R/2026-01-01T00:00:00+01:00/PT2H", "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T06:30:00Z"},
		{"overlap: every 4 hours", "R/2026-01-01T01:00:00+01:00/PT4H", "W. Europe Standard Time", "2026-10-24T19:00:00Z", "2026-10-25T12:30:00Z"},
		{"a gap at midnight: daily at 00:15", "R/2018-01-01T00:15:00-02:00/P1D", "America/Sao_Paulo", "2018-11-02T12:00:00Z", "2018-11-06T12:00:00Z"},
		{"half an hour: hourly at a quarter past", "R/2026-01-01T00:15:00+11:00/PT1H", "Australia/Lord_Howe", "2026-04-04T12:30:00Z", "2026-04-04T18:30:00Z"},
		{"a day that was left out: every 12 hours", "R/2011-01-01T06:00:00-10:00/PT12H", "Pacific/Apia", "2011-12-29T00:00:00Z", "2012-01-01T00:00:00Z"},
	} {
		fmt.Fprintln(&b, c.what)
		s := parse(t, c.interval, c.zone)
		for slot := range s.Slots(at(t, c.from), at(t, c.to)) {
			fmt.Fprintf(&b, "  %s  %s\n", slot.In(s.Zone()).Format("Mon 2006-01-02 15:04 -0700"), slot.UTC().Format("2006-01-02T15:04Z"))
		}
	}
	golden(t, "slots", b.String())
}

// What the package comment promises, for every zone that has a Windows name.
func TestSlotsHoldTheirPromises(t *testing.T) {
	seed := time.Now().UnixNano()
	r := rand.New(rand.NewSource(seed))
	for windows, iana := range windowsZones() {
		zone, err := Location(windows)
		if err != nil {
			t.Errorf("%s: %v", windows, err)
			continue
		}
		if zone.String() != iana && windows != "utc" {
			t.Errorf("%s is %s, want %s", windows, zone, iana)
		}
		i := intervals[r.Intn(len(intervals))]
		anchor := time.Date(2023, 1, 1, r.Intn(24), r.Intn(60), 0, 0, zone)
		s := parse(t, fmt.Sprintf("R/%s/%s", anchor.Format(time.RFC3339), i.text), windows)
		from := time.Date(2024, 1, 1, 0, 0, 0, 0, zone)
		var last time.Time
		n := 0
		for slot := range s.Slots(from, from.AddDate(1, 0, 0)) {
			n++
			if gap := slot.Sub(last); !last.IsZero() && (gap <= 0 || gap > i.every+time.Hour || gap >= 2*i.every && i.every > time.Hour) {
				t.Fatalf("seed %d: %s %s: %s after %s", seed, windows, i.text, slot, last)
			}
			last = slot
			if r.Intn(40) > 0 {
				continue
			}
			if next := s.Next(slot.Add(-1)); !next.Equal(slot) {
				t.Fatalf("seed %d: %s %s: Next finds %s, Slots gives %s", seed, windows, i.text, next, slot)
			}
			if prev, ok := s.Last(slot.Add(time.Second)); !ok || !prev.Equal(slot) {
				t.Fatalf("seed %d: %s %s: Last finds %s, Slots gives %s", seed, windows, i.text, prev, slot)
			}
		}
		if want := 366 * s.PerDay(); n < want-2 || n > want+2 {
			t.Errorf("seed %d: %s %s: %d slots in 2024, want about %d", seed, windows, i.text, n, want)
		}
	}
}

func TestZonesNeedNoFiles(t *testing.T) {
	t.Setenv("ZONEINFO", "/nonexistent")
	for _, name := range []string{"Tokyo Standard Time", "America/New_York", "Etc/UTC"} {
		if _, err := Location(name); err != nil {
			t.Error(err)
		}
	}
	if n := len(windowsZones()); n != 140 {
		t.Errorf("%d Windows names, want the 139 of the table and one more", n)
	}
}

func TestDecide(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct {
		what, interval, zone string
		since, last, now     string
		running              bool
	}{
		{"protected between slots", "R/2020-01-01T01:00:00Z/PT4H", "", "2026-11-23T10:00:00Z", "", "2026-11-23T10:00:01Z", false},
		{"protected at the very slot", "R/2020-01-01T01:00:00Z/PT4H", "", "2026-11-23T09:00:00Z", "", "2026-11-23T09:00:01Z", false},
		{"the first slot lies in the future", "R/2027-01-01T01:00:00Z/P1D", "UTC", "2026-11-23T09:00:00Z", "", "2026-11-23T09:00:01Z", false},
		{"slot has come", "R/2020-01-01T01:00:00Z/PT4H", "", "2026-01-01T00:00:00Z", "2026-11-23T05:00:00Z", "2026-11-23T09:00:02Z", false},
		{"slot has come, Berlin", "R/2020-01-01T22:00:00+01:00/P1D", "W. Europe Standard Time", "2026-01-01T00:00:00Z", "2026-07-22T20:00:00Z", "2026-07-23T20:00:00Z", false},
		{"already run", "R/2020-01-01T01:00:00Z/PT4H", "", "2026-01-01T00:00:00Z", "2026-11-23T09:00:00Z", "2026-11-23T09:30:00Z", false},
		{"late, still in the window", "R/2020-01-01T01:00:00Z/PT4H", "", "2026-01-01T00:00:00Z", "2026-11-23T05:00:00Z", "2026-11-23T11:00:00Z", false},
		{"one missed by downtime", "R/2020-01-01T01:00:00Z/PT4H", "", "2026-01-01T00:00:00Z", "2026-11-23T05:00:00Z", "2026-11-23T11:00:01Z", false},
		{"three days down", "R/2020-01-01T01:00:00Z/PT4H", "", "2026-01-01T00:00:00Z", "2026-11-20T05:00:00Z", "2026-11-23T12:00:00Z", false},
		{"three days down, back at a slot", "R/2020-01-01T01:00:00Z/PT4H", "", "2026-01-01T00:00:00Z", "2026-11-20T05:00:00Z", "2026-11-23T13:00:30Z", false},
		{"a year down, hourly", "R/2020-01-01T01:00:00Z/PT1H", "", "2024-01-01T00:00:00Z", "2025-11-20T05:00:00Z", "2026-11-23T13:30:30Z", false},
		{"one missed, hourly", "R/2020-01-01T01:00:00Z/PT1H", "", "2024-01-01T00:00:00Z", "2026-11-23T11:00:00Z", "2026-11-23T13:30:30Z", false},
		{"still running", "R/2020-01-01T01:00:00Z/PT4H", "", "2026-01-01T00:00:00Z", "2026-11-23T05:00:00Z", "2026-11-23T09:00:02Z", true},
		{"resumed after a month", "R/2020-01-01T01:00:00Z/PT4H", "", "2026-11-23T10:00:00Z", "2026-10-20T05:00:00Z", "2026-11-23T10:00:05Z", false},
		{"clock set back by half an hour", "R/2020-01-01T01:00:00Z/PT4H", "", "2026-01-01T00:00:00Z", "2026-11-23T09:00:00Z", "2026-11-23T08:31:00Z", false},
		{"clock was in 2037", "R/2020-01-01T01:00:00Z/PT4H", "", "2026-01-01T00:00:00Z", "2037-11-23T09:00:00Z", "2026-11-23T09:31:00Z", false},
		{"protected by a clock of 2037", "R/2020-01-01T01:00:00Z/PT4H", "", "2037-01-01T00:00:00Z", "", "2026-11-23T12:31:00Z", false},
	} {
		st := State{Since: at(t, c.since), Running: c.running}
		if c.last != "" {
			st.LastSlot = at(t, c.last)
		}
		d := parse(t, c.interval, c.zone).Decide(st, at(t, c.now))
		fmt.Fprintf(&b, "%s\n  now %s: %s, slot %s, at %s, until %s, missed %d\n  %s\n", c.what, c.now, d.Action,
			d.Slot.UTC().Format(time.RFC3339), d.At.UTC().Format(time.RFC3339), d.Until.UTC().Format(time.RFC3339), d.Missed, d.Reason)
	}
	golden(t, "decide", b.String())
}

// However time jumps, each slot is run at most once, and no downtime leaves
// more than one run behind.
func TestDecideProperty(t *testing.T) {
	seed := time.Now().UnixNano()
	r := rand.New(rand.NewSource(seed))
	for range 200 {
		s := parse(t, "R/2026-01-01T22:15:00+01:00/"+intervals[r.Intn(len(intervals))].text, []string{"", "Europe/Berlin", "Tokyo Standard Time"}[r.Intn(3)])
		now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		st := State{Since: now.AddDate(r.Intn(2)*10, 0, 0)} // some were protected under a clock of ten years ahead
		for range 100 {
			now = now.Add(time.Duration(r.Int63n(int64(3 * s.Every()))))
			d := s.Decide(st, now)
			switch d.Action {
			case Wait:
				if !d.At.After(now) {
					t.Fatalf("seed %d: waits for the past: %+v", seed, d)
				}
			case Run, CatchUp:
				if !d.Slot.After(st.LastSlot) || d.Slot.After(now) || d.At.After(d.Until) {
					t.Fatalf("seed %d: at %s after %s: %+v", seed, now, st.LastSlot, d)
				}
				st.LastSlot = d.Slot
				if again := s.Decide(st, now); again.Action != Wait {
					t.Fatalf("seed %d: runs twice at %s: %+v", seed, now, again)
				}
			default:
				t.Fatalf("seed %d: %+v", seed, d)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("R/2020-04-05T13:00:00+00:00/PT4H", "UTC")
	f.Add("R5/0000-01-01T00:00Z/P1D", "Pacific/Apia")
	f.Add("R/9999-12-31T23:59:59-23:59/PT1H", "Morocco Standard Time")
	f.Fuzz(func(t *testing.T, interval, zone string) {
		s, err := Parse(resource.Schedule{Interval: interval, TimeZone: zone})
		if err != nil {
			return
		}
		now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
		next := s.Next(now)
		if !next.After(now) {
			t.Fatalf("the next slot after %s is %s", now, next)
		}
		if last, ok := s.Last(next); !ok || !last.Equal(next) {
			t.Fatalf("the last slot until %s is %s", next, last)
		}
	})
}
