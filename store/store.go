// Package store is the repository: content-addressed, encrypted, and complete
// in itself. It keeps images of disks as Merkle trees over fixed blocks,
// recovery points that name their roots, and sealed configuration records.
//
// The bytes of every object are specified in docs/format.md, what happens when
// operations meet in docs/design/concurrency.md. The life of a block: an
// Encoder hashes it, a Writer decides that it is new, seals it into a frame of
// a pack and puts the pack; the tree above it is stored in metadata packs; one
// put of a Point makes all of it exist. A Reader goes the way back.
package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/index"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// Store is an open store. Its methods are safe for concurrent use.
type Store struct {
	bucket    bucket.Bucket
	header    Header
	root      [32]byte // the root secret
	identity  [32]byte // the realm's identity key
	blockSize int
	secrets   map[string]secret // by key; what the fields around were read from
	epochs    map[uint32][32]byte
	epoch     uint32     // the newest, for new objects
	index     blockIndex // nil: opened for reading only
	indexDir  string
	host      string // as sessions tell it; empty is as good
	owner     ID     // of the folder with the index; see readOwner
	keys      *packKeys
	frames    *frameCache
	moves     moves
	live      liveSessions
	swept     int  // the collect epoch at which frames and moves were dropped last; guarded by syncing
	syncing   turn // held while the index learns what was swept
	buffers   buffers
	packLimit int // size of a full data pack, in bytes
	nodeLimit int // and of a full metadata pack
	notices   []string
}

// blockIndex is what the store needs of its local index; index.Index tells what
// each method promises.
type blockIndex interface {
	Lookup(h Root) (pack.Place, bool, error)
	Add(id pack.ID, entries []index.Entry) error
	Forget(ids ...pack.ID) error
	Packs() iter.Seq2[pack.ID, error]
	Epoch() (uint64, error)
	SetEpoch(epoch uint64) error
	Sweep(ctx context.Context) (removed int64, err error)
	Load() (*index.Loader, error)
	Close() error
}

// CreateOptions are the choices made once for a store. The zero value is good.
type CreateOptions struct {
	BlockSize  int    // 0: 64 KiB; a power of two from 16 KiB to 1 MiB
	Passphrase string // a further key; empty: none
	Realm      *Store // join the realm of this store; nil: a new realm
	Retry      bucket.RetryOptions
}

// Created holds the keys of a new store. They are kept nowhere else.
type Created struct {
	Header      Header
	LocalKey    string // for this machine, mode 0600
	RecoveryKey string // for a person: without it or a passphrase, a lost machine is lost data
}

// Create makes a store in the bucket, after proving that the bucket keeps its
// promises. Errors: StoreExists, StoreContractMissing, InvalidArgument. After an
// error of the bucket it may be unknown whether the store exists; if the keys
// are set, they are those that open it then.
func Create(ctx context.Context, b bucket.Bucket, o CreateOptions) (Created, error) {
	var c Created
	if o.BlockSize == 0 {
		o.BlockSize = block.DefaultSize
	}
	if !block.ValidSize(o.BlockSize) {
		return c, problem.New(problem.InvalidArgument, "The block size must be a power of two from 16 KiB to 1 MiB, not %d bytes.", o.BlockSize)
	}
	b = bucket.Retrying(b, o.Retry)
	if _, err := Identify(ctx, b); err == nil {
		return c, problem.New(problem.StoreExists, "There is a store at %s already.", b.URL())
	} else if !problem.Is(err, problem.StoreNotFound) {
		return c, err
	}
	if err := bucket.Probe(ctx, b); err != nil {
		return c, err
	}
	if err := clearUnfinished(ctx, b); err != nil {
		return c, err
	}

	realm := realmDocument{BlockSize: o.BlockSize, IdentityKey: make([]byte, 32)}
	rand.Read(realm.IdentityKey)
	rand.Read(realm.RealmID[:])
	if o.Realm != nil {
		realm = realmDocument{o.Realm.header.RealmID, o.Realm.identity[:], o.Realm.blockSize}
	}
	now := time.Now().UTC()
	c.Header = Header{Format: formatName, Version: FormatVersion, RealmID: realm.RealmID, Created: now}
	rand.Read(c.Header.StoreID[:])
	var root [32]byte
	rand.Read(root[:])

	var err error
	if c.LocalKey, c.RecoveryKey, err = putFirstKeys(ctx, b, o.Passphrase, wrapped{c.Header.StoreID, root[:], now}); err != nil {
		return c, err
	}
	epoch := epochDocument{Epoch: 1, Key: make([]byte, 32), Created: now}
	rand.Read(epoch.Key)
	if err = putSecret(ctx, b, root, c.Header.StoreID, realmKey, secret{seal.Realm, realm.RealmID, realm}); err != nil {
		return c, err
	}
	if err = putSecret(ctx, b, root, c.Header.StoreID, epochKey(1), secret{seal.Epoch, ID{}, epoch}); err != nil {
		return c, err
	}
	// The header comes last: it is what makes the store exist.
	err = putHeader(ctx, b, c.Header)
	if errors.Is(err, bucket.ErrExists) {
		return c, problem.New(problem.StoreExists, "Another process made a store at %s at the same moment.", b.URL())
	}
	return c, err
}

func putFirstKeys(ctx context.Context, b bucket.Bucket, passphrase string, w wrapped) (local, recovery string, err error) {
	for _, k := range []struct {
		t      KeyType
		secret *string
	}{{LocalKey, &local}, {RecoveryKey, &recovery}} {
		var key Key
		if key, *k.secret, err = newIdentity(); err != nil {
			return "", "", err
		}
		if _, err = putKey(ctx, b, key, k.t, w); err != nil {
			return "", "", err
		}
	}
	if passphrase != "" {
		key, err := ParseKey(passphrase)
		if err != nil {
			return "", "", err
		}
		if _, err := putKey(ctx, b, key, Passphrase, w); err != nil {
			return "", "", err
		}
	}
	return local, recovery, nil
}

// clearUnfinished removes what a creation left that ended before its header
// was put: nobody has keys for it, and Identify has seen that it holds nothing.
func clearUnfinished(ctx context.Context, b bucket.Bucket) error {
	for _, prefix := range []string{keyPrefix, epochPrefix, realmKey, secondPrefix} {
		for o, err := range b.List(ctx, prefix, "") {
			if err != nil {
				return err
			}
			if err := b.Delete(ctx, o.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// OpenOptions say how a store is opened.
type OpenOptions struct {
	// CacheDir is a folder for the local index, which one process at a time
	// may use. Empty: the store is opened for reading only.
	CacheDir string
	Retry    bucket.RetryOptions // of calls of the bucket that failed
	Notices  []string            // what had to be mended before; Notices gives them too
}

// Open opens the store in the bucket with a key; its cost does not depend on
// the size of the store. Closing the store closes the bucket. Errors:
// StoreNotFound, KeyWrong, StoreVersionUnsupported, StoreDamaged.
func Open(ctx context.Context, b bucket.Bucket, k Key, o OpenOptions) (*Store, error) {
	b = bucket.Retrying(b, o.Retry)
	h, err := Identify(ctx, b)
	if err != nil {
		return nil, err
	}
	root, err := unlock(ctx, b, h, k)
	if err != nil {
		return nil, err
	}
	s := &Store{bucket: b, header: h, root: root, epochs: map[uint32][32]byte{}, keys: newPackKeys(), frames: newFrameCache(), notices: o.Notices, syncing: newTurn()}
	s.host, _ = os.Hostname()
	s.packLimit, s.nodeLimit = objectPackSize, metadataSize
	if s.onFiles() {
		s.packLimit = filePackSize
	}
	if err := s.readSecrets(ctx, o.CacheDir != ""); err != nil {
		return nil, err
	}
	if o.CacheDir != "" {
		if err := s.openIndex(filepath.Join(o.CacheDir, h.StoreID.String(), "index")); err != nil {
			return nil, err
		}
		if s.owner, err = readOwner(filepath.Join(o.CacheDir, h.StoreID.String())); err != nil {
			return nil, errors.Join(err, s.index.Close())
		}
	}
	return s, nil
}

// openIndex opens the local index. A damaged one is begun anew: it holds
// nothing that the store does not.
func (s *Store) openIndex(dir string) error {
	options := index.Options{Store: s.header.StoreID.String(), MemoryBytes: indexMemory}
	x, err := index.Open(dir, options)
	if problem.Is(err, problem.IndexDamaged) {
		s.notices = append(s.notices, "The local index was damaged and begun anew. Blocks of other disks may be stored once more until `diskvault store rebuild-index` has run.")
		if err = index.Remove(dir); err == nil {
			x, err = index.Open(dir, options)
		}
	}
	if err != nil {
		s.index = nil
		return err
	}
	s.index, s.indexDir = x, dir
	return nil
}

// indexMemory bounds the memory of the index, in bytes; a small one takes
// less. It leaves room under 256 MiB for the buffers of a run.
const indexMemory = 48 << 20

// onFiles tells whether the bucket is a folder of this machine: a request to an
// object store waits longer than it works.
func (s *Store) onFiles() bool { return strings.HasPrefix(s.URL(), "file:") }

// secret gives the key of an epoch; epoch 0 is the root secret.
func (s *Store) secret(epoch uint32) ([32]byte, error) {
	if epoch == 0 {
		return s.root, nil
	}
	if k, ok := s.epochs[epoch]; ok {
		return k, nil
	}
	return [32]byte{}, fmt.Errorf("the key of epoch %d is missing: %w", epoch, seal.ErrDamaged)
}

// Header gives what anybody can read of the store.
func (s *Store) Header() Header { return s.header }

// BlockSize of the realm, in bytes.
func (s *Store) BlockSize() int { return s.blockSize }

// URL says where the store is, without secrets.
func (s *Store) URL() string { return s.bucket.URL() }

// Notices are sentences for the user about what Open had to mend.
func (s *Store) Notices() []string { return s.notices }

// Close closes the index and the bucket and frees the memory of writers, all
// of which must be closed.
func (s *Store) Close() error {
	var err error
	if s.index != nil {
		err = s.index.Close()
	}
	s.buffers.drop()
	return errors.Join(err, s.bucket.Close())
}
