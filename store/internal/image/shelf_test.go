package image

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// shelf keeps metadata frames in memory: it is the Sink and the Loader of these
// tests. Nodes pass through their stored form.
type shelf struct {
	frames map[pack.Place][]byte // by place of the first piece
	pieces map[pack.Place]int
	places map[block.Hash]pack.Place
	knows  bool // answer Known

	lost  map[pack.Place]bool // frames that cannot be read
	stale bool                // Serves says no
	bad   map[pack.ID]bool    // packs that are distrusted
	nodes int                 // stored so far
	loads int                 // read so far
}

func newShelf() *shelf {
	return &shelf{frames: map[pack.Place][]byte{}, pieces: map[pack.Place]int{}, places: map[block.Hash]pack.Place{}, lost: map[pack.Place]bool{}}
}

var errLost = errors.New("lost")

func (s *shelf) Known(h block.Hash) (pack.Place, bool) {
	p, ok := s.places[h]
	return p, ok && s.knows
}

func (s *shelf) Serves(ctx context.Context, c Child, n *Node, _ bool) (bool, error) {
	if s.stale || len(s.bad) == 0 {
		return !s.stale, nil
	}
	stored, err := s.Node(ctx, c, n.Level)
	return !s.bad[c.Place.Pack] && err == nil && stored.Children == n.Children, nil
}

func (s *shelf) Damaged(err error) bool { return errors.Is(err, errLost) }

func (s *shelf) Distrusted() map[pack.ID]bool { return s.bad }

func (s *shelf) Frame(_ context.Context, payload []byte, hashes []block.Hash) (pack.Place, error) {
	var p pack.Place
	binary.LittleEndian.PutUint32(p.Pack[:], uint32(len(s.frames)))
	p.Pack[8] = 1 // no pack of blocks
	p.Length = uint32(len(payload))
	s.frames[p] = append([]byte(nil), payload...)
	s.pieces[p] = len(hashes)
	for i, h := range hashes {
		s.places[h] = p.Piece(i)
	}
	s.nodes += len(hashes)
	return p, nil
}

func (s *shelf) Node(_ context.Context, c Child, level int) (*Node, error) {
	s.loads++
	at := c.Place.Piece(0)
	frame, ok := s.frames[at]
	if !ok || s.lost[at] {
		return nil, fmt.Errorf("%v: %w", c.Place, errLost)
	}
	stored, err := SplitNodes(frame, s.pieces[at])
	if err != nil {
		return nil, err
	}
	n := new(Node)
	if err := ParseNode(stored[c.Place.Slot], n); err != nil {
		return nil, err
	}
	if n.Level != level || n.Hash(testHasher()) != c.Hash {
		return nil, fmt.Errorf("%v holds another node", c.Place)
	}
	return n, nil
}

func testHasher() *block.Hasher { return block.NewHasher([32]byte{1}, "node") }

// blockNumber makes a block with this content; equal numbers are equal blocks,
// and 0 is zeros.
func blockNumber(n uint32) (c Child) {
	if n == 0 {
		return c
	}
	binary.LittleEndian.PutUint32(c.Hash[:], n)
	c.Hash[31] = 1
	c.Place = pack.Place{Offset: n, Length: 1 + n%7, Slot: uint8(n)}
	c.Place.Pack[0] = uint8(n >> 4)
	return c
}

// naive computes the hash of the top node from the definition of docs/format.md,
// section 5, block by block.
func naive(blocks []Child, top int) block.Hash {
	h := testHasher()
	hashes := make([]block.Hash, len(blocks))
	for i := range blocks {
		hashes[i] = blocks[i].Hash
	}
	for level := 0; level <= top; level++ {
		var above []block.Hash
		for at := 0; at < len(hashes) || at == 0; at += 128 {
			var bitmap [16]byte
			var children []byte
			for i, c := range hashes[min(at, len(hashes)):min(at+128, len(hashes))] {
				if c != (block.Hash{}) {
					bitmap[i/8] |= 1 << (i % 8)
					children = append(children, c[:]...)
				}
			}
			var sum block.Hash
			if children != nil {
				sum = h.Sum([]byte{byte(level)}, bitmap[:], children)
			}
			above = append(above, sum)
		}
		hashes = above
	}
	return hashes[0]
}

// seeds is how many seeds a property is tried with: usual, or as many as
// DISKVAULT_SEEDS says.
func seeds(t *testing.T, usual uint64) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(os.Getenv("DISKVAULT_SEEDS"), 10, 64)
	if err != nil {
		return usual
	}
	return n
}
