package service

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
)

// vaultPoints are the points of an instance that a store of its vault tier lacks
// and wants to have, oldest first, and the newest one before them that it has.
func (s *Service) vaultPoints(ctx context.Context, i resource.Instance, storeID string, now time.Time) (missing []catalog.Point, base string, err error) {
	held, deleted, err := s.catalog.Placed(ctx, storeID, i.ID)
	if err != nil {
		return nil, "", err
	}
	points, err := s.catalog.Points(ctx, i.ID)
	slices.Reverse(points)
	for _, p := range points {
		until, bad := resource.Duration(p.VaultRetention).After(p.Created)
		switch {
		case held[p.ID] && (base == "" || len(missing) == 0):
			base = p.ID
		case !held[p.ID] && !deleted[p.ID] && bad == nil && now.Before(until):
			missing = append(missing, p)
		}
	}
	return missing, base, err
}

// copyToVault copies what a store of the vault tier lacks of an instance. It is
// the work of a job.
func (s *Service) copyToVault(ctx context.Context, i resource.Instance, storeID string, run *job.Run) (CopyStoreResult, error) {
	result := copyResult(store.CopyResult{})
	result.JobID = run.ID
	unlock, err := s.disks.lock(ctx, "copy "+i.ID+" "+storeID) // two would only wait for each other's points
	if err != nil {
		return result, err
	}
	defer unlock()
	v, err := s.catalog.Vault(ctx, i.Vault)
	if err != nil || !v.Keeps(storeID) { // it may have been taken from the vault meanwhile
		return result, err
	}
	missing, base, err := s.vaultPoints(ctx, i, storeID, time.Now())
	if err != nil {
		return result, err
	}
	to, row, err := s.openKnown(ctx, storeID, "")
	if err != nil {
		return result, err
	}
	result.To = row.URL
	var from []*store.Store
	ids := map[*store.Store][]string{}
	for _, p := range missing {
		at, err := s.locate(ctx, p, "")
		if err != nil {
			return result, err
		}
		if ids[at.store] == nil {
			from = append(from, at.store)
		}
		ids[at.store] = append(ids[at.store], p.ID)
	}
	for _, st := range from {
		if err := st.MayCopyTo(to); err != nil {
			return result, err
		}
		done, err := s.runCopy(ctx, st, to, store.CopyOptions{Instances: []string{i.ID}, Points: ids[st], Bases: map[string]string{i.ID: base}}, run)
		result.add(st.URL(), done)
		if err != nil {
			return result, interruptedCopy(ctx, err, result)
		}
		for _, f := range done.Failed {
			if !problem.Is(f.Err, problem.CopyInProgress) {
				return result, f.Err
			}
		}
	}
	return result, nil
}

// add joins what a further copy did.
func (r *CopyStoreResult) add(from string, done store.CopyResult) {
	n := copyResult(done)
	r.From = cmp.Or(r.From, from)
	r.There += n.There
	r.Copied, r.Failed, r.Warnings = append(r.Copied, n.Copied...), append(r.Failed, n.Failed...), append(r.Warnings, n.Warnings...)
	r.Records += n.Records
	r.MovedFrames, r.GatheredFrames = r.MovedFrames+n.MovedFrames, r.GatheredFrames+n.GatheredFrames
	r.Bytes.Disk += n.Bytes.Disk
	r.Bytes.Unchanged += n.Bytes.Unchanged
	r.Bytes.Known += n.Bytes.Known
	r.Bytes.New += n.Bytes.New
	r.Bytes.Read += n.Bytes.Read
	r.Bytes.Stored += n.Bytes.Stored
	if n.Status != resource.Completed {
		r.Status = n.Status
	}
}

// queuedCopy is a copy to the vault tier that nobody waits for.
func (s *Service) queuedCopy(ctx context.Context, _ resource.Job, i resource.Instance, r queuedRequest, run *job.Run) (job.Outcome, error) {
	var result CopyStoreResult
	return s.shared(func(ctx context.Context, run *job.Run) (job.Outcome, error) {
		var err error
		result, err = s.copyToVault(ctx, i, r.Store, run)
		return job.Outcome{Result: result, Warnings: len(result.Warnings) > 0}, err
	})(ctx, run)
}

// queueCopies queues the copies of an instance that its vault tier wants to have.
func (s *Service) queueCopies(ctx context.Context, instanceID string) error {
	found, err := s.catalog.InstancesNamed(ctx, instanceID)
	if err != nil || len(found) == 0 {
		return err
	}
	v, err := s.catalog.Vault(ctx, found[0].Vault)
	if err != nil {
		return err
	}
	for _, to := range v.Stores {
		missing, _, err := s.vaultPoints(ctx, found[0], to.ID, time.Now())
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			if err := s.queueCopy(ctx, found[0], to.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) queueCopy(ctx context.Context, i resource.Instance, storeID string) error {
	request, err := json.Marshal(queuedRequest{Store: storeID})
	if err != nil {
		return err
	}
	j := s.jobOf(ctx, i, resource.OperationCopy, request)
	j.Trigger, j.Caller, j.Reason = resource.Scheduled, "schedule", "the vault tier is to have points that it lacks"
	return s.enqueue(ctx, j)
}

// How often a server looks for points that the vault tier lacks, beside those of
// backups that it has just made, and how long it leaves an instance alone of
// which a copy failed with all its attempts.
const (
	vaultEvery = 10 * time.Minute
	vaultPause = 6 * time.Hour
)

// FillVaults queues the copies that the vault tiers lack: of backups that no
// server made, and those that failed. It returns how many it queued.
func (s *Service) FillVaults(ctx context.Context, now time.Time) (queued int, err error) {
	vaults, err := s.catalog.Vaults(ctx, "", catalog.Page{})
	if err != nil {
		return 0, err
	}
	var failed error
	for _, v := range vaults {
		for _, to := range v.Stores {
			found, err := s.catalog.Wanting(ctx, v.ID, to.ID, now, now.Add(-vaultPause), portion)
			failed = errors.Join(failed, err)
			for _, i := range found {
				if err := s.queueCopy(ctx, i, to.ID); err != nil {
					return queued, errors.Join(failed, err)
				}
				queued++
			}
		}
	}
	return queued, failed
}

// copyAfter sees to it that the vault tier gets what a backup made: by a job of
// the server, or at once where none runs. That fails without harm to the backup;
// the next one, or a server, makes up for it.
func (s *Service) copyAfter(ctx context.Context, c call, result *BackupResult) {
	err := s.copiesAfter(ctx, c, result.InstanceID)
	if err == nil {
		return
	}
	result.Status = resource.CompletedWithWarnings
	result.Warnings = append(result.Warnings, "The recovery point is not in the vault tier yet ("+err.Error()+"). The next backup of the disk copies it, or a server does.")
}

func (s *Service) copiesAfter(ctx context.Context, c call, instanceID string) error {
	if s.queue() != nil {
		return s.queueCopies(ctx, instanceID)
	}
	found, err := s.catalog.InstancesNamed(ctx, instanceID)
	if err != nil || len(found) == 0 {
		return err
	}
	i := found[0]
	v, err := s.catalog.Vault(ctx, i.Vault)
	if err != nil {
		return err
	}
	var failed error
	for _, to := range v.Stores {
		missing, _, err := s.vaultPoints(ctx, i, to.ID, time.Now())
		if err == nil && len(missing) > 0 {
			spec := c.spec(resource.OperationCopy)
			spec.InstanceID, spec.Instance, spec.Upkeep = i.ID, i.Name, true
			err = s.jobs.Do(ctx, spec, s.shared(func(ctx context.Context, run *job.Run) (job.Outcome, error) {
				done, err := s.copyToVault(ctx, i, to.ID, run)
				return job.Outcome{Result: done, Warnings: len(done.Warnings) > 0}, err
			}))
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// vaultStores finds the stores that a vault is to have, at most two: of the same
// realm, and none to which its disks are backed up.
func (s *Service) vaultStores(ctx context.Context, vault resource.ID, urls []string) ([]resource.VaultStore, error) {
	out := []resource.VaultStore{}
	if len(urls) > resource.MaxVaultStores {
		return nil, problem.New(problem.InvalidArgument, "A vault has at most %d stores, not %d.", resource.MaxVaultStores, len(urls))
	}
	homes, err := s.catalog.StoresOf(ctx, vault, "")
	if err != nil {
		return nil, err
	}
	for _, url := range urls {
		st, err := s.stores.open(ctx, url, "")
		if err != nil {
			return nil, err
		}
		if err := s.sameRealm(ctx, st); err != nil {
			return nil, err
		}
		row, err := s.register(ctx, st, false)
		if err != nil {
			return nil, err
		}
		switch {
		case slices.Contains(homes, row.ID):
			return nil, problem.New(problem.InvalidArgument, "Disks of the vault %q are backed up to %s, so it cannot be the vault's own store as well.", vault.Name(), row.URL).
				Do("Make another store: diskvault store create URL --vault " + vault.Name())
		case slices.ContainsFunc(out, func(o resource.VaultStore) bool { return o.ID == row.ID }):
			return nil, problem.New(problem.InvalidArgument, "The store %s is named twice.", row.URL)
		}
		out = append(out, resource.VaultStore{ID: row.ID, URL: row.URL})
	}
	return out, nil
}

// sameRealm refuses a store to which points of this deployment cannot be copied.
func (s *Service) sameRealm(ctx context.Context, st *store.Store) error {
	known, err := s.catalog.Stores(ctx)
	if err != nil || len(known) == 0 || known[0].ID == st.Header().StoreID.String() {
		return err
	}
	first, err := s.stores.open(ctx, known[0].URL, "")
	if err != nil {
		return err
	}
	return first.MayCopyTo(st)
}

// vaultRoom refuses a further store of a vault that has all it may have.
func (s *Service) vaultRoom(ctx context.Context, ref string) (resource.Vault, error) {
	v, err := s.catalog.Vault(ctx, ref)
	if err != nil {
		return v, missing(err, resource.VaultID(ref))
	}
	if len(v.Stores) >= resource.MaxVaultStores {
		return v, problem.New(problem.InvalidArgument, "The vault %q has %d stores already, which is the most.", v.Name, len(v.Stores))
	}
	return v, nil
}

// addVaultStore makes a store one of the vault tier of a vault. With a duration,
// the rules of its policies that copy nothing there yet keep copies for so long.
func (s *Service) addVaultStore(ctx context.Context, ref, url string, keep resource.Duration) error {
	v, err := s.vaultRoom(ctx, ref)
	if err != nil {
		return err
	}
	var urls []string
	for _, each := range v.Stores {
		urls = append(urls, each.URL)
	}
	a := s.As(Local())
	if _, err := a.PatchVault(ctx, VaultPatch{ID: v.ID, Stores: append(urls, url)}); err != nil || keep == "" {
		return err
	}
	all, err := s.catalog.Policies(ctx, v.ID, catalog.Page{})
	for _, p := range all {
		changed := false
		for n := range p.Retention {
			if r := &p.Retention[n]; r.VaultDuration == "" {
				r.VaultDuration, changed = keep, true
			}
		}
		if changed && err == nil {
			_, err = a.PutPolicy(ctx, PolicyRequest{Policy: p})
		}
	}
	return err
}
