package survival

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

// The exit statuses that the command line promises.
const (
	done        = 0
	failed      = 1
	usage       = 2
	warnings    = 3
	refused     = 4
	notFound    = 5
	interrupted = 130
)

// machine is a host with diskvault: a data folder and an environment.
type machine struct {
	t    testing.TB
	dir  string // of disks and targets; the data folder is home in it
	home string
	env  []string
	as   *syscall.Credential // nil: as the test itself

	binary string
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{t: t, dir: dir, home: filepath.Join(dir, "home"), binary: binary}
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); !strings.HasPrefix(name, "DISKVAULT_") && !strings.HasPrefix(name, "AWS_") {
			m.env = append(m.env, e)
		}
	}
	m.env = append(m.env, "NO_COLOR=1")
	return m
}

// path of a file on the machine.
func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// command prepares a process of diskvault, which ends with the test's process.
func (m *machine) command(args ...string) *exec.Cmd {
	cmd := exec.Command(m.binary, append([]string{"--home", m.home}, args...)...)
	cmd.Dir, cmd.Env = m.dir, m.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: m.as}
	return cmd
}

// outcome is how a process ended and what it said.
type outcome struct {
	args   []string
	status int // -1: it was killed
	stdout string
	stderr string
	took   time.Duration
	memory int64 // bytes, the most that was resident
}

func (o outcome) String() string {
	return "diskvault " + strings.Join(o.args, " ") + "\nexit status " + strconv.Itoa(o.status) + "\n" + o.stdout + o.stderr
}

// ended makes the outcome of a process that was waited for.
func ended(t testing.TB, cmd *exec.Cmd, err error, stdout, stderr *bytes.Buffer, took time.Duration) outcome {
	t.Helper()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	o := outcome{args: cmd.Args[3:], status: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String(), took: took}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		o.memory = usage.Maxrss << 10
	}
	return o
}

// patience is how long a process may take before the test gives up on it and
// asks for its goroutines: nothing here takes more than seconds.
const patience = 4 * time.Minute

// run runs a command to its end.
func (m *machine) run(args ...string) outcome {
	m.t.Helper()
	return m.finish(m.start(args...))
}

// process is one that runs.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr *bytes.Buffer
	begun          time.Time
}

func (m *machine) start(args ...string) *process {
	m.t.Helper()
	p := &process{cmd: m.command(args...), stdout: new(bytes.Buffer), stderr: new(bytes.Buffer), begun: time.Now()}
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	if err := p.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	return p
}

// finish waits for the end of a process.
func (m *machine) finish(p *process) outcome {
	m.t.Helper()
	hung := time.AfterFunc(patience, func() { p.cmd.Process.Signal(syscall.SIGQUIT) })
	err := p.cmd.Wait()
	took := time.Since(p.begun)
	if !hung.Stop() {
		m.t.Fatalf("diskvault %v did not end:\n%s", p.cmd.Args[3:], p.stderr)
	}
	return ended(m.t, p.cmd, err, p.stdout, p.stderr, took)
}

// must runs a command that has to be done without a warning.
func (m *machine) must(args ...string) outcome {
	m.t.Helper()
	o := m.run(args...)
	if o.status != done {
		m.t.Fatalf("%v", o)
	}
	return o
}

// refuses runs a command that must fail with a status and a code, and checks
// that what it says is fit for a person: one sentence, and what to do next.
func (m *machine) refuses(status int, code problem.Code, args ...string) *resource.Failure {
	m.t.Helper()
	o := m.run(append(args, "-o", "json")...)
	if o.status != status {
		m.t.Fatalf("exit status is not %d but: %v", status, o)
	}
	f := o.failure(m.t)
	if f.Code != code {
		m.t.Fatalf("the code is not %s but %s: %v", code, f.Code, o)
	}
	plain(m.t, f)
	return f
}

// failure reads the error that a command with -o json ended with.
func (o outcome) failure(t testing.TB) *resource.Failure {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(o.stderr), "\n")
	var said struct{ Error *resource.Failure }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &said); err != nil || said.Error == nil {
		t.Fatalf("the last line on standard error is no error in JSON: %v", o)
	}
	return said.Error
}

// internals are words of the inside, which must not reach a person.
var internals = regexp.MustCompile(`goroutine|panic|nil pointer|context canceled|0x[0-9a-f]{6}|%!|unexpected EOF|errno|<nil>|json:|pebble|sqlite`)

// plain checks the text of a failure; nobody wants to read a dump at night.
func plain(t testing.TB, f *resource.Failure) {
	t.Helper()
	switch {
	case !problem.Known(f.Code):
		t.Errorf("%s is not in the table", f.Code)
	case f.Code == problem.InternalError:
		t.Errorf("nobody thought of this: %s", f.Message)
	case !strings.HasSuffix(f.Message, "."), strings.Contains(f.Message, "\n"), strings.ToUpper(f.Message[:1]) != f.Message[:1] && !strings.HasPrefix(f.Message, "/"):
		t.Errorf("not a sentence: %q", f.Message)
	case len(f.Message) > 500:
		t.Errorf("too long for one sentence: %q", f.Message)
	case internals.MatchString(f.Message):
		t.Errorf("talks of the inside: %q", f.Message)
	case len(f.RecommendedAction) == 0:
		t.Errorf("does not say what to do: %q", f.Message)
	}
	if os.Getenv("DISKVAULT_SHOW") == "1" {
		t.Logf("%s: %s\n\t%s", f.Code, f.Message, strings.Join(f.RecommendedAction, "\n\t"))
	}
}

// read runs a command that must be done, maybe with warnings, and reads its
// JSON.
func read[T any](m *machine, args ...string) (out T) {
	m.t.Helper()
	o := m.run(append(args, "-o", "json")...)
	if o.status != done && o.status != warnings {
		m.t.Fatalf("%v", o)
	}
	if err := json.Unmarshal([]byte(o.stdout), &out); err != nil {
		m.t.Fatalf("%v: %v", err, o)
	}
	return out
}

func (m *machine) backup(args ...string) service.BackupResult {
	m.t.Helper()
	return read[service.BackupResult](m, append([]string{"backup"}, args...)...)
}

func (m *machine) points(args ...string) []resource.RecoveryPoint {
	m.t.Helper()
	return read[[]resource.RecoveryPoint](m, append([]string{"points"}, args...)...)
}

// settled wants no job to seem to run when none does.
func (m *machine) settled() {
	m.t.Helper()
	if s := read[service.StatusResult](m, "status"); len(s.Running) != 0 {
		m.t.Fatalf("status says that %d jobs run: %+v", len(s.Running), s.Running)
	}
	for _, j := range read[[]resource.Job](m, "jobs", "--limit", "5") {
		if !j.Status.Final() {
			m.t.Fatalf("the job %s of %s (%s) is still %s", j.ID, j.Instance, j.Operation, j.Status)
		}
	}
}

// restores restores a point to a new file and compares it with a checksum.
func (m *machine) restores(instance, point, want string, flags ...string) {
	m.t.Helper()
	to := m.path("compare-" + point)
	m.must(append([]string{"restore", instance, "--point", point, "--to", to}, flags...)...)
	if got := sum(m.t, to); got != want {
		m.t.Fatalf("the point %s of %s restores to %s; the disk was %s", point, instance, got, want)
	}
	if err := os.Remove(to); err != nil {
		m.t.Fatal(err)
	}
}

// recoveryKey finds the key that a first backup prints.
var recoveryKey = regexp.MustCompile(`AGE-SECRET-KEY-1[A-Z0-9]+`)

// keyFile writes the recovery key that a command printed to a file.
func (m *machine) keyFile(o outcome) string {
	m.t.Helper()
	key := recoveryKey.FindString(o.stderr)
	if key == "" {
		m.t.Fatalf("no recovery key was shown: %v", o)
	}
	path := m.path("recovery.key")
	if err := os.WriteFile(path, []byte(key+"\n"), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}
