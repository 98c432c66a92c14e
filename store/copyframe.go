package store

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// copyFrame is a frame of the source with blocks that are to be sent.
type copyFrame struct {
	place  pack.Place // of its first piece
	pieces []copyPiece
	fresh  *freshFrame // its slots are the pieces in their order here
}

// copyPiece is a block that is to be sent: its slot in the frame, and where on
// the disk it lies, in bytes.
type copyPiece struct {
	slot uint8
	hash block.Hash
	off  int64
}

// copyFrames are those of a part of the disk.
type copyFrames []*copyFrame

// of gives the frame at a place.
func (all *copyFrames) of(place pack.Place) *copyFrame {
	place.Slot = 0
	for _, f := range *all {
		if f.place == place {
			return f
		}
	}
	f := &copyFrame{place: place, fresh: &freshFrame{ready: make(chan struct{})}}
	*all = append(*all, f)
	return f
}

// copyRequest is what one request to the source reads: frames of one pack that
// lie close together.
type copyRequest struct {
	frames []*copyFrame // in the order of their places
	length int64        // from the first to the end of the last, in bytes
	key    *seal.Key
	sealed []byte
	err    error // the source does not hold them
}

// requests sorts the frames into requests.
func (all copyFrames) requests() (out []*copyRequest) {
	slices.SortFunc(all, func(a, b *copyFrame) int {
		return cmp.Or(bytes.Compare(a.place.Pack[:], b.place.Pack[:]), cmp.Compare(a.place.Offset, b.place.Offset))
	})
	for _, f := range all {
		f.fresh.places = make([]pack.Place, len(f.pieces))
		end := int64(f.place.Offset) + int64(f.place.Length)
		if n := len(out); n > 0 {
			q := out[n-1]
			first := q.frames[0].place
			if gap := int64(f.place.Offset) - int64(first.Offset) - q.length; first.Pack == f.place.Pack && gap <= maxGap && end-int64(first.Offset) <= maxRequest {
				q.frames = append(q.frames, f)
				q.length = max(q.length, end-int64(first.Offset))
				continue
			}
		}
		out = append(out, &copyRequest{frames: []*copyFrame{f}, length: int64(f.place.Length)})
	}
	return out
}

// reader is a worker of the stage read: it brings sealed frames of the source.
func (r *copyRun) reader(ctx context.Context, stage *meter.Stage, number int, out chan<- *copyRequest) error {
	worker := stage.Worker(number)
	defer worker.Done()
	ctx = bucket.WithAccount(ctx, bucket.Account{Meter: r.writer.options.Meter, Worker: worker})
	for {
		worker.Enter(meter.Starved)
		q, ok := receiveFrom(ctx, r.jobs)
		if !ok {
			return context.Cause(ctx)
		}
		worker.Enter(meter.Backpressured)
		if q.sealed, ok = receiveFrom(ctx, r.free); !ok {
			return context.Cause(ctx)
		}
		worker.Enter(meter.Work)
		if q.err = r.fetch(ctx, worker, q); q.err != nil && !isDamage(q.err) {
			return q.err
		}
		stage.Add(q.length)
		worker.Enter(meter.Backpressured)
		if !sendTo(ctx, out, q) {
			return context.Cause(ctx)
		}
	}
}

// fetch reads the frames of a request.
func (r *copyRun) fetch(ctx context.Context, worker *meter.Worker, q *copyRequest) (err error) {
	first := q.frames[0].place
	name := packName(seal.DataPack, first.Pack)
	if q.length > maxRequest || first.IsZero() {
		return r.src.damaged(name, fmt.Errorf("a place names a frame of %d bytes", first.Length))
	}
	if q.key, err = r.src.packKey(ctx, seal.DataPack, first.Pack); err != nil {
		return err
	}
	if int64(cap(q.sealed)) < q.length {
		q.sealed = make([]byte, q.length)
	}
	q.sealed = q.sealed[:q.length]
	if err := r.limit.wait(ctx, worker, q.length); err != nil {
		return err
	}
	r.read.Add(q.length)
	return r.src.bucket.Get(ctx, name, int64(first.Offset), q.sealed)
}

// frameWorker is a worker of the stage cpu: it opens frames of the source,
// verifies every block by its hash, and seals them for the destination. It is
// for one goroutine.
type frameWorker struct {
	run     *copyRun
	worker  *meter.Worker
	hash    *block.Hasher
	decoder *seal.Decoder
	encoder *seal.Encoder
	reader  *Reader // for blocks that are not where they should be; nil until needed

	open, decode, verify, compress, encrypt *meter.Timer

	payload []byte       // a frame of the source, decoded
	hashes  []block.Hash // of its blocks

	gathered []byte // blocks for a frame made anew
	sums     []block.Hash
	homes    []*pack.Place // where the place of each is to be written
}

// worker is a worker of the stage cpu.
func (r *copyRun) worker(ctx context.Context, stage *meter.Stage, number int, in <-chan *copyRequest) error {
	encoder, err := seal.NewEncoder(r.writer.options.Compression)
	if err != nil {
		return err
	}
	limit := max(FrameSize, r.dst.blockSize)
	k := &frameWorker{
		run: r, worker: stage.Worker(number), hash: r.dst.hasher(blockDomain), decoder: seal.NewDecoder(limit), encoder: encoder,
		open: stage.Timer("open"), decode: stage.Timer("decode"), verify: stage.Timer("verify"), compress: stage.Timer("compress"), encrypt: stage.Timer("encrypt"),
		payload: make([]byte, 0, limit),
	}
	defer k.close()
	for {
		k.worker.Enter(meter.Starved)
		q, ok := receiveFrom(ctx, in)
		if !ok {
			return context.Cause(ctx)
		}
		k.worker.Enter(meter.Work)
		if err := k.request(ctx, q); err != nil {
			return err
		}
		stage.Add(q.length)
		r.free <- q.sealed
	}
}

func (k *frameWorker) close() {
	k.worker.Done()
	k.decoder.Close()
	k.encoder.Close()
	if k.reader != nil {
		k.reader.Close()
	}
}

// request deals with all frames of a request; the places of their blocks are
// known then.
func (k *frameWorker) request(ctx context.Context, q *copyRequest) error {
	for _, f := range q.frames {
		err := q.err
		if err == nil {
			err = k.frame(ctx, q, f)
		}
		if isDamage(err) {
			err = k.elsewhere(ctx, f)
		}
		if err != nil {
			return err
		}
	}
	if err := k.seal(ctx); err != nil {
		return err
	}
	for _, f := range q.frames {
		close(f.fresh.ready)
	}
	return nil
}

// frame sends what is wanted of a frame. It goes as it is, only encrypted anew,
// if at least half of its blocks are wanted; else they are gathered. Damage is
// an error; what is right is sent before.
func (k *frameWorker) frame(ctx context.Context, q *copyRequest, f *copyFrame) error {
	name := packName(seal.DataPack, f.place.Pack)
	src, size := k.run.src, k.run.dst.blockSize
	from := int64(f.place.Offset) - int64(q.frames[0].place.Offset)
	if from+int64(f.place.Length) > int64(len(q.sealed)) {
		return src.damaged(name, fmt.Errorf("two places disagree about the frame at offset %d", f.place.Offset))
	}
	sealed := q.sealed[from : from+int64(f.place.Length)]
	start := time.Now()
	plain, err := q.key.Open(sealed[:0], sealed, int64(f.place.Offset))
	start = k.open.Since(start)
	if err != nil {
		return src.explain(name, err)
	}
	decoded, pieces, err := k.decoder.Decode(k.payload, plain)
	start = k.decode.Since(start)
	if err != nil {
		return src.explain(name, err)
	}
	// GCM proves that this is what was sealed; only the hashes prove that it was
	// the right thing. A frame that is moved on is never encoded again, so a
	// mistake would reach every copy.
	k.hashes = k.hashes[:0]
	for n := range len(decoded) / size {
		k.hashes = append(k.hashes, k.hash.Sum(decoded[n*size:(n+1)*size]))
	}
	k.verify.Since(start)
	whole := pieces == len(k.hashes) && len(decoded) == pieces*size && !slices.Contains(k.hashes, block.Hash{})
	right := 0
	for _, p := range f.pieces {
		if int(p.slot) < len(k.hashes) && k.hashes[p.slot] == p.hash {
			right++
		}
	}
	move := whole && right > 0 && 2*right >= pieces
	var place pack.Place
	if move {
		if place, err = k.run.writer.data.add(ctx, k.worker, k.encrypt, plain, slices.Clone(k.hashes)); err != nil {
			return err
		}
		k.run.moved.Add(1)
	}
	for i, p := range f.pieces {
		switch {
		case int(p.slot) >= len(k.hashes) || k.hashes[p.slot] != p.hash:
			err = src.damaged(name, fmt.Errorf("the block in the frame at offset %d, slot %d is not the one that the tree names", f.place.Offset, p.slot))
		case move:
			f.fresh.places[i] = place.Piece(int(p.slot))
		default:
			if err := k.gather(ctx, &f.fresh.places[i], p.hash, decoded[int(p.slot)*size:][:size]); err != nil {
				return err
			}
		}
	}
	return err
}

// gather adds a block to the frame being made.
func (k *frameWorker) gather(ctx context.Context, home *pack.Place, hash block.Hash, data []byte) error {
	if len(k.gathered)+len(data) > FrameSize {
		if err := k.seal(ctx); err != nil {
			return err
		}
	}
	k.gathered = append(k.gathered, data...)
	k.sums = append(k.sums, hash)
	k.homes = append(k.homes, home)
	return nil
}

// seal stores the frame being made.
func (k *frameWorker) seal(ctx context.Context) error {
	if len(k.sums) == 0 {
		return nil
	}
	start := time.Now()
	plain := k.encoder.Encode(k.gathered, len(k.sums))
	k.compress.Since(start)
	place, err := k.run.writer.data.add(ctx, k.worker, k.encrypt, plain, slices.Clone(k.sums))
	if err != nil {
		return err
	}
	for slot, home := range k.homes {
		*home = place.Piece(slot)
	}
	k.run.gathered.Add(1)
	k.gathered, k.sums, k.homes = k.gathered[:0], k.sums[:0], k.homes[:0]
	return nil
}

// elsewhere looks for the blocks of a frame that are not where the tree says,
// as a restore does. What nobody has stays without a place.
func (k *frameWorker) elsewhere(ctx context.Context, f *copyFrame) error {
	if k.reader == nil {
		k.reader = k.run.image.NewReader()
	}
	size := k.run.dst.blockSize
	for i, p := range f.pieces {
		if !f.fresh.places[i].IsZero() || slices.Contains(k.homes, &f.fresh.places[i]) {
			continue // sent already
		}
		visit := func(_ int64, data []byte) error {
			whole := make([]byte, size) // the last block of a disk is padded with zeros
			copy(whole, data)
			return k.gather(ctx, &f.fresh.places[i], p.hash, whole)
		}
		lost := func(_, _ int64, err error) error {
			k.run.because(err)
			return nil
		}
		if err := k.reader.Window(ctx, p.off, int64(size), visit, lost); err != nil {
			return err
		}
	}
	return nil
}

// receiveFrom takes from the channel unless the context ends first.
func receiveFrom[T any](ctx context.Context, in <-chan T) (v T, ok bool) {
	select {
	case v, ok = <-in:
		return v, ok
	case <-ctx.Done():
		return v, false
	}
}
