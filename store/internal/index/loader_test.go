package index

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/diskvault/diskvault/base/problem"
)

func mustLoad(t testing.TB, x *Index) *Loader {
	t.Helper()
	l, err := x.Load()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLoad(t *testing.T) {
	for _, packs := range []uint64{0, 1, 3, 150} { // 150 packs need several runs
		dir := t.TempDir()
		x := mustOpen(t, dir)
		const per = 1000
		before := testPack(1 << 40)
		mustAdd(t, x, before, testEntries(1<<40, 10))
		l := mustLoad(t, x)
		for n := range packs {
			// Each pack shares half of its blocks with the next one.
			if err := l.Add(testPack(n), testEntries(n*per/2, per)); err != nil {
				t.Fatal(err)
			}
		}
		during := testPack(1 << 41)
		mustAdd(t, x, during, testEntries(1<<41, 10))
		for _, n := range []uint64{0, 1 << 40, 1 << 41} { // again, or added otherwise
			if n < packs || n >= 1<<40 {
				if err := l.Add(testPack(n), testEntries(n, 1)); err != nil {
					t.Fatal(err)
				}
			}
		}
		expectUnknown(t, x, testHash(0))
		if packs == 150 && l.runs < 2 {
			t.Fatalf("%d runs; the test needs more", l.runs)
		}
		if err := l.Commit(context.Background()); err != nil {
			t.Fatal(err)
		}
		mustAdd(t, x, testPack(1<<42), testEntries(1<<42, 10))
		mustClose(t, x)

		x = mustOpen(t, dir)
		for _, n := range []uint64{1 << 40, 1 << 41, 1 << 42} {
			expect(t, x, testEntry(n), testPack(n))
		}
		for k := range packs * per / 2 {
			place, ok, err := x.Lookup(testHash(k))
			e := testEntry(k)
			own, before := testPack(k/(per/2)), testPack(k/(per/2)-1)
			if err != nil || !ok || place.Pack != own && place.Pack != before || place.Offset != e.Offset || place.Length != e.Length || place.Slot != e.Slot {
				t.Fatalf("%d packs, block %d: %+v, %v, %v", packs, k, place, ok, err)
			}
		}
		expectUnknown(t, x, testHash(1<<43))
		if packs == 150 {
			if n, want := x.Len(), int64((packs+1)*per/2); n < want/2 || n > want*2 {
				t.Errorf("Len %d; want about %d", n, want)
			}
			if err := x.Forget(testPack(7)); err != nil {
				t.Fatal(err)
			}
			if place, ok, err := x.Lookup(testHash(7 * per / 2)); err != nil || ok && place.Pack == testPack(7) {
				t.Fatal("a forgotten pack:", place, ok, err)
			}
		}
		if _, err := os.Stat(scratch(dir)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the loader left files behind: %v", err)
		}
		mustClose(t, x)
	}
}

func TestLoadGivenUp(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	l := mustLoad(t, x)
	_, err := x.Load()
	expectProblem(t, err, problem.IndexBusy)
	_, err = x.Sweep(context.Background())
	expectProblem(t, err, problem.IndexBusy)
	if err := l.Add(testPack(1), testEntries(0, 100)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}

	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(stop)
	l = mustLoad(t, x)
	if err := l.Add(testPack(2), testEntries(0, 100)); err != nil {
		t.Fatal(err)
	}
	if err := l.Commit(ctx); !errors.Is(err, stop) {
		t.Fatalf("a load whose context has ended: %v", err)
	}

	l = mustLoad(t, x) // and now the process dies
	if err := l.Add(testPack(3), testEntries(0, 100)); err != nil {
		t.Fatal(err)
	}
	mustClose(t, x)
	x = mustOpen(t, dir)
	defer mustClose(t, x)
	for n := range uint64(100) {
		expectUnknown(t, x, testHash(n))
	}
	for _, err := range x.Packs() {
		t.Fatal("a pack is known", err)
	}
	l = mustLoad(t, x)
	if err := l.Add(testPack(3), testEntries(0, 100)); err != nil {
		t.Fatal(err)
	}
	if err := l.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	expect(t, x, testEntry(99), testPack(3))
}

func TestFatalErrorOfTheEngine(t *testing.T) {
	x := mustOpen(t, t.TempDir())
	mustAdd(t, x, testPack(1), testEntries(0, 10))
	go x.engine.Fatalf("the disk %s", "burns")
	<-x.engine.done
	_, _, err := x.Lookup(testHash(0))
	expectProblem(t, err, problem.IndexDamaged)
	_, err = x.HasPack(testPack(1))
	expectProblem(t, err, problem.IndexDamaged)
	_, err = x.Load()
	expectProblem(t, err, problem.IndexDamaged)
	expectProblem(t, x.Add(testPack(2), nil), problem.IndexDamaged)
	expectProblem(t, x.Forget(testPack(1)), problem.IndexDamaged)
	for _, err := range x.Packs() {
		expectProblem(t, err, problem.IndexDamaged)
	}
	expectProblem(t, x.Close(), problem.IndexDamaged)
}
