package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/membucket"
)

func TestMain(m *testing.M) {
	passphraseWork = 10
	os.Exit(m.Run())
}

// lab is a store in memory, for tests.
type lab struct {
	t       testing.TB
	bucket  *membucket.Bucket
	created Created
	cache   string
	ahead   time.Duration // by which the storage's clock is ahead
	*Store
}

func newLab(t testing.TB, o CreateOptions) *lab {
	t.Helper()
	b := membucket.New()
	created, err := Create(t.Context(), b, o)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, bucket: b, created: created, cache: memoryDir(t)}
	l.open(created.LocalKey)
	return l
}

// memoryDir is a folder in memory where there is one, since most tests here
// prove nothing about syncing and would spend their time on it.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "diskvault-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// open closes the store, if it is open, and opens it again.
func (l *lab) open(key string) {
	l.t.Helper()
	if l.Store != nil {
		l.closeIndex()
	}
	k, err := ParseKey(key)
	if err != nil {
		l.t.Fatal(err)
	}
	s, err := Open(l.t.Context(), l.bucket, k, OpenOptions{CacheDir: l.cache})
	if err != nil {
		l.t.Fatal(err)
	}
	l.Store = s
	l.t.Cleanup(l.closeIndex)
}

// closeIndex leaves the bucket open, since it is the store's only copy.
func (l *lab) closeIndex() {
	if l.Store.index != nil {
		if err := l.Store.index.Close(); err != nil {
			l.t.Error(err)
		}
		l.Store.index = nil
	}
}

// save stores the disk as a point of the instance and compares with base,
// which may be nil.
func (l *lab) save(instance string, disk []byte, base *Point) Point {
	l.t.Helper()
	p, err := save(l.t.Context(), l.Store, instance, disk, base)
	if err != nil {
		l.t.Fatal(err)
	}
	return p
}

func newID() (id ID) {
	rand.Read(id[:])
	return id
}

func save(ctx context.Context, s *Store, instance string, disk []byte, base *Point) (Point, error) {
	o := WriterOptions{ID: newID(), Instance: instance, Size: int64(len(disk)), Compression: CompressionDefault, Meter: meter.New("transfer")}
	if base != nil {
		img, err := s.Image(*base)
		if err != nil {
			return Point{}, err
		}
		o.Base = img
	}
	w, err := s.NewWriter(ctx, o)
	if err != nil {
		return Point{}, err
	}
	defer w.Close()
	if err := feed(w, disk, 0); err != nil {
		return Point{}, err
	}
	return w.Commit(Point{Instance: instance, Name: instance, Consistency: CrashConsistent})
}

// feed gives the writer the disk from an offset on.
func feed(w *Writer, disk []byte, from int64) error {
	s := w.store
	e, err := w.NewEncoder(w.options.Meter.Stage("cpu", 1), 0)
	if err != nil {
		return err
	}
	defer e.Close()
	for off := from; off < int64(len(disk)); off += SegmentSize {
		n := min(SegmentSize, int64(len(disk))-off)
		data := make([]byte, (n+int64(s.blockSize)-1)/int64(s.blockSize)*int64(s.blockSize))
		copy(data, disk[off:off+n])
		segment, err := e.Encode(w.Context(), off, []Run{{off, n}}, data)
		if err != nil {
			return err
		}
		if err := w.Add(segment); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) load(p Point) []byte {
	l.t.Helper()
	disk, err := load(l.t.Context(), l.Store, p)
	if err != nil {
		l.t.Fatal(err)
	}
	return disk
}

func load(ctx context.Context, s *Store, p Point) ([]byte, error) {
	img, err := s.Image(p)
	if err != nil {
		return nil, err
	}
	r := img.NewReader()
	defer r.Close()
	disk := make([]byte, p.Size)
	for off := int64(0); off < p.Size; off += SegmentSize {
		err := r.Window(ctx, off, SegmentSize, func(at int64, data []byte) error {
			copy(disk[at:], data)
			return nil
		}, nil)
		if err != nil {
			return nil, err
		}
	}
	return disk, nil
}

// someDisk mixes noise, text, repetitions and zeros.
func someDisk(size int, seed uint64) []byte {
	r := mathrand.New(mathrand.NewPCG(seed, 1))
	disk := make([]byte, size)
	for at := 0; at < size; {
		n := min(size-at, 1+r.IntN(300<<10))
		part := disk[at : at+n]
		switch r.IntN(4) {
		case 0:
			fill(r, part)
		case 1:
			for i := range part {
				part[i] = "the quick brown fox "[i%20] + byte(at)%3
			}
		case 2:
			if at > 0 {
				copy(part, disk[r.IntN(at):])
			}
		}
		at += n
	}
	return disk
}

func fill(r *mathrand.Rand, p []byte) {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
}

func TestRoundTrip(t *testing.T) {
	for _, blockSize := range []int{16 << 10, 64 << 10, 1 << 20} {
		l := newLab(t, CreateOptions{BlockSize: blockSize})
		var base *Point
		for i, size := range []int{0, 1, 4095, 64 << 10, 5<<20 + 17, 23<<20 + 511, 9 << 20} {
			disk := someDisk(size, uint64(i))
			p := l.save("disk", disk, base)
			if got := l.load(p); !bytes.Equal(got, disk) {
				t.Fatalf("block size %d, disk of %d bytes: came back different", blockSize, size)
			}
			base = &p
		}
		l.mustBeWhole()
	}
}

func (l *lab) mustBeWhole() {
	l.t.Helper()
	report, err := l.Check(l.t.Context(), CheckOptions{ReadData: true})
	if err != nil {
		l.t.Fatal(err)
	}
	if len(report.Damage) > 0 {
		l.t.Fatalf("damage: %+v", report.Damage)
	}
}

func TestIncrementStoresOnlyTheChange(t *testing.T) {
	l := newLab(t, CreateOptions{})
	disk := someDisk(40<<20, 7)
	first := l.save("disk", disk, nil)
	fill(mathrand.New(mathrand.NewPCG(1, 2)), disk[17<<20:17<<20+100])
	second := l.save("disk", disk, &first)
	if second.Bytes.New != 64<<10 {
		t.Errorf("one changed block: %d bytes were new", second.Bytes.New)
	}
	same := l.save("disk", disk, &second)
	if same.Root != second.Root || same.Bytes.New != 0 || same.Bytes.Stored != 0 {
		t.Errorf("nothing changed: %+v", same.Bytes)
	}
	// The same content under another name, without a base, is known.
	other := l.save("other", disk, nil)
	if other.Root != second.Root || other.Bytes.New != 0 {
		t.Errorf("known content was stored again: %+v", other.Bytes)
	}
	if err := l.DeletePoint(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(l.load(second), disk) {
		t.Error("deleting a point touched another")
	}
}

func TestAnyKeyOpensTheStoreAlone(t *testing.T) {
	l := newLab(t, CreateOptions{Passphrase: "correct horse battery staple"})
	disk := someDisk(3<<20, 9)
	p := l.save("disk", disk, nil)
	for _, key := range []string{l.created.RecoveryKey, "# a comment\n" + l.created.LocalKey + "\n", "correct horse battery staple"} {
		k, err := ParseKey(key)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), l.bucket, k, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		q, err := s.Point(t.Context(), p.ID)
		if err != nil {
			t.Fatal(err)
		}
		got, err := load(t.Context(), s, q)
		if err != nil || !bytes.Equal(got, disk) {
			t.Fatalf("%v: came back different", err)
		}
	}
	for _, wrong := range []string{"incorrect horse", newLab(t, CreateOptions{}).created.RecoveryKey} {
		k, _ := ParseKey(wrong)
		if _, err := Open(t.Context(), l.bucket, k, OpenOptions{}); !problem.Is(err, problem.KeyWrong) {
			t.Errorf("%.20s…: %v", wrong, err)
		}
	}
}

func TestTheStoreCannotBeReadWithoutAKey(t *testing.T) {
	l := newLab(t, CreateOptions{})
	secret := []byte("the combination of the safe is 1-2-3-4 ")
	disk := bytes.Repeat(secret, 50_000)
	l.save("disk-with-a-telling-name", disk, nil)
	if err := l.PutRecord(t.Context(), "instance", "telling-name", map[string]string{"a": "telling-body"}); err != nil {
		t.Fatal(err)
	}
	for o, err := range l.bucket.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		data, err := bucket.ReadAll(t.Context(), l.bucket, o.Key, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, secret[:12]) || bytes.Contains(data, []byte("telling")) || bytes.Contains([]byte(o.Key), []byte("telling")) {
			t.Errorf("%s can be read", o.Key)
		}
	}
}

func TestIndexIsRebuiltFromThePacks(t *testing.T) {
	l := newLab(t, CreateOptions{})
	disk := someDisk(30<<20, 11)
	l.save("disk", disk, nil)
	l.closeIndex()
	if err := os.RemoveAll(l.cache); err != nil {
		t.Fatal(err)
	}
	l.Store.index = nil
	l.open(l.created.LocalKey)
	packs, skipped, err := l.RebuildIndex(t.Context(), nil)
	if err != nil || packs < 2 || skipped != 0 {
		t.Fatalf("%d packs, %d skipped, %v", packs, skipped, err)
	}
	if p := l.save("other", disk, nil); p.Bytes.New != 0 {
		t.Errorf("after rebuilding the index %d bytes were stored again", p.Bytes.New)
	}
}

func TestRecordsKeepTheNewestVersion(t *testing.T) {
	l := newLab(t, CreateOptions{})
	put := func(kind, name string, body any) {
		t.Helper()
		if err := l.PutRecord(t.Context(), kind, name, body); err != nil {
			t.Fatal(err)
		}
	}
	put("policy", "a", 1)
	put("policy", "a", 2)
	put("policy", "a", 2)
	put("policy", "b", 1)
	put("instance", "a", 7)
	put("instance", "gone", 7)
	put("instance", "gone", nil)
	got := map[string]string{}
	for r, err := range l.Records(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got[r.Kind+" "+r.Name] = fmt.Sprintf("%d: %s", r.Version, r.Body)
	}
	want := map[string]string{"policy a": "2: 2", "policy b": "1: 1", "instance a": "1: 7"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
