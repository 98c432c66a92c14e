package index

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskvault/diskvault/store/internal/block"
)

// smallBudget makes filters that are soon outgrown.
var smallBudget = budget{filter: 1 << 20, least: 100, cache: 4 << 20, memtable: 1 << 20, run: 1 << 20}

func openSmall(t testing.TB, dir string) *Index {
	t.Helper()
	x, err := openWith(dir, "s", smallBudget)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// awaitFilter waits until no filter is being made.
func awaitFilter(x *Index) {
	x.mu.Lock()
	stopped := x.filters.stopped
	x.mu.Unlock()
	if stopped != nil {
		<-stopped
	}
}

// passed gives the share of absent blocks that the filter does not tell.
func passed(x *Index) float64 {
	const tries = 20_000
	n := 0
	for range tries {
		h := testHash(rand.Uint64() | 1<<50)
		if !x.absent(&h) {
			n++
		}
	}
	return float64(n) / tries
}

func expectAll(t testing.TB, x *Index, n, per uint64) {
	t.Helper()
	for k := range n {
		expect(t, x, testEntry(k), testPack(k/per))
	}
}

func TestFilterPlan(t *testing.T) {
	for _, c := range []struct {
		entries uint64
		most    int64
		most100 float64 // passing in 100, when it holds the entries
	}{
		{1 << 16, 1 << 30, 1.2},
		{1 << 16, 1 << 16, 4}, // 8 bits for each entry
		{1 << 16, 5 << 13, 12},
		{1 << 16, 1 << 14, 70},
		{10, 1 << 30, 5},
	} {
		f, err := createFilter(filepath.Join(t.TempDir(), "f"), planFilter(c.entries, c.most))
		if err != nil {
			t.Fatal(err)
		}
		if size := int64(f.head.lines) * lineBytes; size > c.most {
			t.Errorf("%+v: %d bytes", c, size)
		}
		if err := f.add(testEntries(0, c.entries)); err != nil {
			t.Fatal(err)
		}
		for n := range c.entries {
			if h := testHash(n); !f.has(&h) {
				t.Fatalf("%+v: block %d is not in the filter", c, n)
			}
		}
		n := 0
		for k := range uint64(20_000) {
			if h := testHash(1<<40 | k); f.has(&h) {
				n++
			}
		}
		t.Logf("%+v: %d probes, %.2f %% pass", c, f.head.probes, float64(n)/200)
		if float64(n)/200 > c.most100 {
			t.Errorf("%+v: %.2f %% pass", c, float64(n)/200)
		}
		if err := f.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Filling in order and adding at random give the same bits, together too.
func TestFilterFilling(t *testing.T) {
	h := planFilter(300_000, 1<<30)
	paths := [2]string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
	var filters [2]*filter
	for i := range filters {
		var err error
		if filters[i], err = createFilter(paths[i], h); err != nil {
			t.Fatal(err)
		}
		defer filters[i].close()
	}
	w := filters[0].fill()
	var all []Entry
	for n := range uint64(50_000) {
		// Hashes in order: the number, then noise.
		hash := testHash(n)
		hash[0], hash[1], hash[2] = byte(n*300>>16), byte(n*300>>8), byte(n*300)
		all = append(all, Entry{Hash: hash, Length: 1})
		if n%10 == 0 {
			if err := filters[0].add(all[n:]); err != nil {
				t.Fatal(err)
			}
			continue
		}
		hi, lo := split(&hash)
		if err := w.add(hi, lo); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	if err := filters[1].add(all); err != nil {
		t.Fatal(err)
	}
	if string(filters[0].bytes[filterPage:]) != string(filters[1].bytes[filterPage:]) {
		t.Error("the bits differ")
	}
	if filters[0].head.count != filters[1].head.count {
		t.Errorf("%d and %d entries", filters[0].head.count, filters[1].head.count)
	}
}

func TestFilterGrows(t *testing.T) {
	dir := t.TempDir()
	x := openSmall(t, dir)
	const packs, per = 200, 100
	sizes := map[uint64]bool{}
	for n := range uint64(packs) {
		mustAdd(t, x, testPack(n), testEntries(n*per, per))
		awaitFilter(x)
		sizes[x.filters.inUse.Load().head.lines] = true
		if p := passed(x); n%20 == 0 && p > 0.02 {
			t.Fatalf("after %d packs %.3f pass", n, p)
		}
	}
	if len(sizes) < 3 {
		t.Errorf("the filter had %d sizes", len(sizes))
	}
	expectAll(t, x, packs*per, per)
	if n := x.Len(); n != packs*per {
		t.Errorf("Len %d", n)
	}
	mustClose(t, x)
	x = openSmall(t, dir)
	defer mustClose(t, x)
	if p := passed(x); p > 0.02 {
		t.Errorf("after opening %.3f pass", p)
	}
	expectAll(t, x, packs*per, per)
}

// What is added, forgotten and looked up while filters are made and replaced
// all the time is found.
func TestFilterGrowsBesideUse(t *testing.T) {
	x := openSmall(t, t.TempDir())
	defer mustClose(t, x)
	const packs, per = 300, 50
	for n := range uint64(packs) {
		mustAdd(t, x, testPack(n), testEntries(n*per, per))
		for k := uint64(n * per); k < (n+1)*per; k += 7 {
			expect(t, x, testEntry(k), testPack(n))
		}
		if n%10 == 0 {
			x.mu.Lock()
			x.refill()
			x.mu.Unlock()
		}
	}
	expectAll(t, x, packs*per, per)
	awaitFilter(x)
	expectAll(t, x, packs*per, per)
}

func TestFilterLost(t *testing.T) {
	const packs, per = 20, 100
	for what, spoil := range map[string]func(path string) error{
		"removed":   os.Remove,
		"cut":       func(p string) error { return os.Truncate(p, filterPage+lineBytes) },
		"empty":     func(p string) error { return os.Truncate(p, 0) },
		"of others": func(p string) error { return changeHead(p, func(h *filterHead) { h.owner[0]++ }) },
		"a power failure may have cost bits": func(p string) error {
			if err := changeHead(p, func(h *filterHead) { h.boot = [16]byte{1, 2} }); err != nil {
				return err
			}
			return zeroBits(p)
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			x := openSmall(t, dir)
			for n := range uint64(packs) {
				mustAdd(t, x, testPack(n), testEntries(n*per, per))
			}
			mustClose(t, x)
			if err := spoil(filterPath(dir)); err != nil {
				t.Fatal(err)
			}
			x = openSmall(t, dir)
			mustAdd(t, x, testPack(packs), testEntries(packs*per, per))
			awaitFilter(x)
			if x.filters.inUse.Load() == nil {
				t.Fatal("there is no filter")
			}
			expectAll(t, x, (packs+1)*per, per)
			if p := passed(x); p > 0.02 {
				t.Errorf("%.3f pass", p)
			}
			mustClose(t, x)
		})
	}
}

func changeHead(path string, change func(h *filterHead)) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var h filterHead
	if !h.decode(b[:filterHeadSize]) {
		return errNotOurFilter
	}
	change(&h)
	copy(b, h.encode())
	return os.WriteFile(path, b, 0o600)
}

func zeroBits(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	clear(b[filterPage : len(b)/2])
	return os.WriteFile(path, b, 0o600)
}

// A filter that cannot be read does not end the process.
func TestFilterFault(t *testing.T) {
	dir := t.TempDir()
	x := openSmall(t, dir)
	defer mustClose(t, x)
	mustAdd(t, x, testPack(0), testEntries(0, 50))
	if err := os.Truncate(filterPath(dir), 0); err != nil {
		t.Fatal(err)
	}
	expectAll(t, x, 50, 50)
	expectUnknown(t, x, testHash(1<<40))
	mustAdd(t, x, testPack(1), testEntries(50, 50)) // cannot be noted: the filter is withdrawn
	expectAll(t, x, 100, 50)
}

// A folder that has no place for a filter has an index all the same.
func TestNoFilter(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(filterPath(dir), "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	x := openSmall(t, dir)
	defer mustClose(t, x)
	if x.filters.inUse.Load() != nil {
		t.Fatal("there is a filter")
	}
	mustAdd(t, x, testPack(0), testEntries(0, 300))
	expectAll(t, x, 300, 300)
	expectUnknown(t, x, testHash(1<<40))
}

func TestFilterOfLoader(t *testing.T) {
	dir := t.TempDir()
	x := openSmall(t, dir)
	const packs, per = 50, 200
	load := func(from, to uint64) {
		l := mustLoad(t, x)
		for n := from; n < to; n++ {
			if err := l.Add(testPack(n), testEntries(n*per, per)); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Commit(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	load(0, packs)
	if x.filters.inUse.Load() == nil || x.filters.stopped != nil {
		t.Error("the loader has made no filter")
	}
	expectAll(t, x, packs*per, per)
	load(packs, 2*packs) // to an index that has entries
	expectAll(t, x, 2*packs*per, per)
	awaitFilter(x)
	if p := passed(x); p > 0.02 {
		t.Errorf("%.3f pass", p)
	}
	expectAll(t, x, 2*packs*per, per)
	mustClose(t, x)
	x = openSmall(t, dir)
	expectAll(t, x, 2*packs*per, per)
	mustClose(t, x)
}

func FuzzFilterHead(f *testing.F) {
	h := planFilter(1000, 1<<20)
	f.Add(h.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != filterHeadSize {
			return
		}
		var h filterHead
		if h.decode(b) && string(h.encode()) != string(b) {
			t.Fatal("a header does not print back as it was")
		}
	})
}

func FuzzBlockValue(f *testing.F) {
	f.Add(uint32(1), uint32(2), uint32(3), uint8(4))
	f.Fuzz(func(t *testing.T, number, offset, length uint32, slot uint8) {
		var value [blockValue]byte
		e := Entry{Hash: block.Hash{}, Offset: offset, Length: length, Slot: slot}
		err := putBlockValue(&value, number, &e)
		if (err == nil) != (length > 0 && length <= maxLength) {
			t.Fatalf("length %d: %v", length, err)
		}
		if err != nil {
			return
		}
		n, p, ok := readBlockValue(value[:])
		if !ok || n != number || p.Offset != offset || p.Length != length || p.Slot != slot {
			t.Fatalf("got %d, %+v, %v", n, p, ok)
		}
	})
}
