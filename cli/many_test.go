package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

// program runs this test binary as diskvault: testscript.Main does so where
// it is called by that name.
type program struct {
	path string
	env  []string
	dir  string
}

func newProgram(t *testing.T) program {
	t.Helper()
	dir := t.TempDir()
	if !provable(dir) {
		t.Skip("skip: needs a local file system below TMPDIR")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "diskvault")
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return program{path, append(os.Environ(), "DISKVAULT_HOME="+filepath.Join(dir, "home")), dir}
}

func (p program) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.path, args...)
	cmd.Env, cmd.Dir = p.env, p.dir
	return cmd
}

// run runs a command that must succeed and reads its JSON.
func run[T any](t *testing.T, p program, args ...string) T {
	t.Helper()
	var out T
	cmd := p.command(append(args, "-o", "json")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	data, err := cmd.Output()
	if err != nil {
		t.Errorf("%v: %v\n%s", args, err, stderr.Bytes())
		return out
	}
	if err := json.Unmarshal(data, &out); err != nil {
		t.Errorf("%v: %v in %s", args, err, data)
	}
	return out
}

func (p program) image(t *testing.T, name string, seed int) { p.imageOf(t, name, seed, 1<<20) }

func (p program) imageOf(t *testing.T, name string, seed, size int) {
	t.Helper()
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	if err := os.WriteFile(filepath.Join(p.dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// restored wants the newest point of a disk to be what its image is.
func (p program) restored(t *testing.T, instance, image string) {
	t.Helper()
	to := filepath.Join(p.dir, "restored-"+instance)
	run[service.RestoreResult](t, p, "restore", instance, "--to", to)
	got, err := os.ReadFile(to)
	if err != nil {
		t.Error(err)
		return
	}
	want, err := os.ReadFile(filepath.Join(p.dir, image))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what was backed up (%v)", instance, err)
	}
	os.Remove(to)
}

// noJobLeft wants every job to have ended.
func noJobLeft(t *testing.T, p program) []resource.Job {
	t.Helper()
	jobs := run[[]resource.Job](t, p, "jobs")
	for _, j := range jobs {
		if !j.Status.Final() {
			t.Errorf("job %s of %s is still %s", j.ID, j.Instance, j.Status)
		}
	}
	return jobs
}

// Twenty backups that cron starts at the same second, as the first thing ever
// done in the data folder.
func TestTwentyProcessesTwentyDisks(t *testing.T) {
	p := newProgram(t)
	var wg sync.WaitGroup
	for i := range 20 {
		p.image(t, fmt.Sprintf("d%02d.img", i), i)
	}
	for i := range 20 {
		wg.Go(func() {
			r := run[service.BackupResult](t, p, "backup", fmt.Sprintf("d%02d.img", i))
			if r.Instance != fmt.Sprintf("d%02d", i) || r.Status != resource.Completed {
				t.Errorf("disk %d: %+v", i, r)
			}
		})
	}
	wg.Wait()
	status := run[service.StatusResult](t, p, "status")
	if len(status.Instances) != 20 || len(status.Stores) != 1 || len(status.Running) != 0 {
		t.Errorf("%d disks, %d stores, %d run", len(status.Instances), len(status.Stores), len(status.Running))
	}
	if jobs := noJobLeft(t, p); len(jobs) != 20 {
		t.Errorf("%d jobs", len(jobs))
	}
	for _, i := range []int{0, 19} {
		p.restored(t, fmt.Sprintf("d%02d", i), fmt.Sprintf("d%02d.img", i))
	}
}

func TestTwentyProcessesOneDisk(t *testing.T) {
	for _, jobs := range []string{"1", "4"} {
		t.Run(jobs+" at a time", func(t *testing.T) {
			p := newProgram(t)
			p.env = append(p.env, "DISKVAULT_JOBS="+jobs)
			p.image(t, "disk.img", 1)
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() { run[service.BackupResult](t, p, "backup", "disk.img") })
			}
			wg.Wait()
			if points := run[[]resource.RecoveryPoint](t, p, "points", "disk"); len(points) != 20 {
				t.Errorf("%d points", len(points))
			}
			if s := run[service.StatusResult](t, p, "status"); len(s.Instances) != 1 {
				t.Errorf("%d disks: %+v", len(s.Instances), s.Instances)
			}
			noJobLeft(t, p)
			p.restored(t, "disk", "disk.img")
		})
	}
}

// Processes that are killed, as owners or while they wait, cost nobody else
// anything, and leave no job that seems to run.
func TestKillsBesideOthers(t *testing.T) {
	p := newProgram(t)
	seed := time.Now().UnixNano()
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	for i := range 10 {
		p.image(t, fmt.Sprintf("d%d.img", i), i)
	}
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() { run[service.BackupResult](t, p, "backup", fmt.Sprintf("d%d.img", i)) })
		delay := time.Duration(r.IntN(400)) * time.Millisecond
		wg.Go(func() {
			victim := p.command("backup", fmt.Sprintf("d%d.img", (i+5)%10), "-q")
			if err := victim.Start(); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(delay)
			victim.Process.Kill()
			victim.Wait()
		})
	}
	wg.Wait()
	noJobLeft(t, p)
	status := run[service.StatusResult](t, p, "status")
	if len(status.Instances) != 10 {
		t.Errorf("%d disks", len(status.Instances))
	}
	run[service.VerifyResult](t, p, "verify", "--read-data")
	for i := range 10 {
		p.restored(t, fmt.Sprintf("d%d", i), fmt.Sprintf("d%d.img", i))
	}
}

// Ctrl-C ends a backup cleanly, and what it stored is kept.
func TestInterrupt(t *testing.T) {
	p := newProgram(t)
	p.imageOf(t, "disk.img", 1, 64<<20)
	cmd := p.command("backup", "disk.img", "--limit-rate", "3M", "-o", "json") // twenty seconds
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	await(t, "the first to read", func() bool {
		s := run[service.StatusResult](t, p, "status")
		return len(s.Running) == 1 && s.Running[0].Detail != nil && s.Running[0].Detail.Phase == "transfer"
	})
	// Another process asks for a backup meanwhile, and is interrupted while
	// it waits.
	second := p.command("backup", "disk.img")
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	defer second.Process.Kill()
	await(t, "the second to wait", func() bool {
		return len(run[[]resource.Job](t, p, "jobs", "--status", "Queued")) == 1
	})
	second.Process.Signal(os.Interrupt)
	if second.Wait(); second.ProcessState.ExitCode() != exitInterrupted {
		t.Errorf("the one that waited: exit status %d", second.ProcessState.ExitCode())
	}
	cmd.Process.Signal(os.Interrupt)
	if cmd.Wait(); cmd.ProcessState.ExitCode() != exitInterrupted {
		t.Errorf("exit status %d", cmd.ProcessState.ExitCode())
	}
	if !bytes.Contains(stderr.Bytes(), []byte(`"code":"OperationInterrupted","message":"The backup of disk was interrupted`)) {
		t.Errorf("it said %s", stderr.Bytes())
	}
	jobs := noJobLeft(t, p)
	if len(jobs) != 2 {
		t.Errorf("%d jobs", len(jobs))
	}
	for _, j := range jobs {
		if j.Status != resource.Cancelled {
			t.Errorf("%+v", j)
		}
	}
	run[service.BackupResult](t, p, "backup", "disk.img")
	p.restored(t, "disk", "disk.img")
}

// await asks again and again, each time with a process of its own.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 1000 {
		if done() {
			return
		}
		if t.Failed() {
			break
		}
	}
	t.Fatalf("waited in vain for %s", what)
}
