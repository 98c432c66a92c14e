package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/image"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// mover puts pieces of old packs into new ones and writes down where they went.
// A frame moves as it is, only encrypted anew, while most of its pieces are in
// use; the others are taken apart and their pieces gathered. It is a
// writer to all others: its new packs are kept by its session. It is for one
// goroutine.
type mover struct {
	store   *Store
	kind    seal.Kind
	heals   bool // what it moves is damaged where it lies
	session *session
	clear   *clearance
	buf     []byte        // of the open pack
	spare   []byte        // for the one after it, while it is being stored
	open    *pack.Builder // nil: none
	storing chan error    // receives once; nil: no pack is being stored
	settled []*movedPack  // of which all is moved once that is done

	encode  *seal.Encoder
	decoder *seal.Decoder
	hash    *block.Hasher
	payload []byte // of the frame being gathered
	hashes  []block.Hash
	from    []source // where the pieces gathered come from
	sealed  []byte
	plain   []byte

	pending []*movedPack // in the order in which they were taken up
	written int64        // bytes of packs stored
}

type source struct {
	pack *movedPack
	piece
}

// movedPack is an old pack on its way.
type movedPack struct {
	id    pack.ID
	moved *moved
	open  int  // pieces gathered that have no place yet
	taken bool // all that is in use was taken up
	told  bool // and where it went is written down
}

func (s *Store) newMover(ctx context.Context, kind seal.Kind) (*mover, error) {
	w := &mover{store: s, kind: kind, clear: s.newClearance(), hash: s.hasher(blockDomain)}
	size, choice := s.packLimit, seal.Auto
	if kind == seal.MetadataPack {
		size, choice, w.hash = s.nodeLimit, seal.Fast, s.hasher(nodeDomain)
	}
	var err error
	if w.encode, err = seal.NewEncoder(choice); err != nil {
		return nil, err
	}
	doc := sessionDocument{ID: newSessionID(), Task: taskWrite, Instance: "compaction"}
	if w.session, err = s.beginSession(ctx, doc, w.clear); err != nil {
		w.encode.Close()
		return nil, err
	}
	w.buf, w.spare = s.buffers.get(size), s.buffers.get(size)
	w.decoder = seal.NewDecoder(max(FrameSize, s.blockSize, maxNodeFrame))
	w.plain = make([]byte, 0, max(FrameSize, s.blockSize, maxNodeFrame))
	return w, nil
}

// close ends the session; packs that were not finished are not stored.
func (w *mover) close(ctx context.Context) error {
	_, err := w.wait()
	w.encode.Close()
	w.decoder.Close()
	w.store.buffers.put(w.buf)
	w.store.buffers.put(w.spare)
	return errors.Join(err, w.session.end(context.WithoutCancel(ctx)))
}

// pack takes up what is in use of an old pack. It gives the packs of which all
// is moved, and written down, by now.
func (w *mover) pack(ctx context.Context, p candidate, m *marking) (done []*movedPack, err error) {
	key, err := w.store.packKey(ctx, w.kind, p.id)
	if err != nil {
		return nil, err
	}
	old := &movedPack{id: p.id, moved: newMoved()}
	w.pending = append(w.pending, old)
	met := 0
	for _, f := range p.frames {
		of := p.reach.frames[f.Offset]
		if of == nil {
			continue
		}
		met++
		moved, err := w.frame(ctx, old, key, f, of, m)
		done = append(done, moved...)
		if err != nil {
			w.drop(old)
			return done, err
		}
	}
	if met != len(p.reach.frames) {
		w.drop(old)
		return done, w.store.damaged(packName(w.kind, p.id), errors.New("a tree names a frame that is not there"))
	}
	old.taken = true
	return done, nil
}

// drop gives up an old pack: nothing is written down about it.
func (w *mover) drop(old *movedPack) {
	for i, p := range w.pending {
		if p == old {
			w.pending = append(w.pending[:i], w.pending[i+1:]...)
			return
		}
	}
}

// frame takes up what is in use of a frame.
func (w *mover) frame(ctx context.Context, old *movedPack, key *seal.Key, f pack.Frame, of *reachedFrame, m *marking) (done []*movedPack, err error) {
	name := packName(w.kind, old.id)
	if cap(w.sealed) < int(f.Length) {
		w.sealed = make([]byte, f.Length, 2*f.Length)
	}
	w.sealed = w.sealed[:f.Length]
	if err := w.store.bucket.Get(ctx, name, int64(f.Offset), w.sealed); err != nil {
		return nil, err
	}
	plain, err := key.Open(w.sealed[:0], w.sealed, int64(f.Offset))
	if err != nil {
		return nil, w.store.explain(name, err)
	}
	if w.kind == seal.DataPack && of.mostly(len(f.Hashes)) {
		place, done, err := w.add(ctx, plain, f.Hashes)
		if err != nil {
			return done, err
		}
		old.moved.frames[f.Offset] = place
		return done, nil
	}
	payload, pieces, err := w.decoder.Decode(w.plain, plain)
	if err != nil {
		return nil, w.store.explain(name, err)
	}
	parts, err := w.split(payload, pieces)
	if err == nil && len(parts) != len(f.Hashes) {
		err = fmt.Errorf("the frame at offset %d has %d pieces: %w", f.Offset, len(parts), seal.ErrDamaged)
	}
	if err != nil {
		return nil, w.store.explain(name, err)
	}
	for slot, part := range parts {
		if !of.has(slot) {
			continue
		}
		if part, err = w.verified(ctx, part, f.Hashes[slot], m); err != nil {
			return done, w.store.explain(name, err)
		}
		moved, err := w.gather(ctx, old, piece{f.Offset, uint8(slot)}, part, f.Hashes[slot])
		done = append(done, moved...)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// split cuts the payload of a frame into its pieces.
func (w *mover) split(payload []byte, pieces int) ([][]byte, error) {
	if w.kind == seal.MetadataPack {
		return image.SplitNodes(payload, pieces)
	}
	var parts [][]byte
	for size := w.store.blockSize; len(payload) >= size; payload = payload[size:] {
		parts = append(parts, payload[:size])
	}
	return parts, nil
}

// verified checks a piece against its hash. A node is written anew with the
// places where its children lie now, which are outside of its hash.
func (w *mover) verified(ctx context.Context, part []byte, want block.Hash, m *marking) ([]byte, error) {
	if w.kind == seal.DataPack {
		if w.hash.Sum(part) != want {
			return nil, fmt.Errorf("a block has another hash: %w", seal.ErrDamaged)
		}
		return part, nil
	}
	var n image.Node
	if err := image.ParseNode(part, &n); err != nil {
		return nil, err
	}
	if n.Hash(w.hash) != want {
		return nil, fmt.Errorf("a node has another hash: %w", seal.ErrDamaged)
	}
	for k := range n.Children {
		if c := &n.Children[k]; !c.Hash.IsZero() && !c.Place.IsZero() {
			place, err := m.where(ctx, c.Place)
			if err != nil {
				return nil, err
			}
			if place.Pack == c.Place.Pack || w.clear.use(place.Pack) {
				c.Place = place
			}
		}
	}
	return n.AppendTo(nil), nil
}

// gather adds a piece to the frame being made.
func (w *mover) gather(ctx context.Context, old *movedPack, from piece, part []byte, hash block.Hash) (done []*movedPack, err error) {
	limit := FrameSize
	if w.kind == seal.MetadataPack {
		limit = moverNodeFrame
	}
	if len(w.hashes) > 0 && (len(w.payload)+4+len(part) > limit || len(w.hashes) == maxFramePieces) {
		if done, err = w.frameDone(ctx); err != nil {
			return done, err
		}
	}
	if w.kind == seal.MetadataPack {
		w.payload = binary.LittleEndian.AppendUint32(w.payload, uint32(len(part)))
	}
	w.payload = append(w.payload, part...)
	w.hashes = append(w.hashes, hash)
	w.from = append(w.from, source{old, from})
	old.open++
	return done, nil
}

const (
	moverNodeFrame = 64 << 10
	maxFramePieces = 255
)

// frameDone stores the frame being made.
func (w *mover) frameDone(ctx context.Context) (done []*movedPack, err error) {
	if len(w.hashes) == 0 {
		return nil, nil
	}
	hashes := append([]block.Hash(nil), w.hashes...)
	place, done, err := w.add(ctx, w.encode.Encode(w.payload, len(hashes)), hashes)
	if err != nil {
		return done, err
	}
	for slot, f := range w.from {
		f.pack.moved.pieces[f.piece] = place.Piece(slot)
		f.pack.open--
	}
	w.payload, w.hashes, w.from = w.payload[:0], w.hashes[:0], w.from[:0]
	return done, nil
}

// add puts a plain frame into the open pack.
func (w *mover) add(ctx context.Context, plain []byte, hashes []block.Hash) (place pack.Place, done []*movedPack, err error) {
	for {
		if w.open == nil {
			s := w.store
			w.open = pack.NewBuilder(w.buf, w.kind, s.epochs[s.epoch], s.epoch, s.header.StoreID)
			w.clear.own(w.open.ID)
		}
		if slot, ok := w.open.Reserve(len(plain), hashes); ok {
			slot.Fill(plain)
			return slot.Place(), done, nil
		}
		if w.open.Empty() {
			return place, done, errors.New("a frame is larger than a pack")
		}
		if done, err = w.putPack(ctx); err != nil {
			return place, done, err
		}
	}
}

// putPack begins to store the open pack, and to write down the moves that are
// complete by it: all that was taken up of them lies in this pack or in earlier
// ones. It gives those that were complete by the pack before.
func (w *mover) putPack(ctx context.Context) (done []*movedPack, err error) {
	if done, err = w.wait(); err != nil {
		return done, err
	}
	rest := w.pending[:0]
	for _, p := range w.pending {
		if p.taken && p.open == 0 {
			w.settled = append(w.settled, p)
		} else {
			rest = append(rest, p)
		}
	}
	b, settled, storing := w.open, w.settled, make(chan error, 1)
	w.open, w.pending, w.storing = nil, rest, storing
	w.buf, w.spare = w.spare, w.buf
	data := b.Finish()
	w.written += int64(len(data))
	go func() { storing <- w.putNow(ctx, b, data, settled) }()
	return done, nil
}

func (w *mover) putNow(ctx context.Context, b *pack.Builder, data []byte, settled []*movedPack) error {
	s := w.store
	if err := s.bucket.Put(ctx, packName(w.kind, b.ID), [][]byte{data}); err != nil {
		return err
	}
	// An index that fails costs space, here as everywhere.
	_ = s.index.Add(b.ID, entries(b.Frames()))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(sweepers)
	for _, p := range settled {
		group.Go(func() (err error) {
			p.told = true
			if w.heals {
				return s.putMoved(ctx, p.id, p.moved)
			}
			p.told, err = s.putMove(ctx, p.id, p.moved)
			return err
		})
	}
	return group.Wait()
}

// wait waits until the pack is stored that is being stored.
func (w *mover) wait() (done []*movedPack, err error) {
	if w.storing == nil {
		return nil, nil
	}
	err = <-w.storing
	done = slices.DeleteFunc(w.settled, func(p *movedPack) bool { return !p.told })
	w.storing, w.settled = nil, nil
	if err != nil {
		return nil, err
	}
	return done, nil
}

// flush stores all that is taken up.
func (w *mover) flush(ctx context.Context) (done []*movedPack, err error) {
	if done, err = w.frameDone(ctx); err != nil {
		return done, err
	}
	if w.open != nil {
		moved, err := w.putPack(ctx)
		done = append(done, moved...)
		if err != nil {
			return done, err
		}
	}
	moved, err := w.wait()
	return append(done, moved...), err
}

// read reads one piece of a data pack, verified.
func (w *mover) read(ctx context.Context, place pack.Place, want block.Hash) ([]byte, error) {
	s := w.store
	name := packName(seal.DataPack, place.Pack)
	key, err := s.packKey(ctx, seal.DataPack, place.Pack)
	if err != nil {
		return nil, err
	}
	if int(place.Length) > s.packLimit {
		return nil, s.damaged(name, fmt.Errorf("a place names a frame of %d bytes", place.Length))
	}
	sealed := make([]byte, place.Length)
	if err := s.bucket.Get(ctx, name, int64(place.Offset), sealed); err != nil {
		return nil, err
	}
	plain, err := key.Open(sealed[:0], sealed, int64(place.Offset))
	if err != nil {
		return nil, s.explain(name, err)
	}
	payload, _, err := w.decoder.Decode(w.plain, plain)
	if err != nil {
		return nil, s.explain(name, err)
	}
	from, size := int(place.Slot)*s.blockSize, s.blockSize
	if from+size > len(payload) || w.hash.Sum(payload[from:from+size]) != want {
		return nil, s.damaged(name, errors.New("a block has another hash"))
	}
	return payload[from : from+size], nil
}

// single stores one piece in a frame of its own and gives its place.
func (w *mover) single(ctx context.Context, part []byte, hash block.Hash) (pack.Place, error) {
	hashes := []block.Hash{hash}
	place, _, err := w.add(ctx, w.encode.Encode(part, 1), hashes)
	return place, err
}
