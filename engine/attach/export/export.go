// Package export offers a recovery point to NBD clients, read-only or with an
// overlay that takes what they write.
package export

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"iter"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/nbd"
)

// Disk is what is exported. It is safe for concurrent use. One that is an
// nbd.Writer as well can be written by clients.
type Disk interface {
	Size() int64
	Read(ctx context.Context, p []byte, off int64) error
	// NextData finds where the first byte at or behind off may lie that is not
	// zero; ok is false if there is none.
	NextData(ctx context.Context, off int64) (next int64, ok bool, err error)
	// Data gives the parts of a stretch that may be other than zeros.
	Data(ctx context.Context, off, length int64) (extent.Set, error)
}

// Options say where and how a disk is offered.
type Options struct {
	Disk        Disk
	Description string // for people

	Socket string // path of a Unix socket that does not exist
	Listen string // or a host and port; port 0: any that is free

	TLS *tls.Config // nil: connections are not encrypted; else all are
}

// Export is a disk that is being offered. Its methods are safe for concurrent
// use.
type Export struct {
	address  nbd.Address
	listener *counting
	server   *nbd.Server
}

// New begins to listen; Serve must be called then. Errors: InvalidArgument if
// the address cannot be had.
func New(o Options) (*Export, error) {
	e := &Export{}
	var l net.Listener
	var err error
	if o.Socket != "" {
		e.address = nbd.Address{Network: "unix", Host: o.Socket, TLS: o.TLS != nil}
		l, err = listen(o.Socket)
	} else {
		if l, err = net.Listen("tcp", o.Listen); err == nil {
			e.address = nbd.Address{Network: "tcp", Host: l.Addr().String(), TLS: o.TLS != nil}
		}
	}
	if err != nil {
		return nil, problem.Wrap(err, problem.InvalidArgument, "NBD clients cannot be listened to at %s.", o.Socket+o.Listen).
			Do("Choose another address: --socket PATH or --listen HOST:PORT.")
	}
	e.listener = &counting{Listener: l}
	e.listener.left.Store(time.Now().UnixNano())
	e.server = &nbd.Server{TLS: o.TLS, TLSRequired: o.TLS != nil, Offers: []nbd.Offer{{Description: o.Description, Disk: mapped{o.Disk}, ReadOnly: true}}}
	if w, ok := o.Disk.(nbd.Writer); ok {
		e.server.Offers[0].Disk, e.server.Offers[0].ReadOnly = writable{w, mapped{o.Disk}}, false
	}
	return e, nil
}

// URL is where clients find the disk.
func (e *Export) URL() string { return e.address.String() }

// Serve answers clients until ctx ends, and then still what they have asked
// for, for some seconds. Errors are of the listener.
func (e *Export) Serve(ctx context.Context) error { return e.server.Serve(ctx, e.listener) }

// Idle tells for how long no client has been connected; 0 while one is.
func (e *Export) Idle() time.Duration {
	if e.listener.clients.Load() > 0 {
		return 0
	}
	return max(time.Since(time.Unix(0, e.listener.left.Load())), 1)
}

// Used tells whether any client was ever connected.
func (e *Export) Used() bool { return e.listener.ever.Load() }

// listen makes a socket for this user only. One that a killed process left is
// replaced.
func listen(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
			return nil, errors.New("another process serves this socket")
		}
		if errors.Is(err, unix.ECONNREFUSED) {
			_ = os.Remove(path) // if it cannot be, listening tells
		}
	}
	if len(path) > 107 { // sun_path
		return nil, errors.New("the path of the socket is longer than the 107 bytes that the system takes: " + filepath.Base(path))
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Certificate reads what TLS needs from files in PEM form. With authorities,
// clients must have a certificate of one of them. Errors: InvalidArgument.
func Certificate(certificate, key, authorities string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, problem.Wrap(err, problem.InvalidArgument, "The certificate %s and the key %s cannot be used.", certificate, key)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if authorities != "" {
		text, err := os.ReadFile(authorities)
		c.ClientCAs = x509.NewCertPool()
		if err != nil || !c.ClientCAs.AppendCertsFromPEM(text) {
			return nil, problem.Wrap(err, problem.InvalidArgument, "The certificates of authorities in %s cannot be used.", authorities)
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

// counting is a listener that knows how many connections there are.
type counting struct {
	net.Listener
	clients atomic.Int64
	left    atomic.Int64 // when the last one went; nanoseconds since 1970
	ever    atomic.Bool
}

func (l *counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.clients.Add(1)
	l.ever.Store(true)
	return &counted{Conn: c, listener: l}, nil
}

type counted struct {
	net.Conn
	listener *counting
	closed   atomic.Bool
}

func (c *counted) Close() error {
	if !c.closed.Swap(true) {
		c.listener.left.Store(time.Now().UnixNano())
		c.listener.clients.Add(-1)
	}
	return c.Conn.Close()
}

// mapped tells clients which parts of a disk are holes.
type mapped struct{ Disk }

// Contexts implements nbd.Mapper.
func (mapped) Contexts() []string { return []string{nbd.ContextAllocation} }

// look is how much of the map is asked for at once.
const look = 256 << 20

// Extents implements nbd.Mapper.
func (m mapped) Extents(ctx context.Context, _ string, r extent.Range) iter.Seq2[nbd.Extent, error] {
	return func(yield func(nbd.Extent, error) bool) {
		var last nbd.Extent
		add := func(to int64, flags uint32) bool {
			from := last.End()
			if to <= from {
				return true
			}
			if last.Len > 0 && last.Flags == flags {
				last.Len += to - from
				return true
			}
			done := last
			last = nbd.Extent{Off: from, Len: to - from, Flags: flags}
			return done.Len == 0 || yield(done, nil)
		}
		const hole = nbd.StateHole | nbd.StateZero
		last.Off = r.Off
		for at := r.Off; at < r.End(); {
			next, ok, err := m.NextData(ctx, at)
			if err != nil {
				yield(nbd.Extent{}, err)
				return
			}
			if !ok || next >= r.End() {
				next = r.End()
			}
			if !add(next, hole) {
				return
			}
			if at = next; at == r.End() {
				break
			}
			to := min(at+look, r.End())
			data, err := m.Data(ctx, at, to-at)
			if err != nil {
				yield(nbd.Extent{}, err)
				return
			}
			for _, d := range data.Within(extent.Between(at, to)) {
				if !add(d.Off, hole) || !add(d.End(), 0) {
					return
				}
			}
			if !add(to, hole) {
				return
			}
			at = to
		}
		if last.Len > 0 {
			yield(last, nil)
		}
	}
}

// writable is a disk that clients may write.
type writable struct {
	nbd.Writer
	mapped mapped
}

// Contexts implements nbd.Mapper.
func (w writable) Contexts() []string { return w.mapped.Contexts() }

// Extents implements nbd.Mapper.
func (w writable) Extents(ctx context.Context, name string, r extent.Range) iter.Seq2[nbd.Extent, error] {
	return w.mapped.Extents(ctx, name, r)
}
