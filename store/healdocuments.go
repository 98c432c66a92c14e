package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/image"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// documents mends the documents that are damaged, each in the way that its kind
// allows.
func (h *healer) documents(ctx context.Context) error {
	mended, err := h.store.mendSecrets(ctx)
	h.report.Documents += mended
	if err != nil {
		return err
	}
	h.moved = map[pack.ID][]string{}
	return h.store.damagedDocuments(ctx, func(o bucket.Object, kind seal.Kind, id ID, damage error) error {
		var done bool
		var err error
		switch kind {
		case seal.Condemned:
			done, err = h.condemnedList(ctx, o.Key)
		case seal.SweepList:
			done, err = h.sweepList(ctx, o.Key)
		case seal.Record:
			done, err = h.record(ctx, o.Key, id)
		case seal.Session:
			done, err = h.session(ctx, o, id)
		case seal.DamageNote: // its name is all that counts
			err = h.store.bucket.Delete(ctx, o.Key)
			if err == nil {
				done, err = true, h.store.markDamaged(ctx, pack.ID(id), "it was found damaged before")
			}
		case seal.Moved:
			// What it led to is looked for as if the old pack were damaged.
			h.moved[pack.ID(id)] = append(h.moved[pack.ID(id)], o.Key)
			return h.store.markDamaged(ctx, pack.ID(id), "where its pieces were moved to cannot be read")
		}
		if done {
			h.report.Documents++
		}
		return err
	})
}

// unmended notes a document that could not be mended, and what to do about it.
func (h *healer) unmended(key, what string) {
	h.lost[key] = &Damage{Object: key, What: what}
	h.order = append(h.order, key)
}

// condemnedList withdraws a condemned list that cannot be read, and that keeps
// all writers out, by deciding that nothing of it goes. The next collection finds
// the same packs again. If a decision is there, only the list is dropped when
// all that was decided is removed.
func (h *healer) condemnedList(ctx context.Context, key string) (bool, error) {
	s, n := h.store, listNumber(key)
	_, err := s.putDocument(ctx, sweepKey(n), seal.SweepList, listID(n), condemnedList{Number: n, Time: time.Now().UTC()})
	if errors.Is(err, bucket.ErrExists) {
		var decision condemnedList
		if decision, err = s.readList(ctx, sweepKey(n), seal.SweepList); isDamage(err) {
			h.unmended(key, "it and the decision about it are damaged, so it is not known which packs were being removed; put one of the two back from a copy of the storage")
			return false, nil
		}
		// Packs of a decision are dead for ever.
		for kind, id := range decision.packs() {
			if err == nil {
				err = s.bucket.Delete(ctx, packName(kind, id))
			}
		}
	}
	if err == nil {
		err = s.bucket.Delete(ctx, key)
	}
	return err == nil, err
}

// sweepList replaces a decision that cannot be read. If its list is gone all of
// it was carried out, and only its number counts. If the list is there, the next
// collection decides again: what was unreachable then is so now, since no writer
// refers to what is condemned.
func (h *healer) sweepList(ctx context.Context, key string) (bool, error) {
	s, n := h.store, listNumber(key)
	_, err := s.readList(ctx, condemnedKey(n), seal.Condemned)
	carriedOut := errors.Is(err, bucket.ErrNotFound)
	if err != nil && !carriedOut {
		if isDamage(err) {
			return false, nil // both are: said already
		}
		return false, err
	}
	if err := s.bucket.Delete(ctx, key); err != nil || !carriedOut {
		return err == nil, err
	}
	_, err = s.putDocument(ctx, key, seal.SweepList, listID(n), condemnedList{Number: n, Time: time.Now().UTC()})
	if errors.Is(err, bucket.ErrExists) {
		err = nil
	}
	return err == nil, err
}

// record drops a version that cannot be read if there is a later one, which is
// written first if the other store has it.
func (h *healer) record(ctx context.Context, key string, id ID) (bool, error) {
	s := h.store
	version, err := recordVersion(key)
	if err != nil {
		return false, nil // not ours
	}
	newest := func(s *Store) (found Record, err error) {
		n := 0
		for o, err := range s.bucket.List(ctx, recordPrefix+id.String()+"/", "") {
			if err != nil {
				return found, err
			}
			if v, err := recordVersion(o.Key); err == nil {
				n = v
			}
		}
		return s.record(ctx, id, n)
	}
	r, err := newest(s)
	if isDamage(err) && h.options.From != nil {
		if r, err = newest(h.options.From); err == nil {
			if err = s.PutRecord(ctx, r.Kind, r.Name, r.Body); err == nil {
				r, err = newest(s)
			}
		}
	}
	switch {
	case err == nil && r.Version > version:
		err = s.bucket.Delete(ctx, key)
		return err == nil, err
	case err != nil && !isDamage(err):
		return false, err
	}
	h.unmended(key, "a configuration record that neither the catalog nor the other store has; no recovery point depends on it")
	return false, nil
}

// session drops what nobody needs of a session: an object that was followed by
// another, or all of one that was not renewed for so long that it may be given
// up; it can then not commit any more.
func (h *healer) session(ctx context.Context, o bucket.Object, id ID) (bool, error) {
	s := h.store
	now, ok, err := s.session(ctx, id)
	if err != nil || !ok {
		return ok, err
	}
	if now.damage == nil {
		err := s.bucket.Delete(ctx, o.Key)
		return err == nil, err
	}
	clock, err := s.clock(ctx)
	if err != nil {
		return false, err
	}
	if left := fenceAfter - clock.Sub(now.renewed); left > 0 {
		h.unmended(o.Key, fmt.Sprintf("a run that may still be at work, and then mends it; heal again in %s", max(left, time.Minute).Round(time.Minute)))
		return false, nil
	}
	if err := s.fence(ctx, id, "Its session was damaged and not renewed for an hour."); err != nil {
		return false, err
	}
	return true, s.deleteSession(ctx, id)
}

// clock tells the time of the storage.
func (s *Store) clock(ctx context.Context) (time.Time, error) {
	x, err := s.beginSession(ctx, sessionDocument{ID: newSessionID(), Task: taskRead, Purpose: "clock"}, nil)
	if err != nil {
		return time.Time{}, err
	}
	defer x.end(context.WithoutCancel(ctx))
	return x.now(ctx)
}

// readableMoves tells where pieces of a pack went as far as that can be read.
func (s *Store) readableMoves(ctx context.Context, id pack.ID) (*moved, error) {
	m := newMoved()
	for o, err := range s.bucket.List(ctx, movedPrefix+id.String()+"/", "") {
		if err != nil {
			return nil, err
		}
		var d movedDocument
		err := s.readDocument(ctx, o.Key, seal.Moved, ID(id), maxMovedSize, &d)
		if err != nil && !isDamage(err) {
			return nil, err
		}
		for _, f := range d.Frames {
			if int(f[1]) < len(d.To) {
				m.frames[f[0]] = pack.Place{Pack: d.To[f[1]], Offset: f[2], Length: f[3]}
			}
		}
		for _, p := range d.Pieces {
			if int(p[2]) < len(d.To) {
				m.pieces[piece{p[0], uint8(p[1])}] = pack.Place{Pack: d.To[p[2]], Offset: p[3], Length: p[4], Slot: uint8(p[5])}
			}
		}
	}
	return m, nil
}

// dropMoves removes the damaged documents about moved pieces that were all found
// again.
func (h *healer) dropMoves(ctx context.Context) error {
	lost := map[pack.ID]bool{}
	for _, d := range h.lost {
		lost[d.pack] = true
	}
	for id, keys := range h.moved {
		if lost[id] {
			continue
		}
		for _, key := range keys {
			if err := h.store.bucket.Delete(ctx, key); err != nil {
				return err
			}
			h.report.Documents++
		}
	}
	return nil
}

// gonePoint is a point that is damaged or missing here, as the other store has
// it.
type gonePoint struct {
	Point
	image *Image // in the other store
	top   image.Child
}

// points lists the points that can be read. Of the others, those that the other
// store has are to be put back.
func (h *healer) points(ctx context.Context) (points []Point, err error) {
	seen := map[string]bool{}
	for p, err := range h.store.Points(ctx) {
		switch {
		case isDamage(err):
			err = h.missPoint(ctx, p.ID, "it is damaged ("+reason(err)+")")
		case err == nil:
			points = append(points, p)
		}
		if err != nil {
			return nil, err
		}
		seen[p.ID] = true
	}
	for _, id := range h.options.Expect {
		if !seen[id] {
			seen[id] = true
			if err := h.missPoint(ctx, id, "it is missing"); err != nil {
				return nil, err
			}
		}
	}
	return points, nil
}

func (h *healer) missPoint(ctx context.Context, id, what string) error {
	if from := h.options.From; from != nil {
		p, err := from.Point(ctx, id)
		if err == nil {
			var img *Image
			if img, err = from.Image(p); err == nil {
				h.gone = append(h.gone, gonePoint{Point: p, image: img, top: image.Child{Hash: img.tree.TopNode.Hash}})
				return nil
			}
		}
		if !isDamage(err) && !problem.Is(err, problem.RecoveryPointNotFound) {
			return err
		}
	}
	h.lose(pointPrefix+id, pack.ID{}, Point{ID: id}, Range{}, what)
	return nil
}

// regrow makes the tree of a point anew: of what is here, and for the rest of
// the other store.
func (h *healer) regrow(ctx context.Context, p *gonePoint) error {
	h.regrowing = true
	h.other, h.reader = p.image.tree.NewCursor(), p.image.NewReader()
	defer h.reader.Close()
	return h.subtree(ctx, p.Point, &p.top, p.image.tree.Top(), 0)
}

// putBack puts the points whose trees were made anew, all of which is on stable
// storage. Where the damaged object is, nothing may be for a moment: what the
// point refers to is kept by a session until it is there.
func (h *healer) putBack(ctx context.Context) error {
	for _, p := range h.gone {
		if !p.top.Hash.IsZero() && p.top.Place.IsZero() {
			continue // not even its top is left: lost, as it is said to be
		}
		back := p.Point
		back.Top = Ref{p.top.Hash, p.top.Place}
		err := h.putPoint(ctx, back)
		if problem.Is(err, problem.SessionFenced) {
			h.lose(pointPrefix+p.ID, pack.ID{}, back, Range{}, "its name is taken by a fence")
			continue
		}
		if err != nil {
			return err
		}
		h.report.PutBack++
	}
	return nil
}

func (h *healer) putPoint(ctx context.Context, p Point) error {
	s := h.store
	id, err := ParseID(p.ID)
	if err != nil {
		return err
	}
	x, err := s.beginSession(ctx, sessionDocument{
		ID: newSessionID(), Task: taskRead, Purpose: "heal", Instance: p.Instance, Images: []stored{{p.Root, p.Size, p.Top}},
	}, nil)
	if err != nil {
		return err
	}
	defer x.end(context.WithoutCancel(ctx))
	now, err := s.point(ctx, p.ID)
	switch {
	case errors.Is(err, bucket.ErrNotFound):
	case isDamage(err):
		if err := s.bucket.Delete(ctx, pointKey(id)); err != nil {
			return err
		}
	case err != nil:
		return err
	case now.Fence == nil:
		return nil // put back meanwhile
	default:
		return s.fenced(nil)
	}
	return s.commit(ctx, id, p)
}
