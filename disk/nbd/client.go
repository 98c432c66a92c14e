package nbd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/diskvault/diskvault/base/extent"
)

// DialOptions say how an export is talked to. The zero value works.
type DialOptions struct {
	// Contexts are the meta contexts wanted, such as ContextAllocation. Those
	// that the server lacks are left out; see Client.Has.
	Contexts []string
	// TLS is used instead of what the address says about certificates.
	TLS *tls.Config
	// Timeout is how long the server may be silent while it owes an answer.
	// Zero: a minute.
	Timeout time.Duration
}

const defaultTimeout = time.Minute

func (o DialOptions) timeout() time.Duration {
	if o.Timeout > 0 {
		return o.Timeout
	}
	return defaultTimeout
}

// Client is a connection to one export. All methods are safe for concurrent
// use; requests of several goroutines are in flight at once. Errors of the
// server about one request are of the type *Error, and the next request may
// succeed; any other error has ended the connection.
//
// A context that ends while a request is under way ends the connection, since a
// request cannot be taken back.
type Client struct {
	raw     net.Conn // to be closed; under TLS, below conn
	conn    net.Conn
	in      *bufio.Reader
	timeout time.Duration

	size               int64
	flags              uint16
	minBlock, maxBlock int64 // in bytes; maxBlock as of one request
	structured         bool
	contexts           map[string]uint32

	sending sync.Mutex    // one request at a time goes out
	ended   chan struct{} // closed when nothing is received any more

	mu      sync.Mutex
	waiting map[uint64]*request // guarded by mu: requests without an answer
	cookie  uint64              // guarded by mu: of the last request
	err     error               // guarded by mu: why the connection ended
}

// Dial connects to an export. Errors may be ErrNoExport, ErrTLSRequired,
// ErrTLSRefused or those of the network.
func Dial(ctx context.Context, a Address, o DialOptions) (*Client, error) {
	d := net.Dialer{Timeout: o.timeout()}
	conn, err := d.DialContext(ctx, a.Network, a.Host)
	if err != nil {
		return nil, err
	}
	return NewClient(ctx, conn, a, o)
}

// NewClient is Dial over a connection that there is, which belongs to the Client
// from now on, also if it fails. Of the address it takes all but the place.
func NewClient(ctx context.Context, conn net.Conn, a Address, o DialOptions) (*Client, error) {
	c := &Client{
		raw: conn, timeout: o.timeout(), minBlock: 1, maxBlock: maxPayload,
		contexts: map[string]uint32{}, waiting: map[uint64]*request{}, ended: make(chan struct{}),
	}
	c.setConn(conn)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err := conn.SetDeadline(time.Now().Add(c.timeout))
	if err == nil {
		err = c.handshake(a, o.TLS, o.Contexts)
	}
	if !stop() && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return nil, c.explain(err)
	}
	go c.receive()
	return c, nil
}

func (c *Client) setConn(conn net.Conn) {
	c.conn = conn
	c.in = bufio.NewReaderSize(patient{c, conn}, 128<<10)
}

// patient reads from the connection, and gives up if nothing comes for the
// client's timeout while the server owes an answer.
type patient struct {
	c    *Client
	conn net.Conn
}

func (p patient) Read(b []byte) (int, error) {
	p.c.awaitAnswer()
	return p.conn.Read(b)
}

// awaitAnswer sets the time by which the server must have said something.
func (c *Client) awaitAnswer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(c.waiting) > 0:
		_ = c.raw.SetReadDeadline(time.Now().Add(c.timeout)) // a closed connection says so when read
	case c.cookie > 0: // not in the handshake, which has a time of its own
		_ = c.raw.SetReadDeadline(time.Time{})
	}
}

// Size is the size of the export in bytes.
func (c *Client) Size() int64 { return c.size }

// BlockSize is the least unit of a write, in bytes: a power of two, mostly 1.
// Reads may be of any range.
func (c *Client) BlockSize() int64 { return c.minBlock }

// ReadOnly tells whether the server says that nobody can write through this
// export.
func (c *Client) ReadOnly() bool { return c.flags&exportReadOnly != 0 }

// Rotational tells whether the server says that the export lies on spinning
// disks.
func (c *Client) Rotational() bool { return c.flags&exportRotational != 0 }

// CanTrim tells whether Trim does something.
func (c *Client) CanTrim() bool { return c.flags&exportTrim != 0 }

// Has tells whether the server gave a meta context that was asked for.
func (c *Client) Has(context string) bool {
	_, ok := c.contexts[context]
	return ok
}

// Contexts are the names of the meta contexts that the server gave.
func (c *Client) Contexts() []string { return slices.Sorted(maps.Keys(c.contexts)) }

// Read fills p from off on. All of p must lie within Size.
func (c *Client) Read(ctx context.Context, p []byte, off int64) error {
	r := extent.Range{Off: off, Len: int64(len(p))}
	if err := c.check(r); err != nil {
		return err
	}
	whole := r.Align(c.minBlock, c.size)
	if whole != r && len(p) > 0 {
		buffer := make([]byte, whole.Len)
		if err := c.Read(ctx, buffer, whole.Off); err != nil {
			return err
		}
		copy(p, buffer[off-whole.Off:])
		return nil
	}
	var all []*request
	for at := r.Off; at < r.End(); at += c.maxBlock {
		piece := extent.Between(at, min(at+c.maxBlock, r.End()))
		all = append(all, &request{command: cmdRead, off: at, length: uint32(piece.Len), into: p[at-off : piece.End()-off]})
	}
	return c.do(ctx, all...)
}

// Write writes p from off on, a range of whole blocks; see BlockSize. It is on
// stable storage after the next Flush.
func (c *Client) Write(ctx context.Context, p []byte, off int64) error {
	return c.write(ctx, cmdWrite, extent.Range{Off: off, Len: int64(len(p))}, c.maxBlock, func(r *request, at extent.Range) {
		r.from = p[at.Off-off : at.End()-off]
	})
}

// Zero makes a range read as zeros, by a hole where the server can unless keep
// says that it shall keep its room. On a server that cannot zero, zeros are
// written.
func (c *Client) Zero(ctx context.Context, r extent.Range, keep bool) error {
	if c.flags&exportWriteZeroes == 0 {
		zeros := make([]byte, min(r.Len, 1<<20/c.minBlock*c.minBlock))
		for at := r.Off; at < r.End(); at += int64(len(zeros)) {
			if err := c.Write(ctx, zeros[:min(int64(len(zeros)), r.End()-at)], at); err != nil {
				return err
			}
		}
		return nil
	}
	return c.write(ctx, cmdWriteZeroes, r, zeroStep, func(q *request, at extent.Range) {
		if keep {
			q.flags |= cmdNoHole
		}
	})
}

// Trim tells the server that nobody needs what a range holds. On a server that
// cannot trim it does nothing.
func (c *Client) Trim(ctx context.Context, r extent.Range) error {
	if !c.CanTrim() {
		return nil
	}
	return c.write(ctx, cmdTrim, r, zeroStep, func(*request, extent.Range) {})
}

// zeroStep is how much is zeroed or trimmed by one request, in bytes: slow
// servers must answer within the timeout.
const zeroStep = 256 << 20

// write sends one request after the other, each of at most step bytes.
func (c *Client) write(ctx context.Context, cmd command, r extent.Range, step int64, fill func(*request, extent.Range)) error {
	if err := c.check(r); err != nil {
		return err
	}
	if (r.Off|r.Len)%c.minBlock != 0 {
		return fmt.Errorf("bytes %v are not whole blocks of %d bytes", r, c.minBlock)
	}
	for at := r.Off; at < r.End(); at += step {
		piece := extent.Between(at, min(at+step, r.End()))
		q := &request{command: cmd, off: at, length: uint32(piece.Len)}
		fill(q, piece)
		if err := c.do(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// Flush returns when all writes that were answered are on stable storage.
func (c *Client) Flush(ctx context.Context) error {
	if c.flags&exportFlush == 0 {
		return nil // the server promises that by each answer
	}
	return c.do(ctx, &request{command: cmdFlush})
}

// Extents gives, in order and without gaps, what a meta context says of a
// range. Neighbours differ in their flags. After an error the walk ends.
func (c *Client) Extents(ctx context.Context, name string, r extent.Range) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		id, ok := c.contexts[name]
		if err := c.check(r); err != nil || !ok {
			if err == nil {
				err = fmt.Errorf("the NBD server did not give the meta context %s", name)
			}
			yield(Extent{}, err)
			return
		}
		var last Extent
		for at := r.Off; at < r.End(); {
			asked := extent.Between(at, min(at+statusLimit, r.End())).Align(c.minBlock, c.size)
			q := &request{command: cmdBlockStatus, off: asked.Off, length: uint32(asked.Len)}
			err := c.do(ctx, q)
			if err != nil {
				yield(Extent{}, err)
				return
			}
			before := at
			for _, e := range q.status[id] {
				part := extent.Range{Off: e.Off, Len: e.Len}.Intersect(extent.Between(at, r.End()))
				if part.Empty() {
					continue
				}
				at = part.End()
				if last.Len > 0 && last.Flags == e.Flags {
					last.Len += part.Len
					continue
				}
				if last.Len > 0 && !yield(last, nil) {
					return
				}
				last = Extent{part.Off, part.Len, e.Flags}
			}
			if at == before {
				yield(Extent{}, c.fail(broken("it says nothing of the byte %d in %s", at, name)))
				return
			}
		}
		if last.Len > 0 {
			yield(last, nil)
		}
	}
}

func (c *Client) check(r extent.Range) error {
	if r.Off < 0 || r.Len < 0 || r.Off > c.size-r.Len {
		return fmt.Errorf("bytes %v lie beyond the %d bytes of the NBD export", r, c.size)
	}
	return nil
}

// Close takes leave of the server. Requests under way fail.
func (c *Client) Close() error {
	// A server that hangs, or that is being sent a request, does without.
	if c.sending.TryLock() {
		if c.broken() == nil {
			_ = c.raw.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = c.conn.Write((&request{command: cmdDisconnect}).header(0))
		}
		c.sending.Unlock()
	}
	_ = c.fail(errClosed)
	<-c.ended
	return nil
}

var errClosed = errors.New("the NBD connection is closed")

// broken is why the connection ended; nil while it lives.
func (c *Client) broken() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail ends the connection, for the reason given or the first one that came.
func (c *Client) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		c.raw.Close()
	}
	return c.err
}
