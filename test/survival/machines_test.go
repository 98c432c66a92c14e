package survival

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/service"
	"github.com/diskvault/diskvault/store/bucket/s3bucket/s3test"
)

// lost is what another machine has when the first one is lost: a store, its
// recovery key, and what the disk was at each point.
type lost struct {
	url  string
	key  string
	was  map[string]string
	env  []string // credentials of the storage
	disk *image
}

// rescue brings everything back on a machine that never saw the disk.
func (l lost) rescue(t *testing.T) {
	t.Helper()
	m := newMachine(t)
	m.env = append(m.env, l.env...)
	m.refuses(refused, problem.KeyMissing, "store", "rebuild-catalog", l.url)
	wrong := newMachine(t)
	noisy(t, wrong.path("d.img"), 64*kib)
	m.refuses(refused, problem.KeyWrong, "store", "rebuild-catalog", l.url, "--key-file", wrong.keyFile(wrong.must("backup", "d.img")))

	done := read[service.RebuildCatalogResult](m, "store", "rebuild-catalog", l.url, "--key-file", l.key)
	if done.Instances != 1 || done.Points != len(l.was) {
		t.Fatalf("rebuilt with %+v", done)
	}
	listed := m.points("disk")
	if len(listed) != len(l.was) {
		t.Fatalf("%d points, there were %d", len(listed), len(l.was))
	}
	for _, p := range listed {
		m.restores("disk", p.ID, l.was[p.ID])
	}
	m.must("verify", "--read-data")
	// The disk, moved to this machine under the same name, goes on.
	data, err := os.ReadFile(l.disk.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.path("moved.img"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	m.must("store", "rebuild-index", l.url)
	if r := m.backup("moved.img", "--store", l.url, "--name", "moved"); r.Bytes.New != 0 {
		t.Errorf("the same disk on another machine stored %d bytes anew", r.Bytes.New)
	}
}

// loseAfter makes points of a disk on a machine.
func loseAfter(t *testing.T, m *machine, url string) lost {
	t.Helper()
	r := chance(t)
	l := lost{url: url, env: m.env, was: map[string]string{}, disk: newImage(t, m.path("disk.img"), 8*mib, r)}
	l.key = m.keyFile(m.must("store", "create", url, "--default"))
	for range 3 {
		l.disk.change(4)
		l.was[m.backup("disk.img").RecoveryPoint.ID] = l.disk.sum()
	}
	return l
}

func TestOtherMachine(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	l := loseAfter(t, m, m.path("store"))
	// Only a copy of the store comes along, with other times and owners.
	l.url = filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(l.url, os.DirFS(m.path("store"))); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(m.home); err != nil {
		t.Fatal(err)
	}
	l.rescue(t)
}

func TestOtherMachineOverS3(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	m := newMachine(t)
	m.env = append(m.env, server.Environ()...)
	l := loseAfter(t, m, server.NewBucket(t).URL())
	if err := os.RemoveAll(m.home); err != nil {
		t.Fatal(err)
	}
	l.rescue(t)

	without := newMachine(t)
	without.env = append(without.env, "AWS_ACCESS_KEY_ID=diskvault", "AWS_SECRET_ACCESS_KEY=wrong")
	without.refuses(refused, problem.StorePermissionDenied, "points", "disk", "--store", l.url, "--key-file", l.key)
}
