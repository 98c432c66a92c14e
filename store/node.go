package store

import (
	"context"
	"fmt"

	"github.com/diskvault/diskvault/store/internal/image"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// maxNodeFrame is what a metadata frame may decode to: the frame size of the
// builder and one node more, with room to spare.
const maxNodeFrame = 128 << 10

// nodes loads tree nodes from metadata packs; it is an image.Loader.
type nodes struct{ store *Store }

// maxMoves is how often a piece is looked for where it was moved to, against
// places that lead to each other.
const maxMoves = 64

// Node reads and verifies a node. If the place that the parent names does not
// lead to it, it may have been moved; and then the index is asked for another.
func (l nodes) Node(ctx context.Context, c image.Child, level int) (*image.Node, error) {
	n, err := l.at(ctx, c, c.Place, level)
	for place, hops := c.Place, 0; err != nil && isDamage(err) && hops < maxMoves; hops++ {
		to, ok, unknown := l.store.movedTo(ctx, place)
		if unknown != nil {
			return nil, unknown
		}
		if !ok {
			break
		}
		place = to
		if n, again := l.at(ctx, c, place, level); !isDamage(again) {
			return n, again
		}
	}
	if err == nil || l.store.index == nil || !isDamage(err) {
		return n, err
	}
	if place, ok, lookup := l.store.index.Lookup(c.Hash); lookup == nil && ok && place != c.Place {
		if n, again := l.at(ctx, c, place, level); again == nil {
			return n, nil
		}
	}
	return nil, err
}

func (l nodes) at(ctx context.Context, c image.Child, place pack.Place, level int) (*image.Node, error) {
	s := l.store
	stored, err := s.nodeFrame(ctx, place)
	if err != nil {
		return nil, err
	}
	name := packName(seal.MetadataPack, place.Pack)
	if int(place.Slot) >= len(stored) {
		return nil, s.damaged(name, fmt.Errorf("the frame at offset %d has %d nodes, not %d", place.Offset, len(stored), place.Slot+1))
	}
	n := new(image.Node)
	if err := image.ParseNode(stored[place.Slot], n); err != nil {
		return nil, s.explain(name, err)
	}
	if n.Level != level || n.Hash(s.hasher(nodeDomain)) != c.Hash {
		return nil, s.damaged(name, fmt.Errorf("the node in frame %d, slot %d is not the one that its parent names", place.Offset, place.Slot))
	}
	return n, nil
}

// nodeFrame reads a metadata frame and splits it into its nodes.
func (s *Store) nodeFrame(ctx context.Context, place pack.Place) ([][]byte, error) {
	place.Slot = 0
	if stored, ok := s.frames.get(place); ok {
		return stored, nil
	}
	name := packName(seal.MetadataPack, place.Pack)
	if place.IsZero() || place.Length > maxNodeFrame {
		return nil, s.damaged(name, fmt.Errorf("a place names a frame of %d bytes", place.Length))
	}
	key, err := s.packKey(ctx, seal.MetadataPack, place.Pack)
	if err != nil {
		return nil, err
	}
	sealed := make([]byte, place.Length)
	if err := s.bucket.Get(ctx, name, int64(place.Offset), sealed); err != nil {
		return nil, err
	}
	plain, err := key.Open(sealed[:0], sealed, int64(place.Offset))
	if err != nil {
		return nil, s.explain(name, err)
	}
	d := seal.NewDecoder(maxNodeFrame)
	defer d.Close()
	payload, pieces, err := d.Decode(make([]byte, 0, maxNodeFrame), plain)
	if err != nil {
		return nil, s.explain(name, err)
	}
	stored, err := image.SplitNodes(payload, pieces)
	if err != nil {
		return nil, s.explain(name, err)
	}
	s.frames.put(place, stored, maxNodeFrame)
	return stored, nil
}
