package schedule

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"time"
)

// Due is a backup whose slot has come or is about to.
type Due struct {
	ID       string
	Earliest time.Time     // Decision.At
	Until    time.Time     // Decision.Until: a start up to then is on time
	Takes    time.Duration // as its last runs did; zero: never measured
}

// Start is when a backup is to begin.
type Start struct {
	ID     string
	At     time.Time
	Late   bool // after Due.Until
	Reason string
}

// guess is taken for the duration of a backup if none was ever measured.
const guess = 10 * time.Minute

// Spread gives each backup its start, so that at most parallel run at once and
// as many as possible begin on time. Ends are when backups that run now are
// expected to end. Starts come in their order.
//
// The longest come first, since then all are done soonest. If some would start
// late that way, the shortest come first, since then the most start on time.
// Whoever's window ends sooner goes first in either case. Call it again
// whenever a backup has ended: durations are expectations.
func Spread(due []Due, ends []time.Time, parallel int, now time.Time) []Start {
	if len(due) == 0 {
		return nil
	}
	parallel = max(parallel, 1)
	takes := expected(due)
	longest, late := assign(due, takes, ends, parallel, now, func(a, b time.Duration) int { return cmp.Compare(b, a) })
	at := longest
	if late > 0 {
		if shortest, fewer := assign(due, takes, ends, parallel, now, cmp.Compare[time.Duration]); fewer < late {
			at, late = shortest, fewer
		}
	}
	starts := make([]Start, len(due))
	for i, d := range due {
		starts[i] = Start{ID: d.ID, At: at[i], Late: at[i].After(d.Until), Reason: why(d, takes[i], at[i], len(due), len(ends), parallel)}
	}
	slices.SortStableFunc(starts, func(a, b Start) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) })
	return starts
}

// expected gives the duration to reckon with for each: its own, else the median
// of the others, else a guess.
func expected(due []Due) []time.Duration {
	var known []time.Duration
	for _, d := range due {
		if d.Takes > 0 {
			known = append(known, d.Takes)
		}
	}
	other := guess
	if len(known) > 0 {
		slices.Sort(known)
		other = known[len(known)/2]
	}
	takes := make([]time.Duration, len(due))
	for i, d := range due {
		if takes[i] = d.Takes; d.Takes <= 0 {
			takes[i] = other
		}
	}
	return takes
}

// assign gives the starts, and how many of them are late, if whichever place
// becomes free takes the first backup in the order of window's end, duration, ID.
func assign(due []Due, takes []time.Duration, ends []time.Time, parallel int, now time.Time, order func(a, b time.Duration) int) (at []time.Time, late int) {
	byEarliest := make([]int, len(due))
	for i := range byEarliest {
		byEarliest[i] = i
	}
	slices.SortStableFunc(byEarliest, func(a, b int) int { return due[a].Earliest.Compare(due[b].Earliest) })

	free := places(ends, parallel, now)
	waiting := &queue[int]{less: func(a, b int) bool {
		return cmp.Or(due[a].Until.Compare(due[b].Until), order(takes[a], takes[b]), cmp.Compare(due[a].ID, due[b].ID)) < 0
	}}
	at = make([]time.Time, len(due))
	t := now
	for range due {
		t = later(t, heap.Pop(free).(time.Time))
		if waiting.Len() == 0 {
			t = later(t, due[byEarliest[0]].Earliest)
		}
		for len(byEarliest) > 0 && !due[byEarliest[0]].Earliest.After(t) {
			heap.Push(waiting, byEarliest[0])
			byEarliest = byEarliest[1:]
		}
		i := heap.Pop(waiting).(int)
		if at[i] = t; t.After(due[i].Until) {
			late++
		}
		heap.Push(free, t.Add(takes[i]))
	}
	return at, late
}

// places gives when each of the places for backups becomes free.
func places(ends []time.Time, parallel int, now time.Time) *queue[time.Time] {
	free := &queue[time.Time]{less: time.Time.Before}
	taken := slices.SortedFunc(slices.Values(ends), time.Time.Compare)
	// More run than may: the first of them to end leave no place behind.
	for _, end := range taken[max(0, len(taken)-parallel):] {
		free.items = append(free.items, later(end, now))
	}
	for len(free.items) < parallel {
		free.items = append(free.items, now)
	}
	heap.Init(free)
	return free
}

func why(d Due, takes time.Duration, at time.Time, all, running, parallel int) string {
	expect := "It is expected to take " + spell(takes) + ", as its last runs did."
	if d.Takes <= 0 {
		expect = "It was never measured; " + spell(takes) + " are reckoned with."
	}
	crowd := fmt.Sprintf("as %d backups are due and %d may run at once", all, parallel)
	if running > 0 {
		crowd = fmt.Sprintf("as %d backups are due, %d run and %d may run at once", all, running, parallel)
	}
	switch wait := at.Sub(d.Earliest); {
	case wait <= 0:
		return "It begins without waiting. " + expect
	case at.After(d.Until):
		return fmt.Sprintf("It waits %s and begins late, %s. %s Let more run at once, or move some disks to another time.", spell(wait), crowd, expect)
	default:
		return fmt.Sprintf("It waits %s, within its start window, %s. %s", spell(wait), crowd, expect)
	}
}

// queue is a priority queue for container/heap.
type queue[T any] struct {
	items []T
	less  func(a, b T) bool
}

func (q *queue[T]) Len() int           { return len(q.items) }
func (q *queue[T]) Less(a, b int) bool { return q.less(q.items[a], q.items[b]) }
func (q *queue[T]) Swap(a, b int)      { q.items[a], q.items[b] = q.items[b], q.items[a] }
func (q *queue[T]) Push(x any)         { q.items = append(q.items, x.(T)) }
func (q *queue[T]) Pop() any {
	last := q.items[len(q.items)-1]
	q.items = q.items[:len(q.items)-1]
	return last
}
