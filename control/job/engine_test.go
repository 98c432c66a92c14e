package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/catalog/catalogtest"
	"github.com/diskvault/diskvault/control/resource"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "work" {
		workUntilKilled(os.Args[2])
	}
	catalogtest.Main(m)
}

// workUntilKilled is a process that begins a job and never ends it.
func workUntilKilled(place string) {
	ctx := context.Background()
	c, err := catalog.Open(ctx, place)
	if err == nil {
		var r *Runner
		if r, err = NewRunner(ctx, c, 1); err == nil {
			var e *Engine
			if e, err = NewEngine(ctx, c, r, EngineOptions{Sites: []string{"local"}, Slots: 1}, func(ctx context.Context, j resource.Job, run *Run) (Outcome, error) {
				fmt.Println("begun")
				<-ctx.Done()
				return Outcome{}, ctx.Err()
			}); err == nil {
				err = e.Start(ctx)
			}
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	select {}
}

// engine makes an engine that runs until the test ends.
func engine(t *testing.T, place string, o EngineOptions, do Do) (*Engine, *catalog.Catalog) {
	t.Helper()
	c, err := catalog.Open(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRunner(t.Context(), c, max(o.Slots, 1))
	if err != nil {
		t.Fatal(err)
	}
	o.Sites = append(o.Sites, "local")
	e, err := NewEngine(t.Context(), c, r, o, do)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(e.Stop(ctx), c.Close()); err != nil {
			t.Error(err)
		}
	})
	return e, c
}

func queued(id, instance string) resource.Job {
	return resource.Job{ID: id, InstanceID: instance, Instance: instance, Operation: resource.OperationBackup, Trigger: resource.Scheduled, Status: resource.Queued,
		Created: time.Now(), Site: "local", Request: []byte(`{}`)}
}

// until waits for a job to be as a test wants it.
func until(t *testing.T, c *catalog.Catalog, id string, good func(resource.Job) bool) resource.Job {
	t.Helper()
	var last resource.Job
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		jobs, err := c.Jobs(t.Context(), catalog.JobFilter{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		if len(jobs) == 1 {
			if last = jobs[0]; good(last) {
				return last
			}
		}
	}
	t.Fatalf("the job %s stays %+v", id, last)
	return last
}

func ended(j resource.Job) bool { return j.Status.Final() }

func TestQueuedJobsRunOnce(t *testing.T) { catalogtest.Each(t, queuedJobsRunOnce) }

func queuedJobsRunOnce(t *testing.T, place string) {
	var mu sync.Mutex
	ran := map[string]int{}
	running, most := 0, 0
	e, c := engine(t, place, EngineOptions{Slots: 3}, func(ctx context.Context, j resource.Job, run *Run) (Outcome, error) {
		mu.Lock()
		ran[j.ID]++
		running++
		most = max(most, running)
		mu.Unlock()
		time.Sleep(30 * time.Millisecond)
		mu.Lock()
		running--
		mu.Unlock()
		return Outcome{Result: j.Instance}, nil
	})
	for n := range 20 {
		if err := e.Add(t.Context(), queued(fmt.Sprintf("job%02d", n), fmt.Sprint("i", n))); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.sweep(t.Context()); err != nil { // tickets that come twice change nothing
		t.Fatal(err)
	}
	for n := range 20 {
		j := until(t, c, fmt.Sprintf("job%02d", n), ended)
		if j.Status != resource.Completed || j.Attempt != 1 || string(j.Result) != fmt.Sprintf(`"i%d"`, n) || j.Record == nil {
			t.Errorf("%+v", j)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for id, times := range ran {
		if times != 1 {
			t.Errorf("%s ran %d times", id, times)
		}
	}
	if most > 3 || most < 2 {
		t.Errorf("%d ran at a time, with 3 slots", most)
	}
}

func TestOneBackupOfADisk(t *testing.T) { catalogtest.Each(t, oneBackupOfADisk) }

func oneBackupOfADisk(t *testing.T, place string) {
	release := make(chan struct{})
	e, c := engine(t, place, EngineOptions{Slots: 2}, func(ctx context.Context, j resource.Job, run *Run) (Outcome, error) {
		<-release
		return Outcome{}, nil
	})
	if err := e.Add(t.Context(), queued("a", "i")); err != nil {
		t.Fatal(err)
	}
	if err := e.Add(t.Context(), queued("b", "i")); !problem.Is(err, problem.OneBackupAtATime) {
		t.Errorf("a second backup: %v", err)
	}
	r := queued("c", "i")
	r.Operation = resource.OperationRestore
	if err := e.Add(t.Context(), r); err != nil {
		t.Errorf("a restore beside it: %v", err)
	}
	close(release)
	until(t, c, "a", ended)
	if err := e.Add(t.Context(), queued("d", "i")); err != nil {
		t.Errorf("after the first: %v", err)
	}
	until(t, c, "d", ended)
	until(t, c, "c", ended)
}

func TestPassingFailuresAreTriedAgain(t *testing.T) { catalogtest.Each(t, passingFailures) }

func passingFailures(t *testing.T, place string) {
	var mu sync.Mutex
	tries := map[string]int{}
	e, c := engine(t, place, EngineOptions{Slots: 2, Attempts: 3, Backoff: 100 * time.Millisecond}, func(ctx context.Context, j resource.Job, run *Run) (Outcome, error) {
		mu.Lock()
		tries[j.ID]++
		n := tries[j.ID]
		mu.Unlock()
		switch {
		case j.ID == "denied":
			return Outcome{}, problem.New(problem.StorePermissionDenied, "No.")
		case j.ID == "mended" && n == 3:
			return Outcome{}, nil
		}
		return Outcome{}, problem.New(problem.StoreUnreachable, "Not now.")
	})
	for _, id := range []string{"mended", "lasting", "denied"} {
		if err := e.Add(t.Context(), queued(id, id)); err != nil {
			t.Fatal(err)
		}
	}
	waits := until(t, c, "lasting", func(j resource.Job) bool { return j.Retry != nil })
	if waits.Error == nil || waits.Error.Code != problem.StoreUnreachable || waits.Status.Final() {
		t.Errorf("while it waits: %+v", waits)
	}
	for id, want := range map[string]struct {
		status resource.Status
		tries  int
	}{"mended": {resource.Completed, 3}, "lasting": {resource.Failed, 3}, "denied": {resource.Failed, 1}} {
		j := until(t, c, id, ended)
		mu.Lock()
		if j.Status != want.status || tries[id] != want.tries || j.Attempt != want.tries || (j.Error == nil) != (want.status == resource.Completed) {
			t.Errorf("%s: %d tries, %+v", id, tries[id], j)
		}
		mu.Unlock()
	}
}

func TestJobsAreCancelled(t *testing.T) { catalogtest.Each(t, jobsAreCancelled) }

func jobsAreCancelled(t *testing.T, place string) {
	begun := make(chan struct{}, 1)
	e, c := engine(t, place, EngineOptions{Slots: 1}, func(ctx context.Context, j resource.Job, run *Run) (Outcome, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return Outcome{}, context.Cause(ctx)
	})
	if err := e.Add(t.Context(), queued("runs", "a")); err != nil {
		t.Fatal(err)
	}
	<-begun
	late := queued("waits", "b")
	late.Site = "elsewhere" // nobody takes it
	if err := e.Add(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"waits", "runs"} {
		if err := e.runner.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if j := until(t, c, id, ended); j.Status != resource.Cancelled || j.Error == nil {
			t.Errorf("%+v", j)
		}
		if err := e.runner.Cancel(t.Context(), id); !problem.Is(err, problem.ResourceExists) {
			t.Errorf("%s again: %v", id, err)
		}
	}
	if err := e.runner.Cancel(t.Context(), "none"); !problem.Is(err, problem.JobNotFound) {
		t.Errorf("no job: %v", err)
	}
}

func TestJobsSurviveAKill(t *testing.T) { catalogtest.Each(t, jobsSurviveAKill) }

func jobsSurviveAKill(t *testing.T, place string) {
	// A queue of a process that takes jobs in and dies at once.
	c, err := catalog.Open(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRunner(t.Context(), c, 1)
	if err != nil {
		t.Fatal(err)
	}
	first, err := NewEngine(t.Context(), c, r, EngineOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"x", "y"} {
		if err := first.Add(t.Context(), queued(id, id)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command(os.Args[0], "work", place)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 200)
	n, _ := out.Read(line)
	time.Sleep(300 * time.Millisecond)
	cmd.Process.Kill()
	cmd.Wait()
	if !strings.HasPrefix(string(line[:n]), "begun") {
		t.Fatalf("the other process said %q", line[:n])
	}

	_, c = engine(t, place, EngineOptions{Slots: 2}, func(ctx context.Context, j resource.Job, run *Run) (Outcome, error) { return Outcome{}, nil })
	attempts := 0
	for _, id := range []string{"x", "y"} {
		j := until(t, c, id, ended)
		attempts += j.Attempt
		if j.Status != resource.Completed || j.Error != nil {
			t.Errorf("%+v", j)
		}
	}
	if attempts < 3 {
		t.Errorf("%d attempts in all: the killed one does not count", attempts)
	}
	stale, err := c.Fact(t.Context(), catalog.PointsStale)
	if err != nil || stale == "" {
		t.Errorf("nobody is told that a point may be missing: %v", err)
	}
}

func TestStoppingPutsJobsBack(t *testing.T) {
	place := filepath.Join(t.TempDir(), "catalog.db")
	begun := make(chan struct{}, 1)
	e, c := engine(t, place, EngineOptions{Slots: 1}, func(ctx context.Context, j resource.Job, run *Run) (Outcome, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return Outcome{}, ctx.Err()
	})
	if err := e.Add(t.Context(), queued("long", "i")); err != nil {
		t.Fatal(err)
	}
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := e.Stop(ctx); err != nil {
		t.Error(err)
	}
	jobs, err := c.Jobs(t.Context(), catalog.JobFilter{ID: "long"})
	if err != nil {
		t.Fatal(err)
	}
	if j := jobs[0]; j.Status != resource.Queued || j.Host != "" {
		t.Errorf("%+v", j)
	}
	e.cancel = nil // stopped
}
