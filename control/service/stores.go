package service

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/home"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/open"
)

// stores keeps stores open: the local index of one can only be open once in a
// process, and jobs that run at a time share it.
type stores struct {
	folder home.Folder
	mu     sync.Mutex
	byID   map[store.ID]*store.Store
}

func newStores(f home.Folder) *stores {
	return &stores{folder: f, byID: map[store.ID]*store.Store{}}
}

// open opens the store at a URL with the key given, or else with the local
// key. It stays open until the service closes. A header that is missing or
// damaged is mended where a key tells what it was.
func (p *stores) open(ctx context.Context, url, key string) (*store.Store, error) {
	s, err := p.openAsItIs(ctx, url, key)
	if problem.Is(err, problem.StoreDamaged) || problem.Is(err, problem.KeyMissing) {
		if p.mendHeader(ctx, url, key) {
			return p.openAsItIs(ctx, url, key, "The header of the store "+url+" was missing or damaged and has been made anew.")
		}
	}
	return s, err
}

// mendHeader tries to make the header of a store anew, with the key given or
// with all of this machine, and tells whether it did.
func (p *stores) mendHeader(ctx context.Context, url, given string) bool {
	texts := []string{given}
	if given == "" {
		texts = p.folder.Keys()
	}
	b, err := openBucket(ctx, url)
	if err != nil {
		return false
	}
	defer b.Close()
	for _, text := range texts {
		k, err := store.ParseKey(text)
		if err != nil {
			continue
		}
		if mended, err := store.MendHeader(ctx, b, k); err == nil && mended {
			return true
		}
	}
	return false
}

func (p *stores) openAsItIs(ctx context.Context, url, key string, notices ...string) (*store.Store, error) {
	b, err := openBucket(ctx, url)
	if err != nil {
		return nil, err
	}
	h, err := store.Identify(ctx, b)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.byID[h.StoreID]; ok && key == "" {
		return s, b.Close()
	}
	k, local, err := p.key(h, url, key)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	if s, ok := p.byID[h.StoreID]; ok {
		// Open already; yet a key that was given must fit.
		again, err := store.Open(ctx, b, k, store.OpenOptions{})
		if err != nil {
			return nil, errors.Join(err, b.Close())
		}
		return s, again.Close()
	}
	s, err := store.Open(ctx, b, k, store.OpenOptions{CacheDir: p.folder.Cache(), Notices: notices})
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	if local && key != "" {
		if local, err = p.localKeyOpens(ctx, s); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if !local {
		if err := p.makeLocalKey(ctx, s, url); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	p.byID[h.StoreID] = s
	return s, nil
}

// key finds the key of a store, and tells whether this machine has its local
// key.
func (p *stores) key(h store.Header, url, given string) (k store.Key, local bool, err error) {
	text, local, err := p.folder.Key(h.StoreID.String())
	if err != nil {
		return k, local, err
	}
	if given != "" {
		text = given
	} else if !local {
		return k, false, problem.New(problem.KeyMissing, "This machine has no key of the store at %s.", url).With("store", h.StoreID.String())
	}
	k, err = store.ParseKey(text)
	return k, local, err
}

// localKeyOpens tells whether the key that this machine has still opens the
// store: a person who gave another one may have had to.
func (p *stores) localKeyOpens(ctx context.Context, s *store.Store) (bool, error) {
	text, _, err := p.folder.Key(s.Header().StoreID.String())
	if err != nil {
		return false, err
	}
	k, err := store.ParseKey(text)
	if err != nil {
		return false, nil
	}
	return s.Opens(ctx, k)
}

// makeLocalKey gives this machine a key of its own to a store that a person
// opened, so that daily runs need no person.
func (p *stores) makeLocalKey(ctx context.Context, s *store.Store, url string) error {
	_, secret, err := s.AddIdentity(ctx, store.LocalKey)
	if problem.Is(err, problem.StorePermissionDenied) {
		return nil // a store that can only be read is still good for a restore
	}
	if err != nil {
		return err
	}
	return p.folder.SaveKey(s.Header().StoreID.String(), url, secret)
}

func (p *stores) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for _, s := range p.byID {
		err = errors.Join(err, s.Close())
	}
	p.byID = nil
	return err
}

// openBucket opens the storage of a store, with retries.
func openBucket(ctx context.Context, url string) (bucket.Bucket, error) {
	return open.Bucket(ctx, url, open.Options{})
}

// defaultURL is where the store lies that a first backup makes.
func (s *Service) defaultURL() string { return "file:" + s.folder.Store() }

// storeURL gives the URL of the store that a request means, and what the
// catalog knows of it.
func (s *Service) storeURL(ctx context.Context, url string) (string, error) {
	if url != "" {
		return url, nil
	}
	if s.catalog != nil && s.catalogErr == nil {
		known, err := s.catalog.Stores(ctx)
		if err != nil {
			return "", err
		}
		if len(known) > 0 {
			return known[0].URL, nil
		}
	}
	return s.defaultURL(), nil
}

// openStore opens the store that a request means and makes it known to the
// catalog.
func (s *Service) openStore(ctx context.Context, r StoreRequest) (*store.Store, resource.Store, error) {
	url, err := s.storeURL(ctx, r.URL)
	if err != nil {
		return nil, resource.Store{}, err
	}
	st, err := s.stores.open(ctx, url, r.Key)
	if err != nil {
		return nil, resource.Store{}, err
	}
	row, err := s.register(ctx, st, false)
	return st, row, err
}

// openKnown opens a store that the catalog knows.
func (s *Service) openKnown(ctx context.Context, id, key string) (*store.Store, resource.Store, error) {
	known, err := s.catalog.Stores(ctx)
	if err != nil {
		return nil, resource.Store{}, err
	}
	for _, row := range known {
		if row.ID == id {
			st, err := s.stores.open(ctx, row.URL, key)
			if err == nil && st.Header().StoreID.String() != id {
				err = problem.New(problem.StoreNotFound, "At %s there is now another store than before: %s instead of %s.", row.URL, st.Header().StoreID, id)
			}
			return st, row, err
		}
	}
	return nil, resource.Store{}, problem.New(problem.StoreNotFound, "The catalog does not know the store %s.", id).
		Do("Give its URL with --store.")
}

// register makes an open store known to the catalog. The first one becomes
// the default.
func (s *Service) register(ctx context.Context, st *store.Store, makeDefault bool) (resource.Store, error) {
	h := st.Header()
	known, err := s.catalog.Stores(ctx)
	if err != nil {
		return resource.Store{}, err
	}
	for _, row := range known {
		if row.ID == h.StoreID.String() && row.URL == st.URL() && (row.Default || !makeDefault) {
			return row, nil
		}
	}
	row := resource.Store{ID: h.StoreID.String(), Realm: h.RealmID.String(), URL: st.URL(), Created: h.Created, Default: makeDefault || len(known) == 0}
	for _, old := range known {
		row.Default = row.Default || old.ID == row.ID && old.Default
	}
	return row, s.catalog.PutStore(ctx, row)
}

// noticeLostCatalog tells a data folder that is new from one whose catalog is
// gone.
func (s *Service) noticeLostCatalog(ctx context.Context) error {
	if _, err := os.Stat(s.folder.Store()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	known, err := s.catalog.Stores(ctx)
	if err != nil || len(known) > 0 {
		return err
	}
	if pending, err := s.catalog.Fact(ctx, catalog.StorePending); err != nil || pending != "" {
		return err
	}
	b, err := openBucket(ctx, s.defaultURL())
	if err != nil {
		return nil // no store there; the first backup says what is wrong with the place
	}
	defer b.Close()
	if _, err := store.Identify(ctx, b); err != nil && !problem.Is(err, problem.StoreDamaged) {
		return nil
	}
	return problem.New(problem.CatalogDamaged, "The catalog %s is empty, but there is a store at %s.", s.folder.Catalog(), s.folder.Store())
}

// makeStore makes a store, keeps its local key and shows its recovery key.
func (s *Service) makeStore(ctx context.Context, c call, r CreateStoreRequest) (*store.Store, resource.Store, error) {
	fail := func(err error) (*store.Store, resource.Store, error) { return nil, resource.Store{}, err }
	options := store.CreateOptions{BlockSize: r.BlockSize, Passphrase: r.Passphrase}
	known, err := s.catalog.Stores(ctx)
	if err != nil {
		return fail(err)
	}
	if len(known) > 0 {
		// All stores of a deployment share a realm, so that copies between
		// them send only what is missing.
		first, err := s.stores.open(ctx, known[0].URL, "")
		if err != nil {
			return fail(err)
		}
		if r.BlockSize != 0 && r.BlockSize != first.BlockSize() {
			return fail(problem.New(problem.InvalidArgument, "The block size of this deployment is %d bytes; a store of another one needs a data folder of its own (--home).", first.BlockSize()))
		}
		options.Realm, options.BlockSize = first, 0
	}
	url, make := r.URL, s.makeStoreAt
	if url == "" || url == s.defaultURL() || url == s.folder.Store() {
		url, make = s.defaultURL(), s.makeDefaultStore
	}
	if len(known) == 0 && url == s.defaultURL() {
		adopted, err := s.adoptPending(ctx)
		if err != nil {
			return fail(err)
		}
		if adopted != nil {
			row, err := s.register(ctx, adopted, true)
			if err != nil {
				return fail(err)
			}
			return adopted, row, s.newRecoveryKey(ctx, c, adopted, row)
		}
	}
	recoveryKey, err := make(ctx, url, options)
	if err != nil {
		return fail(err)
	}
	st, err := s.stores.open(ctx, url, "")
	if err != nil {
		return fail(err)
	}
	row, err := s.register(ctx, st, r.Default)
	if err != nil {
		return fail(err)
	}
	return st, row, s.showRecoveryKey(ctx, c, row, recoveryKey)
}

// makeStoreAt makes a store at a URL and keeps its local key.
func (s *Service) makeStoreAt(ctx context.Context, url string, o store.CreateOptions) (recoveryKey string, err error) {
	return s.makeStoreIn(ctx, url, url, o)
}

// makeDefaultStore makes the store in the data folder. It gets its place when
// its key is safe, so that a process that dies here leaves no store that
// nobody can open.
func (s *Service) makeDefaultStore(ctx context.Context, url string, o store.CreateOptions) (recoveryKey string, err error) {
	final, building := s.folder.Store(), s.folder.Store()+".new"
	b, err := openBucket(ctx, url)
	if err == nil {
		_, err = store.Identify(ctx, b)
		err = errors.Join(err, b.Close())
	}
	if err == nil {
		return "", problem.New(problem.StoreExists, "There is a store at %s already.", url)
	}
	if !problem.Is(err, problem.StoreNotFound) {
		return "", err
	}
	if err := os.RemoveAll(building); err != nil {
		return "", problem.Wrap(err, problem.HomeNotUsable, "What a dead process left at %s cannot be removed.", building)
	}
	recoveryKey, err = s.makeStoreIn(ctx, "file:"+building, url, o)
	if err != nil {
		return "", err
	}
	// An empty folder may be there already; anything else is not ours.
	if err := os.Remove(final); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", problem.Wrap(err, problem.HomeNotUsable, "%s is in the way of the store.", final)
	}
	if err := s.folder.Rename(building, final); err != nil {
		return "", err
	}
	return recoveryKey, nil
}

// makeStoreIn makes a store at one URL that will be reached at another.
func (s *Service) makeStoreIn(ctx context.Context, at, url string, o store.CreateOptions) (recoveryKey string, err error) {
	b, err := open.Bucket(ctx, at, open.Options{Create: true})
	if err != nil {
		return "", err
	}
	made, err := store.Create(ctx, b, o)
	if err == nil {
		err = s.folder.SaveKey(made.Header.StoreID.String(), url, made.LocalKey)
	}
	return made.RecoveryKey, errors.Join(err, b.Close())
}

// recoveryPending stands in the fact until the key was shown.
const recoveryPending = "pending"

// showRecoveryKey shows a key the moment that it exists: a first backup may
// take hours, and whoever interrupts it must have the key.
func (s *Service) showRecoveryKey(ctx context.Context, c call, row resource.Store, secret string) error {
	fact := catalog.RecoveryKeyShown + row.ID
	if err := s.catalog.SetFact(ctx, fact, recoveryPending); err != nil {
		return err
	}
	if err := s.catalog.SetFact(ctx, catalog.StorePending, ""); err != nil {
		return err
	}
	c.notice(resource.Notice{
		Name: "RecoveryKey", Secret: secret,
		Message:           "This is the recovery key of the store " + row.URL + ". It is shown only now. If this machine is lost, the backups are lost without it.",
		RecommendedAction: "Keep it away from this machine: print it, or put it into a password manager.",
	})
	return s.catalog.SetFact(ctx, fact, "shown")
}

// remindRecoveryKey makes a new recovery key if a process died before it could
// show the first one.
func (s *Service) remindRecoveryKey(ctx context.Context, c call, st *store.Store, row resource.Store) error {
	state, err := s.catalog.Fact(ctx, catalog.RecoveryKeyShown+row.ID)
	if err != nil {
		return err
	}
	making, err := s.catalog.Fact(ctx, catalog.StorePending)
	if err != nil || state != recoveryPending && making == "" {
		return err
	}
	return s.newRecoveryKey(ctx, c, st, row)
}

func (s *Service) newRecoveryKey(ctx context.Context, c call, st *store.Store, row resource.Store) error {
	_, secret, err := st.AddIdentity(ctx, store.RecoveryKey)
	if err != nil {
		return err
	}
	return s.showRecoveryKey(ctx, c, row, secret)
}

// adoptPending takes over the first store of a process that died when it had
// made it and before the catalog knew. It also notes that one is being made
// from now on; nil: there is none yet.
func (s *Service) adoptPending(ctx context.Context) (*store.Store, error) {
	pending, err := s.catalog.Fact(ctx, catalog.StorePending)
	if err != nil {
		return nil, err
	}
	if pending != "" {
		st, err := s.stores.open(ctx, s.defaultURL(), "")
		if err == nil || !problem.Is(err, problem.StoreNotFound) {
			return st, err
		}
	}
	return nil, s.catalog.SetFact(ctx, catalog.StorePending, "yes")
}
