package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// someNode has children at places known and unknown, alike and different.
func someNode(seed uint64) *Node {
	random := rand.New(rand.NewPCG(seed, 1))
	n := &Node{Level: random.IntN(5)}
	for i := range n.Children {
		if random.IntN(3) == 0 {
			continue
		}
		n.Children[i] = blockNumber(random.Uint32N(60))
		if random.IntN(5) == 0 {
			n.Children[i].Place = pack.Place{}
		}
	}
	return n
}

func TestANodeComesBackAsItWasWritten(t *testing.T) {
	for seed := range uint64(500) {
		n := someNode(seed)
		stored := n.AppendTo([]byte("before"))[len("before"):]
		var got Node
		if err := ParseNode(stored, &got); err != nil || got != *n {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func FuzzParseNode(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(someNode(seed).AppendTo(nil))
	}
	f.Add(new(Node).AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var n Node
		if err := ParseNode(b, &n); err != nil {
			if !errors.Is(err, seal.ErrDamaged) && !errors.Is(err, seal.ErrUnsupported) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		// Places are hints, and may be written in more than one way; what the
		// identity covers may not.
		if head := n.appendIdentity(nil); !bytes.Equal(head[1:], b[2:len(head)+1]) || head[0] != b[0] {
			t.Fatal("the same identity is written in two ways")
		}
		var again Node
		if err := ParseNode(n.AppendTo(nil), &again); err != nil {
			t.Fatalf("a node that was read cannot be written: %v", err)
		}
		for i := range n.Children {
			a, b := n.Children[i], again.Children[i]
			if a.Hash != b.Hash || a.Place != b.Place && !(a.Place.IsZero() && b.Place.IsZero()) {
				t.Fatalf("child %d was %v and became %v", i, a, b)
			}
		}
		if h := testHasher(); n.Hash(h) != again.Hash(h) {
			t.Fatal("its hash changed")
		}
	})
}

func FuzzSplitNodes(f *testing.F) {
	frame := func(parts ...string) (b []byte) {
		for _, p := range parts {
			b = append(binary.LittleEndian.AppendUint32(b, uint32(len(p))), p...)
		}
		return b
	}
	f.Add(frame("a", "", "bcd"), 3)
	f.Add(frame("a", "b"), 3)
	f.Add(binary.LittleEndian.AppendUint32(nil, 1<<32-1), 1)
	f.Fuzz(func(t *testing.T, payload []byte, pieces int) {
		pieces &= 255 // a byte in the format
		nodes, err := SplitNodes(payload, pieces)
		if err != nil {
			if !errors.Is(err, seal.ErrDamaged) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		var parts []string
		for _, n := range nodes {
			parts = append(parts, string(n))
		}
		if len(nodes) != pieces || !bytes.Equal(frame(parts...), payload) {
			t.Fatalf("%x reads as %d nodes %q", payload, pieces, parts)
		}
	})
}
