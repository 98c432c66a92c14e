package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
)

// createStore is the use case of Client.CreateStore.
func (s *Service) createStore(ctx context.Context, c call, r CreateStoreRequest) (StoreResult, error) {
	unlock, err := s.disks.lock(ctx, "")
	if err != nil {
		return StoreResult{}, err
	}
	defer unlock()
	if r.Vault != "" {
		if r.Default {
			return StoreResult{}, problem.New(problem.InvalidArgument, "A store of the vault tier cannot be the default one: disks are backed up there.")
		}
		if _, err := s.vaultRoom(ctx, r.Vault); err != nil {
			return StoreResult{}, err
		}
		if _, err := r.VaultRetention.After(time.Now()); err != nil && r.VaultRetention != "" {
			return StoreResult{}, problem.Wrap(err, problem.InvalidArgument, "The time for which the vault tier is to keep copies cannot be read.")
		}
	}
	st, row, err := s.makeStore(ctx, c, r)
	if err == nil && r.Vault != "" {
		err = s.addVaultStore(ctx, r.Vault, row.URL, r.VaultRetention)
	}
	if err != nil {
		return StoreResult{}, err
	}
	return StoreResult{Store: row, BlockSize: st.BlockSize(), Version: st.Header().Version}, nil
}

// showStore is the use case of Client.ShowStore.
func (s *Service) showStore(ctx context.Context, c call, r StoreRequest) (StoreResult, error) {
	st, row, err := s.openStore(ctx, r)
	if err != nil {
		return StoreResult{}, err
	}
	t, err := st.Statistics(ctx)
	return StoreResult{Store: row, BlockSize: st.BlockSize(), Version: st.Header().Version, Statistics: &t}, err
}

// rebuildIndex is the use case of Client.RebuildIndex.
func (s *Service) rebuildIndex(ctx context.Context, c call, r StoreRequest) (RebuildIndexResult, error) {
	var result RebuildIndexResult
	st, row, err := s.openStore(ctx, r)
	if err != nil {
		return result, err
	}
	err = s.jobs.Do(ctx, c.spec(resource.OperationRebuildIndex), s.exclusive(func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		var live gauge
		run.Follow(live.progress)
		started := time.Now()
		packs, skipped, err := st.RebuildIndex(ctx, live.set)
		if err != nil {
			return job.Outcome{}, err
		}
		result = RebuildIndexResult{JobID: run.ID, Store: row.URL, Packs: packs, DamagedPacks: skipped, DurationSeconds: time.Since(started).Seconds()}
		return job.Outcome{Result: result, Warnings: skipped > 0}, nil
	}))
	return result, err
}

// rebuildCatalog is the use case of Client.RebuildCatalog. The catalog that is
// there, if it can be read at all, is added to; a damaged one is set aside.
func (s *Service) rebuildCatalog(ctx context.Context, c call, r StoreRequest) (RebuildCatalogResult, error) {
	var result RebuildCatalogResult
	url, err := s.storeURL(ctx, r.URL)
	if err != nil {
		return result, err
	}
	// The store first: without it the old catalog is not touched.
	st, err := s.stores.open(ctx, url, r.Key)
	if err != nil {
		return result, err
	}
	h := st.Header()
	result.Store = st.URL()
	contents, warnings, err := s.contents(ctx, st)
	if err != nil {
		return result, err
	}
	result.Warnings = warnings
	result.Instances, result.Points = len(contents.Instances), len(contents.Points)
	result.Vaults, result.Policies = len(contents.Vaults), len(contents.Policies)
	if err := s.findHomes(ctx, &contents, h.StoreID.String()); err != nil {
		return result, err
	}
	if s.catalogErr != nil {
		if result.SetAside, err = s.replaceCatalog(ctx); err != nil {
			return result, err
		}
	}
	known, err := s.catalog.Stores(ctx)
	if err != nil {
		return result, err
	}
	contents.Store = resource.Store{ID: h.StoreID.String(), Realm: h.RealmID.String(), URL: st.URL(), Created: h.Created, Default: len(known) == 0}
	for _, old := range known {
		contents.Store.Default = contents.Store.Default || old.ID == contents.Store.ID && old.Default
	}
	if err := s.catalog.Rebuild(ctx, contents); err != nil {
		return result, err
	}
	for _, v := range contents.Vaults {
		for _, at := range v.Stores {
			if at.ID != contents.Store.ID && !slices.ContainsFunc(known, func(row resource.Store) bool { return row.ID == at.ID }) {
				result.Warnings = append(result.Warnings, fmt.Sprintf("The vault %q keeps copies in %s as well. To have those listed too: diskvault store rebuild-catalog '%s'", v.Normal().Name, at.URL, at.URL))
			}
		}
	}
	return result, nil
}

// findHomes says in which store each instance is at home: in the one that is being
// read, unless that holds copies only and the store that its record or the catalog
// names can be read. What the copies' store says of resources that the catalog
// knows may then be old, and is left out.
func (s *Service) findHomes(ctx context.Context, c *catalog.Contents, storeID string) error {
	elsewhere := map[string]bool{} // by store: it can be read
	for n := range c.Instances {
		i := &c.Instances[n]
		home, recorded := *i, i.Store
		i.Store = storeID
		if recorded == storeID || s.catalogErr != nil {
			continue
		}
		found, err := s.catalog.InstancesNamed(ctx, i.ID)
		if err != nil {
			return err
		}
		if at := slices.IndexFunc(found, func(f resource.Instance) bool { return f.ID == i.ID }); at >= 0 {
			home = found[at]
		}
		if home.Store == storeID || home.Store == "" {
			continue
		}
		if _, asked := elsewhere[home.Store]; !asked {
			_, _, err := s.openKnown(ctx, home.Store, "")
			elsewhere[home.Store] = err == nil
		}
		if elsewhere[home.Store] {
			*i = home
		}
	}
	if !slices.Contains(slices.Collect(maps.Values(elsewhere)), true) {
		return nil
	}
	// The store holds copies: what the catalog has already is the newer word.
	var failed error
	unknown := func(err error) bool {
		if err != nil && !errors.Is(err, catalog.ErrNotFound) {
			failed = err
		}
		return err != nil
	}
	c.Vaults = slices.DeleteFunc(c.Vaults, func(v resource.Vault) bool {
		_, err := s.catalog.Vault(ctx, v.Ref())
		return !unknown(err)
	})
	c.Policies = slices.DeleteFunc(c.Policies, func(p resource.Policy) bool {
		_, err := s.catalog.Policy(ctx, p.Vault, p.Name)
		return !unknown(err)
	})
	c.Documents = slices.DeleteFunc(c.Documents, func(d catalog.Document) bool {
		known, err := s.catalog.HasResource(ctx, d.ID)
		failed = errors.Join(failed, err)
		return known
	})
	return failed
}

// contents reads what a store knows of the deployment; instances name the store
// that they were at home in when their records were written. What cannot be read
// is told and left out.
func (s *Service) contents(ctx context.Context, st *store.Store) (out catalog.Contents, warnings []string, err error) {
	vaults, policies, instances := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for r, err := range st.Records(ctx) {
		if err == nil {
			err = addRecord(&out, r)
		}
		if err != nil {
			if ctx.Err() != nil {
				return out, nil, err
			}
			warnings = append(warnings, "A configuration record cannot be read: "+err.Error())
		}
	}
	for _, v := range out.Vaults {
		vaults[v.Ref()] = true
	}
	for _, p := range out.Policies {
		policies[p.Vault+"/"+p.Name] = true
	}
	for _, i := range out.Instances {
		instances[i.ID] = true
	}
	for p, err := range st.Points(ctx) {
		if err != nil {
			if ctx.Err() != nil || p.ID == "" {
				return out, nil, err
			}
			warnings = append(warnings, fmt.Sprintf("The recovery point %s cannot be read: %v", p.ID, err))
			continue
		}
		out.Points = append(out.Points, p)
		if !instances[p.Instance] {
			// Its record is lost; the point itself says enough.
			instances[p.Instance] = true
			out.Instances = append(out.Instances, instanceOf(p))
		}
	}
	out.Instances = withoutFalseStarts(out.Instances, out.Points)
	taken := map[string]bool{}
	for n, i := range out.Instances {
		for base, k := i.Name, 2; taken[out.Instances[n].Name]; k++ {
			out.Instances[n].Name = fmt.Sprintf("%s-%d", base, k)
		}
		taken[out.Instances[n].Name] = true
		if !vaults[i.Vault] {
			vaults[i.Vault] = true
			out.Vaults = append(out.Vaults, resource.Vault{ID: resource.VaultID(i.Vault), Created: i.Created})
		}
		if key := i.Vault + "/" + i.Policy; !policies[key] {
			policies[key] = true
			p := resource.DefaultPolicy(i.Vault, i.Created)
			p.Name = i.Policy
			out.Policies = append(out.Policies, p)
			warnings = append(warnings, fmt.Sprintf("The record of the policy %q is missing; it has the default rules until it is changed.", i.Policy))
		}
	}
	return out, warnings, nil
}

// withoutFalseStarts leaves out what a process left that died between sealing
// the record of an instance and telling the catalog: an instance without any
// point, of a disk that another instance protects. One of a disk's resource was
// asked for by itself, and stays.
func withoutFalseStarts(instances []resource.Instance, points []store.Point) []resource.Instance {
	used, disks := map[string]bool{}, map[string]int{}
	for _, p := range points {
		used[p.Instance] = true
	}
	for _, i := range instances {
		disks[i.Disk]++
	}
	var out []resource.Instance
	for _, i := range instances {
		if !used[i.ID] && disks[i.Disk] > 1 && i.DiskID == "" {
			disks[i.Disk]--
			continue
		}
		out = append(out, i)
	}
	return out
}

func addRecord(out *catalog.Contents, r store.Record) error {
	switch r.Kind {
	case recordVault:
		var v resource.Vault
		if err := json.Unmarshal(r.Body, &v); err != nil {
			return err
		}
		out.Vaults = append(out.Vaults, v)
	case recordPolicy:
		var p resource.Policy
		if err := json.Unmarshal(r.Body, &p); err != nil {
			return err
		}
		out.Policies = append(out.Policies, p)
	case recordResource:
		var d catalog.Document
		if err := json.Unmarshal(r.Body, &d); err != nil {
			return err
		}
		out.Documents = append(out.Documents, d)
	case recordInstance:
		var i resource.Instance
		if err := json.Unmarshal(r.Body, &i); err != nil {
			return err
		}
		out.Instances = append(out.Instances, i)
	}
	return nil // of a later version, which knows what to do with it
}

// instanceOf makes the instance that a point is of.
func instanceOf(p store.Point) resource.Instance {
	i := resource.Instance{
		ID: p.Instance, Name: p.Name, Disk: p.Disk, Kind: "file", Size: p.Size, Identity: json.RawMessage(p.Identity),
		Vault: p.Vault, Policy: p.Policy, Created: p.Created,
	}
	if !json.Valid(i.Identity) {
		i.Identity = nil
	}
	return i
}

// replaceCatalog sets the damaged catalog aside and opens a new one.
func (s *Service) replaceCatalog(ctx context.Context) (aside string, err error) {
	if s.options.Catalog != "" {
		// A server's database is filled again as it is; one that cannot be
		// used is mended by the server's own means.
		if s.jobs != nil {
			s.catalogErr = nil
		}
		return "", s.catalogErr
	}
	if s.catalog != nil {
		if err := s.catalog.Close(); err != nil && !problem.Is(err, problem.CatalogDamaged) {
			return "", err
		}
		s.catalog, s.jobs = nil, nil
	}
	path := s.folder.Catalog()
	aside = fmt.Sprintf("%s.damaged-%s", path, time.Now().UTC().Format("20060102T150405.000Z"))
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", problem.Wrap(err, problem.HomeNotUsable, "The damaged catalog %s cannot be set aside.", path)
		}
	}
	if s.catalog, s.catalogErr = catalog.Open(ctx, path); s.catalogErr != nil {
		return "", s.catalogErr
	}
	s.jobs, s.catalogErr = job.NewRunner(ctx, s.catalog, s.options.Jobs)
	return aside, s.catalogErr
}

// listKeys is the use case of Client.ListKeys.
func (s *Service) listKeys(ctx context.Context, c call, r StoreRequest) ([]KeyResult, error) {
	st, row, err := s.openStore(ctx, r)
	if err != nil {
		return nil, err
	}
	slots, err := st.Keys(ctx)
	out := []KeyResult{}
	for _, slot := range slots {
		out = append(out, KeyResult{KeySlot: slot, Store: row.URL})
	}
	return out, err
}

// addKey is the use case of Client.AddKey.
func (s *Service) addKey(ctx context.Context, c call, r AddKeyRequest) (KeyResult, error) {
	st, row, err := s.openStore(ctx, r.StoreRequest)
	if err != nil {
		return KeyResult{}, err
	}
	slot, err := st.AddPassphrase(ctx, r.Passphrase)
	return KeyResult{KeySlot: slot, Store: row.URL}, err
}

// removeKey is the use case of Client.RemoveKey.
func (s *Service) removeKey(ctx context.Context, c call, r RemoveKeyRequest) (KeyResult, error) {
	st, row, err := s.openStore(ctx, r.StoreRequest)
	if err != nil {
		return KeyResult{}, err
	}
	slots, err := st.Keys(ctx)
	if err != nil {
		return KeyResult{}, err
	}
	for _, slot := range slots {
		if slot.ID == r.ID {
			return KeyResult{KeySlot: slot, Store: row.URL}, st.RemoveKey(ctx, r.ID)
		}
	}
	return KeyResult{}, problem.New(problem.InvalidArgument, "The store %s has no key %q.", row.URL, r.ID).
		Do("`diskvault store key list` lists them.")
}

// exportKey is the use case of Client.ExportKey.
func (s *Service) exportKey(ctx context.Context, c call, r StoreRequest) (KeyResult, error) {
	st, row, err := s.openStore(ctx, r)
	if err != nil {
		return KeyResult{}, err
	}
	slot, secret, err := st.AddIdentity(ctx, store.RecoveryKey)
	if err != nil {
		return KeyResult{}, err
	}
	return KeyResult{KeySlot: slot, Store: row.URL, Secret: secret}, s.catalog.SetFact(ctx, catalog.RecoveryKeyShown+row.ID, "shown")
}
