package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/diskvault/diskvault/base/extent"
)

// request is one command on its way. Its owner may look at the fields below
// done only after done is closed.
type request struct {
	command command
	flags   uint16
	off     int64
	length  uint32
	from    []byte // of a write
	into    []byte // of a read

	done   chan struct{}
	got    []extent.Range      // which parts of into have come
	status map[uint32][]Extent // by the number of the context
	err    error
}

func (r *request) header(cookie uint64) []byte {
	b := make([]byte, 0, requestHeader)
	b = be.AppendUint32(b, magicRequest)
	b = be.AppendUint16(b, r.flags)
	b = be.AppendUint16(b, uint16(r.command))
	b = be.AppendUint64(b, cookie)
	b = be.AppendUint64(b, uint64(r.off))
	return be.AppendUint32(b, r.length)
}

// do sends requests and waits for all their answers.
func (c *Client) do(ctx context.Context, all ...*request) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.fail(context.Cause(ctx)) })
	defer stop()
	var first error
	sent := 0
	for ; sent < len(all) && first == nil; sent++ {
		first = c.send(all[sent])
	}
	// Whatever was sent must be waited for: it may still fill the caller's
	// buffer.
	for _, r := range all[:sent] {
		if r.done == nil {
			continue
		}
		<-r.done
		if first == nil {
			first = r.err
		}
	}
	return first
}

// send puts a request on its way. An error has ended the connection.
func (c *Client) send(r *request) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.err
	}
	c.cookie++
	cookie := c.cookie
	r.done = make(chan struct{})
	c.waiting[cookie] = r
	c.mu.Unlock()
	c.awaitAnswer()

	_ = c.raw.SetWriteDeadline(time.Now().Add(c.timeout))
	var err error
	if head := r.header(cookie); len(r.from) == 0 {
		_, err = c.conn.Write(head)
	} else {
		_, err = (&net.Buffers{head, r.from}).WriteTo(c.conn)
	}
	if err != nil {
		return c.fail(c.explain(err))
	}
	return nil
}

// receive takes answers until the connection ends; then no request waits any
// more.
func (c *Client) receive() {
	defer close(c.ended)
	var err error
	for err == nil {
		err = c.answer()
	}
	err = c.fail(c.explain(err))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.waiting {
		r.err = err
		close(r.done)
	}
	clear(c.waiting)
}

func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the NBD server has been silent for %v: %w", c.timeout, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe),
		errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("the NBD server ended the connection: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// answer takes one reply, or one chunk of a structured one.
func (c *Client) answer() error {
	var head [20]byte
	if _, err := io.ReadFull(c.in, head[:4]); err != nil {
		return err
	}
	switch magic := be.Uint32(head[:]); {
	case magic == magicSimple:
		if _, err := io.ReadFull(c.in, head[4:16]); err != nil {
			return err
		}
		return c.simple(be.Uint32(head[4:]), be.Uint64(head[8:]))
	case magic == magicStruct && c.structured:
		if _, err := io.ReadFull(c.in, head[4:20]); err != nil {
			return err
		}
		return c.chunk(be.Uint16(head[4:]), chunk(be.Uint16(head[6:])), be.Uint64(head[8:]), be.Uint32(head[16:]))
	default:
		return broken("an answer begins with %#x", magic)
	}
}

func (c *Client) asked(cookie uint64) (*request, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.waiting[cookie]; r != nil {
		return r, nil
	}
	return nil, broken("it answers a request that was not made")
}

// finish hands an answered request back.
func (c *Client) finish(cookie uint64, r *request) {
	c.mu.Lock()
	delete(c.waiting, cookie)
	c.mu.Unlock()
	close(r.done)
}

func (c *Client) simple(code uint32, cookie uint64) error {
	r, err := c.asked(cookie)
	if err != nil {
		return err
	}
	switch {
	case code != 0:
		r.err = &Error{Code: code}
	case r.command == cmdBlockStatus, r.command == cmdRead && c.structured:
		return broken("it answers a request simply that needs a structured answer")
	case r.command == cmdRead:
		if _, err := io.ReadFull(c.in, r.into); err != nil {
			return err
		}
	}
	c.finish(cookie, r)
	return nil
}

func (c *Client) chunk(flags uint16, kind chunk, cookie uint64, length uint32) error {
	r, err := c.asked(cookie)
	if err != nil {
		return err
	}
	switch {
	case kind&chunkIsError != 0:
		err = c.errorChunk(r, kind, length)
	case kind == chunkNone:
		if length != 0 || flags&chunkDone == 0 {
			err = broken("an empty chunk has %d bytes, or is not the last", length)
		}
	case kind == chunkData && r.command == cmdRead:
		err = c.dataChunk(r, length)
	case kind == chunkHole && r.command == cmdRead:
		err = c.holeChunk(r, length)
	case kind == chunkBlockStatus && r.command == cmdBlockStatus:
		err = c.statusChunk(r, length)
	default:
		err = broken("it answers command %d by a chunk of the kind %d", r.command, kind)
	}
	if err != nil || flags&chunkDone == 0 {
		return err
	}
	if err := r.whole(); err != nil {
		return err
	}
	c.finish(cookie, r)
	return nil
}

// whole tells whether the parts of an answer are all there.
func (r *request) whole() error {
	if r.command != cmdRead || r.err != nil {
		return nil
	}
	got := extent.Of(r.got...)
	if got.Total() != int64(r.length) {
		return broken("of %d bytes asked for it delivered %d", r.length, got.Total())
	}
	return nil
}

// part notes a range of the export that a chunk brings, and gives its place in
// the reader's buffer.
func (r *request) part(off uint64, length int64) ([]byte, error) {
	at := int64(off) - r.off
	if off > 1<<63-1 || length <= 0 || at < 0 || at > int64(len(r.into))-length {
		return nil, broken("it delivers %d bytes at %d, of which only %d at %d were asked for", length, off, r.length, r.off)
	}
	if len(r.got) >= maxExtents {
		return nil, broken("it delivers %d bytes in more than %d parts", r.length, maxExtents)
	}
	r.got = append(r.got, extent.Range{Off: at, Len: length})
	return r.into[at : at+length], nil
}

func (c *Client) dataChunk(r *request, length uint32) error {
	if length < 9 {
		return broken("a chunk of data has %d bytes", length)
	}
	var off [8]byte
	if _, err := io.ReadFull(c.in, off[:]); err != nil {
		return err
	}
	part, err := r.part(be.Uint64(off[:]), int64(length)-8)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(c.in, part)
	return err
}

func (c *Client) holeChunk(r *request, length uint32) error {
	if length != 12 {
		return broken("a chunk about a hole has %d bytes", length)
	}
	var body [12]byte
	if _, err := io.ReadFull(c.in, body[:]); err != nil {
		return err
	}
	part, err := r.part(be.Uint64(body[:]), int64(be.Uint32(body[8:])))
	clear(part)
	return err
}

func (c *Client) statusChunk(r *request, length uint32) error {
	if length < 12 || length%8 != 4 || length > 4+8*maxExtents {
		return broken("a block status has %d bytes", length)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(c.in, body); err != nil {
		return err
	}
	id, body := be.Uint32(body), body[4:]
	if _, twice := r.status[id]; twice || len(r.status) >= len(c.contexts) {
		return broken("it gives the block status of context %d, which it gave already or was not asked for", id)
	}
	all := make([]Extent, 0, len(body)/8)
	at := r.off
	for ; len(body) > 0; body = body[8:] {
		e := Extent{at, int64(be.Uint32(body)), be.Uint32(body[4:])}
		if e.Len == 0 || at >= r.off+int64(r.length) {
			return broken("a block status holds an extent that is empty or lies beyond what was asked for")
		}
		at = e.End()
		all = append(all, e)
	}
	if r.status == nil {
		r.status = map[uint32][]Extent{}
	}
	r.status[id] = all
	return nil
}

func (c *Client) errorChunk(r *request, kind chunk, length uint32) error {
	if length < 6 || length > 64<<10 {
		return broken("a chunk about an error has %d bytes", length)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(c.in, body); err != nil {
		return err
	}
	text, _, ok := cut(body[6:], uint32(be.Uint16(body[4:])))
	code := be.Uint32(body)
	if !ok || code == 0 {
		return broken("a chunk about an error is none")
	}
	if r.err == nil {
		r.err = &Error{Code: code, Message: printable(text)}
	}
	return nil
}
