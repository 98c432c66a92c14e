package survival

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// withClock builds the binary with a clock that goes wrong by what the
// variable WRONG_CLOCK says: an overlay changes how package time reads it.
func withClock(t *testing.T) (binary string) {
	t.Helper()
	if !long() {
		t.Skip("left out: it compiles the program and all that it imports anew; DISKVAULT_LONG=1 runs it")
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	original := filepath.Join(strings.TrimSpace(string(root)), "src/time/time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	const read = "\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(source), read) != 1 {
		t.Fatal("package time reads the clock in another way than this test knows")
	}
	changed := strings.Replace(string(source), read, read+"\tsec += wrongBy()\n", 1)
	changed = strings.Replace(changed, "import (\n", "import (\n\t\"syscall\"\n", 1) + `
func wrongBy() int64 {
	text, _ := syscall.Getenv("WRONG_CLOCK")
	d, _ := ParseDuration(text)
	return int64(d / Second)
}
`
	replacement, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json")
	text, err := json.Marshal(map[string]map[string]string{"Replace": {original: replacement}})
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{replacement: []byte(changed), overlay: text} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	binary = filepath.Join(dir, "diskvault")
	build := exec.Command("go", "build", "-overlay", overlay, "-o", binary, "../../cmd/diskvault")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// Whatever the clock says, the newest point is the one that was made last: it
// is the parent of the next, and "latest" means it.
func TestClockSetBack(t *testing.T) {
	m := newMachine(t)
	m.binary = withClock(t)
	disk := newImage(t, m.path("disk.img"), 8*mib, chance(t))
	env := m.env
	var made []string // IDs, oldest first
	for _, wrong := range []time.Duration{0, 72 * time.Hour, -48 * time.Hour, -49 * time.Hour, 0} {
		m.env = append(env[:len(env):len(env)], "WRONG_CLOCK="+wrong.String())
		disk.change(1)
		r := m.backup("disk.img")
		if since := time.Until(r.RecoveryPoint.Time) - wrong; since.Abs() > time.Hour {
			t.Fatalf("the clock is not wrong by %v: %v", wrong, r.RecoveryPoint.Time)
		}
		if len(made) > 0 && r.Bytes.Unchanged == 0 {
			t.Errorf("clock wrong by %v: nothing is unchanged since the parent: %+v", wrong, r.Bytes)
		}
		made = append(made, r.RecoveryPoint.ID)
		m.inOrder(made)
		m.restores("disk", "latest", disk.sum())
	}
	m.must("verify", "--read-data")
	m.settled()
	for _, path := range []string{"catalog.db", "catalog.db-wal", "catalog.db-shm"} {
		os.Remove(filepath.Join(m.home, path))
	}
	m.must("store", "rebuild-catalog")
	m.inOrder(made)
	m.restores("disk", "latest", disk.sum())
}

// inOrder wants the points in the order in which they were made.
func (m *machine) inOrder(made []string) {
	m.t.Helper()
	listed := m.points("disk")
	if len(listed) != len(made) {
		m.t.Fatalf("%d points, not %d", len(listed), len(made))
	}
	for n, p := range listed {
		if want := made[len(made)-1-n]; p.ID != want {
			m.t.Errorf("point %d of %d is %s of %v, not %s", n, len(made), p.ID, p.Time, want)
		}
	}
}
