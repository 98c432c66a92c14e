package seal

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// Encoding is how the payload of a frame is compressed. It stands in the
// frame's first byte.
type Encoding uint8

const (
	Plain Encoding = 0
	Zstd  Encoding = 1
	S2    Encoding = 2
)

// Compression is a person's choice; the encoding of each frame follows from it.
type Compression string

const (
	Auto    Compression = "auto"    // zstd fastest, literals too where that saves anything
	Fast    Compression = "fast"    // S2
	Default Compression = "default" // zstd fastest
	Max     Compression = "max"     // zstd best
	None    Compression = "none"    // plain
)

// PrefixSize is the length of what precedes the payload in a plain frame.
const PrefixSize = 2

// Encoder makes plain frames. It is for one goroutine.
type Encoder struct {
	choice Compression
	zstd   *zstd.Encoder
	// Of Auto alone: for data that does not shrink. Neighbours on a disk are
	// alike, so each frame tells how the next is best dealt with.
	quick *zstd.Encoder
	last  float64 // what the frame before shrank to
	buf   []byte
}

// hopeless is what Auto gives up at: data that hardly shrinks even with all
// literals coded is then passed on four times as fast. Literals save a twentieth of
// what is nearly random, measured on the files of a Debian system.
const hopeless = 0.98

// NewEncoder makes an encoder, or an error if there is no such compression.
func NewEncoder(choice Compression) (*Encoder, error) {
	e := &Encoder{choice: choice, last: 1 - 1./32}
	var err error
	switch choice {
	case Auto:
		if e.zstd, err = newZstd(zstd.SpeedFastest, true); err == nil {
			e.quick, err = newZstd(zstd.SpeedFastest, false)
		}
	case Default:
		e.zstd, err = newZstd(zstd.SpeedFastest, false)
	case Max:
		e.zstd, err = newZstd(zstd.SpeedBestCompression, true)
	case Fast, None:
	default:
		err = fmt.Errorf("there is no compression %q: use auto, fast, default, max or none", choice)
	}
	return e, err
}

// newZstd makes an encoder for whole frames. GCM checks the stored bytes and
// the block hash the decoded ones, so zstd's own checksum would be a third.
func newZstd(level zstd.EncoderLevel, literals bool) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithAllLitEntropyCompression(literals),
		zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
}

// window is as much as a frame decodes to at most.
const window = 2 << 20

// Encode gives the plain frame of the payload: its encoding, the number of
// pieces, and the payload, compressed if that pays. The result is valid until
// the next call.
func (e *Encoder) Encode(payload []byte, pieces int) []byte {
	if need := PrefixSize + max(len(payload), s2.MaxEncodedLen(len(payload))); cap(e.buf) < need {
		e.buf = make([]byte, 0, need)
	}
	encoding, out := e.compress(payload)
	if out != nil && len(payload) > 0 {
		e.last = float64(len(out)-PrefixSize) / float64(len(payload))
	}
	// Less than one part in 32 does not pay for decoding it at every restore.
	if out == nil || len(out)-PrefixSize > len(payload)-len(payload)/32 {
		encoding, out = Plain, append(e.buf[:PrefixSize], payload...)
	}
	out[0], out[1] = byte(encoding), byte(pieces)
	return out
}

func (e *Encoder) compress(payload []byte) (Encoding, []byte) {
	z := e.zstd
	switch {
	case e.choice == None:
		return Plain, nil
	case e.choice == Fast:
		return S2, e.s2(payload)
	case e.choice == Auto && e.last > hopeless:
		z = e.quick
	}
	return Zstd, z.EncodeAll(payload, e.buf[:PrefixSize])
}

func (e *Encoder) s2(payload []byte) []byte {
	out := s2.Encode(e.buf[PrefixSize:cap(e.buf)], payload)
	return e.buf[:PrefixSize+len(out)]
}

// Close frees what the encoder holds.
func (e *Encoder) Close() {
	for _, z := range []*zstd.Encoder{e.zstd, e.quick} {
		if z != nil {
			z.Close()
		}
	}
}

// Decoder reads plain frames. It is for one goroutine.
type Decoder struct{ zstd *zstd.Decoder }

// NewDecoder makes a decoder for frames that decode to at most limit bytes.
func NewDecoder(limit int) *Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(limit)), zstd.IgnoreChecksum(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return &Decoder{d}
}

var errTooLarge = errors.New("decodes to more than a frame may hold")

// Decode appends the payload of a plain frame to dst, which must have room for
// the largest frame behind it, and tells how many pieces it holds.
func (d *Decoder) Decode(dst, plain []byte) (payload []byte, pieces int, err error) {
	if len(plain) < PrefixSize {
		return nil, 0, fmt.Errorf("frame of %d bytes: %w", len(plain), ErrDamaged)
	}
	room := cap(dst) - len(dst)
	body := plain[PrefixSize:]
	switch Encoding(plain[0]) {
	case Plain:
		if len(body) > room {
			err = errTooLarge
		} else {
			payload = append(dst, body...)
		}
	case Zstd:
		payload, err = d.zstd.DecodeAll(body, dst)
		if err == nil && len(payload) > cap(dst) {
			err = errTooLarge
		}
	case S2:
		var n int
		if n, err = s2.DecodedLen(body); err == nil && n > room {
			err = errTooLarge
		}
		if err == nil {
			payload, err = s2.Decode(dst[len(dst):len(dst)+n], body)
			payload = dst[: len(dst)+len(payload) : cap(dst)]
		}
	default:
		return nil, 0, fmt.Errorf("encoding %d: %w", plain[0], ErrUnsupported)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("payload: %v: %w", err, ErrDamaged)
	}
	return payload, int(plain[1]), nil
}

// Close frees what the decoder holds.
func (d *Decoder) Close() { d.zstd.Close() }
