package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/filebucket"
	"github.com/diskvault/diskvault/store/bucket/membucket"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// The store in testdata/golden-v1 was written once and is kept: stores like it
// exist, and every later diskvault must read them. A change that breaks these
// tests breaks people's backups. Only a new version of the format gets a new
// golden store, beside this one, made by: go test ./store -run Golden -golden
var makeGolden = flag.Bool("golden", false, "write the golden store anew")

const (
	goldenFolder     = "testdata/golden-v1"
	goldenPassphrase = "correct horse battery staple"
)

// goldenDisk repeats words, zeros and noise, in parts of the given sizes.
func goldenDisk(seed uint64, words, zeros, noise int) []byte {
	disk := bytes.Repeat([]byte("one part of a golden disk "), words/26+1)[:words]
	disk = append(disk, make([]byte, zeros)...)
	end := make([]byte, noise)
	fill(rand.New(rand.NewPCG(seed, 17)), end)
	return append(disk, end...)
}

func TestWriteGolden(t *testing.T) {
	if !*makeGolden {
		t.Skip("only with the flag -golden: it writes the store anew")
	}
	if err := os.RemoveAll(goldenFolder); err != nil {
		t.Fatal(err)
	}
	b, err := filebucket.Open(filepath.Join(goldenFolder, "store"), filebucket.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	created, err := Create(t.Context(), b, CreateOptions{BlockSize: 16 << 10, Passphrase: goldenPassphrase})
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseKey(created.LocalKey)
	if err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	open := func() *Store {
		s, err := Open(t.Context(), unclosed{b}, k, OpenOptions{CacheDir: cache})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	var sums bytes.Buffer
	keep := func(instance string, c Compression, disk []byte, base *Point) *Point {
		o := WriterOptions{ID: newID(), Instance: instance, Size: int64(len(disk)), Compression: c, Meter: meter.New("transfer")}
		if base != nil {
			if o.Base, err = s.Image(*base); err != nil {
				t.Fatal(err)
			}
		}
		w, err := s.NewWriter(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := feed(w, disk, 0); err != nil {
			t.Fatal(err)
		}
		if instance == "interrupted" {
			if err := w.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&sums, "checkpoint %d %x %s\n", len(disk), sha256.Sum256(disk), instance)
			return nil
		}
		p, err := w.Commit(Point{Instance: instance, Name: instance, Time: time.Now().UTC(), Consistency: CrashConsistent, RetentionTag: "Default", Retention: "P30D"})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sums, "%s %d %x %s\n", p.ID, len(disk), sha256.Sum256(disk), instance)
		return &p
	}
	keep("empty", CompressionDefault, nil, nil)
	keep("zeros", CompressionDefault, make([]byte, 40<<20+1), nil)
	disk := goldenDisk(1, 3<<20+5, 1<<20, 30_000)
	first := keep("disk", CompressionDefault, disk, nil)
	// The data key is rotated: what is older stays readable.
	epoch := epochDocument{Epoch: 2, Key: bytes.Repeat([]byte{7}, 32), Created: time.Now().UTC()}
	object, err := seal.SealDocument(s.root, s.header.StoreID, seal.NewHeader(seal.Epoch, 0, ID{}), epoch)
	if err == nil {
		err = b.Put(t.Context(), epochKey(2), [][]byte{object})
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open()
	grown := keep("disk", CompressionFast, append(bytes.Clone(disk), goldenDisk(2, 70_000, 20<<20, 9_001)...), first)
	keep("disk", CompressionNone, append(bytes.Clone(disk[:100_003]), "another end"...), grown)
	keep("auto", CompressionAuto, goldenDisk(3, 200_000, 5, 20_000), nil)
	keep("max", CompressionMax, goldenDisk(4, 300_001, 0, 0), nil)
	keep("interrupted", CompressionDefault, goldenDisk(5, 100_000, 100_000, 5_000), nil)
	for _, body := range []any{map[string]int{"days": 7}, map[string]int{"days": 30}} {
		if err := s.PutRecord(t.Context(), "policy", "default", body); err != nil {
			t.Fatal(err)
		}
	}
	for _, body := range []any{"there", nil} {
		if err := s.PutRecord(t.Context(), "instance", "removed", body); err != nil {
			t.Fatal(err)
		}
	}
	fenced := newID()
	if _, err := s.putDocument(t.Context(), pointKey(fenced), seal.Point, fenced, pointDocument{Fence: &fence{By: "collector", Time: time.Now().UTC(), Reason: "golden"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.markDamaged(t.Context(), [16]byte{1}, "it is missing"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	for name, text := range map[string]string{"recovery-key.txt": "# The key of the golden store, which opens nothing else.\n" + created.RecoveryKey + "\n", "sums.txt": sums.String()} {
		if err := os.WriteFile(filepath.Join(goldenFolder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// golden loads the golden store into memory, so that no test can change it.
func golden(t *testing.T) *membucket.Bucket {
	t.Helper()
	b := membucket.New()
	root := os.DirFS(filepath.Join(goldenFolder, "store"))
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(root, path)
		b.Replace(path, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func goldenKey(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(goldenFolder, "recovery-key.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// sum gives size and SHA-256 of a point.
func sum(ctx context.Context, s *Store, p Point) (string, error) {
	disk, err := load(ctx, s, p)
	return fmt.Sprintf("%d %x", len(disk), sha256.Sum256(disk)), err
}

func TestGoldenStoreIsRead(t *testing.T) {
	b := golden(t)
	text, err := os.ReadFile(filepath.Join(goldenFolder, "sums.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]string{"recovery key": goldenKey(t), "passphrase": goldenPassphrase} {
		s := openFor(t, b, key)
		listed := 0
		for _, err := range s.Points(t.Context()) {
			if err != nil {
				t.Error(err)
			}
			listed++
		}
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			id, rest, _ := strings.Cut(lines.Text(), " ")
			var p Point
			if id == "checkpoint" {
				img, done, ok, err := s.Unfinished(t.Context(), "interrupted")
				if err != nil || !ok || done != img.Size() {
					t.Fatalf("%s: the interrupted run: %v, %v", name, ok, err)
				}
				p = Point{Instance: "interrupted", Root: img.root, Size: img.Size(), Top: Ref{img.tree.TopNode.Hash, img.tree.TopNode.Place}}
			} else {
				listed--
				if p, err = s.Point(t.Context(), id); err != nil {
					t.Error(err)
					continue
				}
			}
			got, err := sum(t.Context(), s, p)
			if got += " " + p.Instance; err != nil || got != rest {
				t.Errorf("%s, point %s: %v\nit is     %s\nit was    %s", name, id, err, got, rest)
			}
		}
		if listed != 0 {
			t.Errorf("%s: %d points more than were written", name, listed)
		}
		if err := undamaged(t.Context(), s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var records []string
		for r, err := range s.Records(t.Context()) {
			if err != nil {
				t.Error(err)
			}
			records = append(records, fmt.Sprint(r.Kind, r.Name, r.Version, string(r.Body)))
		}
		if fmt.Sprint(records) != `[policydefault2{"days":30}]` {
			t.Errorf("%s: records %q", name, records)
		}
	}
}

// The golden store would prove little if it lacked a part of the format.
func TestGoldenStoreHasEverythingOfItsVersion(t *testing.T) {
	b := golden(t)
	s := openFor(t, b, goldenKey(t))
	total := int64(0)
	for o, err := range b.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		total += o.Size
	}
	if total > 200<<10 {
		t.Errorf("it has %d bytes", total)
	}
	for _, kind := range append(everyKind, keyPrefix+"local-", keyPrefix+"recovery-", keyPrefix+"passphrase-", epochKey(2)) {
		if len(keysOf(t, b, kind)) == 0 {
			t.Errorf("there is no object %s…", kind)
		}
	}
	encodings, epochs := map[byte]int{}, map[byte]int{}
	err := s.packs(t.Context(), func(p packObject) error {
		name := packName(p.kind, p.id)
		data, err := bucket.ReadAll(t.Context(), b, name, 1<<20)
		if err != nil {
			return err
		}
		epochs[data[8]]++
		frames, err := s.directory(t.Context(), p.kind, p.id, 0)
		if err != nil {
			return err
		}
		key, err := s.packKey(t.Context(), p.kind, p.id)
		if err != nil {
			return err
		}
		for _, f := range frames {
			plain, err := key.Open(nil, data[f.Offset:f.Offset+f.Length], int64(f.Offset))
			if err != nil {
				return err
			}
			encodings[plain[0]]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(encodings) != 3 || len(epochs) != 2 {
		t.Errorf("frames by encoding: %v, packs by epoch: %v", encodings, epochs)
	}
}

// A store of this version is not only read but written on.
func TestGoldenStoreIsWrittenOn(t *testing.T) {
	l := &lab{t: t, bucket: golden(t), cache: memoryDir(t)}
	l.open(goldenKey(t))
	if _, skipped, err := l.RebuildIndex(t.Context(), nil); err != nil || skipped != 0 {
		t.Fatalf("%d packs skipped, %v", skipped, err)
	}
	disk := goldenDisk(1, 3<<20+5, 1<<20, 30_000)
	p := l.save("again", disk, nil)
	if p.Bytes.New != 0 || !bytes.Equal(l.load(p), disk) {
		t.Errorf("blocks of the golden store were stored again: %+v", p.Bytes)
	}
	for q, err := range l.Points(t.Context()) {
		if err == nil && q.Instance == "disk" && q.Size == p.Size && q.Root != p.Root {
			t.Errorf("the same disk has the root %v now, it had %v", p.Root, q.Root)
		}
	}
	l.mustBeWhole()
}
