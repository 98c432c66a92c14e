package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"

	"github.com/zeebo/blake3"
)

// Overhead is by how many bytes a sealed frame is longer than its plain text.
const Overhead = 16

// Key seals and opens the frames of one object. It is safe for concurrent use.
type Key struct {
	aead  cipher.AEAD
	extra []byte
}

// ObjectKey derives the key of the object with this header from the data key
// of its epoch, or from the root secret.
func ObjectKey(secret [32]byte, storeID [16]byte, h Header) *Key {
	material := make([]byte, 0, 32+16+HeaderSize)
	material = append(material, secret[:]...)
	material = append(material, storeID[:]...)
	material = h.AppendTo(material)
	var key [32]byte
	blake3.DeriveKey("diskvault 2026-11 object key", material, key[:])
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has blocks of 16 bytes
	}
	extra := append(append([]byte(nil), storeID[:]...), byte(h.Kind), h.Version)
	return &Key{aead, extra}
}

// Seal appends the sealed form of the plain frame to dst. Frames of one object
// never overlap, so their offsets make nonces that are used once.
func (k *Key) Seal(dst, plain []byte, offset int64) []byte {
	return k.aead.Seal(dst, nonce(offset), plain, k.extra)
}

// Open appends the plain form of the sealed frame at the offset to dst, or
// returns ErrDamaged.
func (k *Key) Open(dst, sealed []byte, offset int64) ([]byte, error) {
	plain, err := k.aead.Open(dst, nonce(offset), sealed, k.extra)
	if err != nil {
		return nil, fmt.Errorf("frame at offset %d: %w", offset, ErrDamaged)
	}
	return plain, nil
}

func nonce(offset int64) []byte {
	var n [12]byte
	binary.LittleEndian.PutUint64(n[4:], uint64(offset))
	return n[:]
}
