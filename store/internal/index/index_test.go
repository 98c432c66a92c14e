package index

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// testHash and testPack give the same value for the same number, and values
// without pattern for different ones.
func testHash(n uint64) (h block.Hash) {
	r := rand.NewPCG(n, 1)
	for i := 0; i < len(h); i += 8 {
		binary.LittleEndian.PutUint64(h[i:], r.Uint64())
	}
	return h
}

func testPack(n uint64) (id pack.ID) {
	h := testHash(n ^ 1<<63)
	copy(id[:], h[:])
	return id
}

// testEntries gives the entries of hashes first to first+n-1.
func testEntries(first, n uint64) []Entry {
	entries := make([]Entry, n)
	for i := range entries {
		entries[i] = testEntry(first + uint64(i))
	}
	return entries
}

func testEntry(n uint64) Entry {
	return Entry{Hash: testHash(n), Offset: uint32(n * 4097), Length: uint32(n%maxLength) + 1, Slot: uint8(n)}
}

func mustOpen(t testing.TB, dir string) *Index {
	t.Helper()
	x, err := Open(dir, Options{Store: "s", MemoryBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func mustAdd(t testing.TB, x *Index, id pack.ID, entries []Entry) {
	t.Helper()
	if err := x.Add(id, entries); err != nil {
		t.Fatal(err)
	}
}

func mustClose(t testing.TB, x *Index) {
	t.Helper()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
}

func expect(t testing.TB, x *Index, e Entry, id pack.ID) {
	t.Helper()
	got, ok, err := x.Lookup(e.Hash)
	if err != nil {
		t.Fatal(err)
	}
	want := pack.Place{Pack: id, Offset: e.Offset, Length: e.Length, Slot: e.Slot}
	if !ok || got != want {
		t.Fatalf("block %v: got %+v, %v; want %+v", e.Hash, got, ok, want)
	}
}

func expectUnknown(t testing.TB, x *Index, h block.Hash) {
	t.Helper()
	if place, ok, err := x.Lookup(h); err != nil || ok {
		t.Fatalf("block %v: got %+v, %v, %v; want unknown", h, place, ok, err)
	}
}

func expectProblem(t testing.TB, err error, code problem.Code) {
	t.Helper()
	if !problem.Is(err, code) {
		t.Fatalf("got error %v; want code %s", err, code)
	}
}

func TestAddLookupForget(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	a, b := testPack(1), testPack(2)
	mustAdd(t, x, a, testEntries(0, 1000))
	mustAdd(t, x, b, testEntries(1000, 1000))
	mustAdd(t, x, a, nil) // there already: left as it is
	mustClose(t, x)

	x = mustOpen(t, dir)
	for n := range uint64(2000) {
		expect(t, x, testEntry(n), []pack.ID{a, b}[n/1000])
	}
	expectUnknown(t, x, testHash(2000))
	if has, err := x.HasPack(a); !has || err != nil {
		t.Fatal(has, err)
	}
	if err := x.Forget(a); err != nil {
		t.Fatal(err)
	}
	if err := x.Forget(a); err != nil {
		t.Fatal("forgetting twice:", err)
	}
	mustClose(t, x)

	x = mustOpen(t, dir)
	defer mustClose(t, x)
	expectUnknown(t, x, testHash(0))
	expect(t, x, testEntry(1000), b)
	if has, err := x.HasPack(a); has || err != nil {
		t.Fatal(has, err)
	}
	var packs []pack.ID
	for id, err := range x.Packs() {
		if err != nil {
			t.Fatal(err)
		}
		packs = append(packs, id)
	}
	if len(packs) != 1 || packs[0] != b {
		t.Fatalf("packs %v; want only %v", packs, b)
	}
}

// A number given again would make the entries of a forgotten pack resolve to
// another pack, the one thing that may never happen.
func TestNumbersAreNeverGivenAgain(t *testing.T) {
	dir := t.TempDir()
	for n := range uint64(20) {
		x := mustOpen(t, dir)
		mustAdd(t, x, testPack(n), testEntries(n*10, 10))
		for k := range n * 10 {
			expectUnknown(t, x, testHash(k))
		}
		if err := x.Forget(testPack(n)); err != nil {
			t.Fatal(err)
		}
		mustClose(t, x)
	}
}

func TestEpoch(t *testing.T) {
	dir := t.TempDir()
	for _, want := range []uint64{0, 1, 1<<64 - 1} {
		x := mustOpen(t, dir)
		if want != 0 {
			if err := x.SetEpoch(want); err != nil {
				t.Fatal(err)
			}
			mustClose(t, x)
			x = mustOpen(t, dir)
		}
		if got, err := x.Epoch(); got != want || err != nil {
			t.Fatalf("epoch %d, %v; want %d", got, err, want)
		}
		mustClose(t, x)
	}
}

func TestForgottenPackMayReturn(t *testing.T) {
	x := mustOpen(t, t.TempDir())
	defer mustClose(t, x)
	id := testPack(1)
	mustAdd(t, x, id, testEntries(0, 10))
	if err := x.Forget(id); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, x, id, testEntries(5, 10))
	expectUnknown(t, x, testHash(0))
	expect(t, x, testEntry(5), id)
	expect(t, x, testEntry(14), id)
}

func TestEntryOutOfRangeAddsNothing(t *testing.T) {
	x := mustOpen(t, t.TempDir())
	defer mustClose(t, x)
	for _, length := range []uint32{0, maxLength + 1} {
		good, bad := testEntry(1), testEntry(2)
		bad.Length = length
		if err := x.Add(testPack(1), []Entry{good, bad}); err == nil {
			t.Fatalf("a frame of %d bytes was taken", length)
		}
		expectUnknown(t, x, good.Hash)
	}
	mustAdd(t, x, testPack(1), []Entry{{Hash: testHash(1), Offset: 1<<32 - 1, Length: maxLength, Slot: 255}})
	expect(t, x, Entry{Hash: testHash(1), Offset: 1<<32 - 1, Length: maxLength, Slot: 255}, testPack(1))
}

func TestIndexOfAnotherStoreIsEmptied(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	mustAdd(t, x, testPack(1), testEntries(0, 10))
	mustClose(t, x)
	x, err := Open(dir, Options{Store: "t"})
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, x)
	expectUnknown(t, x, testHash(0))
	if has, err := x.HasPack(testPack(1)); has || err != nil {
		t.Fatal(has, err)
	}
}

func TestOpenTwice(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	_, err := Open(dir, Options{Store: "s"})
	expectProblem(t, err, problem.IndexBusy)
	expectProblem(t, Remove(dir), problem.IndexBusy)

	child := exec.Command(os.Args[0], "-test.run=^TestOpenChild$")
	child.Env = append(os.Environ(), "DISKVAULT_INDEX_DIR="+dir)
	if out, err := child.CombinedOutput(); err == nil || !strings.Contains(string(out), string(problem.IndexBusy)) {
		t.Fatalf("a second process: %v\n%s", err, out)
	}
	mustClose(t, x)
	mustClose(t, mustOpen(t, dir))
}

// TestOpenChild is the second process of TestOpenTwice.
func TestOpenChild(t *testing.T) {
	dir := os.Getenv("DISKVAULT_INDEX_DIR")
	if dir == "" {
		t.Skip("only as a child of TestOpenTwice")
	}
	x, err := Open(dir, Options{Store: "s"})
	if err != nil {
		t.Fatal(problem.From(err).Code)
	}
	mustClose(t, x)
}

func TestFolderCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(filepath.Join(file, "index"), Options{Store: "s"})
	expectProblem(t, err, problem.HomeNotUsable)
}

// The engine links a reporting service's client. It must never be used.
func TestNoConnections(t *testing.T) {
	sockets := func() (n int) {
		fds, err := filepath.Glob("/proc/self/fd/*")
		if err != nil || len(fds) == 0 {
			t.Skip("skip: needs /proc")
		}
		for _, fd := range fds {
			if target, _ := os.Readlink(fd); strings.HasPrefix(target, "socket:") {
				n++
			}
		}
		return n
	}
	before := sockets()
	x := mustOpen(t, t.TempDir())
	mustAdd(t, x, testPack(1), testEntries(0, 100))
	mustClose(t, x)
	broken := mustOpen(t, t.TempDir())
	broken.engine.set(os.ErrClosed)
	if err := broken.Close(); err == nil {
		t.Fatal("an index that has failed was closed without a word")
	}
	if after := sockets(); after > before {
		t.Fatalf("%d sockets; before %d", after, before)
	}
}

// TestDamage changes each file of an index in turn. The index either opens and
// answers rightly or with "unknown", or says IndexDamaged, then or on use; it
// never gives a wrong place, never ends the process, and Remove always helps.
func TestDamage(t *testing.T) {
	whole := t.TempDir()
	x := mustOpen(t, whole)
	for n := range uint64(40) {
		mustAdd(t, x, testPack(n), testEntries(n*500, 500))
	}
	if err := x.db.Flush(); err != nil {
		t.Fatal(err)
	}
	for n := uint64(40); n < 44; n++ {
		mustAdd(t, x, testPack(n), testEntries(n*500, 500))
	}
	mustClose(t, x)
	files, err := filepath.Glob(filepath.Join(tables(whole), "*"))
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, filterPath(whole))
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	detected := 0
	for _, file := range files {
		for _, how := range []string{"flip", "cut", "empty", "remove"} {
			dir := filepath.Join(t.TempDir(), "i")
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, strings.TrimPrefix(file, whole))
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case how == "remove":
				err = os.Remove(path)
			case len(data) == 0:
				continue
			case how == "flip":
				for range 5 {
					data[r.IntN(len(data))] ^= byte(1 + r.IntN(255))
				}
				err = os.WriteFile(path, data, 0o600)
			case how == "cut":
				err = os.Truncate(path, int64(r.IntN(len(data))))
			case how == "empty":
				err = os.Truncate(path, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
			if checkDamaged(t, dir, fmt.Sprintf("seed %d: %s %s", seed, how, filepath.Base(file))) {
				detected++
			}
			if err := Remove(dir); err != nil {
				t.Fatal(err)
			}
			mustClose(t, mustOpen(t, dir))
		}
	}
	if detected == 0 {
		t.Fatal("no damage was detected")
	}
}

// checkDamaged tells whether any use of the index in dir met damage.
func checkDamaged(t *testing.T, dir, what string) (detected bool) {
	t.Helper()
	x, err := Open(dir, Options{Store: "s", MemoryBytes: 8 << 20})
	if err != nil {
		if !problem.Is(err, problem.IndexDamaged) {
			t.Errorf("%s: %v; want code IndexDamaged", what, err)
		}
		return true
	}
	defer x.Close()
	for n := uint64(0); n < 44*500; n += 31 {
		e := testEntry(n)
		got, ok, err := x.Lookup(e.Hash)
		want := pack.Place{Pack: testPack(n / 500), Offset: e.Offset, Length: e.Length, Slot: e.Slot}
		switch {
		case err != nil && !problem.Is(err, problem.IndexDamaged):
			t.Errorf("%s: block %d: %v; want code IndexDamaged", what, n, err)
		case err != nil:
			detected = true
			n += 1000
		case ok && got != want:
			t.Errorf("%s: block %d: wrong place %+v; want %+v", what, n, got, want)
		}
	}
	return detected
}

// TestAgainstMap does the same random operations on an index and on maps,
// with readers beside them.
func TestAgainstMap(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	x := mustOpen(t, dir)
	type home struct {
		id    pack.ID
		entry Entry
	}
	known := map[uint64]home{}
	packs := map[uint64]bool{}
	for step := range 400 {
		switch k := r.IntN(20); {
		case k < 14: // add a pack that overlaps earlier ones
			n := uint64(step)
			first, count := r.Uint64N(20000), r.Uint64N(300)
			entries := testEntries(first, count)
			for i := range entries {
				entries[i].Offset = r.Uint32()
				known[first+uint64(i)] = home{testPack(n), entries[i]}
			}
			mustAdd(t, x, testPack(n), entries)
			packs[n] = true
		case k < 18: // forget a pack
			n := r.Uint64N(uint64(step) + 1)
			if err := x.Forget(testPack(n)); err != nil {
				t.Fatal(err)
			}
			delete(packs, n)
			for h, e := range known {
				if e.id == testPack(n) {
					delete(known, h)
				}
			}
		case k == 18:
			mustClose(t, x)
			x = mustOpen(t, dir)
		default:
			if err := x.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if step%40 != 39 {
			continue
		}
		for h := range uint64(20300) {
			place, ok, err := x.Lookup(testHash(h))
			e, want := known[h]
			if err != nil || ok != want || ok && place != (pack.Place{Pack: e.id, Offset: e.entry.Offset, Length: e.entry.Length, Slot: e.entry.Slot}) {
				t.Fatalf("seed %d, step %d, block %d: got %+v, %v, %v; want %+v, %v", seed, step, h, place, ok, err, e, want)
			}
		}
		count := 0
		for _, err := range x.Packs() {
			if err != nil {
				t.Fatal(err)
			}
			count++
		}
		if count != len(packs) {
			t.Fatalf("seed %d, step %d: %d packs; want %d", seed, step, count, len(packs))
		}
	}
	mustClose(t, x)
}

// Readers beside a writer see each block either unknown or at its place.
func TestConcurrentUse(t *testing.T) {
	x := mustOpen(t, t.TempDir())
	const packs, per = 100, 200
	done := make(chan struct{})
	var readers sync.WaitGroup
	for g := range 4 {
		readers.Go(func() {
			for n := uint64(g); ; n += 37 {
				select {
				case <-done:
					return
				default:
				}
				e := testEntry(n % (packs * per))
				got, ok, err := x.Lookup(e.Hash)
				want := pack.Place{Pack: testPack(n % (packs * per) / per), Offset: e.Offset, Length: e.Length, Slot: e.Slot}
				if err != nil || ok && got != want {
					t.Errorf("block %d: got %+v, %v; want %+v", n, got, err, want)
					return
				}
			}
		})
	}
	var writers sync.WaitGroup
	for g := range uint64(4) {
		writers.Go(func() {
			for n := g; n < packs; n += 4 {
				if err := x.Add(testPack(n), testEntries(n*per, per)); err != nil {
					t.Error(err)
				}
				if n%3 == 0 {
					if err := x.Forget(testPack(n)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	for n := range uint64(packs) {
		if n%3 == 0 {
			expectUnknown(t, x, testHash(n*per))
		} else {
			expect(t, x, testEntry(n*per), testPack(n))
		}
	}
	mustClose(t, x)
}
