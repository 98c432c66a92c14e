package store

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// DefaultMaxUnused is how much of the bytes in use may be taken by pieces that
// are not.
const DefaultMaxUnused = 0.05

const (
	// smallPack is the share of a full pack below which a pack is small; when
	// there are manySmall, they are put together. What an hour changes on a disk
	// makes a pack of some MiB, which may stay as it is: it costs a request when it
	// is read, while to rewrite it costs a request and all of its bytes.
	smallPack = 1. / 32
	manySmall = 64
)

// candidate is a pack that could be compacted.
type candidate struct {
	packObject
	frames []pack.Frame
	reach  *reached
	live   int64 // bytes of its frames, by the share of their pieces in use
}

func (c candidate) unused() int64 { return c.size - c.live }

// compact rewrites packs of which little is in use, and many small ones, and
// takes them out of what is marked: their pieces are found in the new packs.
func (c *collector) compact(ctx context.Context, m *marking, spared windows) error {
	chosen, err := c.choose(ctx, m, spared)
	if err != nil {
		return err
	}
	for _, kind := range []seal.Kind{seal.DataPack, seal.MetadataPack} {
		if len(chosen[kind]) == 0 {
			continue
		}
		if err := c.rewrite(ctx, kind, m, chosen[kind]); err != nil {
			return err
		}
	}
	return nil
}

// choose finds the packs that are to be compacted: the emptiest, until what is
// unused in all others is no more than allowed; and small ones.
func (c *collector) choose(ctx context.Context, m *marking, spared windows) (map[seal.Kind][]candidate, error) {
	var sparse []candidate
	small := map[seal.Kind][]candidate{}
	var inUse, unused int64
	for _, p := range c.packs {
		r := m.packs[p.id]
		if r == nil {
			continue
		}
		if r.whole || spared.spare(p.stored) || len(m.moved[p.id]) > 0 {
			inUse += p.size
			continue
		}
		x, ok, err := c.candidate(ctx, p, r)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		inUse += x.live
		unused += x.unused()
		if x.unused() > 0 {
			sparse = append(sparse, x)
		}
		if float64(p.size) < smallPack*float64(c.store.full(p.kind)) {
			small[p.kind] = append(small[p.kind], x)
		}
		if err := c.pace.between(ctx); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(sparse, func(a, b candidate) int {
		return cmp.Compare(float64(a.live)/float64(a.size), float64(b.live)/float64(b.size))
	})
	chosen := map[seal.Kind][]candidate{}
	taken := map[pack.ID]bool{}
	for _, x := range sparse {
		if float64(unused) <= c.options.MaxUnused*float64(inUse) {
			break
		}
		unused -= x.unused()
		taken[x.id] = true
		chosen[x.kind] = append(chosen[x.kind], x)
	}
	for kind, all := range small {
		for _, x := range all {
			if len(all) >= manySmall && !taken[x.id] {
				chosen[kind] = append(chosen[kind], x)
			}
		}
	}
	for _, all := range chosen {
		// Packs that were stored one after another hold what lies together on a disk.
		slices.SortFunc(all, func(a, b candidate) int {
			return cmp.Or(a.stored.Compare(b.stored), comparePacks(a.id, b.id))
		})
	}
	return chosen, nil
}

// candidate weighs a pack; false if its directory is damaged, which is for those
// who heal.
func (c *collector) candidate(ctx context.Context, p packObject, r *reached) (candidate, bool, error) {
	x := candidate{packObject: p, reach: r, live: p.size}
	if c.store.proven(p.kind, r) >= p.size*9/10 {
		return x, true, nil
	}
	var err error
	if x.frames, err = c.store.directory(ctx, p.kind, p.id, p.size); isDamage(err) {
		return x, false, nil
	}
	x.live = r.live(x.frames)
	return x, err == nil, err
}

// full is the size of a full pack, in bytes.
func (s *Store) full(kind seal.Kind) int {
	if kind == seal.MetadataPack {
		return s.nodeLimit
	}
	return s.packLimit
}

// proven counts the bytes of the frames that are in use whole for certain: as
// many pieces as a frame can have.
func (s *Store) proven(kind seal.Kind, r *reached) (n int64) {
	if kind == seal.MetadataPack {
		return 0
	}
	for _, f := range r.frames {
		if f.count() >= FrameSize/s.blockSize {
			n += int64(f.length)
		}
	}
	return n
}

// live counts the bytes that compaction would keep: frames that would move as
// they are, and of others the share of their pieces in use.
func (r *reached) live(frames []pack.Frame) (n int64) {
	for _, f := range frames {
		of := r.frames[f.Offset]
		switch {
		case of == nil:
		case of.mostly(len(f.Hashes)):
			n += int64(f.Length)
		default:
			n += int64(f.Length) * int64(of.count()) / int64(len(f.Hashes))
		}
	}
	return n
}

// mostly tells whether so many of a frame's pieces are in use that it moves as
// it is: seven in eight, so that what is unused stays below an eighth, and the
// compressor is spared most of the work.
func (f *reachedFrame) mostly(pieces int) bool { return 8*f.count() >= 7*pieces }

// rewrite moves what is in use of the packs into new ones.
func (c *collector) rewrite(ctx context.Context, kind seal.Kind, m *marking, packs []candidate) error {
	w, err := c.store.newMover(ctx, kind)
	if err != nil {
		return err
	}
	err = c.move(ctx, w, m, packs)
	c.report.Written += w.written
	return errors.Join(err, w.close(ctx))
}

func (c *collector) move(ctx context.Context, w *mover, m *marking, packs []candidate) error {
	done := func(all []*movedPack) {
		for _, p := range all {
			c.report.Compacted.add(c.sizes[p.id])
			m.movedAway(p)
		}
	}
	for i, p := range packs {
		if p.frames == nil {
			var err error
			if p.frames, err = c.store.directory(ctx, p.kind, p.id, p.size); err != nil {
				if isDamage(err) {
					continue
				}
				return err
			}
		}
		moved, err := w.pack(ctx, p, m)
		done(moved)
		if isDamage(err) {
			// It stays as it is; what was moved of it is garbage. One that is gone
			// was moved by another collection.
			if isMissing(err) {
				continue
			}
			if err := c.store.markDamaged(ctx, p.id, reason(err)); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		c.progress(phaseCompact, int64(i+1), int64(len(packs)))
		if err := c.pace.between(ctx); err != nil {
			return err
		}
	}
	moved, err := w.flush(ctx)
	done(moved)
	return err
}
