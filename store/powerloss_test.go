package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/diskvault/diskvault/base/durable/powerloss"
	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket/filebucket"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// outage is a store in a folder that loses its power, while the local index lies
// elsewhere and keeps what it was told.
type outage struct {
	t       *testing.T
	random  *rand.Rand
	disk    *powerloss.Disk
	created Created
	cache   string
	content map[string][]byte // by instance: a disk
	saved   map[string][]byte // what each committed point shows
	newest  map[string]*Point // by instance, of the committed points
}

func newOutage(t *testing.T, seed uint64) *outage {
	random := rand.New(rand.NewPCG(seed, 11))
	return &outage{
		t: t, random: random, disk: powerloss.New(seed),
		content: map[string][]byte{"a": someDisk(random.IntN(300_000), seed), "b": someDisk(200_000, seed/3)},
		saved:   map[string][]byte{}, newest: map[string]*Point{},
	}
}

func (o *outage) open() (*Store, error) {
	k, err := ParseKey(o.created.LocalKey)
	if err != nil {
		o.t.Fatal(err)
	}
	return Open(o.t.Context(), filebucket.On(o.disk, "file:/memory"), k, OpenOptions{CacheDir: o.cache, Retry: quick})
}

func (o *outage) create() (err error) {
	o.created, err = Create(o.t.Context(), filebucket.On(o.disk, "file:/memory"), CreateOptions{BlockSize: 16 << 10, Retry: quick})
	return err
}

// work backs up, with interruptions, until the power is lost or all is done.
func (o *outage) work() error {
	s, err := o.open()
	if err != nil {
		return err
	}
	defer s.Close()
	for range 3 {
		instance := string("ab"[o.random.IntN(2)])
		disk := o.content[instance]
		if len(disk) > 0 {
			at := o.random.IntN(len(disk))
			fill(o.random, disk[at:min(len(disk), at+o.random.IntN(60_000))])
		}
		if err := o.backup(s, instance, bytes.Clone(disk)); err != nil {
			return err
		}
	}
	return nil
}

// backup makes a point, or is given up before it, after a checkpoint perhaps.
func (o *outage) backup(s *Store, instance string, disk []byte) error {
	w := WriterOptions{ID: newID(), Instance: instance, Size: int64(len(disk)), Compression: CompressionFast, Meter: meter.New("transfer")}
	if base := o.newest[instance]; base != nil {
		img, err := s.Image(*base)
		if err != nil {
			return err
		}
		w.Base = img
	}
	run, err := s.NewWriter(o.t.Context(), w)
	if err != nil {
		return err
	}
	defer run.Close()
	if err := feed(run, disk, 0); err != nil {
		return err
	}
	fate := o.random.IntN(6)
	if fate < 3 {
		if err := run.Checkpoint(); err != nil {
			return err
		}
	}
	if fate == 0 {
		return nil
	}
	p, err := run.Commit(Point{Instance: instance, Consistency: CrashConsistent})
	if err != nil {
		return err
	}
	o.saved[p.ID] = disk
	o.newest[instance] = &p
	return nil
}

// examine looks at what a restart finds.
func (o *outage) examine() error {
	s, err := o.open()
	if err != nil {
		return fmt.Errorf("opening it: %w", err)
	}
	defer s.Close()
	missing := maps.Clone(o.saved)
	for p, err := range s.Points(o.t.Context()) {
		if err != nil {
			return fmt.Errorf("a point is visible and torn: %w", err)
		}
		got, err := load(o.t.Context(), s, p)
		if err != nil {
			return fmt.Errorf("point %s: %w", p.ID, err)
		}
		if want, ok := o.saved[p.ID]; ok && !bytes.Equal(got, want) {
			return fmt.Errorf("point %s came back different", p.ID)
		}
		delete(missing, p.ID)
	}
	if len(missing) > 0 {
		return fmt.Errorf("committed points are gone: %v", slices.Collect(maps.Keys(missing)))
	}
	if err := undamaged(o.t.Context(), s); err != nil {
		return err
	}
	if err := o.honest(s); err != nil {
		return err
	}
	// The next run works, and relies on nothing that is gone.
	for instance, disk := range o.content {
		if err := o.backup(s, instance, bytes.Clone(disk)); err != nil {
			return fmt.Errorf("the next run: %w", err)
		}
	}
	return undamaged(o.t.Context(), s)
}

// honest tells whether each pack that the index knows is there, and each block
// of the disks where it says.
func (o *outage) honest(s *Store) error {
	for id, err := range s.index.Packs() {
		if err != nil {
			return err
		}
		_, isData := s.bucket.Stat(o.t.Context(), packName(seal.DataPack, id))
		_, isMetadata := s.bucket.Stat(o.t.Context(), packName(seal.MetadataPack, id))
		if isData != nil && isMetadata != nil {
			return fmt.Errorf("the index knows a pack that is not there: %w", isData)
		}
	}
	hash := s.hasher(blockDomain)
	for _, disk := range o.content {
		for off := 0; off < len(disk); off += s.blockSize {
			data := make([]byte, s.blockSize)
			copy(data, disk[off:])
			place, ok, err := s.index.Lookup(hash.Sum(data))
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			frames, err := s.directory(o.t.Context(), seal.DataPack, place.Pack, 0)
			if err != nil {
				return fmt.Errorf("the index names a pack that is not there: %w", err)
			}
			if !slices.ContainsFunc(frames, func(f pack.Frame) bool { return f.Offset == place.Offset && f.Hashes[place.Slot] == hash.Sum(data) }) {
				return errors.New("the index names a place where the block is not")
			}
		}
	}
	return nil
}

// lose runs until the power is lost, and looks; twice.
func (o *outage) lose(cut int) error {
	created := false
	for round := range 2 {
		o.disk.CutAt(1 + o.random.IntN(cut))
		var err error
		if !created {
			err = o.create()
		}
		if err == nil {
			created = true
			err = o.work()
		}
		if err != nil && !errors.Is(err, powerloss.ErrPowerLost) {
			return fmt.Errorf("round %d: %w", round, err)
		}
		o.disk = o.disk.Restart()
		if o.random.IntN(4) == 0 { // the machine of the index was lost too
			if err := os.RemoveAll(o.cache); err != nil {
				return err
			}
		}
		if !created {
			// A store that was being made exists with its keys, or not at all.
			_, err := Identify(o.t.Context(), filebucket.On(o.disk, ""))
			if problem.Is(err, problem.StoreNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			created = true
		}
		if err := o.examine(); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
	}
	return nil
}

func TestPowerLossLeavesAllCommittedPointsWhole(t *testing.T) {
	steps := newOutage(t, 1)
	steps.cache = memoryDir(t)
	if err := errors.Join(steps.create(), steps.work()); err != nil {
		t.Fatal(err)
	}
	for seed := range seeds(t, 80) {
		o := newOutage(t, seed)
		o.cache = memoryDir(t)
		if err := o.lose(steps.disk.Steps() * 5 / 4); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		os.RemoveAll(o.cache)
	}
}

// A disk that lies about syncing must be found out, or the test above shows
// nothing.
func TestPowerLossOnADiskThatLiesIsNoticed(t *testing.T) {
	found := 0
	for seed := range uint64(10) {
		o := newOutage(t, seed)
		o.cache = memoryDir(t)
		if err := errors.Join(o.create(), o.work()); err != nil {
			t.Fatal(err)
		}
		o.disk.Lie()
		if err := o.work(); err != nil {
			t.Fatal(err)
		}
		o.disk = o.disk.Restart()
		if o.examine() != nil {
			found++
		}
	}
	if found < 5 {
		t.Errorf("only %d of 10 were noticed", found)
	}
}
