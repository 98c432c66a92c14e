package upkeep

import (
	"cmp"
	"slices"
	"time"
)

// DefaultScrubShare is the part of a store that is read back each day unless
// said otherwise: all of it in 25 days.
const DefaultScrubShare = 0.04

// ScrubBudget bounds how much is read back to see whether it is whole.
type ScrubBudget struct {
	Share   float64  // of all bytes, each day; 0: nothing
	Rate    int64    // bytes a second; 0: no bound
	Windows []Window // times of the day at which is scrubbed; none: all day
}

// Window is a part of each day in UTC, as times since midnight. One that ends
// before it begins goes over midnight.
type Window struct{ From, To time.Duration }

func (w Window) has(at time.Duration) bool {
	if w.From <= w.To {
		return w.From <= at && at < w.To
	}
	return w.From <= at || at < w.To
}

// length of the window in a day.
func (w Window) length() time.Duration {
	if w.From <= w.To {
		return w.To - w.From
	}
	return 24*time.Hour - w.From + w.To
}

// Scrubbed is something that is read back as a whole, as a pack.
type Scrubbed struct {
	ID       string
	Bytes    int64
	Verified time.Time // zero: never
}

// PlanScrub chooses what to read back now, what was verified longest ago first;
// it depends on its arguments only. elapsed is the time since the last plan: the
// share of a day is spread evenly over its windows. The last choice may go over
// the budget, so that one that is larger than a slice has its turn too; its
// excess is debt, to be given to the next plan. A debt of a day's budget or more
// is forgotten down to that.
func PlanScrub(all []Scrubbed, b ScrubBudget, now time.Time, elapsed time.Duration, debt int64) (chosen []Scrubbed, left int64) {
	total := int64(0)
	for _, s := range all {
		total += s.Bytes
	}
	utc := now.UTC()
	midnight := utc.Truncate(24 * time.Hour)
	open, length := len(b.Windows) == 0, 24*time.Hour
	if !open {
		length = 0
	}
	for _, w := range b.Windows {
		open = open || w.has(utc.Sub(midnight))
		length += w.length()
	}
	if !open || length <= 0 || b.Share <= 0 || elapsed <= 0 {
		return nil, debt
	}
	// After a pause nothing is made up for: a day's budget is for a day.
	part := min(1, float64(elapsed)/float64(min(length, 24*time.Hour)))
	day := int64(b.Share * float64(total))
	allowed := int64(part * float64(day))
	if b.Rate > 0 {
		allowed = min(allowed, int64(elapsed.Seconds()*float64(b.Rate)))
	}
	allowed -= debt
	all = slices.Clone(all)
	slices.SortFunc(all, func(x, y Scrubbed) int {
		return cmp.Or(x.Verified.Compare(y.Verified), cmp.Compare(x.ID, y.ID))
	})
	for _, s := range all {
		if allowed <= 0 {
			break
		}
		allowed -= s.Bytes
		chosen = append(chosen, s)
	}
	return chosen, min(max(0, -allowed), max(day, 0))
}
