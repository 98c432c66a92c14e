package store

import (
	"context"
	"fmt"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/image"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// SegmentSize is the part of a disk that is read and encoded in one go.
const SegmentSize = 4 << 20

// FrameSize is the most that a data frame decodes to. Twice as much would save
// half a percent of space and double what a random read must decode.
const FrameSize = 2 << 20

// Run is a part of a segment that was read: Offset and Length in bytes of the
// disk, both multiples of the block size but for the end of the disk.
type Run struct{ Offset, Length int64 }

// Segment is an encoded segment, to be added to the tree in its turn.
type Segment struct {
	children []image.Child
	doubles  []double
}

// double is a child that another segment of this run is storing.
type double struct {
	at    int
	frame *freshFrame
	slot  int
}

// Encoder decides block by block whether it is stored already, and stores what
// is not. It is for one goroutine; a run has one for each worker of its cpu stage.
type Encoder struct {
	w      *Writer
	worker *meter.Worker
	hash   *block.Hasher
	encode *seal.Encoder
	base   *image.Cursor // nil: none

	decide, compress, encrypt *meter.Timer

	before  []image.Child // of the base, for the segment at hand
	payload []byte
	blocks  [][]byte // of the frame being gathered
	hashes  []block.Hash
	at      []int // their children in the segment
	frame   *freshFrame
}

// NewEncoder makes the encoder of a worker of the stage.
func (w *Writer) NewEncoder(stage *meter.Stage, worker int) (*Encoder, error) {
	enc, err := seal.NewEncoder(w.options.Compression)
	if err != nil {
		return nil, err
	}
	e := &Encoder{
		w: w, worker: stage.Worker(worker), encode: enc, hash: w.store.hasher(blockDomain),
		decide: stage.Timer("decide"), compress: stage.Timer("compress"), encrypt: stage.Timer("encrypt"),
		payload: make([]byte, 0, FrameSize),
	}
	if w.base != nil {
		e.base = w.base.NewCursor()
	}
	return e, nil
}

// Close frees what the encoder holds.
func (e *Encoder) Close() { e.encode.Close() }

// Encode deals with the segment that begins at offset. data holds the runs one
// after another, each padded with zeros to whole blocks; what no run covers is
// zeros. data is not kept. An error ends the whole run, since other segments may
// wait for the blocks of this one.
func (e *Encoder) Encode(ctx context.Context, offset int64, runs []Run, data []byte) (*Segment, error) {
	s, err := e.segment(ctx, offset, runs, data)
	if err != nil {
		e.w.fail(err)
	}
	return s, err
}

func (e *Encoder) segment(ctx context.Context, offset int64, runs []Run, data []byte) (*Segment, error) {
	size := int64(e.w.shape.BlockSize)
	length := min(SegmentSize, e.w.shape.Size-offset)
	s := &Segment{children: make([]image.Child, e.w.blocks(length))}
	start := time.Now()
	if err := e.recall(ctx, offset/size, len(s.children)); err != nil {
		return nil, err
	}
	for _, r := range runs {
		for at := (r.Offset - offset) / size; r.Length > 0; at++ {
			if int64(len(data)) < size {
				return nil, fmt.Errorf("segment at %d: its data ends before its runs do", offset)
			}
			n := min(size, r.Length)
			if err := e.block(ctx, s, int(at), data[:size], n, &start); err != nil {
				return nil, err
			}
			data, r.Length = data[size:], r.Length-n
		}
	}
	e.decide.Since(start)
	return s, e.seal(ctx, s)
}

// recall reads what the base holds for these blocks. A base that cannot be
// read is given up: everything is then looked up, or stored again.
func (e *Encoder) recall(ctx context.Context, first int64, n int) error {
	if e.base == nil {
		return nil
	}
	if cap(e.before) < n {
		e.before = make([]image.Child, n)
	}
	e.before = e.before[:n]
	err := e.base.Blocks(ctx, first, e.before)
	if err != nil && isDamage(err) {
		e.base, err = nil, nil
	}
	return err
}

// block decides about one block, of which n bytes lie on the disk.
func (e *Encoder) block(ctx context.Context, s *Segment, at int, data []byte, n int64, start *time.Time) error {
	if block.IsZero(data) {
		e.w.zero.Add(n)
		return nil
	}
	c := &s.children[at]
	c.Hash = e.hash.Sum(data)
	if e.base != nil && e.before[at].Hash == c.Hash && !e.w.damaged[e.before[at].Place.Pack] {
		c.Place = e.before[at].Place
		e.w.unchanged.Add(n)
		return nil
	}
	if double, ok := e.w.fresh.find(c.Hash); ok {
		e.known(s, at, double, n)
		return nil
	}
	place, ok := e.w.lookup(c.Hash)
	if ok {
		c.Place = place
		e.w.known.Add(n)
		return nil
	}
	if e.frame == nil {
		e.frame = &freshFrame{ready: make(chan struct{})}
	}
	double, mine := e.w.fresh.claim(c.Hash, e.frame, len(e.blocks))
	if !mine {
		e.known(s, at, double, n)
		return nil
	}
	e.w.fresher.Add(n)
	e.blocks = append(e.blocks, data)
	e.hashes = append(e.hashes, c.Hash)
	e.at = append(e.at, at)
	if (len(e.blocks)+1)*len(data) > FrameSize {
		e.decide.Since(*start)
		if err := e.seal(ctx, s); err != nil {
			return err
		}
		*start = time.Now()
	}
	return nil
}

func (e *Encoder) known(s *Segment, at int, b freshBlock, n int64) {
	s.doubles = append(s.doubles, double{at, b.frame, b.slot})
	e.w.known.Add(n)
}

// seal compresses, encrypts and stores the blocks gathered.
func (e *Encoder) seal(ctx context.Context, s *Segment) error {
	if len(e.blocks) == 0 {
		return nil
	}
	start := time.Now()
	plain := e.encode.Encode(e.gather(), len(e.blocks))
	e.compress.Since(start)
	hashes := append([]block.Hash(nil), e.hashes...)
	place, err := e.w.data.add(ctx, e.worker, e.encrypt, plain, hashes)
	if err != nil {
		return err
	}
	for slot, at := range e.at {
		s.children[at].Place = place.Piece(slot)
	}
	e.frame.place = place
	close(e.frame.ready)
	e.frame, e.blocks, e.hashes, e.at = nil, e.blocks[:0], e.hashes[:0], e.at[:0]
	return nil
}

// gather gives the blocks in one piece, without copying where they lie side by
// side already.
func (e *Encoder) gather() []byte {
	n := len(e.blocks[0])
	total := n * len(e.blocks)
	whole := e.blocks[0]
	if cap(whole) >= total {
		whole = whole[:total]
		for i, b := range e.blocks {
			if &whole[i*n] != &b[0] {
				whole = nil
				break
			}
		}
		if whole != nil {
			return whole
		}
	}
	e.payload = e.payload[:0]
	for _, b := range e.blocks {
		e.payload = append(e.payload, b...)
	}
	return e.payload
}
