package s3bucket

import (
	"errors"
	"io"
)

// body reads parts one after another, without joining them in memory. It seeks,
// since a request is read twice: for its signature and for the wire.
type body struct {
	parts [][]byte
	size  int64
	at    int64 // from the beginning of all
	part  int   // the part that at lies in
	off   int   // within that part
}

var _ io.ReadSeeker = (*body)(nil)

func newBody(parts [][]byte) *body {
	b := &body{parts: parts}
	for _, p := range parts {
		b.size += int64(len(p))
	}
	return b
}

func (b *body) Read(p []byte) (n int, err error) {
	for n < len(p) && b.part < len(b.parts) {
		copied := copy(p[n:], b.parts[b.part][b.off:])
		n += copied
		b.off += copied
		if b.off == len(b.parts[b.part]) {
			b.part, b.off = b.part+1, 0
		}
	}
	b.at += int64(n)
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (b *body) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.at
	case io.SeekEnd:
		offset += b.size
	}
	if offset < 0 || offset > b.size {
		return 0, errors.New("seek outside of the object")
	}
	b.at, b.part, b.off = offset, 0, 0
	for b.part < len(b.parts) && offset >= int64(len(b.parts[b.part])) {
		offset -= int64(len(b.parts[b.part]))
		b.part++
	}
	b.off = int(offset)
	return b.at, nil
}
