package nbd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/disk/disktest"
)

// extents gives what a context says of the whole export.
func extents(t *testing.T, c *Client, name string) []Extent {
	t.Helper()
	var all []Extent
	at := int64(0)
	for e, err := range c.Extents(ctx, name, extent.Range{Len: c.Size()}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Off != at || e.Len <= 0 {
			t.Fatalf("extent %+v comes where %d was due", e, at)
		}
		at = e.End()
		all = append(all, e)
	}
	if at != c.Size() {
		t.Fatalf("the extents end at %d of %d bytes", at, c.Size())
	}
	return all
}

func readAll(t testing.TB, c *Client) []byte {
	t.Helper()
	b := make([]byte, c.Size())
	if err := c.Read(ctx, b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestClientReadsFromTools(t *testing.T) {
	content := noise(1, 40<<20) // more than one request can have
	clear(content[8<<20 : 24<<20])
	path := writeFile(t, "disk.img", content)
	for name, start := range map[string]func(testing.TB) string{
		"nbdkit":             func(t testing.TB) string { return nbdkit(t, "-r", "file", path) },
		"nbdkit, old server": func(t testing.TB) string { return nbdkit(t, "-r", "--no-sr", "file", path) },
		"nbdkit, 512 blocks": func(t testing.TB) string {
			return nbdkit(t, "-r", "--filter=blocksize-policy", "file", path, "blocksize-minimum=512", "blocksize-maximum=1M", "blocksize-preferred=4096", "blocksize-error-policy=error")
		},
		"qemu-nbd": func(t testing.TB) string { return qemuNBD(t, "-r", "-f", "raw", path) },
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, unixAddress(start(t), ""), ContextAllocation)
			if !c.ReadOnly() || c.Size() != int64(len(content)) {
				t.Fatalf("read-only %v, %d bytes", c.ReadOnly(), c.Size())
			}
			if !bytes.Equal(readAll(t, c), content) {
				t.Error("the bytes differ")
			}
			var wait sync.WaitGroup
			for i := range 64 {
				wait.Go(func() {
					off, got := i*333_333+i, make([]byte, 100_003)
					if err := c.Read(ctx, got, int64(off)); err != nil || !bytes.Equal(got, content[off:off+len(got)]) {
						t.Errorf("the bytes from %d on differ (%v)", off, err)
					}
				})
			}
			wait.Wait()
			if err := c.Read(ctx, make([]byte, 2), c.Size()-1); err == nil {
				t.Error("a read beyond the end was taken")
			}
			if strings.Contains(name, "old") == c.Has(ContextAllocation) {
				t.Errorf("Has gives %v", c.Has(ContextAllocation))
			}
			if !c.Has(ContextAllocation) {
				for _, err := range c.Extents(ctx, ContextAllocation, extent.Range{Len: 1}) {
					if err == nil {
						t.Error("extents come from nowhere")
					}
				}
			}
		})
	}
}

func TestClientSeesHoles(t *testing.T) {
	path := disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.img"), 5<<30)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range []int64{0, 1 << 30, 3<<30 + 4096, 5<<30 - 65536} {
		if _, err := f.WriteAt(noise(2, 65536), off); err != nil {
			t.Fatal(err)
		}
	}
	for name, start := range map[string]func() string{
		"nbdkit":   func() string { return nbdkit(t, "-r", "file", path) },
		"qemu-nbd": func() string { return qemuNBD(t, "-r", "-f", "raw", path) },
	} {
		c := dial(t, unixAddress(start(), ""), ContextAllocation)
		var data extent.Set
		for _, e := range extents(t, c, ContextAllocation) {
			if e.Flags&StateZero == 0 {
				data = data.Union(extent.Of(extent.Range{Off: e.Off, Len: e.Len}))
			}
		}
		want := extent.Of(extent.Range{Len: 65536}, extent.Range{Off: 1 << 30, Len: 65536}, extent.Range{Off: 3<<30 + 4096, Len: 65536}, extent.Range{Off: 5<<30 - 65536, Len: 65536})
		if !data.Equal(want) {
			t.Errorf("%s: data at %v, want %v", name, data, want)
		}
	}
}

func TestClientReadsBitmapBesideAllocation(t *testing.T) {
	disktest.Need(t, "qemu-img", "qemu-io")
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	disktest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "64M")
	disktest.Run(t, "qemu-io", "-c", "write 0 1M", path)
	disktest.Run(t, "qemu-img", "bitmap", "--add", path, "b0")
	disktest.Run(t, "qemu-io", "-c", "write 8M 64k", "-c", "write -z 63M 1M", path)
	socket := qemuNBD(t, "-r", "-f", "qcow2", "-B", "b0", path)
	c := dial(t, unixAddress(socket, ""), ContextAllocation, "qemu:dirty-bitmap:b0", "qemu:dirty-bitmap:none")
	if !c.Has("qemu:dirty-bitmap:b0") || c.Has("qemu:dirty-bitmap:none") {
		t.Fatalf("got the contexts %v", c.contexts)
	}
	var dirty extent.Set
	for _, e := range extents(t, c, "qemu:dirty-bitmap:b0") {
		if e.Flags&StateDirty != 0 {
			dirty = dirty.Union(extent.Of(extent.Range{Off: e.Off, Len: e.Len}))
		}
	}
	want := extent.Of(extent.Range{Off: 8 << 20, Len: 64 << 10}, extent.Range{Off: 63 << 20, Len: 1 << 20})
	if !dirty.Equal(want) {
		t.Errorf("dirty is %v, want %v", dirty, want)
	}
	if all := extents(t, c, ContextAllocation); len(all) != 4 {
		t.Errorf("the allocation is %v", all)
	}
}

func TestClientWritesToTools(t *testing.T) {
	for name, start := range map[string]func(path string) string{
		"nbdkit":            func(path string) string { return nbdkit(t, "file", path) },
		"nbdkit, plain":     func(path string) string { return nbdkit(t, "--filter=nozero", "file", path) },
		"qemu-nbd, discard": func(path string) string { return qemuNBD(t, "-f", "raw", "--discard=unmap", path) },
	} {
		t.Run(name, func(t *testing.T) {
			const size = 40 << 20
			path := disktest.Sparse(t, filepath.Join(t.TempDir(), "disk.img"), size)
			c := dial(t, unixAddress(start(path), ""))
			if c.ReadOnly() {
				t.Fatal("it is read-only")
			}
			want := noise(3, size)
			check := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			check(c.Write(ctx, want, 0))
			check(c.Zero(ctx, extent.Range{Off: 1 << 20, Len: 2 << 20}, false))
			check(c.Zero(ctx, extent.Range{Off: 5 << 20, Len: 3<<20 + 512}, true))
			clear(want[1<<20 : 3<<20])
			clear(want[5<<20 : 8<<20+512])
			check(c.Trim(ctx, extent.Range{Off: 1 << 20, Len: 1 << 20}))
			check(c.Flush(ctx))
			check(c.Close())
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("the file holds something else (%v)", err)
			}
		})
	}
}

func TestClientErrorOfOneRequest(t *testing.T) {
	path := writeFile(t, "disk.img", noise(4, 1<<20))
	marker := filepath.Join(t.TempDir(), "fail")
	socket := nbdkit(t, "--filter=error", "file", path, "error=EIO", "error-pread-rate=100%", "error-file="+marker)
	c := dial(t, unixAddress(socket, ""))
	readAll(t, c)
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := c.Read(ctx, make([]byte, 4096), 0)
	var refused *Error
	if !errors.As(err, &refused) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v", err)
	}
	if err := os.Remove(marker); err != nil {
		t.Fatal(err)
	}
	readAll(t, c) // the connection lives
}

func TestClientSlowServer(t *testing.T) {
	// Each read takes longer than the timeout allows for silence, in all; but
	// there is always something moving.
	content := noise(5, 1<<20)
	path := writeFile(t, "disk.img", content)
	socket := nbdkit(t, "-r", "--filter=delay", "--filter=rate", "file", path, "rdelay=50ms", "rate=40M")
	c, err := Dial(ctx, unixAddress(socket, ""), DialOptions{Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make([]byte, len(content))
	for at := 0; at < len(got); at += 64 << 10 {
		if err := c.Read(ctx, got[at:at+64<<10], int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, content) {
		t.Error("the bytes differ")
	}
	time.Sleep(400 * time.Millisecond) // silence without a question is no fault
	if err := c.Read(ctx, got[:512], 0); err != nil {
		t.Error(err)
	}
}

func TestClientTimeout(t *testing.T) {
	path := writeFile(t, "disk.img", noise(6, 1<<20))
	socket := nbdkit(t, "-r", "--filter=delay", "file", path, "rdelay=20")
	c, err := Dial(ctx, unixAddress(socket, ""), DialOptions{Timeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	err = c.Read(ctx, make([]byte, 512), 0)
	if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "200ms") {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	if again := c.Read(ctx, make([]byte, 512), 0); again == nil {
		t.Error("the connection goes on")
	}
}

func TestClientContextEnds(t *testing.T) {
	path := writeFile(t, "disk.img", noise(7, 1<<20))
	socket := nbdkit(t, "-r", "--filter=delay", "file", path, "rdelay=20")
	c := dial(t, unixAddress(socket, ""))
	short, stop := context.WithCancel(ctx)
	time.AfterFunc(50*time.Millisecond, stop)
	if err := c.Read(short, make([]byte, 512), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	silent, err := net.Listen("unix", disktest.Socket(t)) // takes connections, says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	short, stop = context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	if _, err := Dial(short, unixAddress(silent.Addr().String(), ""), DialOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestClientServerDies(t *testing.T) {
	var wait sync.WaitGroup
	l, err := net.Listen("unix", disktest.Socket(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	real := nbdkit(t, "-r", "--filter=delay", "memory", "16M", "rdelay=10")
	relayed := make(chan net.Conn, 1)
	wait.Go(func() { // between both, to cut the wire in the middle
		conn, err := l.Accept()
		if err != nil {
			return
		}
		back, err := net.Dial("unix", real)
		if err != nil {
			conn.Close()
			return
		}
		wait.Go(func() { _, _ = io.Copy(back, conn); back.Close() })
		wait.Go(func() { _, _ = io.Copy(conn, back); conn.Close() })
		relayed <- conn
	})
	c := dial(t, unixAddress(l.Addr().String(), ""))
	var reads sync.WaitGroup
	for i := range 8 {
		reads.Go(func() {
			if err := c.Read(ctx, make([]byte, 4096), int64(i)*4096); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("got %v", err)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	(<-relayed).Close()
	reads.Wait()
	wait.Wait()
}

func TestClientNoExport(t *testing.T) {
	path := writeFile(t, "disk.img", noise(8, 1<<20))
	socket := qemuNBD(t, "-r", "-f", "raw", "-x", "there", path)
	if _, err := Dial(ctx, unixAddress(socket, "elsewhere"), DialOptions{}); !errors.Is(err, ErrNoExport) {
		t.Errorf("got %v", err)
	}
	dial(t, unixAddress(socket, "there"))
	if _, err := Dial(ctx, Address{Network: "unix", Host: socket, Export: "there", TLS: true}, DialOptions{}); !errors.Is(err, ErrTLSRefused) {
		t.Errorf("got %v", err)
	}
}
