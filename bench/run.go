package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A command is one program to run and time.
type command struct {
	args []string
	env  []string // the whole environment; see cleanEnvironment
	dir  string   // working folder; empty means this one's
}

// A measurement is what one run of one command cost. Seconds are wall time,
// from before the process is started until it has been waited for.
type measurement struct {
	Command       string  `json:"command"`
	Seconds       float64 `json:"seconds"`
	UserSeconds   float64 `json:"userSeconds"`
	SystemSeconds float64 `json:"systemSeconds"`
	// PeakBytes is ru_maxrss. The kernel hands a child the high-water mark of
	// the memory it shared with its parent before exec, so nothing below this
	// program's own peak can be seen; this program keeps its own small.
	PeakBytes int64 `json:"peakBytes"`
	// DurableSeconds is Seconds plus the time that an fsync of what was
	// written took afterwards. Only restores have it.
	DurableSeconds float64 `json:"durableSeconds,omitempty"`
	// StoredBytes is by how much the store grew. Only backups have it.
	StoredBytes int64 `json:"storedBytes,omitempty"`
	// ReadBytes is what diskvault says that it read of the source.
	ReadBytes int64 `json:"readBytes,omitempty"`
}

// timed runs a command to its end and returns what it cost and what it wrote
// to standard output. Writing back what earlier commands left dirty is waited
// for first, so that no tool pays for another one's writes.
func timed(ctx context.Context, c command) (measurement, []byte, error) {
	syscall.Sync()
	cmd := prepare(ctx, c)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	stderr := &tail{limit: 8 << 10}
	cmd.Stderr = stderr
	start := time.Now()
	err := cmd.Run()
	m := measurement{Command: strings.Join(c.args, " "), Seconds: time.Since(start).Seconds()}
	if state := cmd.ProcessState; state != nil {
		m.UserSeconds = state.UserTime().Seconds()
		m.SystemSeconds = state.SystemTime().Seconds()
		if usage, ok := state.SysUsage().(*syscall.Rusage); ok {
			m.PeakBytes = usage.Maxrss << 10
		}
	}
	return m, stdout.Bytes(), explain(ctx, c, err, stderr)
}

// discarding is timed for commands whose standard output is the work itself:
// it goes to /dev/null without passing through this program.
func discarding(ctx context.Context, c command) (measurement, error) {
	sink, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return measurement{}, err
	}
	defer sink.Close()
	syscall.Sync()
	cmd := prepare(ctx, c)
	cmd.Stdout = sink
	stderr := &tail{limit: 8 << 10}
	cmd.Stderr = stderr
	start := time.Now()
	err = cmd.Run()
	m := measurement{Command: strings.Join(c.args, " ") + " > /dev/null", Seconds: time.Since(start).Seconds()}
	if state := cmd.ProcessState; state != nil {
		m.UserSeconds = state.UserTime().Seconds()
		m.SystemSeconds = state.SystemTime().Seconds()
	}
	return m, explain(ctx, c, err, stderr)
}

// output runs a command outside any timing and returns its standard output.
func output(ctx context.Context, c command) ([]byte, error) {
	cmd := prepare(ctx, c)
	stderr := &tail{limit: 8 << 10}
	cmd.Stderr = stderr
	out, err := cmd.Output()
	return out, explain(ctx, c, err, stderr)
}

// prepare gives the command its own process group and kills all of it when the
// context ends, so that an interrupted run leaves no process behind.
func prepare(ctx context.Context, c command) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Env = c.env
	cmd.Dir = c.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func explain(ctx context.Context, c command, err error, stderr *tail) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	said := strings.TrimSpace(string(stderr.kept))
	if said == "" {
		said = "nothing on standard error"
	}
	return fmt.Errorf("%s: %w: %s", strings.Join(c.args, " "), err, said)
}

// tail keeps the last bytes written to it.
type tail struct {
	kept  []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - t.limit; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

// cleanEnvironment is all that a tool gets to see of the person's settings: the
// search path. Home and temporary folders lie inside the tool's own folder.
func cleanEnvironment(home string, more ...string) ([]string, error) {
	temporary := filepath.Join(home, "tmp")
	if err := os.MkdirAll(temporary, 0o700); err != nil {
		return nil, err
	}
	return append([]string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + home,
		"TMPDIR=" + temporary,
		"LANG=C.UTF-8",
		"LC_ALL=C.UTF-8",
	}, more...), nil
}

// find looks a program up in PATH, then where `go install` puts programs.
func find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	for _, setting := range []struct{ name, below string }{{"GOBIN", "."}, {"GOPATH", "bin"}} {
		folder, goErr := exec.Command("go", "env", setting.name).Output()
		if goErr != nil || len(bytes.TrimSpace(folder)) == 0 {
			continue
		}
		candidate := filepath.Join(strings.TrimSpace(string(folder)), setting.below, program)
		if _, err := exec.LookPath(candidate); err == nil {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("%s is not installed; run bench/peers.sh first: %w", program, err)
}
