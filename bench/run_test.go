package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTimedSeesTheChild(t *testing.T) {
	m, out, err := timed(t.Context(), command{args: []string{"sh", "-c", "echo out; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"}})
	if err != nil {
		t.Fatal(err)
	}
	if string(out) != "out\n" {
		t.Errorf("standard output is %q", out)
	}
	if m.Seconds <= 0 || m.PeakBytes <= 0 || m.UserSeconds+m.SystemSeconds <= 0 {
		t.Errorf("a measure is missing: %+v", m)
	}
}

func TestFailureSaysWhatTheProgramSaid(t *testing.T) {
	_, _, err := timed(t.Context(), command{args: []string{"sh", "-c", "echo no such disk >&2; exit 7"}})
	if err == nil || !strings.Contains(err.Error(), "no such disk") || !strings.Contains(err.Error(), "status 7") {
		t.Fatalf("got %v", err)
	}
}

func TestCancelEndsGrandchildrenToo(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	reason := errors.New("the person had enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for {
			if text, err := os.ReadFile(pid); err == nil && len(text) > 0 {
				cancel(reason)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, _, err := timed(ctx, command{args: []string{"sh", "-c", "sleep 600 & echo $! > " + pid + "; wait"}})
	if !errors.Is(err, reason) {
		t.Fatalf("got %v, want the reason of the cancellation", err)
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	// The killed grandchild is gone, or a zombie until its new parent looks.
	for range 1000 {
		status, err := os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/stat")
		if err != nil || strings.Contains(string(status), ") Z ") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the grandchild still runs")
}

func TestCleanEnvironmentHidesTheRest(t *testing.T) {
	t.Setenv("RESTIC_REPOSITORY", "the person's own")
	home := t.TempDir()
	env, err := cleanEnvironment(home, "A=b")
	if err != nil {
		t.Fatal(err)
	}
	joined := strings.Join(env, "\n")
	if strings.Contains(joined, "RESTIC") || !strings.Contains(joined, "HOME="+home+"\n") || !strings.HasSuffix(joined, "\nA=b") {
		t.Fatalf("got %q", env)
	}
}
