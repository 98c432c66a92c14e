package survival

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

// harm is one way in which an object goes bad.
type harm struct {
	name string
	do   func(t testing.TB, path string, r *rand.Rand)
}

var harms = []harm{
	{"a bit flipped", func(t testing.TB, path string, r *rand.Rand) {
		rewrite(t, path, func(b []byte) []byte {
			if len(b) > 0 {
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			}
			return b
		})
	}},
	{"cut short", func(t testing.TB, path string, r *rand.Rand) {
		rewrite(t, path, func(b []byte) []byte { return b[:r.IntN(len(b)+1)/2] })
	}},
	{"garbage", func(t testing.TB, path string, r *rand.Rand) {
		rewrite(t, path, func(b []byte) []byte {
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			return b
		})
	}},
	{"emptied", func(t testing.TB, path string, r *rand.Rand) {
		rewrite(t, path, func([]byte) []byte { return nil })
	}},
	{"gone", func(t testing.TB, path string, r *rand.Rand) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}},
}

func rewrite(t testing.TB, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err == nil {
		err = os.WriteFile(path, change(data), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ward is a machine with two points of a disk that goes bad again and again,
// and is put back each time.
type ward struct {
	*machine
	r      *rand.Rand
	disk   *image
	points [2]string         // older, newer
	was    map[string]string // checksums
	key    string            // a file with the recovery key
	well   string            // a copy of the data folder as it was
}

func newWard(t *testing.T) *ward {
	t.Helper()
	m, r := newMachine(t), chance(t)
	w := &ward{machine: m, r: r, was: map[string]string{}, well: m.path("well")}
	w.disk = newImage(t, m.path("disk.img"), 6*mib, r)
	noise := make([]byte, 3*mib)
	w.disk.noise(noise)
	w.disk.write(noise, 0)
	w.key = m.keyFile(m.must("backup", "disk.img", "-o", "json"))
	w.disk.change(3)
	m.must("backup", "disk.img")
	listed := m.points("disk")
	w.points = [2]string{listed[1].ID, listed[0].ID}
	w.was[w.points[1]] = w.disk.sum()
	to := m.path("older.img")
	m.must("restore", "disk", "--point", w.points[0], "--to", to)
	w.was[w.points[0]] = sum(t, to)
	if err := os.CopyFS(w.well, os.DirFS(m.home)); err != nil {
		t.Fatal(err)
	}
	return w
}

// recover puts the data folder back.
func (w *ward) recover() {
	w.t.Helper()
	if err := os.RemoveAll(w.home); err != nil {
		w.t.Fatal(err)
	}
	if err := os.CopyFS(w.home, os.DirFS(w.well)); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chmod(w.home, 0o700); err != nil {
		w.t.Fatal(err)
	}
}

// largest gives the largest file that a pattern below the data folder names.
func (w *ward) largest(pattern string) string {
	w.t.Helper()
	all, err := filepath.Glob(filepath.Join(w.home, pattern))
	if err != nil || len(all) == 0 {
		w.t.Fatalf("nothing is named %s (%v)", pattern, err)
	}
	return slices.MaxFunc(all, func(a, b string) int { return int(sizeOf(w.t, a) - sizeOf(w.t, b)) })
}

func sizeOf(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// tells wants a command either to be done or to fail with a clear text.
func (w *ward) tells(args ...string) *resource.Failure {
	w.t.Helper()
	o := w.run(append(args, "-o", "json")...)
	if o.status == done || o.status == warnings {
		return nil
	}
	f := o.failure(w.t)
	plain(w.t, f)
	if o.status != statusOf(f.Code) {
		w.t.Errorf("%s ends with exit status %d", f.Code, o.status)
	}
	if w.t.Failed() {
		w.t.Fatalf("%v", o)
	}
	return f
}

// statusOf is the exit status that goes with a code.
func statusOf(c problem.Code) int {
	switch problem.Lookup(c).Kind {
	case problem.Usage:
		return usage
	case problem.Refused:
		return refused
	case problem.NotFound:
		return notFound
	case problem.Interrupted:
		return interrupted
	}
	return failed
}

// mayRestore restores a point: it is either right, or refused; never wrong.
func (w *ward) mayRestore(point string, flags ...string) *resource.Failure {
	w.t.Helper()
	to := w.path("maybe.img")
	defer os.Remove(to)
	f := w.tells(append([]string{"restore", "disk", "--point", point, "--to", to}, flags...)...)
	if f == nil {
		if got := sum(w.t, to); got != w.was[point] {
			w.t.Fatalf("the point %s is restored wrongly, without a word", point)
		}
	} else if _, err := os.Lstat(to); err == nil {
		w.t.Fatalf("a restore that failed (%s) left a file under the name of a whole one", f.Message)
	}
	os.Remove(to + ".diskvault-partial")
	os.Remove(to + ".diskvault-partial.token")
	return f
}

// nextBackup wants the next backup to work and its point to be whole.
func (w *ward) nextBackup(flags ...string) {
	w.t.Helper()
	r := w.backup(append([]string{"disk.img"}, flags...)...)
	w.restores("disk", r.RecoveryPoint.ID, w.disk.sum())
}

// Whatever happens to packs, points and records, what is said is true, the
// next backup after a verification makes a whole point, and nothing that was
// not hit is touched.
func TestDamagedData(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	objects := []string{"store/packs/data/*/*", "store/packs/meta/*/*", "store/points/*", "store/records/*/*"}
	for _, object := range objects {
		for _, h := range harms {
			if !long() && w.r.IntN(2) > 0 {
				continue
			}
			w.recover()
			path := w.largest(object)
			h.do(w.t, path, w.r)
			key, _ := filepath.Rel(filepath.Join(w.home, "store"), path)
			what := key + " " + h.name
			w.tells("status")
			w.tells("points", "disk")
			lost := 0
			for _, id := range w.points {
				if w.mayRestore(id) != nil {
					lost++
				}
			}
			f := w.tells("verify", "--read-data")
			gone := h.name == "gone" && object == "store/records/*/*" // the catalog has it, and a point says as much
			if (f == nil) != gone || f != nil && (f.Code != problem.DataNotVerified || !bytes.Contains([]byte(f.Message), []byte(key))) {
				t.Fatalf("%s: verification says %+v", what, f)
			}
			if gone && lost > 0 {
				t.Fatalf("%s: %d points are lost", what, lost)
			}
			w.nextBackup("--full-scan")
			w.nextBackup()
		}
	}
}

// The header is made anew from a key and the realm, whichever key is at hand.
func TestDamagedHeader(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	for n, h := range harms {
		w.recover()
		h.do(t, filepath.Join(w.home, "store/store"), w.r)
		// No new store may be made over the keys of this one.
		if f := w.tells("store", "create", filepath.Join(w.home, "store")); f == nil {
			t.Fatalf("header %s: a store was made over another", h.name)
		}
		if n%2 == 0 {
			w.tells("points", "disk")
		} else if err := os.RemoveAll(filepath.Join(w.home, "keys")); err != nil {
			t.Fatal(err)
		}
		flags := []string{}
		if n%2 == 1 {
			flags = []string{"--key-file", w.key}
		}
		f := w.tells(append([]string{"verify", "--read-data"}, flags...)...)
		if f != nil && f.Code == problem.StoreVersionUnsupported {
			continue // the flipped bit was in the number of the version
		}
		if f != nil {
			t.Fatalf("header %s: %s", h.name, f.Message)
		}
		for _, id := range w.points {
			w.restores("disk", id, w.was[id])
		}
		w.nextBackup()
	}
}

// A key object that is damaged leaves the others, and the machine gets a new
// key of its own.
func TestDamagedKey(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	for n, h := range harms {
		w.recover()
		h.do(t, w.largest("store/keys/local-*"), w.r)
		f := w.tells("backup", "disk.img")
		if f == nil || f.Code != problem.StoreDamaged && f.Code != problem.KeyWrong {
			t.Fatalf("local key %s: the backup says %+v", h.name, f)
		}
		w.restores("disk", w.points[0], w.was[w.points[0]], "--key-file", w.key)
		w.must("backup", "disk.img", "--key-file", w.key)
		w.nextBackup() // with a new local key

		w.recover()
		h.do(t, w.largest("store/keys/recovery-*"), w.r)
		w.nextBackup()
		w.must("store", "key", "export", "--to", w.path(fmt.Sprint("new-", n, ".key"))) // the remedy
	}
}

// Of the realm and the data keys there are two copies. With one of them damaged
// all goes on, and the next command mends it; with both damaged a person is sent to
// a copy of the storage, and with that everything works.
func TestDamagedRealm(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	for _, object := range []string{"realm", "epochs/00000001"} {
		for _, h := range harms {
			w.recover()
			first, second := w.largest("store/"+object), w.largest("store/copies/"+object)
			whole, err := os.ReadFile(first)
			if err != nil {
				t.Fatal(err)
			}
			h.do(t, second, w.r)
			w.nextBackup()
			w.recover()
			h.do(t, first, w.r)
			w.nextBackup()
			h.do(t, second, w.r) // the first is whole again
			w.nextBackup()
			w.recover()
			h.do(t, first, w.r)
			h.do(t, second, w.r)
			for _, args := range [][]string{{"backup", "disk.img"}, {"verify"}, {"restore", "disk", "--to", w.path("x.img")}, {"store", "rebuild-catalog"}} {
				f := w.tells(args...)
				if f == nil {
					t.Fatalf("%s %s: %v was done", object, h.name, args)
				}
			}
			w.tells("status")
			w.tells("points", "disk")
			os.Remove(first)
			if err := os.WriteFile(first, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			w.nextBackup()
			w.restores("disk", w.points[0], w.was[w.points[0]])
		}
	}
}

// What can be rebuilt is rebuilt, by itself or by the command that the text
// names.
func TestDamagedHome(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	for _, h := range harms {
		w.recover()
		path := filepath.Join(w.home, "catalog.db")
		h.do(t, path, w.r)
		what := "catalog " + h.name
		for _, args := range [][]string{{"status"}, {"points", "disk"}, {"backup", "disk.img"}} {
			f := w.tells(args...)
			// A flipped bit may lie in a page that nobody reads.
			if f != nil && f.Code != problem.CatalogDamaged || f == nil && h.name != "a bit flipped" {
				t.Fatalf("%s: %v says %+v", what, args, f)
			}
		}
		done := read[service.RebuildCatalogResult](w.machine, "store", "rebuild-catalog")
		if done.Points < 2 || done.Instances != 1 {
			t.Fatalf("%s: rebuilt with %+v", what, done)
		}
		for _, id := range w.points {
			w.restores("disk", id, w.was[id])
		}
		w.nextBackup()
	}
	for _, pattern := range []string{"index/tables/*.sst", "index/tables/MANIFEST*", "index/tables/marker.manifest*", "index/filter", "index/tables/*.log"} {
		for _, h := range harms {
			if !long() && w.r.IntN(4) > 0 {
				continue
			}
			w.recover()
			h.do(t, w.largest("cache/*/"+pattern), w.r)
			w.nextBackup()
			w.must("store", "rebuild-index")
			w.must("verify", "--read-data")
			if r := w.backup("disk.img", "--full-scan"); r.Bytes.New != 0 {
				t.Errorf("%s %s: a backup of an unchanged disk stored %d bytes after rebuild-index", pattern, h.name, r.Bytes.New)
			}
		}
	}
	for _, left := range []string{"lock", "diskvault.sock", "diskvault.sock.path", "catalog.db-wal", "catalog.db-shm", "store.new/probe", "keys/x.key.new", "config.yaml"} {
		w.recover()
		path := filepath.Join(w.home, left)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if left == "config.yaml" {
			if err := os.WriteFile(path, []byte("\x00: [garbage"), 0o600); err != nil {
				t.Fatal(err)
			}
			w.refuses(usage, problem.InvalidArgument, "status")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte("left behind by a dead process\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.must("status")
		w.restores("disk", w.points[0], w.was[w.points[0]])
		w.nextBackup()
	}
}

// What a check finds, a heal brings back from a second store; what is nowhere is
// listed with the disk, and all else can be restored.
func TestStoreHeal(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	second := w.path("second")
	w.must("store", "create", second)
	w.must("store", "copy", second)
	if err := os.RemoveAll(w.well); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(w.well, os.DirFS(w.home)); err != nil {
		t.Fatal(err)
	}
	w.disk.change(40) // it does not hold the older points any more
	for n, object := range []string{"store/packs/data/*/*", "store/packs/meta/*/*", "store/points/*", "store/records/*/*", "store/copies/realm"} {
		for k, h := range harms {
			if !long() && k != n%len(harms) {
				continue
			}
			w.recover()
			h.do(t, w.largest(object), w.r)
			healed := read[service.HealResult](w.machine, "store", "heal", "--read-data", "--from", second)
			if len(healed.Lost) > 0 {
				t.Fatalf("%s %s: %+v", object, h.name, healed)
			}
			for _, id := range w.points {
				w.restores("disk", id, w.was[id])
			}
			w.must("store", "collect", "--grace", "0s")
			w.must("store", "check", "--read-data")
		}
	}
	w.recover()
	harms[2].do(t, w.largest("store/packs/data/*/*"), w.r)
	o := w.run("store", "heal", "--read-data", "--no-disks")
	if o.status != warnings || !strings.Contains(o.stderr, w.points[0]) || !strings.Contains(o.stderr, "disk, bytes 0 to ") {
		t.Errorf("%v", o)
	}
}
