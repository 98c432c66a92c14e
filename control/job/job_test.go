package job

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
)

func TestQueueKeepsTheOrderOfAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(1)
		leave, err := q.Enter(t.Context(), time.Now(), nil)
		if err != nil {
			t.Fatal(err)
		}
		base := time.Now()
		var mu sync.Mutex
		var order []int
		positions := map[int][]int{}
		for _, n := range []int{3, 1, 4, 2} { // arrive out of order
			go func() {
				leave, err := q.Enter(t.Context(), base.Add(time.Duration(n)), func(p int) {
					mu.Lock()
					defer mu.Unlock()
					positions[n] = append(positions[n], p)
				})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, n)
				mu.Unlock()
				leave()
			}()
			synctest.Wait()
		}
		leave()
		synctest.Wait()
		if fmt.Sprint(order) != "[1 2 3 4]" {
			t.Errorf("order %v", order)
		}
		if fmt.Sprint(positions[3]) != "[1 2 3 2 1]" {
			t.Errorf("the third heard %v", positions[3])
		}
	})
}

func TestQueueLosesNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(2)
		var running, most, done int
		var mu sync.Mutex
		for i := range 200 {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+i%7)*time.Millisecond*20)
				defer cancel()
				leave, err := q.Enter(ctx, time.Now(), nil)
				if err != nil {
					return
				}
				mu.Lock()
				running++
				most = max(most, running)
				mu.Unlock()
				time.Sleep(20 * time.Millisecond) // meets the time-outs of others exactly
				mu.Lock()
				running--
				done++
				mu.Unlock()
				leave()
			}()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if most != 2 || q.free != 2 || len(q.waiting) != 0 || done < 10 {
			t.Errorf("most %d at a time, %d slots free of 2, %d wait, %d done", most, q.free, len(q.waiting), done)
		}
	})
}

func TestQueueClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(1)
		leave, _ := q.Enter(t.Context(), time.Now(), nil)
		got := make(chan error, 1)
		go func() { _, err := q.Enter(t.Context(), time.Now(), nil); got <- err }()
		synctest.Wait()
		q.Close()
		if err := <-got; err != ErrClosed {
			t.Errorf("who waited got %v", err)
		}
		if _, err := q.Enter(t.Context(), time.Now(), nil); err != ErrClosed {
			t.Errorf("who came later got %v", err)
		}
		leave()
	})
}

func runner(t *testing.T) (*Runner, *catalog.Catalog) {
	t.Helper()
	c, err := catalog.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	r, err := NewRunner(t.Context(), c, 1)
	if err != nil {
		t.Fatal(err)
	}
	return r, c
}

func only(t *testing.T, c *catalog.Catalog) resource.Job {
	t.Helper()
	jobs, err := c.Jobs(t.Context(), catalog.JobFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if len(jobs) != 1 {
		t.Fatalf("%d jobs, want 1: %+v", len(jobs), jobs)
	}
	return jobs[0]
}

func TestEveryEndIsRecorded(t *testing.T) {
	for name, c := range map[string]struct {
		work   func(ctx context.Context, cancel func()) (Outcome, error)
		status resource.Status
		code   problem.Code
	}{
		"done":     {func(context.Context, func()) (Outcome, error) { return Outcome{Result: 1}, nil }, resource.Completed, ""},
		"warnings": {func(context.Context, func()) (Outcome, error) { return Outcome{Warnings: true}, nil }, resource.CompletedWithWarnings, ""},
		"problem": {func(context.Context, func()) (Outcome, error) {
			return Outcome{}, problem.New(problem.StoreFull, "Full.")
		}, resource.Failed, problem.StoreFull},
		"unknown":   {func(context.Context, func()) (Outcome, error) { return Outcome{}, errors.New("odd") }, resource.Failed, problem.InternalError},
		"panic":     {func(context.Context, func()) (Outcome, error) { panic("odd") }, resource.Failed, problem.InternalError},
		"cancelled": {func(ctx context.Context, cancel func()) (Outcome, error) { cancel(); return Outcome{}, ctx.Err() }, resource.Cancelled, problem.OperationInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			r, cat := runner(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := r.Do(ctx, Spec{Operation: "Backup", Trigger: "OnDemand"}, func(ctx context.Context, run *Run) (Outcome, error) {
				run.Describe("i1", "web")
				run.Meter.Phase("transfer")
				return c.work(ctx, cancel)
			})
			if (err == nil) != (c.code == "") || err != nil && problem.From(err).Code != c.code {
				t.Errorf("error %v, want %s", err, c.code)
			}
			j := only(t, cat)
			if j.Status != c.status || j.Instance != "web" || j.End == nil || j.Record == nil || len(j.Record.Phases) != 2 {
				t.Errorf("%+v", j)
			}
			if c.code != "" && (j.Error == nil || j.Error.Code != c.code) {
				t.Errorf("the row's error is %+v", j.Error)
			}
			if len(r.Live()) != 0 {
				t.Error("an ended job is still live")
			}
		})
	}
}

func TestProgressIsSeenWhileItRuns(t *testing.T) {
	r, cat := runner(t)
	heard := make(chan resource.Progress, 1000)
	err := r.Do(t.Context(), Spec{Operation: "Backup", Progress: func(p resource.Progress) { heard <- p }}, func(ctx context.Context, run *Run) (Outcome, error) {
		run.Follow(func() resource.Progress { return resource.Progress{Phase: "transfer", Done: 3, Total: 7} })
		<-heard
		if live := r.Live()[run.ID]; live.Progress.Done != 3 || live.Status != resource.InProgress {
			t.Errorf("live: %+v", live)
		}
		for only(t, cat).Progress.Total != 7 { // a save comes within a second or so
			select {
			case <-heard:
			case <-ctx.Done():
				t.Fatal("progress never reached the catalog")
			}
		}
		return Outcome{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if j := only(t, cat); j.Detail != nil || j.Progress.Done != 3 {
		t.Errorf("after the end: %+v", j)
	}
}

func TestWaitingJobIsListedAndWithdrawn(t *testing.T) {
	for _, end := range []string{"closed", "cancelled"} {
		t.Run(end, func(t *testing.T) {
			r, cat := runner(t)
			started, finish := make(chan struct{}), make(chan struct{})
			first := make(chan error, 1)
			go func() {
				first <- r.Do(t.Context(), Spec{Operation: "Backup", Instance: "first"}, func(context.Context, *Run) (Outcome, error) {
					close(started)
					<-finish
					return Outcome{}, nil
				})
			}()
			<-started
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			queued := make(chan int, 10)
			second := make(chan error, 1)
			go func() {
				second <- r.Do(ctx, Spec{Operation: "Backup", Instance: "second", Queued: func(p int) { queued <- p }}, func(context.Context, *Run) (Outcome, error) {
					t.Error("it ran")
					return Outcome{}, nil
				})
			}()
			if p := <-queued; p != 1 {
				t.Errorf("position %d", p)
			}
			waiting, err := cat.Jobs(t.Context(), catalog.JobFilter{Status: resource.Queued})
			if err != nil || len(waiting) != 1 {
				t.Errorf("waiting jobs: %+v, %v", waiting, err)
			}
			if end == "closed" {
				r.Close()
				if err := <-second; !errors.Is(err, ErrClosed) {
					t.Errorf("got %v", err)
				}
			} else {
				cancel()
				if err := <-second; !problem.Is(err, problem.OperationInterrupted) {
					t.Errorf("got %v", err)
				}
			}
			close(finish)
			if err := <-first; err != nil {
				t.Error(err)
			}
			cancelled, err := cat.Jobs(t.Context(), catalog.JobFilter{Status: resource.Cancelled})
			if err != nil {
				t.Fatal(err)
			}
			if want := map[string]int{"closed": 0, "cancelled": 1}[end]; len(cancelled) != want {
				t.Errorf("cancelled jobs: %+v", cancelled)
			}
		})
	}
}
