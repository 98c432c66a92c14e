package home

import (
	"context"
	"encoding/json"
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
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
)

// fake is a service whose requests name what they do: "sleep 50ms", "fail",
// "wait" (until cancelled). Each request that ran to its end adds a
// line to the file log in the folder.
type fake struct {
	folder Folder
	queue  *job.Queue
	closed chan struct{}
}

func newFake(f Folder, slots int) *fake {
	return &fake{f, job.NewQueue(slots), make(chan struct{})}
}

func (s *fake) Call(ctx context.Context, r Request, emit func(Event)) (json.RawMessage, error) {
	if r.Operation == "look" {
		return json.RawMessage(`"seen"`), nil
	}
	end, err := s.queue.Enter(ctx, r.Asked, func(p int) { emit(Event{Queued: p}) })
	if err == job.ErrClosed {
		return nil, ErrHandedBack
	}
	if err != nil {
		return nil, err
	}
	defer end()
	emit(Event{Progress: &resource.Progress{Phase: r.Operation}})
	var id string
	json.Unmarshal(r.Arguments, &id)
	switch r.Operation {
	case "fail":
		return nil, problem.New(problem.SourceInUse, "The disk %s is busy.", id).With("disk", id)
	case "wait":
		<-ctx.Done()
		return nil, context.Cause(ctx)
	default:
		d, err := time.ParseDuration(r.Operation)
		if err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(d):
		}
	}
	log, err := os.OpenFile(filepath.Join(s.folder.path, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if _, err := fmt.Fprintln(log, id); err != nil {
		return nil, err
	}
	return r.Arguments, nil
}

func (s *fake) Leave()       { s.queue.Close() }
func (s *fake) Close() error { close(s.closed); return nil }

func call(ctx context.Context, f Folder, slots int, operation, id string, emit func(Event)) (string, error) {
	arguments, _ := json.Marshal(id)
	result, err := f.Call(ctx, Request{Operation: operation, Arguments: arguments},
		func(context.Context) (Service, error) { return newFake(f, slots), nil }, emit)
	var back string
	json.Unmarshal(result, &back)
	return back, err
}

// TestMain makes the test binary a process that asks for one request, so that
// owners can really die.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "ask" {
		f, err := Open(os.Args[2])
		if err == nil {
			var back string
			back, err = call(context.Background(), f, 1, os.Args[3], os.Args[4], func(e Event) {
				if e.Progress != nil {
					fmt.Println("begun")
				}
			})
			fmt.Println("done", back)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func folder(t *testing.T, parts ...string) Folder {
	t.Helper()
	f, err := Open(filepath.Join(append([]string{t.TempDir()}, parts...)...))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func ignore(Event) {}

// log gives how often each request ran to its end.
func log(t *testing.T, f Folder) map[string]int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(f.path, "log"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, id := range strings.Fields(string(data)) {
		out[id]++
	}
	return out
}

func TestManyCallersAtOnce(t *testing.T) {
	for _, slots := range []int{1, 4} {
		t.Run(fmt.Sprint(slots, " slots"), func(t *testing.T) {
			f := folder(t)
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					id := fmt.Sprint("r", i)
					if got, err := call(t.Context(), f, slots, "10ms", id, ignore); err != nil || got != id {
						t.Errorf("%s: %q, %v", id, got, err)
					}
				})
			}
			wg.Wait()
			ran := log(t, f)
			for i := range 20 {
				if n := ran[fmt.Sprint("r", i)]; n != 1 {
					t.Errorf("r%d ran %d times", i, n)
				}
			}
			if left, _ := filepath.Glob(filepath.Join(f.path, "*.sock*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// owner makes this process the owner with a request that lasts until end is
// called.
func owner(t *testing.T, f Folder, slots int) (end func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	begun := make(chan struct{})
	var once sync.Once
	done := make(chan error, 1)
	go func() {
		_, err := call(ctx, f, slots, "wait", "owner", func(e Event) {
			if e.Progress != nil {
				once.Do(func() { close(begun) })
			}
		})
		done <- err
	}()
	select {
	case <-begun:
	case err := <-done:
		t.Fatal(err)
	}
	return func() error { cancel(); return <-done }
}

func TestOwnerAnswersOthers(t *testing.T) {
	f := folder(t)
	end := owner(t, f, 2)
	var events []Event
	got, err := call(t.Context(), f, 1, "1ms", "second", func(e Event) { events = append(events, e) })
	if err != nil || got != "second" || len(events) != 1 || events[0].Progress.Phase != "1ms" {
		t.Errorf("got %q, %v, events %+v", got, err, events)
	}
	_, err = call(t.Context(), f, 1, "fail", "third", ignore)
	var p *problem.Error
	if !errors.As(err, &p) || p.Code != problem.SourceInUse || p.Kind != problem.Refused || p.Message != "The disk third is busy." || p.Details["disk"] != "third" || len(p.Actions) == 0 {
		t.Errorf("the problem came as %#v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = call(ctx, f, 1, "wait", "fourth", func(e Event) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled request gave %v", err)
	}
	// Its slot is free again, so the owner has noticed.
	if _, err := call(t.Context(), f, 1, "1ms", "fifth", ignore); err != nil {
		t.Error(err)
	}
	if err := end(); !errors.Is(err, context.Canceled) {
		t.Errorf("the owner's request gave %v", err)
	}
}

func TestReadsDoNotQueue(t *testing.T) {
	f := folder(t)
	end := owner(t, f, 1)
	if got, err := call(t.Context(), f, 1, "look", "", ignore); err != nil || got != "seen" {
		t.Errorf("%q, %v", got, err)
	}
	end()
}

func TestOwnerThatLeavesLosesNobody(t *testing.T) {
	f := folder(t)
	end := owner(t, f, 2)
	running, queued := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			var once sync.Once
			id := fmt.Sprint("r", i)
			got, err := call(t.Context(), f, 1, "200ms", id, func(e Event) {
				once.Do(func() {
					if e.Queued > 0 {
						close(queued)
					} else {
						close(running)
					}
				})
			})
			if err != nil || got != id {
				t.Errorf("%s: %q, %v", id, got, err)
			}
		})
	}
	<-running
	<-queued
	end() // cancelled: what runs for others is handed back as well
	wg.Wait()
	if ran := log(t, f); ran["r0"] != 1 || ran["r1"] != 1 {
		t.Errorf("ran: %v", ran)
	}
}

func TestKilledProcessesLoseNobodyElse(t *testing.T) {
	f := folder(t)
	var wg sync.WaitGroup
	var killed sync.Map
	for i := range 25 {
		id := fmt.Sprint("r", i)
		cmd := exec.Command(os.Args[0], "ask", f.path, "20ms", id)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if i%5 == 2 { // somewhere in the middle, as owner or as one who waits
			killed.Store(id, true)
			wg.Go(func() {
				for len(owned(f)) == 0 {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				cmd.Process.Kill()
				cmd.Wait()
			})
			continue
		}
		wg.Go(func() {
			if err := cmd.Wait(); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	wg.Wait()
	ran := log(t, f)
	for i := range 25 {
		id := fmt.Sprint("r", i)
		// A request whose owner died between doing it and saying so is done
		// again.
		if _, dead := killed.Load(id); !dead && ran[id] < 1 {
			t.Errorf("%s never ran", id)
		}
	}
}

// owned gives the text of the lock, which is there once a process owned it.
func owned(f Folder) string {
	data, _ := os.ReadFile(filepath.Join(f.path, "lock"))
	return string(data)
}

func TestLongPath(t *testing.T) {
	f := folder(t, strings.Repeat("a", 100), strings.Repeat("b", 100), "ü #?%")
	end := owner(t, f, 2)
	if got, err := call(t.Context(), f, 1, "1ms", "x", ignore); err != nil || got != "x" {
		t.Errorf("%q, %v", got, err)
	}
	end()
}

func TestStaleSocket(t *testing.T) {
	f := folder(t)
	l, err := listenAt(filepath.Join(f.path, socketName))
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // the socket's file stays, as after a kill
	if _, err := f.dial(t.Context()); err == nil {
		t.Fatal("nobody listens, yet somebody answers")
	}
	end := owner(t, f, 2)
	if _, err := call(t.Context(), f, 1, "look", "", ignore); err != nil {
		t.Error(err)
	}
	end()
}

func TestFolderOfOthers(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below"), "/proc/nothing/here"} {
		if _, err := Open(path); !problem.Is(err, problem.HomeNotUsable) {
			t.Errorf("%s: %v", path, err)
		}
	}
	f := folder(t)
	for _, c := range []struct {
		path string
		want os.FileMode
	}{{f.path, 0o700}, {f.keyFile("id"), 0o600}} {
		if err := f.SaveKey("id", "file:/x", "AGE"); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(c.path)
		if err != nil || c.path != f.path && info.Mode().Perm() != c.want {
			t.Errorf("%s: %v, %v", c.path, info.Mode(), err)
		}
	}
	if text, found, err := f.Key("id"); err != nil || !found || !strings.Contains(text, "AGE") {
		t.Errorf("%q %v %v", text, found, err)
	}
	if _, found, err := f.Key("other"); err != nil || found {
		t.Errorf("%v %v", found, err)
	}
}
