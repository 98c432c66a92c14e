package nbd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrNoExport says that the server has no export of the name asked for.
var ErrNoExport = errors.New("the NBD server has no such export")

// ErrTLSRequired says that the server talks over TLS only, and the address does
// not.
var ErrTLSRequired = errors.New("the NBD server wants TLS")

// ErrTLSRefused says that the address asks for TLS, and the server offers none.
var ErrTLSRefused = errors.New("the NBD server offers no TLS")

// errBroken begins the text of every error about a peer that does not keep to
// the protocol.
var errBroken = errors.New("the peer does not keep to the NBD protocol")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errBroken, fmt.Sprintf(format, args...))
}

// refusal is an error reply to an option.
type refusal struct {
	option option
	code   optionReply
	text   string
}

func (r *refusal) Error() string {
	if r.text != "" {
		return "the NBD server refuses: " + r.text
	}
	return fmt.Sprintf("the NBD server refuses option %d with error %d", r.option, r.code&^repError)
}

func (r *refusal) Unwrap() error {
	switch r.code {
	case repErrUnknown:
		return ErrNoExport
	case repErrTLSRequired:
		return ErrTLSRequired
	}
	return nil
}

func unsupported(err error) bool {
	var r *refusal
	return errors.As(err, &r) && (r.code == repErrUnsupported || r.code == repErrPolicy || r.code == repErrInvalid)
}

// handshake talks to the server until requests can be sent.
func (c *Client) handshake(a Address, config *tls.Config, contexts []string) error {
	var hello [18]byte
	if _, err := io.ReadFull(c.in, hello[:]); err != nil {
		return noEOF(err)
	}
	if be.Uint64(hello[:]) != magicServer {
		return broken("it does not begin as an NBD server does")
	}
	flags := be.Uint16(hello[16:])
	if be.Uint64(hello[8:]) != magicOption || flags&flagFixedNewstyle == 0 {
		return errors.New("the NBD server speaks only the old form of the protocol, of before 2011")
	}
	zeroes := flags&flagNoZeroes == 0
	answer := uint32(flagFixedNewstyle)
	if !zeroes {
		answer |= flagNoZeroes
	}
	if _, err := c.conn.Write(be.AppendUint32(nil, answer)); err != nil {
		return err
	}
	if a.TLS {
		if err := c.startTLS(a, config); err != nil {
			return err
		}
	}
	switch err := c.option(optStructuredReply, nil, nil); {
	case err == nil:
		c.structured = true
	case !unsupported(err):
		return err
	}
	if c.structured && len(contexts) > 0 {
		if err := c.setContexts(a.Export, contexts); err != nil {
			return err
		}
	}
	err := c.goExport(a.Export)
	if unsupported(err) {
		err = c.exportName(a.Export, zeroes)
	}
	if err != nil {
		return err
	}
	return c.checkExport()
}

func (c *Client) startTLS(a Address, config *tls.Config) error {
	if config == nil {
		var err error
		if config, err = a.tlsConfig(); err != nil {
			return fmt.Errorf("the certificates of this side cannot be used: %w", err)
		}
	}
	if err := c.option(optStartTLS, nil, nil); err != nil {
		if unsupported(err) {
			return ErrTLSRefused
		}
		return err
	}
	if c.in.Buffered() > 0 {
		return broken("it sends more before TLS than was asked for") // somebody between might have put it there
	}
	secure := tls.Client(c.conn, config)
	if err := secure.Handshake(); err != nil {
		return fmt.Errorf("no TLS connection to the NBD server came up: %w", err)
	}
	c.setConn(secure)
	return nil
}

// option sends an option and takes its replies, up to the last one.
func (c *Client) option(o option, data []byte, take func(optionReply, []byte) error) error {
	b := be.AppendUint64(nil, magicOption)
	b = be.AppendUint32(b, uint32(o))
	b = be.AppendUint32(b, uint32(len(data)))
	if _, err := c.conn.Write(append(b, data...)); err != nil {
		return err
	}
	for {
		code, payload, err := c.optionReply(o)
		switch {
		case err != nil:
			return err
		case code&repError != 0:
			return &refusal{o, code, printable(payload)}
		case code == repAck:
			return nil
		case take != nil:
			if err := take(code, payload); err != nil {
				return err
			}
		}
	}
}

func (c *Client) optionReply(o option) (optionReply, []byte, error) {
	var head [20]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, nil, noEOF(err)
	}
	n := be.Uint32(head[16:])
	switch {
	case be.Uint64(head[:]) != magicReply:
		return 0, nil, broken("a reply to an option has a wrong beginning")
	case option(be.Uint32(head[8:])) != o:
		return 0, nil, broken("it answers option %d, which was not asked", be.Uint32(head[8:]))
	case n > maxOption:
		return 0, nil, broken("a reply to an option has %d bytes", n)
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(c.in, payload)
	return optionReply(be.Uint32(head[12:])), payload, noEOF(err)
}

// setContexts asks for meta contexts; those that the server does not have it
// leaves out.
func (c *Client) setContexts(export string, names []string) error {
	data := be.AppendUint32(appendText(nil, export), uint32(len(names)))
	asked := map[string]bool{}
	for _, name := range names {
		data = appendText(data, name)
		asked[name] = true
	}
	err := c.option(optSetMetaContext, data, func(code optionReply, payload []byte) error {
		if code != repMetaContext {
			return nil
		}
		if len(payload) < 4 {
			return broken("it names a meta context in %d bytes", len(payload))
		}
		if name := string(payload[4:]); asked[name] {
			c.contexts[name] = be.Uint32(payload)
		}
		return nil
	})
	if unsupported(err) {
		return nil
	}
	return err
}

// goExport ends the handshake by the choice of an export.
func (c *Client) goExport(export string) error {
	data := be.AppendUint16(appendText(nil, export), 1)
	data = be.AppendUint16(data, infoBlockSize) // asking for it says that we keep to it
	known := false
	err := c.option(optGo, data, func(code optionReply, payload []byte) error {
		if code != repInfo || len(payload) < 2 {
			return nil
		}
		body := payload[2:]
		switch be.Uint16(payload) {
		case infoExport:
			if len(body) != 10 {
				return broken("it describes its export in %d bytes", len(body))
			}
			c.size, c.flags, known = int64(be.Uint64(body)), be.Uint16(body[8:]), true
		case infoBlockSize:
			if len(body) != 12 {
				return broken("it gives its block sizes in %d bytes", len(body))
			}
			c.minBlock, c.maxBlock = int64(be.Uint32(body)), int64(be.Uint32(body[8:]))
		}
		return nil
	})
	if err == nil && !known {
		return broken("it does not say how large its export is")
	}
	return err
}

// exportName is goExport for servers that do not know of it. Such a server ends
// the connection if it has no such export.
func (c *Client) exportName(export string, zeroes bool) error {
	b := be.AppendUint64(nil, magicOption)
	b = be.AppendUint32(b, uint32(optExportName))
	if _, err := c.conn.Write(appendText(b, export)); err != nil {
		return err
	}
	body := make([]byte, 10, 10+124)
	if zeroes {
		body = body[:cap(body)]
	}
	switch _, err := io.ReadFull(c.in, body); {
	case err == io.EOF:
		return ErrNoExport
	case err != nil:
		return noEOF(err)
	}
	c.size, c.flags = int64(be.Uint64(body)), be.Uint16(body[8:])
	return nil
}

// checkExport refuses numbers that no export can have.
func (c *Client) checkExport() error {
	switch {
	case c.size < 0:
		return broken("it gives its export %d bytes", uint64(c.size))
	case c.minBlock < 1 || c.minBlock > 64<<10 || c.minBlock&(c.minBlock-1) != 0:
		return broken("its least block has %d bytes", c.minBlock)
	case c.maxBlock < c.minBlock:
		return broken("its largest block has %d bytes", c.maxBlock)
	}
	c.maxBlock = min(c.maxBlock, maxPayload) / c.minBlock * c.minBlock
	return nil
}

// noEOF is for reads in the middle of something.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// printable is text of the peer that may be shown on a terminal.
func printable(b []byte) string {
	b = b[:min(len(b), maxErrorText)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(strings.TrimSpace(string(b)), "?"))
}
