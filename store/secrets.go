package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/seal"
)

const (
	realmKey       = "realm"
	epochPrefix    = "epochs/"
	maxControlSize = 1 << 20
)

// secondPrefix is where the second copies of the secrets lie. Nothing else in a
// store can be read without these, and they cannot be made anew.
const secondPrefix = "copies/"

type realmDocument struct {
	RealmID     ID     `json:"realmId"`
	IdentityKey []byte `json:"identityKey"`
	BlockSize   int    `json:"blockSize"`
}

type epochDocument struct {
	Epoch   uint32    `json:"epoch"`
	Key     []byte    `json:"key"`
	Created time.Time `json:"created"`
}

func epochKey(n uint32) string { return fmt.Sprintf("%s%08d", epochPrefix, n) }

func (d realmDocument) rightFor(id ID) error {
	if len(d.IdentityKey) != 32 || !block.ValidSize(d.BlockSize) || d.RealmID != id {
		return errors.New("its fields cannot be right")
	}
	return nil
}

func (d epochDocument) rightFor(key string) error {
	if len(d.Key) != 32 || epochKey(d.Epoch) != key {
		return errors.New("its fields cannot be right")
	}
	return nil
}

// secret is the realm or the key of an epoch, as it was read: both of its
// copies can be put anew from it. The root secret seals it.
type secret struct {
	kind     seal.Kind
	id       ID
	document any
}

// putSecret puts both copies. Nothing may be sealed under the key of an epoch
// before it returns.
func putSecret(ctx context.Context, b bucket.Bucket, root [32]byte, store ID, key string, s secret) error {
	for _, name := range []string{key, secondPrefix + key} {
		if err := s.put(ctx, b, root, store, name); err != nil {
			return err
		}
	}
	return nil
}

func (s secret) put(ctx context.Context, b bucket.Bucket, root [32]byte, store ID, name string) error {
	object, err := seal.SealDocument(root, store, seal.NewHeader(s.kind, 0, s.id), s.document)
	if err != nil {
		return err
	}
	return b.Put(ctx, name, [][]byte{object})
}

// readSecrets reads the realm and the keys of all epochs. One whose first copy
// is damaged or missing is read from the second, and the first is mended; one
// that has no second copy gets it. Only a store that is open for writing is
// mended.
func (s *Store) readSecrets(ctx context.Context, writing bool) error {
	there := map[string]bool{realmKey: true}
	var bad []string
	for _, prefix := range []string{epochPrefix, secondPrefix} {
		for o, err := range s.bucket.List(ctx, prefix, "") {
			if err != nil {
				return err
			}
			there[o.Key] = true
		}
	}
	keys := map[string]bool{realmKey: true}
	for name := range there {
		key := strings.TrimPrefix(name, secondPrefix)
		if n := listNumber(strings.TrimPrefix(key, epochPrefix)); strings.HasPrefix(key, epochPrefix) && n > 0 && epochKey(uint32(n)) == key {
			keys[key] = true
		}
	}
	s.secrets = map[string]secret{}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		damage, err := s.readSecret(ctx, key)
		if err != nil {
			return err
		}
		if damage != nil {
			bad = append(bad, key)
		} else if !there[secondPrefix+key] {
			bad = append(bad, secondPrefix+key)
		}
	}
	if s.epoch == 0 {
		return irreplaceable(epochKey(1), problem.New(problem.StoreObjectMissing, "The store at %s has no data key: its objects under %s are missing.", s.URL(), epochPrefix))
	}
	if !writing {
		return nil
	}
	for _, name := range bad {
		mended, err := s.mendSecret(ctx, name)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case strings.HasPrefix(name, secondPrefix):
			// A store that can only be read is as good without.
		case err != nil:
			s.notices = append(s.notices, fmt.Sprintf("The object %s of the store is damaged; its second copy is used. It could not be mended: %v", name, err))
		case mended:
			s.notices = append(s.notices, fmt.Sprintf("The object %s of the store was damaged and has been mended from its second copy.", name))
		}
	}
	return nil
}

// readSecret reads one secret from whichever copy is whole; damage is what is
// wrong with the first.
func (s *Store) readSecret(ctx context.Context, key string) (damage, err error) {
	v, damage := s.secretAt(ctx, key, key)
	if damage != nil {
		if !isDamage(damage) {
			return nil, damage
		}
		if v, err = s.secretAt(ctx, secondPrefix+key, key); err != nil {
			if isDamage(err) {
				err = irreplaceable(key, damage)
			}
			return nil, err
		}
	}
	s.secrets[key] = v
	switch d := v.document.(type) {
	case realmDocument:
		copy(s.identity[:], d.IdentityKey)
		s.blockSize = d.BlockSize
	case epochDocument:
		s.epochs[d.Epoch] = [32]byte(d.Key)
		s.epoch = max(s.epoch, d.Epoch)
	}
	return damage, nil
}

// secretAt reads the copy of a secret that lies under a name.
func (s *Store) secretAt(ctx context.Context, name, key string) (secret, error) {
	if key == realmKey {
		var d realmDocument
		err := s.readDocument(ctx, name, seal.Realm, s.header.RealmID, maxControlSize, &d)
		if err == nil {
			if err = d.rightFor(s.header.RealmID); err != nil {
				err = s.damaged(name, err)
			}
		}
		return secret{seal.Realm, s.header.RealmID, d}, err
	}
	var d epochDocument
	err := s.readDocument(ctx, name, seal.Epoch, ID{}, maxControlSize, &d)
	if err == nil {
		if err = d.rightFor(key); err != nil {
			err = s.damaged(name, err)
		}
	}
	return secret{seal.Epoch, ID{}, d}, err
}

// mendSecret makes the copy of a secret anew that lies under a name, unless it
// is whole. The other copy must have been read; that it is still there is looked
// at again, since for a moment this one is not.
func (s *Store) mendSecret(ctx context.Context, name string) (mended bool, err error) {
	key := strings.TrimPrefix(name, secondPrefix)
	_, err = s.secretAt(ctx, name, key)
	if err == nil || !isDamage(err) {
		return false, err
	}
	if !isMissing(err) {
		other := secondPrefix + key
		if name != key {
			other = key
		}
		if _, gone := s.secretAt(ctx, other, key); isMissing(gone) {
			// The damaged object goes only when a whole one is there.
			gone = s.secrets[key].put(ctx, s.bucket, s.root, s.header.StoreID, other)
			if gone != nil && !errors.Is(gone, bucket.ErrExists) {
				return false, gone
			}
		}
		if err := s.bucket.Delete(ctx, name); err != nil {
			return false, err
		}
	}
	err = s.secrets[key].put(ctx, s.bucket, s.root, s.header.StoreID, name)
	if errors.Is(err, bucket.ErrExists) {
		return true, nil // by another process
	}
	return err == nil, err
}

// mendSecrets makes all copies of secrets anew that are not whole, from what
// was read when the store was opened, and tells how many.
func (s *Store) mendSecrets(ctx context.Context) (mended int64, err error) {
	for _, key := range slices.Sorted(maps.Keys(s.secrets)) {
		for _, name := range []string{key, secondPrefix + key} {
			did, err := s.mendSecret(ctx, name)
			if err != nil {
				return mended, err
			}
			if did {
				mended++
			}
		}
	}
	return mended, nil
}

// irreplaceable gives damage of an object that all others need the next step
// that helps: no check and no backup can make it anew.
func irreplaceable(key string, err error) error {
	var p *problem.Error
	if isDamage(err) && errors.As(err, &p) {
		return p.Do(fmt.Sprintf("Put the object %s, or its second copy %s, back from a copy of the store or of its storage: nothing else in the store can be read without it, and nothing else has to be replaced.", key, secondPrefix+key))
	}
	return err
}
