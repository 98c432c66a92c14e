// Package image holds the Merkle tree over the blocks of a disk: its shape,
// its nodes, and the builder that makes a tree from runs of blocks, zeros and
// unchanged ranges of another tree. docs/format.md, sections 5 and 7, is its
// specification.
package image

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// Fanout is how many children a node has.
const Fanout = 128

// Child is a block or a subtree, and where it lies. Its zero value is zeros.
type Child struct {
	Hash  block.Hash
	Place pack.Place // a hint; outside the identity
}

// Node is an inner vertex of the tree.
type Node struct {
	Level    int // 0: the children are blocks
	Children [Fanout]Child
}

// Hash identifies the node by its children alone; a node of zeros is zero.
func (n *Node) Hash(h *block.Hasher) block.Hash {
	var buf [1 + Fanout/8 + Fanout*32]byte
	identity := n.appendIdentity(buf[:0])
	if len(identity) == 1+Fanout/8 {
		return block.Hash{}
	}
	return h.Sum(identity)
}

func (n *Node) appendIdentity(dst []byte) []byte {
	dst = append(dst, byte(n.Level))
	bitmap := len(dst)
	dst = append(dst, make([]byte, Fanout/8)...)
	for i := range n.Children {
		if h := &n.Children[i].Hash; !h.IsZero() {
			dst[bitmap+i/8] |= 1 << (i % 8)
			dst = append(dst, h[:]...)
		}
	}
	return dst
}

const unknownRow = 255

type row struct {
	pack           pack.ID
	offset, length uint32
}

// AppendTo writes the stored form of the node behind dst.
func (n *Node) AppendTo(dst []byte) []byte {
	start := len(dst)
	dst = n.appendIdentity(append(dst, 0)) // one byte more, for the encoding
	dst[start], dst[start+1] = byte(n.Level), 0

	var packs []pack.ID
	var rows []row
	packOf := make([]byte, 0, Fanout)
	var slots [2 * Fanout]byte
	children := slots[:0]
	for i := range n.Children {
		c := &n.Children[i]
		if c.Hash.IsZero() {
			continue
		}
		if c.Place.IsZero() {
			children = append(children, unknownRow, 0)
			continue
		}
		want := row{c.Place.Pack, c.Place.Offset, c.Place.Length}
		k := lastIndex(rows, want)
		if k < 0 {
			p := lastIndex(packs, want.pack)
			if p < 0 {
				p = len(packs)
				packs = append(packs, want.pack)
			}
			k = len(rows)
			rows = append(rows, want)
			packOf = append(packOf, byte(p))
		}
		children = append(children, byte(k), c.Place.Slot)
	}
	dst = append(dst, byte(len(packs)))
	for i := range packs {
		dst = append(dst, packs[i][:]...)
	}
	dst = append(dst, byte(len(rows)))
	for i, r := range rows {
		dst = append(dst, packOf[i])
		dst = binary.LittleEndian.AppendUint32(dst, r.offset)
		dst = binary.LittleEndian.AppendUint32(dst, r.length)
	}
	return append(dst, children...)
}

// lastIndex looks from the end, since neighbours tend to lie together.
func lastIndex[T comparable](s []T, v T) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == v {
			return i
		}
	}
	return -1
}

// ParseNode reads the stored form of a node into n.
func ParseNode(b []byte, n *Node) error {
	*n = Node{}
	if len(b) < 2+Fanout/8 {
		return fmt.Errorf("node of %d bytes: %w", len(b), seal.ErrDamaged)
	}
	if b[1] != 0 {
		return fmt.Errorf("node encoding %d: %w", b[1], seal.ErrUnsupported)
	}
	n.Level = int(b[0])
	bitmap := b[2 : 2+Fanout/8]
	count := 0
	for _, x := range bitmap {
		count += bits.OnesCount8(x)
	}
	b = b[2+Fanout/8:]
	hashes, b, ok := take(b, count*32)
	packs, b, ok := takeTable(b, 16, ok)
	rows, b, ok := takeTable(b, 9, ok)
	if !ok || len(b) != 2*count {
		return fmt.Errorf("node ends too early or too late: %w", seal.ErrDamaged)
	}
	k := 0
	for i := range n.Children {
		if bitmap[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		c := &n.Children[i]
		copy(c.Hash[:], hashes[k*32:])
		if c.Hash.IsZero() {
			return fmt.Errorf("node holds a hash of zero: %w", seal.ErrDamaged)
		}
		r, slot := int(b[2*k]), b[2*k+1]
		k++
		if r == unknownRow {
			continue
		}
		if r*9 >= len(rows) || int(rows[r*9])*16 >= len(packs) {
			return fmt.Errorf("node names a place that is not in its table: %w", seal.ErrDamaged)
		}
		c.Place.Offset = binary.LittleEndian.Uint32(rows[r*9+1:])
		c.Place.Length = binary.LittleEndian.Uint32(rows[r*9+5:])
		c.Place.Slot = slot
		copy(c.Place.Pack[:], packs[int(rows[r*9])*16:])
	}
	return nil
}

func take(b []byte, n int) (taken, rest []byte, ok bool) {
	if len(b) < n {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// takeTable takes a table of rows of the given width behind its count.
func takeTable(b []byte, width int, ok bool) (table, rest []byte, _ bool) {
	if !ok || len(b) < 1 {
		return nil, nil, false
	}
	return take(b[1:], int(b[0])*width)
}

// SplitNodes cuts the payload of a metadata frame into the stored nodes.
func SplitNodes(payload []byte, pieces int) ([][]byte, error) {
	nodes := make([][]byte, 0, pieces)
	for range pieces {
		if len(payload) < 4 {
			return nil, fmt.Errorf("node frame ends too early: %w", seal.ErrDamaged)
		}
		n := int(binary.LittleEndian.Uint32(payload))
		if n < 0 || n > len(payload)-4 {
			return nil, fmt.Errorf("node of %d bytes in %d: %w", n, len(payload), seal.ErrDamaged)
		}
		nodes = append(nodes, payload[4:4+n])
		payload = payload[4+n:]
	}
	if len(payload) != 0 {
		return nil, fmt.Errorf("%d bytes behind the last node: %w", len(payload), seal.ErrDamaged)
	}
	return nodes, nil
}
