package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"crypto/rand"

	"filippo.io/age"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
)

// KeyType says what a key is for.
type KeyType string

const (
	LocalKey    KeyType = "local"      // lies on the machine and opens daily runs
	RecoveryKey KeyType = "recovery"   // shown once, kept by a person
	Passphrase  KeyType = "passphrase" // kept in a person's head
)

// Key opens a store. Make one with ParseKey.
type Key struct {
	identity   *age.X25519Identity // or
	passphrase string
}

// ParseKey reads a local or recovery key, which begins with AGE-SECRET-KEY-1;
// lines that begin with # are comments. Any other text is a passphrase.
func ParseKey(text string) (Key, error) {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	body := strings.Join(lines, "\n")
	if body == "" {
		return Key{}, problem.New(problem.KeyMissing, "The key is empty.")
	}
	if !strings.HasPrefix(strings.ToUpper(body), "AGE-SECRET-KEY-1") {
		return Key{passphrase: body}, nil
	}
	id, err := age.ParseX25519Identity(body)
	if err != nil {
		return Key{}, problem.Wrap(err, problem.KeyWrong, "The key has a typing error.")
	}
	return Key{identity: id}, nil
}

func newIdentity() (Key, string, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return Key{}, "", err
	}
	return Key{identity: id}, id.String(), nil
}

// fits tells whether keys of the type can be this key at all; a passphrase is
// tried only where one was set, since each try costs a second.
func (k Key) fits(t KeyType) bool { return (k.identity == nil) == (t == Passphrase) }

func (k Key) recipient() (age.Recipient, error) {
	if k.identity != nil {
		return k.identity.Recipient(), nil
	}
	r, err := age.NewScryptRecipient(k.passphrase)
	if err != nil {
		return nil, err
	}
	r.SetWorkFactor(passphraseWork)
	return r, nil
}

func (k Key) ageIdentity() (age.Identity, error) {
	if k.identity != nil {
		return k.identity, nil
	}
	id, err := age.NewScryptIdentity(k.passphrase)
	if err != nil {
		return nil, err
	}
	// A hostile object could ask for so much work that the memory runs out.
	id.SetMaxWorkFactor(maxPassphraseWork)
	return id, nil
}

// maxPassphraseWork is the binary logarithm of scrypt's N: a second and 256 MiB.
const maxPassphraseWork = 18

// passphraseWork is that of new keys; tests lower it.
var passphraseWork = maxPassphraseWork

// wrapped is what a key protects.
type wrapped struct {
	StoreID    ID        `json:"storeId"`
	RootSecret []byte    `json:"rootSecret"`
	Created    time.Time `json:"created"`
}

func (k Key) wrap(w wrapped) ([]byte, error) {
	r, err := k.recipient()
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	sealed, err := age.Encrypt(&out, r)
	if err != nil {
		return nil, err
	}
	if _, err := sealed.Write(body); err != nil {
		return nil, err
	}
	if err := sealed.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// errOtherKey: the object was wrapped for another key.
var errOtherKey = errors.New("wrapped for another key")

func (k Key) unwrap(object []byte) (w wrapped, err error) {
	id, err := k.ageIdentity()
	if err != nil {
		return w, err
	}
	plain, err := age.Decrypt(bytes.NewReader(object), id)
	if err != nil {
		if noMatch := (*age.NoIdentityMatchError)(nil); errors.As(err, &noMatch) {
			return w, errOtherKey
		}
		return w, err
	}
	body, err := io.ReadAll(plain)
	if err != nil {
		return w, err
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return w, err
	}
	if len(w.RootSecret) != 32 {
		return w, fmt.Errorf("a root secret of %d bytes", len(w.RootSecret))
	}
	return w, nil
}

// KeySlot is a key that opens the store, as the store knows it.
type KeySlot struct {
	ID      string    `json:"id"`
	Type    KeyType   `json:"type"`
	Created time.Time `json:"created"` // by the store's clock
}

const (
	keyPrefix  = "keys/"
	maxKeySize = 64 << 10
)

func keySlots(ctx context.Context, b bucket.Bucket) ([]KeySlot, error) {
	var slots []KeySlot
	for o, err := range b.List(ctx, keyPrefix, "") {
		if err != nil {
			return nil, err
		}
		id := strings.TrimPrefix(o.Key, keyPrefix)
		t, _, ok := strings.Cut(id, "-")
		if ok {
			slots = append(slots, KeySlot{id, KeyType(t), o.Stored})
		}
	}
	return slots, nil
}

// unlock finds the root secret of the store with the key.
func unlock(ctx context.Context, b bucket.Bucket, h Header, k Key) (root [32]byte, err error) {
	w, err := unwrapFor(ctx, b, k, func(w wrapped) error {
		if w.StoreID != h.StoreID {
			return fmt.Errorf("it is a key of the store %s, and the header names %s", w.StoreID, h.StoreID)
		}
		return nil
	})
	if err == nil {
		copy(root[:], w.RootSecret)
	}
	return root, err
}

// unwrapAny opens what the key protects, of whatever store it is.
func unwrapAny(ctx context.Context, b bucket.Bucket, k Key) (wrapped, error) {
	return unwrapFor(ctx, b, k, func(wrapped) error { return nil })
}

// unwrapFor opens the first key object that the key opens and that suits.
func unwrapFor(ctx context.Context, b bucket.Bucket, k Key, suits func(wrapped) error) (w wrapped, err error) {
	slots, err := keySlots(ctx, b)
	if err != nil {
		return w, err
	}
	var damaged error
	for _, slot := range slots {
		if !k.fits(slot.Type) {
			continue
		}
		object, err := bucket.ReadAll(ctx, b, keyPrefix+slot.ID, maxKeySize)
		if err != nil {
			return w, err
		}
		w, err := k.unwrap(object)
		if errors.Is(err, errOtherKey) {
			continue
		}
		if err == nil {
			err = suits(w)
		}
		if err != nil {
			damaged = errors.Join(damaged, fmt.Errorf("%s%s: %w", keyPrefix, slot.ID, err))
			continue
		}
		return w, nil
	}
	if damaged != nil {
		return w, problem.Wrap(damaged, problem.StoreDamaged, "A key object of the store at %s does not hold what was written to it, and no other opens with this key.", b.URL()).
			Do("Open the store with another of its keys: the recovery key or a passphrase, with --key-file. This machine then gets a new key of its own.")
	}
	return w, problem.New(problem.KeyWrong, "This key does not open the store at %s.", b.URL())
}

// Opens tells whether a key opens the store. A key whose object is damaged does
// not.
func (s *Store) Opens(ctx context.Context, k Key) (bool, error) {
	_, err := unlock(ctx, s.bucket, s.header, k)
	if problem.Is(err, problem.KeyWrong) || problem.Is(err, problem.StoreDamaged) {
		return false, nil
	}
	return err == nil, err
}

// Keys lists the keys of the store.
func (s *Store) Keys(ctx context.Context) ([]KeySlot, error) { return keySlots(ctx, s.bucket) }

// AddIdentity makes a new local or recovery key. The secret is returned once
// and kept nowhere.
func (s *Store) AddIdentity(ctx context.Context, t KeyType) (slot KeySlot, secret string, err error) {
	k, secret, err := newIdentity()
	if err != nil {
		return slot, "", err
	}
	slot, err = s.addKey(ctx, k, t)
	return slot, secret, err
}

// AddPassphrase lets the passphrase open the store from now on.
func (s *Store) AddPassphrase(ctx context.Context, passphrase string) (KeySlot, error) {
	k, err := ParseKey(passphrase)
	if err != nil {
		return KeySlot{}, err
	}
	if k.identity != nil {
		return KeySlot{}, problem.New(problem.InvalidArgument, "A passphrase must not look like a key.")
	}
	return s.addKey(ctx, k, Passphrase)
}

func (s *Store) addKey(ctx context.Context, k Key, t KeyType) (KeySlot, error) {
	return putKey(ctx, s.bucket, k, t, wrapped{s.header.StoreID, s.root[:], time.Now().UTC()})
}

func putKey(ctx context.Context, b bucket.Bucket, k Key, t KeyType, w wrapped) (KeySlot, error) {
	object, err := k.wrap(w)
	if err != nil {
		return KeySlot{}, err
	}
	var suffix [4]byte
	rand.Read(suffix[:])
	slot := KeySlot{ID: string(t) + "-" + hex.EncodeToString(suffix[:]), Type: t, Created: w.Created}
	return slot, b.Put(ctx, keyPrefix+slot.ID, [][]byte{object})
}

// RemoveKey makes a key useless for this store. The last key that a person
// could open it with is kept: KeyLast.
func (s *Store) RemoveKey(ctx context.Context, id string) error {
	slots, err := s.Keys(ctx)
	if err != nil {
		return err
	}
	found, others := false, 0
	for _, slot := range slots {
		if slot.ID == id {
			found = true
		} else if slot.Type != LocalKey {
			others++
		}
	}
	if !found {
		return problem.New(problem.KeyMissing, "The store at %s has no key %s.", s.URL(), id).Do("List its keys: diskvault store key list.")
	}
	if others == 0 {
		return problem.New(problem.KeyLast, "%s is the last key that opens the store at %s without this machine.", id, s.URL())
	}
	return s.bucket.Delete(ctx, keyPrefix+id)
}
