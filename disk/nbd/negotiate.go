package nbd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// conn is a client as its server sees it.
type conn struct {
	server *Server
	raw    net.Conn // under TLS, below conn
	conn   net.Conn
	in     *bufio.Reader
	secure bool

	structured bool
	offer      *Offer // chosen; nil before, and if the client left
	chosenFor  *Offer // for which contexts were chosen
	contexts   []string

	work   context.Context // of the requests; ends with the connection
	cancel context.CancelFunc
	places chan struct{} // one for each request that is worked on
	busy   sync.WaitGroup

	replying sync.Mutex // one reply at a time

	mu     sync.Mutex
	ending bool // guarded by mu: no more requests are taken
}

func (c *conn) setConn(to net.Conn) {
	c.conn = to
	c.in = bufio.NewReaderSize(to, 64<<10)
}

// shutDown has the connection take no more requests, and end when those under
// way are answered.
func (c *conn) shutDown() {
	c.mu.Lock()
	c.ending = true
	_ = c.raw.SetReadDeadline(time.Unix(1, 0))
	c.mu.Unlock()
	time.AfterFunc(c.server.times.grace, func() {
		c.cancel()
		c.raw.Close()
	})
}

// readUntil sets the time by which the client must have sent something; zero:
// it need not.
func (c *conn) readUntil(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ending {
		_ = c.raw.SetReadDeadline(t)
	}
}

// handshake talks to the client until it chooses an offer, or leaves.
func (c *conn) handshake() error {
	hello := be.AppendUint64(nil, magicServer)
	hello = be.AppendUint64(hello, magicOption)
	hello = be.AppendUint16(hello, flagFixedNewstyle|flagNoZeroes)
	if _, err := c.conn.Write(hello); err != nil {
		return err
	}
	var answer [4]byte
	if _, err := io.ReadFull(c.in, answer[:]); err != nil {
		return err
	}
	flags := be.Uint32(answer[:])
	if flags&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return broken("it sets flags that were not offered")
	}
	for range maxOptions {
		o, data, err := c.option()
		if err != nil {
			return err
		}
		done, err := c.answerOption(o, data, flags&flagNoZeroes == 0)
		if done || err != nil {
			return err
		}
	}
	return broken("it asks for more than %d options", maxOptions)
}

func (c *conn) option() (option, []byte, error) {
	var head [16]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, nil, err
	}
	n := be.Uint32(head[12:])
	switch {
	case be.Uint64(head[:]) != magicOption:
		return 0, nil, broken("an option has a wrong beginning")
	case n > maxOption:
		return 0, nil, broken("an option has %d bytes", n)
	}
	data := make([]byte, n)
	_, err := io.ReadFull(c.in, data)
	return option(be.Uint32(head[8:])), data, err
}

func (c *conn) reply(o option, code optionReply, payload []byte) error {
	b := be.AppendUint64(nil, magicReply)
	b = be.AppendUint32(b, uint32(o))
	b = be.AppendUint32(b, uint32(code))
	b = be.AppendUint32(b, uint32(len(payload)))
	_, err := c.conn.Write(append(b, payload...))
	return err
}

// answerOption answers one option; done tells that the handshake is over.
func (c *conn) answerOption(o option, data []byte, zeroes bool) (done bool, err error) {
	refuse := func(code optionReply, why string) (bool, error) { return false, c.reply(o, code, []byte(why)) }
	if c.server.TLSRequired && !c.secure && o != optStartTLS && o != optAbort {
		if o == optExportName {
			return true, errors.New("the client does not encrypt") // there is no other way to refuse
		}
		return refuse(repErrTLSRequired, "this server wants TLS")
	}
	switch o {
	case optAbort:
		return true, c.reply(o, repAck, nil)
	case optExportName:
		return c.exportName(data, zeroes)
	case optStartTLS:
		return false, c.startTLS(data)
	case optList:
		if len(data) > 0 {
			return refuse(repErrInvalid, "LIST has no data")
		}
		for i := range c.server.Offers {
			offer := &c.server.Offers[i]
			if err := c.reply(o, repServer, append(appendText(nil, offer.Name), offer.Description...)); err != nil {
				return false, err
			}
		}
		return false, c.reply(o, repAck, nil)
	case optStructuredReply:
		if len(data) > 0 {
			return refuse(repErrInvalid, "STRUCTURED_REPLY has no data")
		}
		c.structured = true
		return false, c.reply(o, repAck, nil)
	case optInfo, optGo:
		return c.info(o, data)
	case optListMetaContext, optSetMetaContext:
		return false, c.metaContexts(o, data)
	}
	return refuse(repErrUnsupported, "")
}

func (c *conn) choose(offer *Offer) {
	if offer != c.chosenFor {
		c.contexts = nil // they were of another export
	}
	c.offer = offer
}

// exportName answers the old form of GO, which cannot be refused in words.
func (c *conn) exportName(name []byte, zeroes bool) (done bool, err error) {
	offer := c.server.find(string(name))
	if offer == nil {
		return true, ErrNoExport
	}
	b := be.AppendUint64(nil, uint64(offer.Disk.Size()))
	b = be.AppendUint16(b, offer.flags())
	if zeroes {
		b = append(b, make([]byte, 124)...)
	}
	c.choose(offer)
	_, err = c.conn.Write(b)
	return true, err
}

func (c *conn) startTLS(data []byte) error {
	switch {
	case c.server.TLS == nil:
		return c.reply(optStartTLS, repErrPolicy, []byte("this server has no TLS"))
	case c.secure || len(data) > 0:
		return c.reply(optStartTLS, repErrInvalid, nil)
	case c.in.Buffered() > 0:
		return broken("it sends before TLS what belongs after it") // somebody between might have put it there
	}
	if err := c.reply(optStartTLS, repAck, nil); err != nil {
		return err
	}
	secure := tls.Server(c.raw, c.server.TLS)
	if err := secure.Handshake(); err != nil {
		return err
	}
	// What was agreed on before may be somebody else's words.
	c.secure, c.structured, c.contexts, c.chosenFor = true, false, nil, nil
	c.setConn(secure)
	return nil
}

// info answers INFO and GO.
func (c *conn) info(o option, data []byte) (done bool, err error) {
	name, rest, ok := cutText(data)
	if !ok || len(rest) < 2 || len(rest) != 2+2*int(be.Uint16(rest)) {
		return false, c.reply(o, repErrInvalid, nil)
	}
	offer := c.server.find(name)
	if offer == nil {
		return false, c.reply(o, repErrUnknown, []byte("there is no export of this name"))
	}
	size := be.AppendUint64(be.AppendUint16(nil, infoExport), uint64(offer.Disk.Size()))
	if err := c.reply(o, repInfo, be.AppendUint16(size, offer.flags())); err != nil {
		return false, err
	}
	blocks := be.AppendUint16(nil, infoBlockSize)
	for _, n := range []uint32{1, preferredBlock, maxPayload} {
		blocks = be.AppendUint32(blocks, n)
	}
	if err := c.reply(o, repInfo, blocks); err != nil {
		return false, err
	}
	if offer.Description != "" {
		if err := c.reply(o, repInfo, append(be.AppendUint16(nil, infoDescription), offer.Description...)); err != nil {
			return false, err
		}
	}
	if o == optGo {
		c.choose(offer)
	}
	return o == optGo, c.reply(o, repAck, nil)
}

// metaContexts answers LIST_META_CONTEXT and SET_META_CONTEXT.
func (c *conn) metaContexts(o option, data []byte) error {
	name, rest, ok := cutText(data)
	count, queries, enough := cut(rest, 4)
	if !ok || !enough || !c.structured {
		return c.reply(o, repErrInvalid, nil)
	}
	offer := c.server.find(name)
	if offer == nil {
		return c.reply(o, repErrUnknown, []byte("there is no export of this name"))
	}
	var wanted []string
	for range be.Uint32(count) {
		var query string
		if query, queries, ok = cutText(queries); !ok {
			return c.reply(o, repErrInvalid, nil)
		}
		wanted = append(wanted, query)
	}
	if len(queries) > 0 {
		return c.reply(o, repErrInvalid, nil)
	}
	if o == optSetMetaContext {
		c.contexts, c.chosenFor = nil, offer
	}
	for id, known := range offer.contexts() {
		if !matches(known, wanted, o == optListMetaContext) {
			continue
		}
		if o == optSetMetaContext {
			c.contexts = append(c.contexts, known)
			id = len(c.contexts)
		}
		if err := c.reply(o, repMetaContext, append(be.AppendUint32(nil, uint32(id)), known...)); err != nil {
			return err
		}
	}
	return c.reply(o, repAck, nil)
}

// matches tells whether a context is asked for. In a list no question means all
// of them, and "base:" all of that name space.
func matches(known string, wanted []string, list bool) bool {
	if list && len(wanted) == 0 {
		return true
	}
	for _, w := range wanted {
		if w == known || list && strings.HasSuffix(w, ":") && strings.HasPrefix(known, w) {
			return true
		}
	}
	return false
}
