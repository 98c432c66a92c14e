package nbd

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/extent"
)

// greeting is a server's side of a handshake, up to the first request, for an
// export of size bytes with the contexts numbered from 1.
func greeting(size uint64, contexts ...string) []byte {
	b := be.AppendUint64(nil, magicServer)
	b = be.AppendUint64(b, magicOption)
	b = be.AppendUint16(b, flagFixedNewstyle|flagNoZeroes)
	reply := func(o option, code optionReply, payload []byte) {
		b = be.AppendUint64(b, magicReply)
		b = be.AppendUint32(b, uint32(o))
		b = be.AppendUint32(b, uint32(code))
		b = append(be.AppendUint32(b, uint32(len(payload))), payload...)
	}
	reply(optStructuredReply, repAck, nil)
	for i, name := range contexts {
		reply(optSetMetaContext, repMetaContext, append(be.AppendUint32(nil, uint32(i+1)), name...))
	}
	if len(contexts) > 0 {
		reply(optSetMetaContext, repAck, nil)
	}
	info := be.AppendUint16(nil, infoExport)
	info = be.AppendUint64(info, size)
	reply(optGo, repInfo, be.AppendUint16(info, exportHasFlags))
	reply(optGo, repAck, nil)
	return b
}

// structured is a chunk of an answer to the first request.
func structured(flags uint16, kind chunk, payload []byte) []byte {
	b := be.AppendUint32(nil, magicStruct)
	b = be.AppendUint16(b, flags)
	b = be.AppendUint16(b, uint16(kind))
	b = be.AppendUint64(b, 1)
	return append(be.AppendUint32(b, uint32(len(payload))), payload...)
}

func data(off uint64, content []byte) []byte { return append(be.AppendUint64(nil, off), content...) }

func status(id uint32, pairs ...uint32) []byte {
	b := be.AppendUint32(nil, id)
	for _, p := range pairs {
		b = be.AppendUint32(b, p)
	}
	return b
}

// converse has a client talk to a peer that says what it is told, whatever it
// hears, and then ends the connection or hangs.
func converse(t testing.TB, says []byte, hang bool, use func(*Client) error) error {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	go func() { _, _ = io.Copy(io.Discard, far) }()
	go func() {
		_, _ = far.Write(says)
		if !hang {
			far.Close()
		}
	}()
	c, err := NewClient(ctx, near, unixAddress("x", "e"), DialOptions{Contexts: []string{ContextAllocation}, Timeout: 200 * time.Millisecond})
	if err != nil {
		return err
	}
	defer c.Close()
	return use(c)
}

func readSome(c *Client) error { return c.Read(ctx, make([]byte, min(c.Size(), 1024)), 0) }

func walk(c *Client) error {
	for _, err := range c.Extents(ctx, ContextAllocation, extent.Range{Len: c.Size()}) {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestClientAgainstHostileServers(t *testing.T) {
	hello := greeting(1<<20, ContextAllocation)
	half := noise(9, 512)
	for _, c := range []struct {
		name string
		says [][]byte
		hang bool
		use  func(*Client) error
		want string // in the error; "" for success
	}{
		{"a right answer", [][]byte{hello, structured(0, chunkData, data(512, half)), structured(0, chunkData, data(0, half)), structured(chunkDone, chunkNone, nil)}, true, readSome, ""},
		{"a right status", [][]byte{hello, structured(chunkDone, chunkBlockStatus, status(1, 4096, 0, 1<<20, 3))}, true, walk, ""},

		{"nothing", nil, false, readSome, "ended"},
		{"nothing, and hangs", nil, true, readSome, "silent"},
		{"another protocol", [][]byte{bytes.Repeat([]byte("SSH-2.0 "), 9)}, false, readSome, "does not begin"},
		{"the old protocol", [][]byte{be.AppendUint64(be.AppendUint64(nil, magicServer), 0x420281861253), make([]byte, 200)}, false, readSome, "old form"},
		{"half a handshake", [][]byte{hello[:60]}, false, readSome, "ended"},
		{"half a handshake, and hangs", [][]byte{hello[:60]}, true, readSome, "silent"},
		{"a huge reply to an option", [][]byte{hello[:18], be.AppendUint32(be.AppendUint32(be.AppendUint32(be.AppendUint64(nil, magicReply), 8), 1), 1<<31)}, true, readSome, "2147483648 bytes"},
		{"a negative size", [][]byte{greeting(1<<63, ContextAllocation)}, true, readSome, "bytes"},
		{"wrong magic", [][]byte{hello, half}, true, readSome, "begins with"},
		{"a foreign cookie", [][]byte{hello, bytes.Replace(structured(1, chunkNone, nil), be.AppendUint64(nil, 1), be.AppendUint64(nil, 77), 1)}, true, readSome, "not made"},
		{"too little data", [][]byte{hello, structured(chunkDone, chunkData, data(0, half))}, true, readSome, "delivered 512"},
		{"the same data twice", [][]byte{hello, structured(0, chunkData, data(0, half)), structured(chunkDone, chunkData, data(0, half))}, true, readSome, "delivered 512"},
		{"data beside", [][]byte{hello, structured(chunkDone, chunkData, data(1000, half))}, true, readSome, "at 1000"},
		{"data before", [][]byte{hello, structured(chunkDone, chunkData, data(1<<64-512, half))}, true, readSome, "delivers"},
		{"more data", [][]byte{hello, structured(chunkDone, chunkData, data(0, make([]byte, 4096)))}, true, readSome, "delivers 4096"},
		{"a huge hole", [][]byte{hello, structured(chunkDone, chunkHole, be.AppendUint32(be.AppendUint64(nil, 0), 1<<32-1))}, true, readSome, "delivers"},
		{"half the data", [][]byte{hello, structured(chunkDone, chunkData, data(0, make([]byte, 1024)))[:600]}, false, readSome, "ended"},
		{"half the data, and hangs", [][]byte{hello, structured(chunkDone, chunkData, data(0, make([]byte, 1024)))[:600]}, true, readSome, "200ms"},
		{"a simple answer", [][]byte{hello, be.AppendUint64(be.AppendUint64(nil, magicSimple<<32), 1)}, true, readSome, "simply"},
		{"a status for data", [][]byte{hello, structured(chunkDone, chunkBlockStatus, status(1, 4096, 0))}, true, readSome, "kind 5"},
		{"an error of no code", [][]byte{hello, structured(chunkDone, chunkError, make([]byte, 6))}, true, readSome, "none"},
		{"an error with a long text", [][]byte{hello, structured(chunkDone, chunkError, []byte{0, 0, 0, 5, 255, 255})}, true, readSome, "none"},
		{"an error", [][]byte{hello, structured(chunkDone, chunkErrorOffset, append([]byte{0, 0, 0, 5, 0, 4}, "bad\n12345678"...))}, true, readSome, "bad"},
		{"no status", [][]byte{hello, structured(chunkDone, chunkNone, nil)}, true, walk, "says nothing"},
		{"an empty extent", [][]byte{hello, structured(chunkDone, chunkBlockStatus, status(1, 0, 0))}, true, walk, "empty"},
		{"extents without end", [][]byte{hello, structured(chunkDone, chunkBlockStatus, status(1, 1<<20, 0, 1, 1))}, true, walk, "beyond"},
		{"an odd status", [][]byte{hello, structured(chunkDone, chunkBlockStatus, status(1, 1<<20, 0, 1))}, true, walk, "16 bytes"},
		{"a foreign context", [][]byte{hello, structured(0, chunkBlockStatus, status(2, 4096, 0)), structured(chunkDone, chunkBlockStatus, status(1, 4096, 0))}, true, walk, "context 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := converse(t, bytes.Join(c.says, nil), c.hang, c.use)
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Fatalf("got the error %v, which does not say %q", err, c.want)
			}
		})
	}
}

func FuzzClient(f *testing.F) {
	hello := greeting(1<<20, ContextAllocation)
	f.Add(hello, byte(0))
	f.Add(append(greeting(1024), structured(chunkDone, chunkData, data(0, noise(1, 1024)))...), byte(0))
	f.Add(append(bytes.Clone(hello), structured(chunkDone, chunkBlockStatus, status(1, 4096, 0, 1<<20, 3))...), byte(1))
	f.Add(append(bytes.Clone(hello), structured(chunkDone, chunkErrorOffset, make([]byte, 20))...), byte(2))
	f.Fuzz(func(t *testing.T, says []byte, use byte) {
		err := converse(t, says, false, func(c *Client) error {
			switch use % 3 {
			case 0:
				return readSome(c)
			case 1:
				return walk(c)
			}
			return c.Zero(ctx, extent.Range{Len: min(c.Size(), 4096) / c.BlockSize() * c.BlockSize()}, true)
		})
		// The peer ends the connection, so nothing may take its whole time.
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	})
}
