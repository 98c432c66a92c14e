package index

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/pack"
)

const (
	modelBlocks = 600 // hashes that the model's packs share
	modelDir    = "/i"
)

var modelBudget = budget{cache: 1 << 20, memtable: 256 << 10, run: 32 * 50}

// model is what an index was told, and so what it may answer.
type model struct {
	places  map[block.Hash]map[pack.Place]bool // every place ever given
	added   []pack.ID                          // not forgotten, in order
	gone    map[pack.ID]bool                   // forgotten, and that was acknowledged
	perhaps map[pack.ID]bool                   // forgetting was tried and failed
	durable int                                // so many of added are on stable storage
	epoch   uint64
}

func newModel() *model {
	return &model{places: map[block.Hash]map[pack.Place]bool{}, gone: map[pack.ID]bool{}, perhaps: map[pack.ID]bool{}}
}

// step does one random operation on both. It tells the error of the index,
// after which the index is not used any more.
func (m *model) step(x *Index, r *rand.Rand, n uint64) error {
	switch k := r.IntN(100); {
	case k < 75:
		id, entries := m.newPack(r, n)
		if err := x.Add(id, entries); err != nil {
			return err
		}
		m.added = append(m.added, id)
	case k < 88 && len(m.added) > 0:
		i := r.IntN(len(m.added))
		id := m.added[i]
		if err := x.Forget(id); err != nil {
			m.perhaps[id] = true
			return err
		}
		m.gone[id] = true
		m.added = append(m.added[:i:i], m.added[i+1:]...)
		m.durable = len(m.added)
	case k < 92:
		if err := x.SetEpoch(m.epoch + 1); err != nil {
			return err
		}
		m.epoch++
		m.durable = len(m.added)
	case k < 94:
		if _, err := x.Sweep(context.Background()); err != nil {
			return err
		}
	case k < 97:
		l, err := x.Load()
		if err != nil {
			return err
		}
		var ids []pack.ID
		for i := range uint64(3) {
			id, entries := m.newPack(r, n<<8|i|1<<62)
			if err := l.Add(id, entries); err != nil {
				return err
			}
			ids = append(ids, id)
		}
		if err := l.Commit(context.Background()); err != nil {
			return err
		}
		m.added = append(m.added, ids...)
		m.durable = len(m.added)
	default:
		return x.engine.run(func() error {
			_, err := x.db.AsyncFlush()
			return err
		})
	}
	return nil
}

func (m *model) newPack(r *rand.Rand, n uint64) (pack.ID, []Entry) {
	id := testPack(n)
	entries := make([]Entry, r.IntN(60))
	for i := range entries {
		e := testEntry(r.Uint64N(modelBlocks))
		e.Offset = r.Uint32()
		entries[i] = e
		if m.places[e.Hash] == nil {
			m.places[e.Hash] = map[pack.Place]bool{}
		}
		m.places[e.Hash][pack.Place{Pack: id, Offset: e.Offset, Length: e.Length, Slot: e.Slot}] = true
	}
	return id, entries
}

// check tells what a reopened index may not say after a crash.
func (m *model) check(x *Index) error {
	for n := range uint64(modelBlocks) {
		place, ok, err := x.Lookup(testHash(n))
		switch {
		case err != nil:
			return err
		case !ok:
		case m.gone[place.Pack]:
			return fmt.Errorf("block %d lies in forgotten pack %v", n, place.Pack)
		case !m.places[testHash(n)][place]:
			return fmt.Errorf("block %d lies at %+v, where it was never put", n, place)
		}
		if has, err := x.HasPack(place.Pack); ok && (!has || err != nil) {
			return fmt.Errorf("block %d lies in a pack that is not there: %v", n, err)
		}
	}
	has := map[pack.ID]bool{}
	for id, err := range x.Packs() {
		if err != nil {
			return err
		}
		if m.gone[id] {
			return fmt.Errorf("forgotten pack %v is there", id)
		}
		has[id] = true
	}
	lost := false
	for i, id := range m.added {
		switch {
		case m.perhaps[id]:
		case !has[id] && i < m.durable:
			return fmt.Errorf("pack %d of %d is lost; the first %d were durable", i, len(m.added), m.durable)
		case has[id] && lost:
			return fmt.Errorf("pack %d of %d is there; an earlier one is lost", i, len(m.added))
		case !has[id]:
			lost = true
		}
	}
	epoch, err := x.Epoch()
	if err != nil {
		return err
	}
	if epoch != m.epoch && epoch != m.epoch+1 {
		return fmt.Errorf("epoch %d; want %d", epoch, m.epoch)
	}
	return nil
}

func seeds(few int) (first uint64, count int) {
	if os.Getenv("DISKVAULT_LONG") != "" {
		few *= 50
	}
	return rand.Uint64(), few
}

// After a power failure at any moment, whatever part of the unsynced writes
// has reached the disk, the index opens and says nothing wrong.
func TestPowerFailure(t *testing.T) {
	first, count := seeds(40)
	for seed := first; seed != first+uint64(count); seed++ {
		r := rand.New(rand.NewPCG(seed, 0))
		disk := vfs.NewCrashableMem()
		m := newModel()
		for life := range uint64(4) {
			x, err := open(disk, modelDir, modelBudget, []byte("s"))
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if err := m.check(x); err != nil {
				t.Fatalf("seed %d, life %d: %v", seed, life, err)
			}
			m.settle(x)
			for n := range 5 + r.Uint64N(60) {
				if err := m.step(x, r, life<<32|n); err != nil {
					t.Fatalf("seed %d, life %d, step %d: %v", seed, life, n, err)
				}
			}
			disk = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: rand.New(rand.NewPCG(seed, life))})
			if err := x.close(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
}

// settle takes what the reopened index says as what it was told.
func (m *model) settle(x *Index) {
	var added []pack.ID
	for _, id := range m.added {
		if has, _ := x.HasPack(id); has {
			added = append(added, id)
		} else {
			m.gone[id] = true
		}
	}
	m.added, m.durable, m.perhaps = added, len(added), map[pack.ID]bool{}
	m.epoch, _ = x.Epoch()
}

// When the disk fails or fills, the index says so, to every caller, without
// waiting and without ending the process; the next start finds it whole.
func TestDiskFails(t *testing.T) {
	first, count := seeds(40)
	failed := 0
	for seed := first; seed != first+uint64(count); seed++ {
		r := rand.New(rand.NewPCG(seed, 0))
		disk := vfs.NewCrashableMem()
		m := newModel()
		left := atomic.Int64{}
		left.Store(r.Int64N(400))
		full := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && left.Add(-1) < 0 {
				return syscall.ENOSPC
			}
			return nil
		}))
		x, err := open(full, modelDir, modelBudget, []byte("s"))
		for n := uint64(0); err == nil && n < 200; n++ {
			err = m.step(x, r, n)
		}
		if err != nil {
			failed++
			if !problem.Is(classify(err, modelDir), problem.HomeFull) {
				t.Fatalf("seed %d: %v; want code HomeFull", seed, classify(err, modelDir))
			}
		}
		if x != nil {
			x.close()
		}
		// Space is free again: the same process goes on in the same folder.
		if x, err = open(disk, modelDir, modelBudget, []byte("s")); err != nil {
			t.Fatalf("seed %d: reopened: %v", seed, err)
		}
		if err := m.check(x); err != nil {
			t.Fatalf("seed %d: reopened: %v", seed, err)
		}
		clone := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: r})
		if err := x.close(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		x, err = open(clone, modelDir, modelBudget, []byte("s"))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := m.check(x); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := x.close(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	if failed < count/2 {
		t.Fatalf("only %d of %d disks failed", failed, count)
	}
}

// TestKill ends a process that adds, forgets and loads, as kill -9 does.
func TestKill(t *testing.T) {
	first, count := seeds(4)
	for seed := first; seed != first+uint64(count); seed++ {
		r := rand.New(rand.NewPCG(seed, 0))
		dir := t.TempDir()
		child := exec.Command(os.Args[0], "-test.run=^TestKillChild$")
		child.Env = append(os.Environ(), "DISKVAULT_INDEX_DIR="+dir, fmt.Sprintf("DISKVAULT_SEED=%d", seed))
		var said strings.Builder
		child.Stdout = &said
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(100+r.IntN(400)) * time.Millisecond)
		child.Process.Kill()
		child.Wait()
		forgotten := strings.Fields(said.String())
		if said.Len() > 0 && !strings.HasSuffix(said.String(), "\n") {
			forgotten = forgotten[:len(forgotten)-1]
		}

		x := mustOpen(t, dir)
		gone := map[pack.ID]bool{}
		for _, word := range forgotten {
			var n uint64
			if _, err := fmt.Sscan(word, &n); err != nil {
				t.Fatalf("seed %d: %v in %q", seed, err, said.String())
			}
			id := testPack(n)
			gone[id] = true
			if has, err := x.HasPack(id); has || err != nil {
				t.Errorf("seed %d: pack %d was forgotten and is there (%v)", seed, n, err)
			}
		}
		known := 0
		for n := range uint64(killBlocks) {
			place, ok, err := x.Lookup(testHash(n))
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			e := testEntry(n)
			if ok && (gone[place.Pack] || place.Offset != e.Offset || place.Length != e.Length || place.Slot != e.Slot) {
				t.Errorf("seed %d: block %d lies at %+v", seed, n, place)
			}
			if ok {
				known++
			}
		}
		t.Logf("seed %d: %d packs forgotten, %d blocks known", seed, len(gone), known)
		mustClose(t, x)
	}
}

const killBlocks = 20_000

// TestKillChild is the process that TestKill ends. It prints the packs that
// are forgotten.
func TestKillChild(t *testing.T) {
	dir := os.Getenv("DISKVAULT_INDEX_DIR")
	if dir == "" || os.Getenv("DISKVAULT_SEED") == "" {
		t.Skip("only as a child of TestKill")
	}
	var seed uint64
	fmt.Sscan(os.Getenv("DISKVAULT_SEED"), &seed)
	r := rand.New(rand.NewPCG(seed, 1))
	x := mustOpen(t, dir)
	for n := uint64(0); ; n++ {
		first := r.Uint64N(killBlocks - 200)
		if n%50 == 49 {
			l := mustLoad(t, x)
			if err := l.Add(testPack(n), testEntries(first, 200)); err != nil {
				t.Fatal(err)
			}
			if err := l.Commit(context.Background()); err != nil {
				t.Fatal(err)
			}
		} else {
			mustAdd(t, x, testPack(n), testEntries(first, 200))
		}
		if n%3 == 0 {
			if err := x.Forget(testPack(n)); err != nil {
				t.Fatal(err)
			}
			os.Stdout.WriteString(fmt.Sprintln(n))
		}
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	const packs, per = 60, 500
	for n := range uint64(packs) {
		mustAdd(t, x, testPack(n), testEntries(n*per, per))
	}
	for n := range uint64(packs) {
		if n%4 != 0 {
			if err := x.Forget(testPack(n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	removed, err := x.Sweep(context.Background())
	// The packs of the last numbers are spared: their word of the set is not full.
	if most := int64(packs * 3 / 4 * per); err != nil || removed > most || removed < most-64*per {
		t.Fatalf("removed %d, %v", removed, err)
	}
	for n := uint64(packs); n < 2*64; n++ {
		mustAdd(t, x, testPack(n), testEntries(n*per, 1))
	}
	if _, err := x.Sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	if removed, err := x.Sweep(context.Background()); removed != 0 || err != nil {
		t.Fatalf("again: removed %d, %v", removed, err)
	}
	mustClose(t, x)
	x = mustOpen(t, dir)
	defer mustClose(t, x)
	for n := range uint64(packs * per) {
		if n/per%4 == 0 {
			expect(t, x, testEntry(n), testPack(n/per))
		} else {
			expectUnknown(t, x, testHash(n))
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := x.Sweep(ctx); err != context.Canceled {
		t.Fatal(err)
	}
}
