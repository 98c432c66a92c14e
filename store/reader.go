package store

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/image"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// Reader reads the content of an image, verified block by block. It is for one
// goroutine.
type Reader struct {
	image   *Image
	cursor  *image.Cursor
	hash    *block.Hasher
	decoder *seal.Decoder

	children []image.Child
	wanted   []wanted
	again    []wanted // not where they were looked for, to be looked for elsewhere
	sealed   []byte   // what one request read: several frames
	payload  []byte   // one frame, decoded
}

// wanted is a block of a window, and where it is to be found.
type wanted struct {
	place pack.Place
	at    int   // number of the block in the window
	moves uint8 // how often it was looked for where it was moved to
	asked bool  // the index was asked for it
}

const (
	// maxRequest bounds how many bytes one request for data reads.
	maxRequest = 8 << 20
	// maxGap is what is read and thrown away rather than asking twice.
	maxGap = 128 << 10
)

// NewReader reads the image; Close must be called in the end.
func (i *Image) NewReader() *Reader {
	limit := max(FrameSize, i.tree.BlockSize)
	return &Reader{
		image: i, cursor: i.tree.NewCursor(), hash: i.store.hasher(blockDomain),
		decoder: seal.NewDecoder(limit), payload: make([]byte, 0, limit),
	}
}

// Close frees what the reader holds.
func (r *Reader) Close() { r.decoder.Close() }

// NextData finds where the first byte at or behind off may lie that is not
// zero, at the granularity of tree leaves; ok is false if there is none. Its
// cost does not depend on how many zeros lie between.
func (r *Reader) NextData(ctx context.Context, off int64) (next int64, ok bool, err error) {
	leaf := int64(r.image.tree.BlockSize) * image.Fanout
	i, _, ok, err := r.cursor.NextLeaf(ctx, off/leaf)
	return max(off, i*leaf), ok, err
}

// Visit is called for data that was read and verified: it lies at off of the
// disk and is not kept after the call.
type Visit func(off int64, data []byte) error

// Window reads the bytes from off to off+length, of which off must be a
// multiple of the block size, and calls visit for each stretch that is not
// zeros, in no particular order. Blocks that cannot be read are given to lost,
// with the reason; if it returns nil the reading goes on. lost may be nil: the
// first such error ends the reading.
func (r *Reader) Window(ctx context.Context, off, length int64, visit Visit, lost Loss) error {
	w, err := r.window(ctx, off, length, visit, lost)
	if err != nil {
		return err
	}
	for at := range r.children {
		if c := &r.children[at]; !c.Hash.IsZero() {
			r.want(c.Place, at)
		}
	}
	return w.fetchAll(ctx)
}

// want notes a block to be fetched, from where it was moved to if that is known.
func (r *Reader) want(place pack.Place, at int) {
	b := wanted{place: place, at: at}
	if to, ok := r.image.store.moves.place(place); ok {
		b.place, b.moves = to, 1
	}
	r.wanted = append(r.wanted, b)
}

// Loss is called for a stretch that cannot be read, with the reason.
type Loss func(off, length int64, err error) error

// Update is Window for somebody who has bytes of that part of a disk already,
// of some other time: visit is called for the blocks that differ only, and
// zero for those that must become zeros. skipped counts the bytes that are
// right as they are.
func (r *Reader) Update(ctx context.Context, off int64, have []byte, visit Visit, zero func(off, length int64) error, lost Loss) (skipped int64, err error) {
	w, err := r.window(ctx, off, int64(len(have)), visit, lost)
	if err != nil {
		return 0, err
	}
	size := r.image.tree.BlockSize
	for at := range r.children {
		c := &r.children[at]
		now := have[at*size : min((at+1)*size, len(have))]
		isZero := block.IsZero(now)
		switch {
		case c.Hash.IsZero() && !isZero:
			if err := zero(off+int64(at*size), int64(len(now))); err != nil {
				return skipped, err
			}
		case c.Hash.IsZero() || !isZero && r.sum(now) == c.Hash:
			skipped += int64(len(now))
		default:
			r.want(c.Place, at)
		}
	}
	return skipped, w.fetchAll(ctx)
}

// sum hashes a block, of which the last of a disk may be short.
func (r *Reader) sum(data []byte) block.Hash {
	if pad := r.image.tree.BlockSize - len(data); pad > 0 {
		return r.hash.Sum(data, make([]byte, pad))
	}
	return r.hash.Sum(data)
}

// window reads what the tree says about a part of the disk.
func (r *Reader) window(ctx context.Context, off, length int64, visit Visit, lost Loss) (*window, error) {
	size := int64(r.image.tree.BlockSize)
	length = max(0, min(length, r.image.Size()-off))
	if lost == nil {
		lost = func(_, _ int64, err error) error { return err }
	}
	n := int((length + size - 1) / size)
	if cap(r.children) < n {
		r.children = make([]image.Child, n)
	}
	r.children, r.wanted = r.children[:n], r.wanted[:0]
	err := r.cursor.Blocks(ctx, off/size, r.children)
	if isDamage(err) {
		r.children = r.children[:0]
		err = lost(off, length, err)
	}
	return &window{r, off, visit, lost}, err
}

// fetchAll reads the wanted blocks. Those that are not where they should be are
// wanted again where they were moved to, or where the index knows them.
func (w *window) fetchAll(ctx context.Context) error {
	for len(w.r.wanted) > 0 {
		w.r.again = w.r.again[:0]
		if err := w.fetchOnce(ctx); err != nil {
			return err
		}
		w.r.wanted, w.r.again = w.r.again, w.r.wanted
	}
	return nil
}

// fetchOnce reads the wanted blocks, those that lie together at once.
func (w *window) fetchOnce(ctx context.Context) error {
	slices.SortFunc(w.r.wanted, func(a, b wanted) int {
		if c := bytes.Compare(a.place.Pack[:], b.place.Pack[:]); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(a.place.Offset, b.place.Offset), cmp.Compare(a.place.Slot, b.place.Slot))
	})
	for rest := w.r.wanted; len(rest) > 0; {
		n, length := request(rest)
		if err := w.request(ctx, rest[:n], length); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// request finds how many of the wanted blocks one request can bring: frames of
// one pack that lie close together.
func request(all []wanted) (n int, length int64) {
	first := all[0].place
	end := int64(first.Offset) + int64(first.Length)
	for n = 1; n < len(all); n++ {
		p := all[n].place
		if p.Pack != first.Pack || int64(p.Offset) > end+maxGap {
			break
		}
		e := max(end, int64(p.Offset)+int64(p.Length))
		if e-int64(first.Offset) > maxRequest && p.Offset != all[n-1].place.Offset {
			break
		}
		end = e
	}
	return n, end - int64(first.Offset)
}

// sameFrame counts the blocks at the beginning that lie in one frame.
func sameFrame(all []wanted) int {
	n := 1
	for n < len(all) && all[n].place.Offset == all[0].place.Offset {
		n++
	}
	return n
}

// window is one call of Window or Update.
type window struct {
	r     *Reader
	off   int64
	visit Visit
	lost  Loss
}

// request reads a part of a pack and delivers the blocks in it.
func (w *window) request(ctx context.Context, all []wanted, length int64) error {
	r, first := w.r, all[0].place
	var key *seal.Key
	var err error
	if length > maxRequest+maxGap || first.IsZero() {
		err = r.image.store.damaged(packName(seal.DataPack, first.Pack), fmt.Errorf("a place names a frame of %d bytes", first.Length))
	} else if key, err = r.image.store.packKey(ctx, seal.DataPack, first.Pack); err == nil {
		if int64(cap(r.sealed)) < length {
			r.sealed = make([]byte, length)
		}
		r.sealed = r.sealed[:length]
		err = r.image.store.bucket.Get(ctx, packName(seal.DataPack, first.Pack), int64(first.Offset), r.sealed)
	}
	if err != nil && !isDamage(err) {
		return err
	}
	for len(all) > 0 {
		n := sameFrame(all)
		frame := all[0].place
		if err != nil && !isMissing(err) && length != int64(frame.Length) {
			// A pack that ends too early still holds its first frames.
			if err := w.request(ctx, all[:n], int64(frame.Length)); err != nil {
				return err
			}
			all = all[n:]
			continue
		}
		var decoded []byte
		failure := err
		if failure == nil {
			decoded, failure = w.open(key, frame, r.sealed[frame.Offset-first.Offset:])
		}
		if err := w.deliver(ctx, all[:n], decoded, failure); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

func (w *window) open(key *seal.Key, frame pack.Place, sealed []byte) ([]byte, error) {
	name := packName(seal.DataPack, frame.Pack)
	if int(frame.Length) > len(sealed) {
		return nil, w.r.image.store.damaged(name, fmt.Errorf("two places disagree about the frame at offset %d", frame.Offset))
	}
	sealed = sealed[:frame.Length]
	plain, err := key.Open(sealed[:0], sealed, int64(frame.Offset))
	if err != nil {
		return nil, w.r.image.store.explain(name, err)
	}
	decoded, _, err := w.r.decoder.Decode(w.r.payload, plain)
	if err != nil {
		return nil, w.r.image.store.explain(name, err)
	}
	return decoded, nil
}

// deliver hands over the blocks of one frame, stretches of neighbours at once.
// failure tells that the frame could not be read.
func (w *window) deliver(ctx context.Context, all []wanted, decoded []byte, failure error) error {
	size := w.r.image.tree.BlockSize
	for len(all) > 0 {
		// A stretch: neighbours in the frame that are neighbours on the disk.
		n := 0
		from := int(all[0].place.Slot) * size
		for n < len(all) && failure == nil && all[n].at == all[0].at+n && all[n].place.Slot == all[0].place.Slot+uint8(n) &&
			w.holds(all[n], decoded, from+n*size) {
			n++
		}
		if n == 0 {
			if err := w.elsewhere(ctx, all[0], failure); err != nil {
				return err
			}
			all = all[1:]
			continue
		}
		off := w.off + int64(all[0].at)*int64(size)
		data := decoded[from : from+n*size]
		if rest := w.r.image.Size() - off; int64(len(data)) > rest {
			data = data[:rest] // the padding of the last block
		}
		if err := w.visit(off, data); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// holds verifies that the block lies in the decoded frame.
func (w *window) holds(b wanted, decoded []byte, from int) bool {
	size := w.r.image.tree.BlockSize
	return from+size <= len(decoded) && w.r.hash.Sum(decoded[from:from+size]) == w.r.children[b.at].Hash
}

// elsewhere wants a block again that is not where it was looked for: where it
// was moved to, or where the index knows it. If there is no such place it is lost.
func (w *window) elsewhere(ctx context.Context, b wanted, failure error) error {
	s := w.r.image.store
	size := int64(w.r.image.tree.BlockSize)
	off := w.off + int64(b.at)*size
	if failure == nil {
		failure = s.damaged(packName(seal.DataPack, b.place.Pack), fmt.Errorf("the block in the frame at offset %d, slot %d is not the one that the tree names", b.place.Offset, b.place.Slot))
	}
	if b.moves < maxMoves {
		to, ok, err := s.movedTo(ctx, b.place)
		if err != nil {
			return err
		}
		if ok {
			w.r.again = append(w.r.again, wanted{place: to, at: b.at, moves: b.moves + 1, asked: b.asked})
			return nil
		}
	}
	if s.index != nil && !b.asked {
		place, ok, err := s.index.Lookup(w.r.children[b.at].Hash)
		if err == nil && ok && place != b.place {
			w.r.again = append(w.r.again, wanted{place: place, at: b.at, asked: true})
			return nil
		}
	}
	return w.lost(off, min(size, w.r.image.Size()-off), failure)
}
