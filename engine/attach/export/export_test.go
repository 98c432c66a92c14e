package export

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	mrand "math/rand/v2"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/disktest"
	"github.com/diskvault/diskvault/disk/nbd"
	"github.com/diskvault/diskvault/engine/attach/image"
	"github.com/diskvault/diskvault/engine/attach/overlay"
	"github.com/diskvault/diskvault/engine/backup"
	"github.com/diskvault/diskvault/store"
	"github.com/diskvault/diskvault/store/bucket/filebucket"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shelf is a store with a point of one disk.
type shelf struct {
	store *store.Store
	disk  string
	point store.Point
}

func newShelf(t testing.TB, content []byte) *shelf {
	t.Helper()
	s := &shelf{disk: filepath.Join(t.TempDir(), "disk.img")}
	must(t, os.WriteFile(s.disk, content, 0o600))
	b, err := filebucket.Open(t.TempDir(), filebucket.Options{})
	must(t, err)
	created, err := store.Create(t.Context(), b, store.CreateOptions{})
	must(t, err)
	key, err := store.ParseKey(created.LocalKey)
	must(t, err)
	s.store, err = store.Open(t.Context(), b, key, store.OpenOptions{CacheDir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { must(t, s.store.Close()) })
	src, err := disk.Probe(t.Context(), s.disk)
	must(t, err)
	r, err := backup.New(backup.Options{Store: s.store, Source: src, Point: store.Point{Instance: "i", Name: "disk"}, Meter: meter.New("preflight")}).Do(t.Context())
	must(t, err)
	s.point = r.Point
	return s
}

func (s *shelf) open(t testing.TB, p store.Point) *image.Image {
	t.Helper()
	source, err := s.store.Image(p)
	must(t, err)
	i := image.Open(source, s.store.BlockSize(), image.Options{})
	t.Cleanup(func() { i.Close() })
	return i
}

// serve exports a disk until the test ends, or until the function is called.
func serve(t testing.TB, o Options) (*Export, func()) {
	t.Helper()
	if o.Socket == "" && o.Listen == "" {
		o.Socket = filepath.Join(t.TempDir(), "s")
	}
	e, err := New(o)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Serve(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		must(t, <-done)
	}
	t.Cleanup(stop)
	return e, stop
}

// content is a disk of data and holes.
func content(size int) []byte {
	r := mrand.New(mrand.NewPCG(8, 9))
	b := make([]byte, size)
	for at := 0; at < size; at += 256 << 10 {
		if r.IntN(3) == 0 {
			continue
		}
		for i := at; i < min(size, at+256<<10); i++ {
			b[i] = byte(r.Uint32()) & 0x3f
		}
	}
	return b
}

func TestToolsReadThePoint(t *testing.T) {
	disktest.Need(t, "nbdinfo", "nbdcopy", "qemu-img")
	want := content(24<<20 + 512)
	s := newShelf(t, want)
	e, stop := serve(t, Options{Disk: s.open(t, s.point), Description: "disk as of then"})
	info := disktest.Run(t, "nbdinfo", e.URL())
	for _, line := range []string{"export-size: 25166336", "is_read_only: true", "can_multi_conn: true", "base:allocation"} {
		if !strings.Contains(info, line) {
			t.Errorf("nbdinfo does not say %q:\n%s", line, info)
		}
	}
	copied := filepath.Join(t.TempDir(), "copy.img")
	disktest.Run(t, "nbdcopy", e.URL(), copied)
	got, err := os.ReadFile(copied)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("nbdcopy copied something else")
	}
	disktest.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", s.disk, e.URL())
	mapped := disktest.Run(t, "nbdinfo", "--map", "--totals", e.URL())
	if !strings.Contains(mapped, "hole,zero") || !strings.Contains(mapped, "data") {
		t.Errorf("the map knows no holes:\n%s", mapped)
	}
	if out, err := exec.Command("qemu-io", "-f", "raw", "-c", "write 0 4k", e.URL()).CombinedOutput(); err == nil {
		t.Errorf("a recovery point was written to: %s", out)
	}
	socket := strings.TrimPrefix(e.URL(), "nbd+unix:///?socket=")
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v %v", info, err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for e.Idle() == 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if e.Idle() == 0 || !e.Used() {
		t.Error("the clients have left, and nobody noticed")
	}
	stop()
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is still there")
	}
}

// Everything between two extents of the map is what the disk holds.
func TestMapHasNoGaps(t *testing.T) {
	want := content(19 << 20)
	s := newShelf(t, want)
	m := mapped{s.open(t, s.point)}
	r := mrand.New(mrand.NewPCG(3, 3))
	for range 50 {
		from := r.Int64N(int64(len(want)))
		asked := extent.Between(from, from+1+r.Int64N(int64(len(want))-from))
		at := asked.Off
		var before nbd.Extent
		for x, err := range m.Extents(t.Context(), nbd.ContextAllocation, asked) {
			must(t, err)
			if x.Off != at || x.Len <= 0 || before.Len > 0 && before.Flags == x.Flags {
				t.Fatalf("after %+v comes %+v", before, x)
			}
			if x.Flags != 0 && bytes.Count(want[x.Off:x.End()], []byte{0}) != int(x.Len) {
				t.Fatalf("%+v is not zeros", x)
			}
			at, before = x.End(), x
		}
		if at != asked.End() {
			t.Fatalf("the map of %v ends at %d", asked, at)
		}
	}
}

func TestWrittenPointIsKept(t *testing.T) {
	disktest.Need(t, "qemu-io", "qemu-img")
	want := content(24<<20 + 512)
	s := newShelf(t, want)
	d, err := overlay.Scratch(s.open(t, s.point), t.TempDir())
	must(t, err)
	defer d.Close()
	e, stop := serve(t, Options{Disk: d})
	disktest.Run(t, "qemu-io", "-f", "raw", "-c", "write -P 0x61 70000 5000", "-c", "write -z 9M 1M", "-c", "write -P 0x62 -f 25161728 4608", "-c", "discard 2M 64k", "-c", "flush",
		"-c", "read -P 0x61 70000 5000", e.URL())
	for i := range 5000 {
		want[70000+i] = 0x61
	}
	clear(want[9<<20 : 10<<20])
	for i := 25161728; i < len(want); i++ {
		want[i] = 0x62
	}
	clear(want[2<<20 : 2<<20+64<<10])
	changed := filepath.Join(t.TempDir(), "changed.img")
	must(t, os.WriteFile(changed, want, 0o600))
	disktest.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", changed, e.URL())
	disktest.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", s.disk, exported(t, s.open(t, s.point)))
	stop()

	kept, err := Keep(t.Context(), s.store, s.point, d, meter.New("transfer"))
	must(t, err)
	if kept.CaptureMethod != Method || kept.Consistency != store.Inconsistent || kept.Parent != s.point.ID || !kept.Created.After(s.point.Created) {
		t.Errorf("the point does not tell where it is from: %+v", kept)
	}
	if kept.Bytes.Read > 2<<20 {
		t.Errorf("%d bytes were read for what was written", kept.Bytes.Read)
	}
	disktest.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", changed, exported(t, s.open(t, kept)))
	// The same root as a backup of the same content: nothing is peculiar about it.
	other := newShelfIn(t, s, want)
	if other.Root != kept.Root {
		t.Error("a backup of the same content has another root")
	}
	report, err := s.store.Check(t.Context(), store.CheckOptions{ReadData: true})
	must(t, err)
	if len(report.Damage) > 0 {
		t.Errorf("%+v", report.Damage)
	}
}

func exported(t *testing.T, d Disk) string {
	t.Helper()
	e, _ := serve(t, Options{Disk: d})
	return e.URL()
}

// newShelfIn backs up other content to the same store.
func newShelfIn(t *testing.T, s *shelf, content []byte) store.Point {
	t.Helper()
	path := filepath.Join(t.TempDir(), "other.img")
	must(t, os.WriteFile(path, content, 0o600))
	src, err := disk.Probe(t.Context(), path)
	must(t, err)
	r, err := backup.New(backup.Options{Store: s.store, Source: src, Point: store.Point{Instance: "j"}, Meter: meter.New("preflight")}).Do(t.Context())
	must(t, err)
	return r.Point
}

func TestTLS(t *testing.T) {
	disktest.Need(t, "nbdinfo")
	s := newShelf(t, content(2<<20))
	dir := t.TempDir()
	authority(t, dir)
	config, err := Certificate(filepath.Join(dir, "server-cert.pem"), filepath.Join(dir, "server-key.pem"), "")
	must(t, err)
	e, _ := serve(t, Options{Disk: s.open(t, s.point), Listen: "127.0.0.1:0", TLS: config})
	if !strings.HasPrefix(e.URL(), "nbds://127.0.0.1:") {
		t.Fatal(e.URL())
	}
	disktest.Run(t, "nbdinfo", e.URL()+"?tls-certificates="+dir)
	if out, err := exec.Command("nbdinfo", strings.Replace(e.URL(), "nbds:", "nbd:", 1)).CombinedOutput(); err == nil {
		t.Errorf("a client without TLS was let in: %s", out)
	}
	if _, err := Certificate(filepath.Join(dir, "server-key.pem"), filepath.Join(dir, "server-key.pem"), ""); !problem.Is(err, problem.InvalidArgument) {
		t.Errorf("a key as certificate: %v", err)
	}
}

// authority writes ca-cert.pem, server-cert.pem and server-key.pem.
func authority(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, text := range map[string][]byte{
		"ca-cert.pem": cert, "server-cert.pem": cert, "server-key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
}

func TestSockets(t *testing.T) {
	s := newShelf(t, content(1<<20))
	path := filepath.Join(t.TempDir(), "s")
	e, _ := serve(t, Options{Disk: s.open(t, s.point), Socket: path})
	if _, err := New(Options{Disk: s.open(t, s.point), Socket: path}); !problem.Is(err, problem.InvalidArgument) {
		t.Errorf("a socket in use: %v", err)
	}
	if out := disktest.Run(t, "nbdinfo", "--size", e.URL()); out != "1048576" {
		t.Errorf("after that the first export is gone: %s", out)
	}
	stale := filepath.Join(t.TempDir(), "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, l.Close())
	serve(t, Options{Disk: s.open(t, s.point), Socket: stale})
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, []byte("data"), 0o600))
	if _, err := New(Options{Disk: s.open(t, s.point), Socket: file}); !problem.Is(err, problem.InvalidArgument) {
		t.Errorf("a file in the place of the socket: %v", err)
	}
	if got, _ := os.ReadFile(file); string(got) != "data" {
		t.Error("the file was replaced")
	}
}

// BenchmarkByNbdcopy reads all of a point from a store whose files are in the
// page cache.
func BenchmarkByNbdcopy(b *testing.B) {
	disktest.Need(b, "nbdcopy")
	const size = 512 << 20
	text := content(64 << 20)
	for at := 0; at < len(text); at += 8 { // half of it compresses, no block is like another
		text[at] = byte(at >> 16)
	}
	s := newShelf(b, slices.Concat(shifted(text, 1), shifted(text, 2), shifted(text, 3), shifted(text, 4), shifted(text, 5), shifted(text, 6), shifted(text, 7), shifted(text, 8)))
	b.SetBytes(size)
	for b.Loop() {
		e, stop := serve(b, Options{Disk: s.open(b, s.point)})
		disktest.Run(b, "nbdcopy", e.URL(), "null:")
		stop()
	}
}

func shifted(text []byte, by byte) []byte {
	out := bytes.Clone(text)
	for at := 0; at < len(out); at += 512 {
		out[at] = by
	}
	return out
}

// BenchmarkColdRandom reads 4 KiB anywhere, each from an image that has cached
// nothing there, and reports the 99th percentile.
func BenchmarkColdRandom(b *testing.B) {
	text := content(256 << 20)
	s := newShelf(b, text)
	e, _ := serve(b, Options{Disk: s.open(b, s.point)})
	a, err := nbd.ParseAddress(e.URL())
	must(b, err)
	c, err := nbd.Dial(b.Context(), a, nbd.DialOptions{})
	must(b, err)
	defer c.Close()
	r := mrand.New(mrand.NewPCG(1, 1))
	p := make([]byte, 4096)
	var took []time.Duration
	for b.Loop() {
		at := r.Int64N(c.Size()-4096) / 4096 * 4096
		start := time.Now()
		must(b, c.Read(b.Context(), p, at))
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}
