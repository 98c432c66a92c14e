// Package nbd is both ends of the NBD protocol: a Client, through which disks
// of other programs are read and written, and a Server, which offers a disk to
// other programs. It speaks the fixed newstyle handshake with structured
// replies, block status and TLS, as qemu, libnbd and nbdkit do.
//
// What the peer sends is checked before it is believed: no length of it makes
// either end allocate more than the constants of this package say.
package nbd

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

// The numbers are those of the protocol's own document, doc/proto.md of the
// project NetworkBlockDevice/nbd.
const (
	magicServer   = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption   = 0x49484156454f5054 // "IHAVEOPT"
	magicReply    = 0x0003e889045565a9 // before a reply to an option
	magicRequest  = 0x25609513
	magicSimple   = 0x67446698
	magicStruct   = 0x668e33ef
	maxName       = 4096     // bytes of an export's or context's name
	maxOption     = 64 << 10 // bytes of an option, or of a reply to one
	maxPayload    = 32 << 20 // bytes of data in one request or answer
	statusLimit   = 1 << 31  // bytes of the disk asked for in one block status
	maxExtents    = 1 << 20  // in one answer to a block status
	maxErrorText  = 4096
	defaultPort   = "10809"
	chunkDone     = 1 << 0 // the last chunk of a structured reply
	requestHeader = 28     // bytes
)

// Flags of the handshake, both ways.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

type option uint32

const (
	optExportName      option = 1
	optAbort           option = 2
	optList            option = 3
	optStartTLS        option = 5
	optInfo            option = 6
	optGo              option = 7
	optStructuredReply option = 8
	optListMetaContext option = 9
	optSetMetaContext  option = 10
)

type optionReply uint32

const (
	repAck         optionReply = 1
	repServer      optionReply = 2
	repInfo        optionReply = 3
	repMetaContext optionReply = 4

	repError          optionReply = 1 << 31
	repErrUnsupported             = repError + 1
	repErrPolicy                  = repError + 2
	repErrInvalid                 = repError + 3
	repErrTLSRequired             = repError + 5
	repErrUnknown                 = repError + 6
)

// Kinds of information about an export.
const (
	infoExport      = 0
	infoDescription = 2
	infoBlockSize   = 3
)

// Flags of an export.
const (
	exportHasFlags    = 1 << 0
	exportReadOnly    = 1 << 1
	exportFlush       = 1 << 2
	exportFUA         = 1 << 3
	exportRotational  = 1 << 4
	exportTrim        = 1 << 5
	exportWriteZeroes = 1 << 6
	exportDF          = 1 << 7
	exportMultiConn   = 1 << 8
	exportCache       = 1 << 10
)

type command uint16

const (
	cmdRead        command = 0
	cmdWrite       command = 1
	cmdDisconnect  command = 2
	cmdFlush       command = 3
	cmdTrim        command = 4
	cmdCache       command = 5
	cmdWriteZeroes command = 6
	cmdBlockStatus command = 7
)

// Flags of a command.
const (
	cmdFUA      = 1 << 0
	cmdNoHole   = 1 << 1
	cmdDF       = 1 << 2 // do not fragment
	cmdReqOne   = 1 << 3
	cmdFastZero = 1 << 4
)

type chunk uint16

const (
	chunkNone        chunk = 0
	chunkData        chunk = 1
	chunkHole        chunk = 2
	chunkBlockStatus chunk = 5
	chunkIsError     chunk = 1 << 15
	chunkError             = chunkIsError + 1
	chunkErrorOffset       = chunkIsError + 2
)

// ContextAllocation is the meta context that tells of holes.
const ContextAllocation = "base:allocation"

// Flags of an Extent in ContextAllocation.
const (
	StateHole = 1 << 0 // no storage stands behind it
	StateZero = 1 << 1 // reads as zeros
)

// StateDirty is the flag of an Extent in a context of the kind
// "qemu:dirty-bitmap:NAME".
const StateDirty = 1 << 0

// Extent is a range of an export with what a meta context says of it. Off and
// Len are in bytes.
type Extent struct {
	Off, Len int64
	Flags    uint32
}

// End is the first byte after the extent.
func (e Extent) End() int64 { return e.Off + e.Len }

// Error is what a server answered to a request instead of doing it. It unwraps
// to the syscall.Errno of the same meaning.
type Error struct {
	Code    uint32 // in the numbering of the protocol
	Message string // what the server says about it; often empty
}

func (e *Error) Error() string {
	if e.Message != "" {
		return fmt.Sprintf("the NBD server answers: %s (%v)", e.Message, e.Unwrap())
	}
	return fmt.Sprintf("the NBD server answers: %v", e.Unwrap())
}

// Unwrap gives the error of the system: the protocol numbers its errors as
// Linux does.
func (e *Error) Unwrap() error {
	if e.Code == 0 || e.Code > 4095 {
		return syscall.EINVAL // as the protocol wants unknown numbers to be read
	}
	return syscall.Errno(e.Code)
}

var be = binary.BigEndian

func appendText(b []byte, s string) []byte { return append(be.AppendUint32(b, uint32(len(s))), s...) }

// cut takes n bytes from the front of b; ok is false if it has less.
func cut(b []byte, n uint32) (front, rest []byte, ok bool) {
	if uint64(n) > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// cutText takes a length and the text of that length from the front of b.
func cutText(b []byte) (text string, rest []byte, ok bool) {
	head, rest, ok := cut(b, 4)
	if !ok || be.Uint32(head) > maxName {
		return "", nil, false
	}
	body, rest, ok := cut(rest, be.Uint32(head))
	return string(body), rest, ok
}
