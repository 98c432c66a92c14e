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
	"github.com/diskvault/diskvault/store/internal/seal"
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
// StoreVersionUnsupported, StoreDamaged; the last one too where there is no
// header but what only a store holds, see MendHeader.
func Identify(ctx context.Context, b bucket.Bucket) (Header, error) {
	var h Header
	text, err := bucket.ReadAll(ctx, b, headerKey, maxHeaderSize)
	if errors.Is(err, bucket.ErrNotFound) {
		return h, noHeader(ctx, b)
	}
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(text, &h); err != nil || h.Format != formatName {
		return h, problem.Wrap(err, problem.StoreDamaged, "The header of the store at %s is damaged.", b.URL()).Do(mendActions...)
	}
	if h.Version != FormatVersion {
		return h, problem.New(problem.StoreVersionUnsupported, "The store at %s has format version %d; this diskvault knows version %d.", b.URL(), h.Version, FormatVersion)
	}
	return h, nil
}

// mendActions say how a header comes back.
var mendActions = []string{"Open the store with its recovery key or a passphrase, which mends the header: `diskvault store check URL --key-file FILE`."}

// noHeader tells a place without a store from a store without its header: to
// take the one for the other would make a new store over the keys of the old.
func noHeader(ctx context.Context, b bucket.Bucket) error {
	for _, prefix := range []string{dataPrefix, metadataPrefix, pointPrefix} {
		for _, err := range b.List(ctx, prefix, "") {
			if err != nil {
				return err
			}
			return problem.New(problem.StoreDamaged, "The header of the store at %s is missing; its other objects are there.", b.URL()).Do(mendActions...)
		}
	}
	return problem.New(problem.StoreNotFound, "There is no store at %s.", b.URL())
}

// MendHeader makes the header of a store anew, if it is missing or wrong, from
// what a key of the store and a copy of the realm tell; both are authenticated. It
// tells whether it had to. Errors: those of Identify where the key opens
// nothing, since the header is then all that is known to be wrong.
func MendHeader(ctx context.Context, b bucket.Bucket, k Key) (mended bool, err error) {
	old, damage := Identify(ctx, b)
	if damage != nil && !problem.Is(damage, problem.StoreDamaged) {
		return false, damage
	}
	w, err := unwrapAny(ctx, b, k)
	if err != nil {
		return false, errors.Join(damage, err)
	}
	realm, err := realmBy(ctx, b, w)
	if err != nil {
		return false, errors.Join(damage, err)
	}
	now := Header{Format: formatName, Version: FormatVersion, StoreID: w.StoreID, RealmID: realm.RealmID, Created: w.Created}
	if damage == nil && old.StoreID == now.StoreID && old.RealmID == now.RealmID {
		return false, nil
	}
	if err := b.Delete(ctx, headerKey); err != nil {
		return false, err
	}
	return true, putHeader(ctx, b, now)
}

// realmBy reads the realm without knowing its ID, which both of its copies tell
// and have authenticated.
func realmBy(ctx context.Context, b bucket.Bucket, w wrapped) (realm realmDocument, err error) {
	secret := func(uint32) ([32]byte, error) { return [32]byte(w.RootSecret), nil }
	var failed error
	for _, name := range []string{realmKey, secondPrefix + realmKey} {
		object, err := bucket.ReadAll(ctx, b, name, maxControlSize)
		if err == nil {
			var sealed seal.Header
			if sealed, err = seal.HeaderOf(object); err == nil {
				err = seal.OpenDocument(object, seal.Realm, sealed.ID, w.StoreID, secret, &realm)
			}
		}
		if err == nil {
			return realm, nil
		}
		failed = errors.Join(failed, err)
	}
	return realm, failed
}

func putHeader(ctx context.Context, b bucket.Bucket, h Header) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return b.Put(ctx, headerKey, [][]byte{append(text, '\n')})
}
