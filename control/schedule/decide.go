package schedule

import (
	"fmt"
	"strings"
	"time"
)

// StartWindow is how long after its slot a backup may begin and still be on
// time: the time of a schedule is a start, never a completion.
const StartWindow = 2 * time.Hour

// Window is how long after its slot a backup of this schedule may begin and
// still be on time: StartWindow, or less where the next slot comes earlier.
func (s Schedule) Window() time.Duration { return min(StartWindow, s.every) }

// State is what the decision needs to know of one disk.
type State struct {
	// Since is when the schedule began to hold for the disk: protection was
	// configured or resumed, or the policy was replaced. Earlier slots were
	// never missed.
	Since time.Time
	// LastSlot is the slot of the last scheduled run that began; zero if none did.
	LastSlot time.Time
	// Running tells that a backup of the disk runs now. There is one at a time.
	Running bool
}

// Action is what is to happen.
type Action string

const (
	Wait    Action = "wait"    // nothing before At
	Run     Action = "run"     // the slot has come
	CatchUp Action = "catchUp" // one run for all the slots that were missed
	Hold    Action = "hold"    // a slot has come, but a backup of the disk still runs
)

// Decision is when a disk is backed up next.
type Decision struct {
	Action Action
	Slot   time.Time // the slot that it is for; State.LastSlot of the run
	At     time.Time // the earliest start: the next slot, or now. A held run starts when the other ends
	Until  time.Time // until when a start is on time; Spread gives starts up to then
	Missed int       // slots that passed without a run, besides Slot; counted up to 1000
	Reason string    // one sentence
}

// missedMax bounds the counting of slots after a long downtime.
const missedMax = 1000

// Decide says when the disk is to be backed up next. However many slots were
// missed, one run makes up for them. A slot that comes while a backup of the
// disk runs is held, and taken when that ends.
func (s Schedule) Decide(st State, now time.Time) Decision {
	begin, note := s.since(st, now)
	last, ok := s.Last(now)
	if !ok || !last.After(begin) {
		next := s.Next(later(begin, now))
		return Decision{Action: Wait, Slot: next, At: next, Until: next.Add(s.Window()),
			Reason: fmt.Sprintf("The next slot is %s: the policy backs up %s.%s", s.clock(next), s.Words(), note)}
	}
	d := Decision{Action: Run, Slot: last, At: now, Until: last.Add(s.Window())}
	first := last
	for slot := range s.Slots(begin.Add(1), last) {
		if d.Missed == 0 {
			first = slot
		}
		if d.Missed++; d.Missed == missedMax {
			break
		}
	}
	switch {
	case now.After(d.Until):
		d.Action, d.Until = CatchUp, now.Add(s.Window())
		d.Reason = fmt.Sprintf("%s passed without a run, the last at %s; one run makes up for them.", count(d.Missed+1), s.clock(last))
		if d.Missed == 0 {
			d.Reason = fmt.Sprintf("The slot of %s passed without a run; this one makes up for it.", s.clock(last))
		}
	case d.Missed > 0:
		d.Reason = fmt.Sprintf("The slot of %s has come; its run also makes up for %s missed since %s.", s.clock(last), strings.ToLower(count(d.Missed)), s.clock(first))
	default:
		d.Reason = fmt.Sprintf("The slot of %s has come; a start until %s is on time.", s.clock(last), s.clock(d.Until))
	}
	if st.Running {
		d.Action = Hold
		d.Reason = fmt.Sprintf("The slot of %s has come, but a backup of the disk still runs; the next begins when it ends.", s.clock(last))
	}
	d.Reason += note
	return d
}

// since is the moment up to which slots are settled.
func (s Schedule) since(st State, now time.Time) (t time.Time, note string) {
	// What was recorded under a clock that was far ahead is not used: to wait
	// until then would leave the disk without backups, perhaps for years.
	trust := func(t time.Time) time.Time {
		if t.After(now.Add(s.every)) {
			note = " What is recorded of the last run lies in the future, so the clock was wrong then or is now; it is not used."
			t, _ = s.Last(now)
			return t.Add(-1)
		}
		return t
	}
	// A slot at the very moment of Since counts: who protects a disk at 22:00
	// with a schedule of 22:00 means this one.
	return later(trust(st.LastSlot), trust(st.Since.Add(-1))), note
}

// clock writes a moment as the clocks of the schedule's zone show it.
func (s Schedule) clock(t time.Time) string {
	return t.In(s.zone).Format("2006-01-02 15:04 MST")
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func count(n int) string {
	if n == 1 {
		return "One slot"
	}
	if n >= missedMax {
		return fmt.Sprintf("At least %d slots", missedMax)
	}
	return fmt.Sprintf("%d slots", n)
}

// spell writes a duration of hours, minutes and seconds in words, rounded to
// what matters: "4 hours", "1 hour 30 minutes", "40 seconds".
func spell(d time.Duration) string {
	unit := func(n time.Duration, word string) string {
		if n == 1 {
			return "1 " + word
		}
		return fmt.Sprintf("%d %ss", n, word)
	}
	switch {
	case d < time.Minute:
		return unit(d/time.Second, "second")
	case d < time.Hour:
		return unit(d/time.Minute, "minute")
	case d%time.Hour < time.Minute:
		return unit(d/time.Hour, "hour")
	}
	return unit(d/time.Hour, "hour") + " " + unit(d%time.Hour/time.Minute, "minute")
}
