package signin

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/durable"
	"github.com/diskvault/diskvault/base/problem"
)

const (
	rotateAfter = 30 * 24 * time.Hour // a key signs for so long
	tokenLife   = time.Hour
)

// signingKey is a key as it is kept, in a file that only the owner of the data
// folder may read.
type signingKey struct {
	Made time.Time       `json:"made"`
	Key  jose.JSONWebKey `json:"key"`
}

// keys are those by which tokens are signed: the newest signs, and the one
// before it is known for as long as its tokens live. Safe for concurrent use.
type keys struct {
	folder string
	mu     sync.Mutex
	all    []signingKey // guarded by mu; newest first
}

// openKeys reads the keys of a folder, which is made if it does not exist. Each
// has a file of its own, named by when it was made.
func openKeys(folder string) (*keys, error) {
	k := &keys{folder: folder}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, problem.Wrap(err, problem.HomeNotUsable, "The folder %s cannot be made.", folder)
	}
	names, err := filepath.Glob(filepath.Join(folder, "signing-*.json"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	slices.Reverse(names)
	for _, name := range names {
		var one signingKey
		data, err := os.ReadFile(name)
		if err == nil {
			err = json.Unmarshal(data, &one)
		}
		if err == nil && !one.Key.Valid() {
			err = errors.New("it is no key")
		}
		if err != nil {
			return nil, problem.Wrap(err, problem.SignInKeysDamaged, "The key in %s cannot be read.", name)
		}
		k.all = append(k.all, one)
	}
	return k, nil
}

// at gives the keys that count at a moment, the one that signs first. If that
// is too old another is made.
func (k *keys) at(now time.Time) ([]jose.JSONWebKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.all) == 0 || now.Sub(k.all[0].Made) > rotateAfter {
		if err := k.rotate(now); err != nil {
			return nil, err
		}
	}
	var out []jose.JSONWebKey
	for n, one := range k.all {
		if n == 0 || now.Sub(k.all[n-1].Made) < 2*tokenLife {
			out = append(out, one.Key)
		}
	}
	return out, nil
}

// rotate makes the key that signs from now on. It is on stable storage before
// it signs anything. Called with mu held.
func (k *keys) rotate(now time.Time) error {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	fresh := signingKey{Made: now, Key: jose.JSONWebKey{Key: private, KeyID: uuid.NewString(), Algorithm: string(jose.RS256), Use: "sig"}}
	data, err := json.Marshal(fresh)
	if err != nil {
		return err
	}
	if err := writeSecret(k.folder, "signing-"+now.UTC().Format("20060102T150405.000000000")+".json", data); err != nil {
		return err
	}
	k.all = append([]signingKey{fresh}, k.all...)
	return nil
}

// writeSecret makes a file that only its owner may read.
func writeSecret(folder, name string, data []byte) error {
	root, err := durable.Open(folder)
	if err == nil {
		err = errors.Join(durable.WriteFile(root, name, 0o600, [][]byte{data}), root.Close())
	}
	if err != nil {
		return problem.Wrap(err, problem.HomeNotUsable, "The file %s cannot be written.", filepath.Join(folder, name))
	}
	return nil
}
