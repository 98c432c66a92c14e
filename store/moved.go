package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// movedPrefix is where it is written to which place a piece went whose pack
// was compacted or healed. Trees are never changed, so those that name the old
// pack are led to the new one.
const movedPrefix = "moved/"

// maxMovedSize bounds one such document: a pack has at most some 65,000 pieces.
const maxMovedSize = 16 << 20

// movedDocument tells where pieces of a pack are now. A frame that moved whole
// kept its pieces in their slots.
type movedDocument struct {
	Pack   pack.ID     `json:"pack"`
	To     []pack.ID   `json:"to"`
	Frames [][4]uint32 `json:"frames"` // offset; number in To, offset and length there
	Pieces [][6]uint32 `json:"pieces"` // offset and slot; number in To, offset, length and slot there
}

// moved is where the pieces of a pack are now, all documents about it together.
type moved struct {
	frames map[uint32]pack.Place
	pieces map[piece]pack.Place
}

type piece struct {
	offset uint32
	slot   uint8
}

func newMoved() *moved {
	return &moved{frames: map[uint32]pack.Place{}, pieces: map[piece]pack.Place{}}
}

// place tells where the piece is now.
func (m *moved) place(p pack.Place) (pack.Place, bool) {
	if to, ok := m.frames[p.Offset]; ok {
		return to.Piece(int(p.Slot)), true
	}
	to, ok := m.pieces[piece{p.Offset, p.Slot}]
	return to, ok
}

// packs are those that the pieces are in now; some may come more than once.
func (m *moved) packs() iter.Seq[pack.ID] {
	return func(yield func(pack.ID) bool) {
		for _, p := range m.frames {
			if !yield(p.Pack) {
				return
			}
		}
		for _, p := range m.pieces {
			if !yield(p.Pack) {
				return
			}
		}
	}
}

// document writes it down.
func (m *moved) document(id pack.ID) movedDocument {
	d := movedDocument{Pack: id, Frames: [][4]uint32{}, Pieces: [][6]uint32{}}
	numbers := map[pack.ID]uint32{}
	number := func(id pack.ID) uint32 {
		n, ok := numbers[id]
		if !ok {
			n = uint32(len(d.To))
			numbers[id] = n
			d.To = append(d.To, id)
		}
		return n
	}
	for from, to := range m.frames {
		d.Frames = append(d.Frames, [4]uint32{from, number(to.Pack), to.Offset, to.Length})
	}
	for from, to := range m.pieces {
		d.Pieces = append(d.Pieces, [6]uint32{from.offset, uint32(from.slot), number(to.Pack), to.Offset, to.Length, uint32(to.Slot)})
	}
	return d
}

// add takes over what a document says.
func (m *moved) add(d movedDocument) error {
	to := d.To
	for _, f := range d.Frames {
		if int(f[1]) >= len(to) || f[3] == 0 {
			return fmt.Errorf("a frame moved to nowhere: %w", seal.ErrDamaged)
		}
		m.frames[f[0]] = pack.Place{Pack: to[f[1]], Offset: f[2], Length: f[3]}
	}
	for _, p := range d.Pieces {
		if int(p[2]) >= len(to) || p[4] == 0 || p[1] > 255 || p[5] > 255 {
			return fmt.Errorf("a piece moved to nowhere: %w", seal.ErrDamaged)
		}
		m.pieces[piece{p[0], uint8(p[1])}] = pack.Place{Pack: to[p[2]], Offset: p[3], Length: p[4], Slot: uint8(p[5])}
	}
	return nil
}

// only is the document without the places in other packs than these.
func (d movedDocument) only(packs map[pack.ID]bool) movedDocument {
	d.Frames = slices.DeleteFunc(slices.Clone(d.Frames), func(f [4]uint32) bool { return !packs[d.To[f[1]]] })
	d.Pieces = slices.DeleteFunc(slices.Clone(d.Pieces), func(p [6]uint32) bool { return !packs[d.To[p[2]]] })
	return d
}

func movedKey(id pack.ID, n int) string { return fmt.Sprintf("%s%s/%08d", movedPrefix, id, n) }

// putMoved writes down where pieces of the pack went. All of the new places
// must be on stable storage.
func (s *Store) putMoved(ctx context.Context, id pack.ID, m *moved) error {
	d := m.document(id)
	for n := 1; ; n++ {
		_, err := s.putDocument(ctx, movedKey(id, n), seal.Moved, ID(id), d)
		if !errors.Is(err, bucket.ErrExists) {
			return err
		}
		// Pieces of this pack were moved before, by this or another process.
	}
}

// putMove writes down where all that is in use of the pack went, unless somebody
// else has written down such moves of it: of two compactions of a pack one may
// have slept, and what it has moved the pieces to may be condemned already.
func (s *Store) putMove(ctx context.Context, id pack.ID, m *moved) (ok bool, err error) {
	_, err = s.putDocument(ctx, movedKey(id, 1), seal.Moved, ID(id), m.document(id))
	if errors.Is(err, bucket.ErrExists) {
		return false, nil
	}
	return err == nil, err
}

// readMoved reads where the pieces of the pack are now; nil if none was moved.
func (s *Store) readMoved(ctx context.Context, id pack.ID) (*moved, error) {
	var all []movedDocument
	for o, err := range s.bucket.List(ctx, movedPrefix+id.String()+"/", "") {
		if err != nil {
			return nil, err
		}
		var d movedDocument
		err := s.readDocument(ctx, o.Key, seal.Moved, ID(id), maxMovedSize, &d)
		if errors.Is(err, bucket.ErrNotFound) {
			continue // nobody needs it any more
		}
		if err == nil && d.Pack != id {
			err = s.damaged(o.Key, errors.New("it is about another pack than its name says"))
		}
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	if len(all) == 0 {
		return nil, nil
	}
	m := newMoved()
	for _, d := range all {
		if err := m.add(d); err != nil {
			return nil, s.explain(movedPrefix+id.String(), err)
		}
	}
	if len(all) == 1 {
		return m, nil
	}
	// Of several new places some may never have come to be, or not have stayed:
	// whoever moved the piece may have been given up meanwhile. They must not
	// hide the others.
	leads := map[pack.ID]bool{}
	for _, d := range all {
		for _, to := range d.To {
			var err error
			if leads[to], err = s.leads(ctx, to); err != nil {
				return nil, err
			}
		}
	}
	m = newMoved()
	for _, d := range all {
		if err := m.add(d.only(leads)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// leads tells whether the pack is there, or it is written down where its pieces
// went.
func (s *Store) leads(ctx context.Context, id pack.ID) (bool, error) {
	for _, prefix := range []string{packName(seal.DataPack, id), packName(seal.MetadataPack, id), movedPrefix + id.String() + "/"} {
		for _, err := range s.bucket.List(ctx, prefix, "") {
			return err == nil, err
		}
	}
	return false, nil
}

// moves remembers packs that were found missing or damaged, and where their
// pieces are now.
type moves struct {
	mu    sync.Mutex
	known map[pack.ID]*moved
}

// drop forgets all.
func (m *moves) drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known = nil
}

// known gives the new place of a piece of a pack that was asked for before.
func (m *moves) place(p pack.Place) (pack.Place, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if of := m.known[p.Pack]; of != nil {
		return of.place(p)
	}
	return pack.Place{}, false
}

// movedTo tells where a piece is now that is not at its place; false if nobody
// moved it, as far as can be read.
func (s *Store) movedTo(ctx context.Context, p pack.Place) (pack.Place, bool, error) {
	if to, ok := s.moves.place(p); ok {
		return to, true, nil
	}
	m, err := s.readMoved(ctx, p.Pack)
	if err != nil && !isDamage(err) {
		return pack.Place{}, false, err
	}
	if m == nil || err != nil {
		return pack.Place{}, false, nil
	}
	s.moves.mu.Lock()
	defer s.moves.mu.Unlock()
	if s.moves.known == nil {
		s.moves.known = map[pack.ID]*moved{}
	}
	s.moves.known[p.Pack] = m
	to, ok := m.place(p)
	return to, ok, nil
}

// movedPacks lists the packs of which pieces were moved, with the keys of what
// tells of them.
func (s *Store) movedPacks(ctx context.Context) (map[pack.ID][]string, error) {
	all := map[pack.ID][]string{}
	for o, err := range s.bucket.List(ctx, movedPrefix, "") {
		if err != nil {
			return nil, err
		}
		text, _, _ := strings.Cut(strings.TrimPrefix(o.Key, movedPrefix), "/")
		if id, ok := pack.ParseID(text); ok {
			all[id] = append(all[id], o.Key)
		}
	}
	return all, nil
}
