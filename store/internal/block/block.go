// Package block holds the unit of identity: its hash, the keys under which it
// is taken, and the test for zeros.
package block

import (
	"bytes"
	"encoding/hex"
	"fmt"

	"github.com/zeebo/blake3"
)

// Hash identifies a block or a subtree. The all-zero hash stands for a block,
// or a subtree of any height, that holds nothing but zeros.
type Hash [32]byte

// IsZero tells whether the hash stands for zeros.
func (h Hash) IsZero() bool { return h == Hash{} }

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Limits and the default of the block size, which a realm fixes for ever.
const (
	MinSize     = 16 << 10
	DefaultSize = 64 << 10
	MaxSize     = 1 << 20
)

// ValidSize tells whether a realm may use the block size.
func ValidSize(n int) bool { return n >= MinSize && n <= MaxSize && n&(n-1) == 0 }

// Hasher takes keyed BLAKE3 hashes in one domain. It is for one goroutine.
type Hasher struct{ h *blake3.Hasher }

// NewHasher derives the domain's key from the realm's identity key, so that
// hashes of different domains never meet, and an outsider without the key
// cannot test whether a store holds a known block.
func NewHasher(identityKey [32]byte, domain string) *Hasher {
	var key [32]byte
	blake3.DeriveKey("diskvault 2026-11 identity: "+domain, identityKey[:], key[:])
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	return &Hasher{h}
}

// Sum hashes the parts in order.
func (h *Hasher) Sum(parts ...[]byte) (sum Hash) {
	h.h.Reset()
	for _, p := range parts {
		h.h.Write(p)
	}
	h.h.Sum(sum[:0])
	return sum
}

var zeros [MaxSize]byte

// IsZero tells whether p, of at most MaxSize bytes, holds nothing but zeros.
func IsZero(p []byte) bool { return bytes.Equal(p, zeros[:len(p)]) }

// MarshalText writes the hash as 64 hex digits.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads 64 hex digits.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("a hash has 64 hex digits, not %d", len(text))
	}
	_, err := hex.Decode(h[:], text)
	return err
}
