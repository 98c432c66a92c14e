package store

import (
	"context"

	"github.com/diskvault/diskvault/store/internal/image"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// baseNodes loads the nodes of a writer's base. Whatever they name may end up
// in the new tree, so the writer refers to it from then on. The session keeps
// what the base shows, but not the places that these nodes name: once a node was
// moved, what tells where the old one's children went is kept by nobody else.
type baseNodes struct{ w *Writer }

// Node is described at image.Loader.
func (l baseNodes) Node(ctx context.Context, c image.Child, level int) (*image.Node, error) {
	for again := false; ; again = true {
		n, err := nodes{l.w.store}.Node(ctx, c, level)
		if err != nil {
			return nil, err
		}
		ok := true
		for k := range n.Children {
			if c := &n.Children[k]; ok && !c.Hash.IsZero() && !c.Place.IsZero() {
				if c.Place, ok, err = l.w.referTo(ctx, c.Place, again); err != nil {
					return nil, err
				}
			}
		}
		if ok {
			return n, nil
		}
		// It may be remembered from before it was moved.
		c := c.Place
		c.Slot = 0
		l.w.store.frames.remove(c)
	}
}

// referTo gives a place by which the writer may refer to a piece of its base, now
// and later: the one given, or where the piece was moved to. certain tells that it
// was read in the store just now: then it is reached from the base, which the
// session keeps, even if it came to be used only after its pack was condemned.
func (w *Writer) referTo(ctx context.Context, p pack.Place, certain bool) (pack.Place, bool, error) {
	at := p
	for range maxMoves {
		if w.clear.use(at.Pack) {
			return at, true, nil
		}
		to, ok, err := w.store.movedTo(ctx, at)
		if err != nil {
			return p, false, err
		}
		if !ok {
			break
		}
		at = to
	}
	if certain {
		w.clear.own(at.Pack)
	}
	return at, certain, nil
}

// takeBase makes the base ready to be taken over from, now that the session is
// there and the index up to date.
func (w *Writer) takeBase(ctx context.Context) error {
	if w.options.Base == nil {
		return nil
	}
	base := *w.options.Base.tree
	if guardPlaces {
		base.Loader = baseNodes{w}
	}
	if !base.TopNode.Hash.IsZero() {
		var err error
		if base.TopNode.Place, _, err = w.referTo(ctx, base.TopNode.Place, true); err != nil {
			return err
		}
	}
	w.base = &base
	return nil
}
