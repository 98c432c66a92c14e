package store

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
)

// ID is the identity of a store, a realm, a recovery point or a record: 16
// random bytes, written as 32 hex digits.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText writes 32 hex digits.
func (id ID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText reads 32 hex digits.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) != 32 {
		return fmt.Errorf("%q is not an ID of 32 hex digits", text)
	}
	_, err := hex.Decode(id[:], text)
	return err
}

// ParseID reads 32 hex digits.
func ParseID(s string) (id ID, err error) {
	err = id.UnmarshalText([]byte(s))
	return id, err
}

// FormatVersion is the version of the format that this code reads and writes.
const FormatVersion = 1

// Header is what anybody can read of a store, without a key.
type Header struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	StoreID ID        `json:"storeId"`
	RealmID ID        `json:"realmId"`
	Created time.Time `json:"created"`
}

const (
	formatName    = "diskvault store"
	headerKey     = "store"
	maxHeaderSize = 64 << 10
)

// Identify reads the header of the store in the bucket. Errors: StoreNotFound,
// StoreVersionUnsupported, StoreDamaged.
func Identify(ctx context.Context, b bucket.Bucket) (Header, error) {
	var h Header
	text, err := bucket.ReadAll(ctx, b, headerKey, maxHeaderSize)
	if errors.Is(err, bucket.ErrNotFound) {
		return h, problem.New(problem.StoreNotFound, "There is no store at %s.", b.URL())
	}
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(text, &h); err != nil || h.Format != formatName {
		return h, problem.Wrap(err, problem.StoreDamaged, "The header of the store at %s cannot be read.", b.URL())
	}
	if h.Version != FormatVersion {
		return h, problem.New(problem.StoreVersionUnsupported, "The store at %s has format version %d; this diskvault knows version %d.", b.URL(), h.Version, FormatVersion)
	}
	return h, nil
}
