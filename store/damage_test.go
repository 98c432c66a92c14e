package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/membucket"
)

// seeds is how many seeds a property is tried with: usual, or as many as
// DISKVAULT_SEEDS says.
func seeds(t *testing.T, usual uint64) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(os.Getenv("DISKVAULT_SEEDS"), 10, 64)
	if err != nil {
		return usual
	}
	return n
}

// collection is a store with objects of every kind, of which tests damage
// copies.
type collection struct {
	bucket  *membucket.Bucket
	created Created
	points  []Point
	disks   map[string][]byte // by point
}

func newCollection(t *testing.T) *collection {
	t.Helper()
	l := newLab(t, CreateOptions{BlockSize: 16 << 10})
	c := &collection{bucket: l.bucket, created: l.created, disks: map[string][]byte{}}
	keep := func(instance string, disk []byte, base *Point) *Point {
		p := l.save(instance, disk, base)
		c.points = append(c.points, p)
		c.disks[p.ID] = bytes.Clone(disk)
		return &p
	}
	disk := someDisk(5<<19+77, 1)
	first := keep("disk", disk, nil)
	fill(rand.New(rand.NewPCG(1, 2)), disk[1<<20:1<<20+100_000])
	second := keep("disk", disk, first)
	fill(rand.New(rand.NewPCG(3, 4)), disk[2<<20:2<<20+50_000])
	keep("disk", disk, second)
	keep("other", someDisk(1<<19+5, 2), nil)
	for name := range 3 {
		if err := l.PutRecord(t.Context(), "policy", strconv.Itoa(name), name); err != nil {
			t.Fatal(err)
		}
	}
	l.interrupt(t, "third", someDisk(1<<19, 3))
	if err := l.markDamaged(t.Context(), [16]byte{1}, "a pack that nobody uses"); err != nil {
		t.Fatal(err)
	}
	return c
}

// interrupt begins a run of the instance, checkpoints it and gives it up.
func (l *lab) interrupt(t *testing.T, instance string, disk []byte) {
	t.Helper()
	w, err := l.NewWriter(t.Context(), WriterOptions{ID: newID(), Instance: instance, Size: int64(len(disk)), Compression: CompressionFast, Meter: meter.New("transfer")})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := feed(w, disk, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.Checkpoint(); err != nil {
		t.Fatal(err)
	}
}

func keysOf(t *testing.T, b bucket.Bucket, prefix string) (keys []string) {
	t.Helper()
	for o, err := range b.List(t.Context(), prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

var everyKind = []string{"store", keyPrefix, realmKey, epochPrefix, dataPrefix, metadataPrefix, pointPrefix, sessionPrefix, recordPrefix, damagePrefix}

// everyObject adds what a store of the first days may lack.
var everyObject = append(slices.Clone(everyKind), secondPrefix)

// hurt damages an object of the bucket and tells which and how.
func hurt(t *testing.T, b *membucket.Bucket, random *rand.Rand, kinds []string) (key, how string) {
	t.Helper()
	kind := kinds[random.IntN(len(kinds))]
	all := keysOf(t, b, kind)
	key = all[random.IntN(len(all))]
	data, err := bucket.ReadAll(t.Context(), b, key, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	switch random.IntN(8) {
	case 0:
		if err := b.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		return key, "removed"
	case 1:
		n := random.IntN(len(data))
		b.Replace(key, data[:n])
		return key, fmt.Sprintf("cut off at %d of %d bytes", n, len(data))
	case 2:
		other := all[random.IntN(len(all))]
		swapped, err := bucket.ReadAll(t.Context(), b, other, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		b.Replace(key, swapped)
		return key, "replaced by " + other
	case 3:
		b.Replace(key, append(data, 'x'))
		return key, "made longer"
	}
	bit := random.IntN(8 * len(data))
	data[bit/8] ^= 1 << (bit % 8)
	b.Replace(key, data)
	return key, fmt.Sprintf("bit %d of byte %d of %d flipped", bit%8, bit/8, len(data))
}

// lostBlocks gives the blocks of a point that cannot be read, one by one. A
// block that is read wrongly fails the test.
func lostBlocks(t *testing.T, s *Store, p Point, want []byte) (lost []int64) {
	t.Helper()
	if got, err := load(t.Context(), s, p); err == nil && bytes.Equal(got, want) {
		return nil
	}
	img, err := s.Image(p)
	if err != nil {
		t.Fatal(err)
	}
	r := img.NewReader()
	defer r.Close()
	size := int64(s.BlockSize())
	for off := int64(0); off < p.Size; off += size {
		got := make([]byte, min(size, p.Size-off))
		err := r.Window(t.Context(), off, size, func(at int64, data []byte) error {
			copy(got[at-off:], data)
			return nil
		}, nil)
		if err != nil {
			if !isDamage(err) || strings.Contains(err.Error(), "%!") {
				t.Fatalf("block at %d: %v", off, err)
			}
			lost = append(lost, off)
		} else if !bytes.Equal(got, want[off:off+int64(len(got))]) {
			t.Fatalf("the block at %d of point %s came back wrong, without an error", off, p.ID)
		}
	}
	return lost
}

// reported gives the blocks of a point that a report names as lost.
func reported(report CheckReport, p Point, size int64) (lost []int64) {
	for _, d := range report.Damage {
		for _, l := range d.Losses {
			for _, r := range l.Ranges {
				for off := r.Offset; l.Point == p.ID && off < r.Offset+r.Length; off += size {
					lost = append(lost, off)
				}
			}
		}
	}
	slices.Sort(lost)
	return slices.Compact(lost)
}

func names(report CheckReport, object string) bool {
	return slices.ContainsFunc(report.Damage, func(d Damage) bool { return d.Object == object })
}

// unnoticed tells whether damage of the object may go without mention: nobody
// relies on it.
func (c *collection) unnoticed(key, how string) bool {
	switch {
	case strings.HasPrefix(key, damagePrefix): // its name is all that counts
		return true
	case strings.HasPrefix(key, keyPrefix): // without the key nobody can tell; the others open the store
		return true
	case strings.HasPrefix(key, "store"): // names and times that no data depends on
		return true
	case how == "removed":
		// That a point, a session or a record was there, nobody knows.
		return !strings.HasPrefix(key, "packs/")
	}
	return strings.HasSuffix(how, "replaced by "+key)
}

// inUse tells whether a point needs the pack.
func (c *collection) inUse(t *testing.T, key string) bool {
	t.Helper()
	whole := c.bucket.Clone()
	if err := whole.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	s := openFor(t, whole, c.created.LocalKey)
	report, err := s.Check(t.Context(), CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return names(report, key)
}

// openFor opens a store for reading only, or fails the test.
func openFor(t *testing.T, b bucket.Bucket, key string) *Store {
	t.Helper()
	s, err := readOnly(t, b, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func readOnly(t *testing.T, b bucket.Bucket, key string) (*Store, error) {
	t.Helper()
	k, err := ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Open(t.Context(), b, k, OpenOptions{})
}

func TestDamageIsFoundAndNamed(t *testing.T) {
	c := newCollection(t)
	used := map[string]bool{}
	for _, key := range keysOf(t, c.bucket, "packs/") {
		used[key] = c.inUse(t, key)
	}
	for seed := range seeds(t, 200) {
		random := rand.New(rand.NewPCG(seed, 6))
		b := c.bucket.Clone()
		key, how := hurt(t, b, random, everyObject)
		if err := c.examine(t, b, key, how, used); err != nil {
			t.Fatalf("seed %d, %s %s: %v", seed, key, how, err)
		}
	}
}

// examine opens the damaged store, reads all of it and compares that with what
// Check says.
func (c *collection) examine(t *testing.T, b *membucket.Bucket, key, how string, used map[string]bool) error {
	s, err := readOnly(t, b, c.created.RecoveryKey)
	if err != nil {
		// A store that cannot be opened says so.
		if !slices.ContainsFunc([]problem.Code{problem.StoreDamaged, problem.StoreObjectMissing, problem.StoreNotFound,
			problem.StoreVersionUnsupported, problem.KeyWrong}, func(code problem.Code) bool { return problem.Is(err, code) }) || strings.Contains(err.Error(), "%!") {
			return fmt.Errorf("opening it: %w", err)
		}
		if strings.HasPrefix(key, "packs/") || strings.HasPrefix(key, pointPrefix) {
			return fmt.Errorf("the store does not open: %w", err)
		}
		return nil
	}
	report, err := s.Check(t.Context(), CheckOptions{ReadData: true})
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	expected := !c.unnoticed(key, how) && (used[key] || !strings.HasPrefix(key, "packs/"))
	if expected && !names(report, key) {
		return fmt.Errorf("check does not name it: %+v", report.Damage)
	}
	for _, d := range report.Damage {
		if d.Object != key || d.What == "" || strings.Contains(d.What, "%!") {
			return fmt.Errorf("check says %+v", d)
		}
	}
	for _, p := range c.points {
		q, err := s.Point(t.Context(), p.ID)
		if pointPrefix+p.ID == key && err != nil {
			continue
		}
		if err != nil {
			return fmt.Errorf("another object, point %s: %w", p.ID, err)
		}
		lost, said := lostBlocks(t, s, q, c.disks[p.ID]), reported(report, q, int64(s.BlockSize()))
		if !slices.Equal(lost, said) {
			return fmt.Errorf("point %s lost the blocks at %d, check says %d", p.ID, lost, said)
		}
		if len(lost) > 0 && !strings.HasPrefix(key, "packs/") {
			return fmt.Errorf("point %s lost %d blocks", p.ID, len(lost))
		}
	}
	return nil
}

// A backup after a check stores anew what was damaged and is on the disk still;
// its point needs no local index to be read.
func TestTheNextBackupHealsWhatIsStillOnTheDisk(t *testing.T) {
	c := newCollection(t)
	for seed := range seeds(t, 24) {
		random := rand.New(rand.NewPCG(seed, 7))
		l := &lab{t: t, bucket: c.bucket.Clone(), created: c.created, cache: memoryDir(t)}
		l.open(c.created.LocalKey)
		if seed%2 == 0 { // the index knows all, or nothing
			if _, _, err := l.RebuildIndex(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		}
		key, how := hurt(t, l.bucket, random, []string{dataPrefix, metadataPrefix})
		if _, err := l.Check(t.Context(), CheckOptions{ReadData: true}); err != nil {
			t.Fatalf("seed %d, %s %s: %v", seed, key, how, err)
		}
		for _, base := range []*Point{&c.points[2], &c.points[3], nil} {
			disk := c.disks[c.points[2].ID]
			if base == &c.points[3] {
				disk = c.disks[base.ID]
			}
			p, err := save(t.Context(), l.Store, "disk", disk, base)
			if err != nil {
				t.Fatalf("seed %d, %s %s: the next backup: %v", seed, key, how, err)
			}
			s := openFor(t, l.bucket, c.created.RecoveryKey)
			if lost := lostBlocks(t, s, p, disk); len(lost) > 0 {
				t.Fatalf("seed %d, %s %s: the point after it lost the blocks at %d", seed, key, how, lost)
			}
			report, err := s.Check(t.Context(), CheckOptions{Points: []string{p.ID}, ReadData: true})
			if err != nil || len(report.Damage) > 0 {
				t.Fatalf("seed %d, %s %s: the point after it: %+v, %v", seed, key, how, report.Damage, err)
			}
		}
		l.closeIndex()
	}
}

// Even a copy of the index that is older than the damage cannot bring a damaged
// pack back into use.
func TestAnIndexThatDoesNotKnowOfDamageIsNotTrusted(t *testing.T) {
	c := newCollection(t)
	l := &lab{t: t, bucket: c.bucket.Clone(), created: c.created, cache: memoryDir(t)}
	l.open(c.created.LocalKey)
	if _, _, err := l.RebuildIndex(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for _, key := range keysOf(t, l.bucket, dataPrefix) {
		if err := l.bucket.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	// Somebody else checks.
	if _, err := openFor(t, l.bucket, c.created.RecoveryKey).Check(t.Context(), CheckOptions{}); err != nil {
		t.Fatal(err)
	}
	disk := c.disks[c.points[2].ID]
	p := l.save("disk", disk, &c.points[2])
	if got, err := load(t.Context(), openFor(t, l.bucket, c.created.RecoveryKey), p); err != nil || !bytes.Equal(got, disk) {
		t.Errorf("the point relies on packs that are gone: %v", err)
	}
}

func TestAStrayObjectUnderAnyPrefixHurtsNobody(t *testing.T) {
	l := newLab(t, CreateOptions{})
	disk := someDisk(1<<20, 4)
	p := l.save("disk", disk, nil)
	for _, kind := range everyKind[4:] {
		for _, name := range []string{"x", strings.Repeat("ab", 16), strings.Repeat("ab", 40), "ab/" + strings.Repeat("cd", 40), strings.Repeat("g", 32), strings.Repeat("ef", 16) + "/99999999", strings.Repeat("ef", 16) + "/x"} {
			l.bucket.Replace(kind+name, []byte("stray"))
		}
	}
	again := l.save("disk", disk, &p)
	if !bytes.Equal(l.load(again), disk) {
		t.Error("came back different")
	}
	if _, _, err := l.RebuildIndex(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if _, err := l.Check(t.Context(), CheckOptions{ReadData: true}); err != nil {
		t.Error(err)
	}
	if _, _, _, err := l.Unfinished(t.Context(), "disk"); err != nil {
		t.Error(err)
	}
	if _, err := l.Statistics(t.Context()); err != nil {
		t.Error(err)
	}
	for _, err := range l.Records(t.Context()) {
		if err != nil && !isDamage(err) {
			t.Error(err)
		}
	}
}
