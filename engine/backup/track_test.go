package backup

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/capture"
	"github.com/diskvault/diskvault/disk/disktest"
	"github.com/diskvault/diskvault/store"
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

// onClones runs a test on each kind of file system that clones files.
func onClones(t *testing.T, test func(t *testing.T, dir string)) {
	for _, kind := range []string{"xfs", "btrfs", "btrfs compressed", "btrfs in place"} {
		t.Run(kind, func(t *testing.T) {
			name, how, _ := strings.Cut(kind, " ")
			dir, _ := disktest.FileSystem(t, name, 640<<20)
			switch how {
			case "compressed":
				disktest.Run(t, "mount", "-o", "remount,compress-force=zstd", dir)
			case "in place":
				disktest.Need(t, "chattr")
				disktest.Run(t, "chattr", "+C", dir)
			}
			test(t, dir)
		})
	}
}

// vandal changes a file in every way that a program or a person can.
type vandal struct {
	*rand.Rand
	path  string
	other string // a file with content of its own to take from

	from, to, length int64 // what was taken from it last
}

func newVandal(t *testing.T, dir string, r *rand.Rand) *vandal {
	t.Helper()
	v := &vandal{Rand: r, path: filepath.Join(dir, "disk.img"), other: filepath.Join(dir, "other")}
	b := make([]byte, 2<<20)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	if err := os.WriteFile(v.path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	b = b[:0]
	for line := 0; len(b) < 2<<20; line++ { // to be compressed, and no two pages alike
		b = fmt.Appendf(b, "this is line %d of the other file\n", line)
	}
	if err := os.WriteFile(v.other, b, 0o600); err != nil {
		t.Fatal(err)
	}
	disktest.Run(t, "sync", v.other)
	if err := os.Truncate(v.path, 6<<20+r.Int64N(3)*4096*r.Int64N(300)+r.Int64N(2)*r.Int64N(9999)); err != nil {
		t.Fatal(err)
	}
	return v
}

// place draws a range of the file, mostly of whole sectors.
func (v *vandal) place(size int64) (off, length int64) {
	unit := []int64{1, 512, 4096, 4096, 64 << 10}[v.IntN(5)]
	off = v.Int64N(max(1, size)) / unit * unit
	length = min(max(unit, v.Int64N(40)*v.Int64N(40)*512/unit*unit), size-off)
	return off, length
}

func (v *vandal) bytes(n int64) []byte {
	b := make([]byte, n)
	switch v.IntN(4) {
	case 0: // zeros
	case 1:
		copy(b, bytes.Repeat([]byte("compressible "), len(b)/13+1))
	default:
		for i := range b {
			b[i] = byte(v.Uint32())
		}
	}
	return b
}

// act does one thing and tells what it was.
func (v *vandal) act(t *testing.T) (did string) {
	t.Helper()
	f, err := os.OpenFile(v.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	size := info.Size()
	off, length := v.place(size)
	if length <= 0 {
		off, length = 0, 1
	}
	fd := int(f.Fd())
	note := func(what string) { did = fmt.Sprintf("%s %d+%d of %d", what, off, length, size) }
	switch n := v.IntN(20); n {
	case 0, 1, 2, 3, 4:
		note("write")
		_, err = f.WriteAt(v.bytes(length), off)
	case 5:
		note("write directly")
		off, length = off&^4095, max(4096, length&^4095)
		var d int
		if d, err = unix.Open(v.path, unix.O_RDWR|unix.O_DIRECT, 0); err == nil {
			b := disk.AlignedBuffer(int(length))
			copy(b, v.bytes(length))
			_, err = unix.Pwrite(d, b, off)
			unix.Close(d)
		}
	case 6, 7:
		note("store to a mapping")
		off &^= 4095
		length = min(length, size-off)
		var m []byte
		if m, err = unix.Mmap(fd, off, int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
			copy(m, v.bytes(length))
			err = unix.Munmap(m)
		}
	case 8:
		note("rewrite the same")
		b := make([]byte, length)
		if _, err = f.ReadAt(b, off); err == nil {
			_, err = f.WriteAt(b, off)
		}
	case 9:
		note("punch")
		err = unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
	case 10:
		note("zero")
		err = unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE|uint32(v.IntN(2))*unix.FALLOC_FL_KEEP_SIZE, off, length)
	case 11:
		note("allocate")
		err = unix.Fallocate(fd, uint32(v.IntN(2))*unix.FALLOC_FL_KEEP_SIZE, off, length+v.Int64N(2)*v.Int64N(1<<20))
	case 12:
		note("truncate")
		err = f.Truncate(max(1, size-v.Int64N(1+size/4)))
	case 13:
		note("grow")
		err = f.Truncate(size + v.Int64N(2<<20))
	case 14:
		note("append")
		_, err = f.WriteAt(v.bytes(length), size)
	case 15: // from another file, at any place
		v.from, v.to = v.Int64N(400)*4096, off&^4095
		v.length = (1 + v.Int64N(16)) * 4096
		off, length = v.to, v.length
		note("clone from elsewhere")
		err = v.clone(fd, v.other, v.from, off, length)
	case 16: // to the same place, from one beside it
		if v.length > 0 {
			v.from = max(0, v.from+(v.Int64N(5)-2)*4096)
			off, length = v.to, v.length
			note("clone from elsewhere again")
			err = v.clone(fd, v.other, v.from, off, length)
		}
	case 17: // from itself
		from := v.Int64N(max(1, size/4096-17)) * 4096
		off, length = from+17*4096, min(16*4096, 1+v.Int64N(16))*4096
		length = min(length, 16*4096)
		note("clone from itself")
		if from+length <= size {
			err = v.clone(fd, v.path, from, off, length)
		}
	case 18:
		note("deduplicate")
		err = v.dedupe(f, off&^4095)
	case 19:
		note("sync")
		err = f.Sync()
	}
	if err != nil && err != unix.EOPNOTSUPP && err != unix.EINVAL {
		t.Fatalf("%s: %v", did, err)
	}
	return did
}

func (v *vandal) clone(fd int, path string, from, to, length int64) error {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	return unix.IoctlFileCloneRange(fd, &unix.FileCloneRange{
		Src_fd: int64(src.Fd()), Src_offset: uint64(from), Src_length: uint64(length), Dest_offset: uint64(to),
	})
}

// dedupe copies a piece of the file to the other, and lets both share it.
func (v *vandal) dedupe(f *os.File, off int64) error {
	const length = 16 << 10
	b := make([]byte, length)
	if n, _ := f.ReadAt(b, off); n < length {
		return nil
	}
	other, err := os.OpenFile(v.other, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer other.Close()
	if _, err := other.WriteAt(b, 0); err != nil {
		return err
	}
	return unix.IoctlFileDedupeRange(int(other.Fd()), &unix.FileDedupeRange{
		Src_offset: 0, Src_length: length,
		Info: []unix.FileDedupeRangeInfo{{Dest_fd: int64(f.Fd()), Dest_offset: uint64(off)}},
	})
}

// stir moves what is stored about, without a change to any file.
func (v *vandal) stir(t *testing.T, dir string) string {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type == unix.XFS_SUPER_MAGIC {
		disktest.Run(t, "xfs_fsr", v.path)
		return "xfs_fsr"
	}
	switch v.IntN(3) {
	case 0:
		disktest.Run(t, "btrfs", "filesystem", "defragment", "-f", v.path)
		return "defragment"
	case 1:
		disktest.Run(t, "btrfs", "filesystem", "defragment", "-f", "-r", "-czstd", dir)
		return "defragment and compress all"
	}
	disktest.Run(t, "btrfs", "balance", "start", "--full-balance", dir)
	return "balance"
}

// again makes a backup with options that a test may change first.
func again(t *testing.T, s *store.Store, path string, parent *store.Point, change func(*Options)) Result {
	t.Helper()
	o := options(t, s, path)
	o.Parent = parent
	if change != nil {
		change(&o)
	}
	result, err := New(o).Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// The image of what changed, put onto the image before, is the image of a full
// scan, whatever was done to the file.
func TestChangesMakeTheSameImageAsAFullScan(t *testing.T) {
	for _, program := range []string{"xfs_fsr", "btrfs"} {
		disktest.Need(t, program)
	}
	onClones(t, func(t *testing.T, dir string) {
		reported := int64(0)
		for seed := range seeds(t, 2) {
			s := newStore(t)
			v := newVandal(t, dir, rand.New(rand.NewPCG(seed, 21)))
			var log []string
			parent := again(t, s, v.path, nil, nil).Point
			for round := range 5 {
				for range v.IntN(12) {
					log = append(log, v.act(t))
				}
				if v.IntN(4) == 0 {
					log = append(log, v.stir(t, dir))
				}
				result := again(t, s, v.path, &parent, nil)
				full := again(t, s, v.path, nil, func(o *Options) { o.FullScan, o.Capturer = true, capture.Options{} })
				if result.ChangeTracking.Method != "fiemap" {
					t.Fatalf("seed %d round %d: changes were not tracked: %+v", seed, round, result.ChangeTracking)
				}
				if result.Point.Root != full.Point.Root {
					img, err := s.Image(full.Point)
					if err != nil {
						t.Fatal(err)
					}
					tracked, err := s.Image(result.Point)
					if err != nil {
						t.Fatal(err)
					}
					differ, err := img.Differs(t.Context(), tracked)
					t.Fatalf("seed %d round %d: %v differ (%v) from a full scan of %d bytes, after %d\n%s", seed, round, differ, err, full.Point.Size, parent.Size, strings.Join(log, "\n"))
				}
				reported += result.Point.Bytes.ReportedChanged
				parent, log = result.Point, append(log, "--- backup")
			}
		}
		if reported == 0 {
			t.Error("nothing was ever reported as changed")
		}
	})
}

func TestOnlyWhatChangedIsRead(t *testing.T) {
	onClones(t, func(t *testing.T, dir string) {
		if strings.Contains(t.Name(), "compressed") {
			t.SkipNow() // counts as changed, as it must
		}
		s := newStore(t)
		path := filepath.Join(dir, "disk.img")
		want := make([]byte, 64<<20+123)
		rand.NewChaCha8([32]byte{7}).Read(want)
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		first := again(t, s, path, nil, nil)
		if first.Capture.Method != "reflink" || !first.Capture.Proven || first.ChangeTracking.Dropped != "" {
			t.Fatalf("%+v", first)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() // in use all the while
		for i := range int64(20) {
			at := i * 3 << 20
			copy(want[at:], "changed")
			if _, err := f.WriteAt(want[at:at+64<<10], at); err != nil {
				t.Fatal(err)
			}
		}
		second := again(t, s, path, &first.Point, nil)
		if b := second.Point.Bytes; second.ChangeTracking.Method != "fiemap" || b.ReportedChanged != 20*64<<10 || b.Read != 20*64<<10 || b.New != b.Read {
			t.Errorf("%+v %+v", second.ChangeTracking, b)
		}
		if !bytes.Equal(want, content(t, s, second.Point)) {
			t.Error("came back different")
		}
		third := again(t, s, path, &second.Point, nil)
		if b := third.Point.Bytes; b.Read != 0 || third.Point.Root != second.Point.Root {
			t.Errorf("nothing changed: %+v", b)
		}
		if third.Point.FullRead != first.Point.Time || third.Point.ChangeTracking != "fiemap" {
			t.Errorf("all was last read at %v, not %v", third.Point.FullRead, first.Point.Time)
		}
	})
}

// blind is a view that does not tell all changes.
type blind struct {
	tracker
	capture.View
}

func (b blind) Changed(ctx context.Context, token []byte) (capture.Changes, error) {
	c, err := b.tracker.Changed(ctx, token)
	c.Ranges = nil
	return c, err
}

type blindCapturer struct{ capture.Capturer }

func (c blindCapturer) Capture(ctx context.Context, src *disk.Source) (capture.View, error) {
	v, err := c.Capturer.Capture(ctx, src)
	if err != nil {
		return nil, err
	}
	return blind{v.(tracker), v}, nil
}

// That all is read now and then is what finds a change that tracking missed.
func TestAMissedChangeIsFoundByReadingEverything(t *testing.T) {
	dir, _ := disktest.FileSystem(t, "xfs", 640<<20)
	s := newStore(t)
	path := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(path, bytes.Repeat([]byte("content "), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	first := again(t, s, path, nil, nil)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("changed"), 3<<20); err != nil {
		t.Fatal(err)
	}
	unseeing := func(o *Options) { o.Capturer = blindCapturer{capture.Options{Owner: "i"}} }
	second := again(t, s, path, &first.Point, unseeing)
	if second.Point.Root != first.Point.Root {
		t.Fatal("the change was not missed")
	}
	third := again(t, s, path, &second.Point, func(o *Options) { unseeing(o); o.FullReadEvery = time.Nanosecond })
	if m := third.ChangeTracking.Missed; len(m) != 1 || m[0] != (store.Range{Offset: 3 << 20, Length: 64 << 10}) || len(third.Warnings) != 1 || third.ChangeTracking.Method != "none" {
		t.Errorf("%+v %v", third.ChangeTracking, third.Warnings)
	}
	if bytes.Equal(content(t, s, third.Point)[3<<20:3<<20+7], []byte("content")) {
		t.Error("the new point shows the old content")
	}
	// Tracking is not relied on before all was read once more.
	fourth := again(t, s, path, &third.Point, nil)
	if fourth.ChangeTracking.Method != "none" || !strings.Contains(fourth.ChangeTracking.Reason, "gone") {
		t.Errorf("%+v", fourth.ChangeTracking)
	}
	// What tracking named is not missed.
	if _, err := f.WriteAt([]byte("changed"), 5<<20); err != nil {
		t.Fatal(err)
	}
	fifth := again(t, s, path, &fourth.Point, func(o *Options) { o.FullScan = true })
	if fifth.ChangeTracking.Missed != nil || fifth.Warnings != nil || !fifth.Point.FullRead.Equal(fifth.Point.Time) {
		t.Errorf("%+v %v", fifth.ChangeTracking, fifth.Warnings)
	}
}

// What the parent's part of the store lost is read from the disk, though
// tracking says that it has not changed.
func TestWhatTheStoreLostIsReadFromTheDisk(t *testing.T) {
	dir, _ := disktest.FileSystem(t, "xfs", 640<<20)
	for _, kind := range []string{"packs/data/", "packs/meta/"} {
		t.Run(filepath.Base(kind), func(t *testing.T) {
			b := membucket.New()
			created, err := store.Create(t.Context(), b, store.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			open := func() *store.Store {
				key, err := store.ParseKey(created.LocalKey)
				if err != nil {
					t.Fatal(err)
				}
				s, err := store.Open(t.Context(), b, key, store.OpenOptions{CacheDir: t.TempDir()})
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			s := open()
			path := filepath.Join(dir, "disk.img")
			want := make([]byte, 40<<20)
			rand.NewChaCha8([32]byte{3}).Read(want)
			if err := os.WriteFile(path, want, 0o600); err != nil {
				t.Fatal(err)
			}
			first := again(t, s, path, nil, nil)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			lost := 0
			for o, err := range b.List(t.Context(), kind, "") {
				if err != nil {
					t.Fatal(err)
				}
				if lost++; lost == 1 {
					if err := b.Delete(t.Context(), o.Key); err != nil {
						t.Fatal(err)
					}
				}
			}
			if lost == 0 {
				t.Fatalf("there is nothing under %s", kind)
			}
			s = open()
			defer s.Close()
			if kind == "packs/data/" { // which only a check notices
				if _, err := s.Check(t.Context(), store.CheckOptions{ReadData: true}); err != nil {
					t.Fatal(err)
				}
			}
			second := again(t, s, path, &first.Point, nil)
			if !bytes.Equal(want, content(t, s, second.Point)) {
				t.Error("came back different")
			}
			if b := second.Point.Bytes; b.New == 0 || kind == "packs/data/" && (second.ChangeTracking.Method != "fiemap" || b.Read == b.Provisioned) {
				t.Errorf("%+v %+v", second.ChangeTracking, b)
			}
		})
	}
}

func TestRangesThatCouldNotBeReadAreReadAgain(t *testing.T) {
	dir, _ := disktest.FileSystem(t, "xfs", 640<<20)
	s := newStore(t)
	path := filepath.Join(dir, "disk.img")
	want := bytes.Repeat([]byte("content "), 1<<20)
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	first := again(t, s, path, nil, func(o *Options) { o.AllowUnreadable, o.Capturer = true, sickCapturer{capture.Options{Owner: "i"}} })
	if len(first.Point.Unreadable) != 1 || first.Point.CaptureBase == nil {
		t.Fatalf("%+v", first.Point)
	}
	second := again(t, s, path, &first.Point, nil)
	if second.ChangeTracking.Method != "fiemap" || second.Point.Bytes.Read != 128<<10 {
		t.Errorf("%+v %+v", second.ChangeTracking, second.Point.Bytes)
	}
	if !bytes.Equal(want, content(t, s, second.Point)) {
		t.Error("came back different")
	}
}

// sick is a view of which a part cannot be read.
type sick struct {
	tracker
	capture.View
}

func (v sick) Read(ctx context.Context, p []byte, off int64) error {
	if err := v.View.Read(ctx, p, off); err != nil {
		return err
	}
	bad := (extent.Range{Off: 1<<20 + 512, Len: 64 << 10}).Intersect(extent.Range{Off: off, Len: int64(len(p))})
	if bad.Empty() {
		return nil
	}
	clear(p[bad.Off-off : bad.End()-off])
	return &disk.ReadError{Path: "disk.img", Ranges: extent.Of(bad), Err: unix.EIO}
}

type sickCapturer struct{ capture.Capturer }

func (c sickCapturer) Capture(ctx context.Context, src *disk.Source) (capture.View, error) {
	v, err := c.Capturer.Capture(ctx, src)
	if err != nil {
		return nil, err
	}
	return sick{v.(tracker), v}, nil
}
