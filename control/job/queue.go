// Package job runs the jobs of a data folder: it lets a limited number of them
// run at a time, keeps their live progress, and leaves a truthful row in the
// catalog whatever way they end.
package job

import (
	"context"
	"errors"
	"sort"
	"sync"
	"time"
)

// ErrClosed is returned to those who still wait when the queue closes: their
// job has not begun.
var ErrClosed = errors.New("the queue of jobs is closed")

// Queue lets a number of jobs run at a time. Who asked first goes first, by
// the time that each brings along, so that a request which was handed from
// one process to another keeps its place.
type Queue struct {
	mu      sync.Mutex
	free    int
	closed  bool
	waiting []*place // by asked
}

type place struct {
	asked time.Time
	turn  chan error // receives once: nil for go, or ErrClosed
	moved func(position int)
}

// NewQueue makes a queue that lets slots jobs run at a time, at least one.
func NewQueue(slots int) *Queue { return &Queue{free: max(1, slots)} }

// Pass is for a job that takes no turn: it tells whether jobs may begin still.
func (q *Queue) Pass() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrClosed
	}
	return nil
}

// Enter waits for a turn and returns a function that ends it, which must be
// called once. moved, which may be nil, hears the position in the queue, from
// 1, when it changes; it must not call the queue.
func (q *Queue) Enter(ctx context.Context, asked time.Time, moved func(position int)) (leave func(), err error) {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil, ErrClosed
	}
	if q.free > 0 && len(q.waiting) == 0 {
		q.free--
		q.mu.Unlock()
		return q.leave, nil
	}
	if moved == nil {
		moved = func(int) {}
	}
	p := &place{asked, make(chan error, 1), moved}
	at := sort.Search(len(q.waiting), func(i int) bool { return q.waiting[i].asked.After(asked) })
	q.waiting = append(q.waiting, nil)
	copy(q.waiting[at+1:], q.waiting[at:])
	q.waiting[at] = p
	q.tell(at)
	q.mu.Unlock()

	select {
	case err := <-p.turn:
		if err != nil {
			return nil, err
		}
		return q.leave, nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, w := range q.waiting {
		if w == p {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			q.tell(i)
			return nil, context.Cause(ctx)
		}
	}
	if err := <-p.turn; err == nil { // the turn came at the same moment: pass it on
		q.pass()
	}
	return nil, context.Cause(ctx)
}

// Close refuses all who come and all who wait; running jobs are not touched.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, p := range q.waiting {
		p.turn <- ErrClosed
	}
	q.waiting = nil
}

func (q *Queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pass()
}

// pass gives a free slot to the first who waits.
func (q *Queue) pass() {
	if len(q.waiting) == 0 {
		q.free++
		return
	}
	q.waiting[0].turn <- nil
	q.waiting = q.waiting[1:]
	q.tell(0)
}

// tell tells everybody from place i on where they stand.
func (q *Queue) tell(i int) {
	for ; i < len(q.waiting); i++ {
		q.waiting[i].moved(i + 1)
	}
}
