package nbd

import (
	"context"
	"errors"
	"io"
	"math/bits"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
)

// asked is a request as it came from the client.
type asked struct {
	flags   uint16
	command command
	cookie  uint64
	off     uint64
	length  uint32
	data    []byte // of a write; from the pool
}

func (a *asked) within() extent.Range { return extent.Range{Off: int64(a.off), Len: int64(a.length)} }

// transmit takes requests until the client leaves, and answers them side by
// side.
func (c *conn) transmit() {
	defer c.busy.Wait()
	for {
		a, err := c.next()
		if err != nil {
			if !errors.Is(err, errLeft) && !c.isEnding() {
				c.cancel() // nobody waits for the answers
			}
			return
		}
		c.places <- struct{}{}
		c.busy.Go(func() {
			defer func() { <-c.places }()
			if c.answer(a) != nil {
				c.raw.Close()
			}
		})
	}
}

func (c *conn) isEnding() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending
}

// errLeft is the end of the connection by the client's own word.
var errLeft = errors.New("the client has left")

// next reads one request. Those that cannot be right are answered at once.
func (c *conn) next() (*asked, error) {
	for {
		c.readUntil(time.Time{})
		var head [requestHeader]byte
		if _, err := io.ReadFull(c.in, head[:]); err != nil {
			return nil, err
		}
		if be.Uint32(head[:]) != magicRequest {
			return nil, broken("a request has a wrong beginning")
		}
		a := &asked{
			flags: be.Uint16(head[4:]), command: command(be.Uint16(head[6:])),
			cookie: be.Uint64(head[8:]), off: be.Uint64(head[16:]), length: be.Uint32(head[24:]),
		}
		if a.command == cmdDisconnect {
			return nil, errLeft
		}
		code := c.judge(a)
		if a.command == cmdWrite {
			if a.length > maxPayload {
				return nil, broken("it writes %d bytes at once", a.length)
			}
			if err := c.payload(a, code != 0); err != nil {
				return nil, err
			}
		}
		if code == 0 {
			return a, nil
		}
		if err := c.refuse(a, &Error{Code: uint32(code)}); err != nil {
			return nil, err
		}
	}
}

// payload reads what a client wants written, or drops it.
func (c *conn) payload(a *asked, drop bool) error {
	data, err := c.take(a.length)
	if err != nil {
		return err
	}
	for at := 0; at < len(data) && err == nil; at += stallStep {
		c.readUntil(time.Now().Add(c.server.times.stall))
		_, err = io.ReadFull(c.in, data[at:min(at+stallStep, len(data))])
	}
	if err != nil || drop {
		c.give(data)
		return err
	}
	a.data = data
	return nil
}

// stallStep is how many bytes of data must move within the stall time.
const stallStep = 1 << 20

// judge gives the error of a request that cannot be right, or zero.
func (c *conn) judge(a *asked) syscall.Errno {
	_, writable := c.offer.writer()
	size := uint64(c.offer.Disk.Size())
	beyond := a.off > size || uint64(a.length) > size-a.off
	allowed := uint16(cmdFUA) // may stand on any command
	switch a.command {
	case cmdRead:
		allowed |= cmdDF
	case cmdWriteZeroes:
		allowed |= cmdNoHole
	case cmdBlockStatus:
		allowed |= cmdReqOne
	}
	switch a.command {
	case cmdFlush:
		if a.off != 0 || a.length != 0 {
			return syscall.EINVAL
		}
		return 0
	case cmdRead, cmdCache, cmdBlockStatus:
		if beyond {
			return syscall.EINVAL
		}
	case cmdWrite, cmdWriteZeroes, cmdTrim:
		if !writable {
			return syscall.EPERM
		}
		if beyond {
			return syscall.ENOSPC
		}
	default:
		return syscall.EINVAL
	}
	switch {
	case a.flags&^allowed != 0, a.length == 0,
		a.command == cmdRead && a.length > maxPayload,
		a.command == cmdBlockStatus && len(c.contexts) == 0,
		a.flags&cmdDF != 0 && !c.structured:
		return syscall.EINVAL
	}
	return 0
}

// answer does what was asked, and says so. An error is one of the connection.
func (c *conn) answer(a *asked) error {
	switch a.command {
	case cmdRead:
		return c.read(a)
	case cmdBlockStatus:
		return c.status(a)
	}
	if err := c.act(a); err != nil {
		return c.refuse(a, err)
	}
	return c.done(a)
}

// act does requests whose answer is only that they are done.
func (c *conn) act(a *asked) error {
	ctx := c.work
	if a.command == cmdCache {
		return c.prefetch(ctx, a.within())
	}
	w, writable := c.offer.writer()
	if !writable { // a flush
		return nil
	}
	var err error
	switch a.command {
	case cmdWrite:
		err = w.Write(ctx, a.data, int64(a.off))
		c.give(a.data)
	case cmdWriteZeroes:
		err = w.Zero(ctx, a.within(), a.flags&cmdNoHole != 0)
	case cmdTrim:
		err = w.Trim(ctx, a.within())
	}
	if err == nil && (a.command == cmdFlush || a.flags&cmdFUA != 0) {
		err = w.Flush(ctx)
	}
	return err
}

// prefetch reads a range for the caches below.
func (c *conn) prefetch(ctx context.Context, r extent.Range) error {
	for part := range r.Windows(1 << 20) {
		buffer, err := c.take(uint32(part.Len))
		if err == nil {
			err = c.offer.Disk.Read(ctx, buffer, part.Off)
			c.give(buffer)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) read(a *asked) error {
	buffer, err := c.take(a.length)
	if err != nil {
		return err
	}
	defer c.give(buffer)
	if err := c.offer.Disk.Read(c.work, buffer, int64(a.off)); err != nil {
		return c.refuse(a, err)
	}
	if !c.structured {
		return c.send(simpleHeader(a, 0), buffer)
	}
	return c.send(be.AppendUint64(chunkHeader(a, chunkDone, chunkData, 8+len(buffer)), a.off), buffer)
}

// status answers a block status for all contexts that the client chose.
func (c *conn) status(a *asked) error {
	m, ok := c.offer.Disk.(Mapper)
	if !ok {
		return c.refuse(a, syscall.EINVAL)
	}
	limit := maxStatusExtents
	if a.flags&cmdReqOne != 0 {
		limit = 1
	}
	var all []byte
	for i, name := range c.contexts {
		body, err := describe(c.work, m, name, a.within(), limit)
		if err != nil {
			return c.refuse(a, err)
		}
		flags := uint16(0)
		if i == len(c.contexts)-1 {
			flags = chunkDone
		}
		all = append(all, be.AppendUint32(chunkHeader(a, flags, chunkBlockStatus, 4+len(body)), uint32(i+1))...)
		all = append(all, body...)
	}
	return c.send(all, nil)
}

// maxStatusExtents is how many extents one answer describes; the client asks
// again for the rest.
const maxStatusExtents = 16 << 10

// describe gives the extents of a range as they go over the wire.
func describe(ctx context.Context, m Mapper, name string, r extent.Range, limit int) (body []byte, err error) {
	at := r.Off
	for e, err := range m.Extents(ctx, name, r) {
		if err != nil {
			return nil, err
		}
		if e.Off != at || e.Len <= 0 || e.End() > r.End() {
			return nil, syscall.EIO // a fault of the disk, which a client must not build on
		}
		body = be.AppendUint32(be.AppendUint32(body, uint32(e.Len)), e.Flags)
		at = e.End()
		if len(body) >= 8*limit {
			break
		}
	}
	if len(body) == 0 {
		return nil, syscall.EIO
	}
	return body, nil
}

func simpleHeader(a *asked, code uint32) []byte {
	b := be.AppendUint32(make([]byte, 0, 16), magicSimple)
	return be.AppendUint64(be.AppendUint32(b, code), a.cookie)
}

func chunkHeader(a *asked, flags uint16, kind chunk, length int) []byte {
	b := be.AppendUint32(make([]byte, 0, 28), magicStruct)
	b = be.AppendUint16(b, flags)
	b = be.AppendUint16(b, uint16(kind))
	b = be.AppendUint64(b, a.cookie)
	return be.AppendUint32(b, uint32(length))
}

// done says that a request succeeded that asks for no data.
func (c *conn) done(a *asked) error {
	if !c.structured {
		return c.send(simpleHeader(a, 0), nil)
	}
	return c.send(chunkHeader(a, chunkDone, chunkNone, 0), nil)
}

// refuse says that a request failed. Of the reasons the client gets the words
// only where they were made for people.
func (c *conn) refuse(a *asked, err error) error {
	code, text := codeOf(err), ""
	if p := (*problem.Error)(nil); errors.As(err, &p) {
		text = p.Message[:min(len(p.Message), maxErrorText)]
	}
	if !c.structured {
		return c.send(simpleHeader(a, code), nil)
	}
	b := be.AppendUint32(chunkHeader(a, chunkDone, chunkError, 6+len(text)), code)
	return c.send(append(be.AppendUint16(b, uint16(len(text))), text...), nil)
}

// codeOf gives an error the number that the protocol has for its kind.
func codeOf(err error) uint32 {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	var number syscall.Errno
	if !errors.As(err, &number) {
		return uint32(syscall.EIO)
	}
	switch number {
	case syscall.EPERM, syscall.EACCES, syscall.EROFS:
		return uint32(syscall.EPERM)
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return uint32(syscall.ENOSPC)
	case syscall.ENOMEM, syscall.EINVAL, syscall.EOVERFLOW, syscall.EOPNOTSUPP, syscall.ESHUTDOWN:
		return uint32(number)
	}
	return uint32(syscall.EIO)
}

// send puts one whole reply on the wire.
func (c *conn) send(head, data []byte) error {
	c.replying.Lock()
	defer c.replying.Unlock()
	for {
		_ = c.raw.SetWriteDeadline(time.Now().Add(c.server.times.stall))
		step := data[:min(len(data), stallStep)]
		data = data[len(step):]
		if _, err := (&net.Buffers{head, step}).WriteTo(c.conn); err != nil || len(data) == 0 {
			return err
		}
		head = nil
	}
}

// buffers are by the power of two that is their capacity.
var buffers [bits.UintSize]sync.Pool // *[]byte

// take gives a buffer of n bytes when the memory of all clients allows. The
// error is that of the connection having ended.
func (c *conn) take(n uint32) ([]byte, error) {
	class := bits.Len32(max(n, 1) - 1)
	if err := c.server.memory.Acquire(c.work, 1<<class); err != nil {
		return nil, err
	}
	if b, ok := buffers[class].Get().(*[]byte); ok {
		return (*b)[:n], nil
	}
	return make([]byte, n, 1<<class), nil
}

// give hands a buffer of take back.
func (c *conn) give(b []byte) {
	if b == nil {
		return
	}
	b = b[:cap(b)]
	c.server.memory.Release(int64(len(b)))
	buffers[bits.Len(uint(len(b)-1))].Put(&b)
}
