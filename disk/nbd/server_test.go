package nbd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"iter"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/disktest"
)

// memory is a disk in memory that knows where it was never written.
type memory struct {
	mu      sync.RWMutex
	content []byte     // guarded by mu
	written extent.Set // guarded by mu
	flushed int        // guarded by mu

	fail  func(off int64) error // nil: nothing fails
	delay time.Duration
}

func newMemory(size int) *memory { return &memory{content: make([]byte, size)} }

func (m *memory) Size() int64 { return int64(len(m.content)) }

func (m *memory) Read(ctx context.Context, p []byte, off int64) error {
	if m.fail != nil {
		if err := m.fail(off); err != nil {
			return err
		}
	}
	if m.delay > 0 {
		select {
		case <-time.After(m.delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	copy(p, m.content[off:])
	return nil
}

func (m *memory) Write(ctx context.Context, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.content[off:], p)
	m.written = m.written.Union(extent.Of(extent.Range{Off: off, Len: int64(len(p))}))
	return nil
}

func (m *memory) Zero(ctx context.Context, r extent.Range, keep bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.content[r.Off:r.End()])
	m.written = m.written.Subtract(extent.Of(r))
	if keep {
		m.written = m.written.Union(extent.Of(r))
	}
	return nil
}

func (m *memory) Trim(ctx context.Context, r extent.Range) error { return m.Zero(ctx, r, false) }

func (m *memory) Flush(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushed++
	return nil
}

// all is a copy of the content.
func (m *memory) all() []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return bytes.Clone(m.content)
}

func (m *memory) flushes() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.flushed
}

func (m *memory) Contexts() []string { return []string{ContextAllocation, "diskvault:odd"} }

// Extents tells of holes, and by the context diskvault:odd of every second MiB.
func (m *memory) Extents(ctx context.Context, name string, r extent.Range) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		m.mu.RLock()
		defer m.mu.RUnlock()
		if name != ContextAllocation {
			for w := range r.Windows(1 << 20) {
				if !yield(Extent{w.Off, w.Len, uint32(w.Off >> 20 & 1)}, nil) {
					return
				}
			}
			return
		}
		at := r.Off
		for _, d := range append(m.written.Within(r), extent.Range{Off: r.End()}) {
			if gap := extent.Between(at, d.Off); !gap.Empty() && !yield(Extent{gap.Off, gap.Len, StateHole | StateZero}, nil) {
				return
			}
			if !d.Empty() && !yield(Extent{d.Off, d.Len, 0}, nil) {
				return
			}
			at = d.End()
		}
	}
}

// bare hides all but the reading of a disk.
type bare struct{ Disk }

// start runs a server until the end of the test and gives its socket.
func start(t testing.TB, s *Server) (socket string) {
	t.Helper()
	socket = disktest.Socket(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(running, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return socket
}

func at(socket, export string) string { return unixAddress(socket, export).String() }

// patchy fills a disk here and there.
func patchy(t testing.TB, size int) *memory {
	t.Helper()
	m := newMemory(size)
	for i, off := range []int{0, size / 4, size/2 + 4096, size - 8192} {
		_ = m.Write(ctx, noise(uint64(i), 8192), int64(off)) // cannot fail
	}
	return m
}

func TestServerWithTools(t *testing.T) {
	disktest.Need(t, "nbdinfo", "nbdcopy", "qemu-img", "qemu-io")
	m := patchy(t, 40<<20)
	socket := start(t, &Server{Offers: []Offer{
		{Name: "main", Description: "a disk", Disk: m},
		{Name: "read only", Disk: m, ReadOnly: true},
		{Name: "bare", Disk: bare{m}},
	}})
	image := filepath.Join(t.TempDir(), "disk.img")

	if got := disktest.Run(t, "nbdinfo", "--size", at(socket, "")); got != "41943040" {
		t.Errorf("nbdinfo gives the size %s", got)
	}
	if got := disktest.Run(t, "nbdinfo", "--list", at(socket, "")); !strings.Contains(got, `export="main"`) || !strings.Contains(got, `export="read only"`) || !strings.Contains(got, "a disk") {
		t.Errorf("nbdinfo lists %s", got)
	}
	for _, export := range []string{"main", "read only", "bare"} {
		var info struct {
			Exports []struct {
				ReadOnly bool `json:"is_read_only"`
				Multi    bool `json:"can_multi_conn"`
				FUA      bool `json:"can_fua"`
			}
		}
		if err := json.Unmarshal([]byte(disktest.Run(t, "nbdinfo", "--json", at(socket, export))), &info); err != nil || len(info.Exports) != 1 {
			t.Fatal(err)
		}
		if e := info.Exports[0]; e.ReadOnly != (export != "main") || !e.Multi || e.FUA != (export == "main") {
			t.Errorf("%s is %+v", export, e)
		}
		disktest.Run(t, "nbdcopy", at(socket, export), image)
		if got, err := os.ReadFile(image); err != nil || !bytes.Equal(got, m.all()) {
			t.Errorf("nbdcopy of %s copies something else (%v)", export, err)
		}
		disktest.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", at(socket, export), image)
	}
	var extents []struct {
		Offset, Length int64
		Type           uint32
	}
	if err := json.Unmarshal([]byte(disktest.Run(t, "nbdinfo", "--map", "--json", at(socket, "main"))), &extents); err != nil || len(extents) != 7 {
		t.Fatalf("nbdinfo sees the extents %v (%v)", extents, err)
	}
	if e := extents[2]; e.Offset != 10<<20 || e.Length != 8192 || e.Type != 0 {
		t.Errorf("the third extent is %+v", e)
	}
	if got := disktest.Run(t, "nbdinfo", "--map=diskvault:odd", "--totals", at(socket, "main")); !strings.Contains(got, "50.0%") {
		t.Errorf("nbdinfo sees by the other context %s", got)
	}
	if got := disktest.Run(t, "qemu-img", "map", "--output=json", "--image-opts", "driver=nbd,path="+socket+",export=main"); strings.Count(got, `"data": true`) != 4 {
		t.Errorf("qemu-img maps %s", got)
	}
	disktest.Run(t, "qemu-img", "bench", "-q", "-c", "500", "-d", "32", "-s", "65536", "-f", "raw", at(socket, "main"))
	if out, err := exec.Command("qemu-io", "-f", "raw", "-c", "write 0 4k", at(socket, "read only")).CombinedOutput(); err == nil && !bytes.Contains(out, []byte("failed")) && !bytes.Contains(out, []byte("ermitted")) {
		t.Errorf("qemu-io wrote to a read-only export: %s", out)
	}
}

func TestServerWrittenByTools(t *testing.T) {
	disktest.Need(t, "nbdcopy", "qemu-img", "qemu-io")
	content := noise(20, 40<<20)
	clear(content[5<<20 : 25<<20])
	image := writeFile(t, "disk.img", content)
	m := newMemory(len(content))
	socket := start(t, &Server{Offers: []Offer{{Name: "d", Disk: m}}})
	same := func(who string) {
		t.Helper()
		if !bytes.Equal(m.all(), content) {
			t.Errorf("after %s the disk holds something else", who)
		}
	}
	disktest.Run(t, "nbdcopy", "--connections=4", "--flush", image, at(socket, "d"))
	same("nbdcopy")
	if m.flushes() == 0 {
		t.Error("nothing was flushed")
	}
	_ = m.Write(ctx, noise(21, len(content)), 0) // cannot fail
	disktest.Run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, at(socket, "d"))
	same("qemu-img convert")
	before := m.flushes()
	disktest.Run(t, "qemu-io", "-f", "raw", "-c", "write -P 7 1000 5000", "-c", "write -z -u 8M 1M", "-c", "write -z 9M 1M", "-c", "discard 30M 1M", "-c", "write -f -P 9 20M 64k", "-c", "read -P 7 1000 5000", "-c", "flush", at(socket, "d"))
	copy(content[1000:], bytes.Repeat([]byte{7}, 5000))
	clear(content[8<<20 : 10<<20])
	clear(content[30<<20 : 31<<20])
	copy(content[20<<20:], bytes.Repeat([]byte{9}, 64<<10))
	same("qemu-io")
	if m.flushes() < before+2 {
		t.Errorf("%d flushes came, want one for the forced write and one asked for", m.flushes()-before)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if !m.written.Covers(extent.Range{Off: 9 << 20, Len: 1 << 20}) || m.written.Contains(8<<20) {
		t.Error("zeros that were to keep their room lost it, or those that were to lose it kept it")
	}
}

func TestServerWithClient(t *testing.T) {
	m := patchy(t, 70<<20)
	server := &Server{Offers: []Offer{{Name: "d", Disk: m}}}
	c := dial(t, unixAddress(start(t, server), "d"), m.Contexts()...)
	if c.ReadOnly() || !c.Has("diskvault:odd") {
		t.Fatalf("the client sees the contexts %v", c.Contexts())
	}
	if !bytes.Equal(readAll(t, c), m.all()) {
		t.Error("the bytes differ")
	}
	if all := extents(t, c, ContextAllocation); len(all) != 7 {
		t.Errorf("the client sees %v", all)
	}
	if all := extents(t, c, "diskvault:odd"); len(all) != 70 {
		t.Errorf("the client sees %d extents of the other context", len(all))
	}
	// A client is a disk itself: what it is offered it can offer.
	again := dial(t, unixAddress(start(t, &Server{Offers: []Offer{{Name: "again", Disk: c}}}), ""), ContextAllocation)
	if err := again.Write(ctx, []byte("through two servers"), 33<<20); err != nil {
		t.Fatal(err)
	}
	if err := again.Flush(ctx); err != nil || m.flushes() == 0 || !bytes.Equal(readAll(t, again), m.all()) || !bytes.Equal(m.all()[33<<20:][:7], []byte("through")) {
		t.Errorf("the bytes differ (%v)", err)
	}
	if all := extents(t, again, ContextAllocation); len(all) != 9 {
		t.Errorf("through two servers the client sees %v", all)
	}
}

func TestServerManyClients(t *testing.T) {
	m := patchy(t, 4<<20)
	socket := start(t, &Server{Offers: []Offer{{Disk: m}}, MaxClients: 8})
	var wait sync.WaitGroup
	for range 40 { // more than may be connected at once
		wait.Go(func() {
			c, err := Dial(ctx, unixAddress(socket, ""), DialOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			got := make([]byte, m.Size())
			if err := c.Read(ctx, got, 0); err != nil || !bytes.Equal(got, m.all()) {
				t.Errorf("the bytes differ (%v)", err)
			}
		})
	}
	wait.Wait()
}

func TestServerErrors(t *testing.T) {
	m := newMemory(1 << 20)
	m.fail = func(off int64) error {
		switch off {
		case 4096:
			return problem.Wrap(syscall.EIO, problem.StoreDamaged, "A block of the store is damaged.")
		case 8192:
			return errors.New("a secret path of the host")
		}
		return nil
	}
	c := dial(t, unixAddress(start(t, &Server{Offers: []Offer{{Disk: m, ReadOnly: true}}}), ""))
	b := make([]byte, 512)
	if err := c.Read(ctx, b, 4096); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "A block of the store is damaged.") {
		t.Errorf("got %v", err)
	}
	if err := c.Read(ctx, b, 8192); !errors.Is(err, syscall.EIO) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	if err := c.Write(ctx, b, 0); !errors.Is(err, syscall.EPERM) {
		t.Errorf("got %v", err)
	}
	if err := c.Read(ctx, b, 0); err != nil {
		t.Errorf("the connection does not go on: %v", err)
	}
}

func TestServerShutsDownGracefully(t *testing.T) {
	m := patchy(t, 1<<20)
	m.delay = 300 * time.Millisecond
	l, err := net.Listen("unix", disktest.Socket(t))
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- (&Server{Offers: []Offer{{Disk: m}}}).Serve(running, l) }()
	c := dial(t, unixAddress(l.Addr().String(), ""))
	idle := dial(t, unixAddress(l.Addr().String(), ""))
	half, err := net.Dial("unix", l.Addr().String()) // in the middle of its handshake
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	time.AfterFunc(100*time.Millisecond, stop)
	got := make([]byte, 8192)
	if err := c.Read(ctx, got, 0); err != nil || !bytes.Equal(got, m.all()[:8192]) {
		t.Errorf("a request that was under way was not answered: %v", err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it does not end")
	}
	if err := idle.Read(ctx, got, 0); err == nil {
		t.Error("an ended server answers")
	}
	if _, err := net.Dial("unix", l.Addr().String()); err == nil {
		t.Error("an ended server takes connections")
	}
}

func TestServerGraceEnds(t *testing.T) {
	m := patchy(t, 1<<20)
	m.delay = time.Hour
	l, err := net.Listen("unix", disktest.Socket(t))
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	time.AfterFunc(100*time.Millisecond, stop)
	ended := make(chan error, 1)
	go func() {
		ended <- (&Server{Offers: []Offer{{Disk: m}}, times: times{grace: 100 * time.Millisecond, handshake: time.Minute, stall: time.Minute}}).Serve(running, l)
	}()
	c := dial(t, unixAddress(l.Addr().String(), ""))
	if err := c.Read(ctx, make([]byte, 512), 0); err == nil {
		t.Error("an answer came")
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// certificates makes a folder with an authority and keys of both ends, in the
// form of qemu and libnbd.
func certificates(t *testing.T) (dir string, config *tls.Config) {
	t.Helper()
	dir = t.TempDir()
	make1 := func(name string, serial int64, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
			IsCA: parent == nil, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		if parent == nil {
			parent, by, c.KeyUsage, c.ExtKeyUsage = c, key, x509.KeyUsageCertSign, nil
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for file, block := range map[string]*pem.Block{
			name + "-cert.pem": {Type: "CERTIFICATE", Bytes: der}, name + "-key.pem": {Type: "PRIVATE KEY", Bytes: keyDER},
		} {
			if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return parsed, key, der
	}
	authority, key, _ := make1("ca", 1, nil, nil)
	_, serverKey, server := make1("server", 2, authority, key)
	make1("client", 3, authority, key)
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	return dir, &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{server}, PrivateKey: serverKey}},
		ClientCAs:    pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
}

func TestServerTLS(t *testing.T) {
	disktest.Need(t, "nbdinfo", "nbdcopy", "qemu-img")
	dir, config := certificates(t)
	m := patchy(t, 16<<20)
	offers := []Offer{{Name: "d", Disk: m}}
	required := start(t, &Server{Offers: offers, TLS: config, TLSRequired: true})
	optional := start(t, &Server{Offers: offers, TLS: config})
	a := unixAddress(required, "d")
	a.TLS, a.Certificates = true, dir

	c := dial(t, a, ContextAllocation)
	if !bytes.Equal(readAll(t, c), m.all()) {
		t.Error("the bytes differ")
	}
	if err := c.Write(ctx, []byte("secret"), 7); err != nil || !bytes.Equal(m.all()[7:13], []byte("secret")) {
		t.Errorf("writing failed: %v", err)
	}
	if len(extents(t, c, ContextAllocation)) != 7 {
		t.Error("the extents differ")
	}
	image := filepath.Join(t.TempDir(), "disk.img")
	disktest.Run(t, "nbdcopy", a.String(), image)
	if got, err := os.ReadFile(image); err != nil || !bytes.Equal(got, m.all()) {
		t.Errorf("nbdcopy copies something else (%v)", err)
	}
	disktest.Run(t, "qemu-img", "compare", "--object", "tls-creds-x509,id=t,endpoint=client,dir="+dir,
		"--image-opts", "driver=nbd,tls-creds=t,tls-hostname=localhost,export=d,path="+required, "file.filename="+image+",driver=raw")

	plain := unixAddress(required, "d")
	if _, err := Dial(ctx, plain, DialOptions{}); !errors.Is(err, ErrTLSRequired) {
		t.Errorf("got %v", err)
	}
	if out, err := exec.Command("nbdinfo", plain.String()).CombinedOutput(); err == nil {
		t.Errorf("nbdinfo came in without TLS: %s", out)
	}
	stranger := a
	stranger.ServerName = "elsewhere"
	if _, err := Dial(ctx, stranger, DialOptions{}); err == nil || !strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("got %v", err)
	}
	a.Host, plain.Host = optional, optional
	dial(t, a)
	dial(t, plain)
}

func TestServerWithoutCertificate(t *testing.T) {
	l, err := net.Listen("unix", disktest.Socket(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Server{TLSRequired: true}).Serve(ctx, l); err == nil {
		t.Error("it serves")
	}
}

// greet is a client's side of a handshake for the export "d".
func greet(contexts ...string) []byte {
	b := be.AppendUint32(nil, flagFixedNewstyle|flagNoZeroes)
	say := func(o option, data []byte) {
		b = be.AppendUint32(be.AppendUint64(b, magicOption), uint32(o))
		b = append(be.AppendUint32(b, uint32(len(data))), data...)
	}
	say(optStructuredReply, nil)
	set := be.AppendUint32(appendText(nil, "d"), uint32(len(contexts)))
	for _, c := range contexts {
		set = appendText(set, c)
	}
	say(optSetMetaContext, set)
	say(optGo, be.AppendUint16(appendText(nil, "d"), 0))
	return b
}

func ask(cmd command, flags uint16, off int64, length uint32, payload []byte) []byte {
	r := request{command: cmd, flags: flags, off: off, length: length}
	return append(r.header(5), payload...)
}

// hear sends words to a server and gives all that it answers until it ends the
// connection, or has nothing more to say.
func hear(t testing.TB, s *Server, words []byte) []byte {
	t.Helper()
	near, far := net.Pipe()
	running, stop := context.WithCancel(ctx)
	defer stop()
	s.once.Do(s.prepare)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.client(running, far)
	}()
	go func() {
		_, _ = near.Write(words) // the server may end it in the middle
		stop()
	}()
	heard, _ := io.ReadAll(near)
	near.Close()
	<-ended
	return heard
}

func TestServerAgainstHostileClients(t *testing.T) {
	m := patchy(t, 1<<20)
	before := m.all()
	const short = 200 * time.Millisecond
	socket := start(t, &Server{Offers: []Offer{{Name: "d", Disk: m}}, times: times{short, short, short}})
	hello := greet(ContextAllocation)
	big := bytes.Repeat([]byte("x"), 1<<20)
	for name, words := range map[string][]byte{
		"nothing":              nil,
		"another protocol":     []byte("GET / HTTP/1.1\r\n\r\n"),
		"unknown flags":        {255, 255, 255, 255},
		"half an option":       hello[:10],
		"a huge option":        append(hello[:12:12], 0, 0, 0, 8, 255, 255, 255, 255),
		"options without end":  append(hello[:4:4], bytes.Repeat(be.AppendUint32(be.AppendUint32(be.AppendUint64(nil, magicOption), 77), 0), 500)...),
		"half a request":       append(bytes.Clone(hello), ask(cmdRead, 0, 0, 512, nil)[:20]...),
		"wrong magic":          append(bytes.Clone(hello), big[:28]...),
		"a huge write":         append(bytes.Clone(hello), ask(cmdWrite, 0, 0, 1<<32-1, big)...),
		"a write never ending": append(bytes.Clone(hello), ask(cmdWrite, 0, 0, 1<<20, big[:1000])...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
			go func() { _, _ = conn.Write(words) }()
			// "half a request" may stay connected: idle clients may.
			_, err = io.Copy(io.Discard, conn)
			if errors.Is(err, os.ErrDeadlineExceeded) && name != "half a request" {
				t.Errorf("the connection is still open")
			}
		})
	}
	t.Cleanup(func() {
		if !bytes.Equal(m.all(), before) {
			t.Error("the disk was written")
		}
	})

	// What can be refused in order is, and the connection goes on.
	for name, c := range map[string]struct {
		words []byte
		code  uint32
	}{
		"a read beyond":           {ask(cmdRead, 0, 1<<20-100, 512, nil), 22},
		"a read far beyond":       {ask(cmdRead, 0, -512, 1024, nil), 22},
		"a huge read":             {ask(cmdRead, 0, 0, 1<<32-1, nil), 22},
		"a read of nothing":       {ask(cmdRead, 0, 0, 0, nil), 22},
		"a read with odd flags":   {ask(cmdRead, 1<<15, 0, 512, nil), 22},
		"a write beyond":          {ask(cmdWrite, 0, 1<<20-100, 512, big[:512]), 28},
		"zeros beyond":            {ask(cmdWriteZeroes, 0, 0, 1<<32-1, nil), 28},
		"fast zeros":              {ask(cmdWriteZeroes, cmdFastZero, 0, 512, nil), 22},
		"a trim far beyond":       {ask(cmdTrim, 0, 1<<62, 512, nil), 28},
		"a status beyond":         {ask(cmdBlockStatus, 0, 1<<20, 1, nil), 22},
		"a flush of a range":      {ask(cmdFlush, 0, 1, 1, nil), 22},
		"an unknown command":      {ask(99, 0, 0, 0, nil), 22},
		"a prefetch of all there": {ask(cmdCache, 0, 0, 1<<20+1, nil), 22},
	} {
		t.Run(name, func(t *testing.T) {
			heard := hear(t, &Server{Offers: []Offer{{Name: "d", Disk: m}}}, append(append(bytes.Clone(hello), c.words...), ask(cmdRead, 0, 0, 512, nil)...))
			want := structuredError(c.code)
			at := bytes.Index(heard, want)
			if at < 0 {
				t.Fatalf("the refusal with code %d did not come; heard %x", c.code, heard[max(0, len(heard)-64):])
			}
			if !bytes.Contains(heard[at:], m.all()[:512]) && !bytes.Contains(heard[:at], m.all()[:512]) {
				t.Error("the connection did not go on")
			}
		})
	}
}

// structuredError is the refusal of the request that ask makes.
func structuredError(code uint32) []byte {
	b := be.AppendUint16(be.AppendUint32(nil, magicStruct), chunkDone)
	b = be.AppendUint64(be.AppendUint16(b, uint16(chunkError)), 5)
	return be.AppendUint16(be.AppendUint32(be.AppendUint32(b, 6), code), 0)
}

func FuzzServer(f *testing.F) {
	f.Add(greet(ContextAllocation))
	f.Add(append(greet(), ask(cmdRead, 0, 0, 4096, nil)...))
	f.Add(append(greet(ContextAllocation), ask(cmdBlockStatus, cmdReqOne, 0, 1<<20, nil)...))
	f.Add(append(greet("diskvault:odd"), append(ask(cmdWrite, cmdFUA, 100, 9, []byte("some data")), ask(cmdDisconnect, 0, 0, 0, nil)...)...))
	f.Add(append(greet(), ask(cmdWriteZeroes, cmdNoHole, 4096, 1<<19, nil)...))
	f.Fuzz(func(t *testing.T, words []byte) {
		m := newMemory(1 << 20)
		heard := hear(t, &Server{Offers: []Offer{{Name: "d", Description: "x", Disk: m}}}, words)
		if len(heard) > 18+(maxOption+100)*maxOptions+(len(words)/requestHeader+1)*(maxPayload+100) {
			t.Fatalf("%d bytes made the server say %d", len(words), len(heard))
		}
	})
}
