package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/store"
)

// The kinds of sealed records that retention and the rebuilding of a catalog
// depend on.
const (
	recordVault    = "vault"
	recordPolicy   = "policy"
	recordInstance = "instance"
)

// instance finds a protected disk by name, ID or path.
func (s *Service) instance(ctx context.Context, text, path string) (resource.Instance, error) {
	found, err := s.named(ctx, text, path)
	if err != nil {
		return resource.Instance{}, err
	}
	switch len(found) {
	case 0:
		return resource.Instance{}, problem.New(problem.InstanceNotFound, "No protected disk has the name or path %q.", text).With("instance", text)
	case 1:
		return found[0], nil
	}
	return resource.Instance{}, ambiguous(text, found)
}

func ambiguous(text string, found []resource.Instance) error {
	var names []string
	for _, i := range found {
		names = append(names, i.Name)
	}
	return problem.New(problem.InstanceAmbiguous, "%q fits %d protected disks: %q.", text, len(found), names).With("instances", names)
}

func (s *Service) named(ctx context.Context, text, path string) ([]resource.Instance, error) {
	if text == "" {
		return nil, nil
	}
	found, err := s.catalog.InstancesNamed(ctx, text)
	if err != nil || len(found) > 0 || path == "" {
		return found, err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return s.catalog.InstancesNamed(ctx, path)
}

// identity reads what an instance knows of its disk.
func identity(i resource.Instance) (disk.Identity, error) {
	var id disk.Identity
	if len(i.Identity) == 0 {
		return nil, nil
	}
	return id, json.Unmarshal(i.Identity, &id)
}

// match finds the instance that a source belongs to, in a state that lets it
// be backed up; nil if it is not protected yet.
func (s *Service) match(ctx context.Context, c call, r BackupRequest, src *disk.Source) (*resource.Instance, error) {
	i, err := s.find(ctx, c, r, src)
	if err == nil && i != nil {
		err = backsUp(*i)
	}
	if err != nil {
		return nil, err
	}
	return i, nil
}

func (s *Service) find(ctx context.Context, c call, r BackupRequest, src *disk.Source) (*resource.Instance, error) {
	if r.Instance != "" {
		return s.matchID(ctx, r, src)
	}
	if r.Name != "" {
		return s.matchName(ctx, c, r, src)
	}
	found, err := s.catalog.InstancesNamed(ctx, src.Path)
	if err != nil {
		return nil, err
	}
	var same []resource.Instance
	var why string
	for _, i := range found {
		old, err := identity(i)
		if err != nil {
			return nil, err
		}
		other, reason := old.Contradicts(src.Identity)
		if other {
			why = reason
		} else {
			same = append(same, i)
		}
	}
	switch {
	case len(found) == 0:
		return nil, nil
	case len(same) == 1:
		return &same[0], nil
	case len(same) > 1:
		return nil, ambiguous(src.Path, same)
	case r.AcceptReplaced && len(found) == 1:
		return &found[0], nil
	}
	return nil, replaced(found[0], src, why)
}

func replaced(i resource.Instance, src *disk.Source, why string) error {
	return problem.New(problem.SourceReplaced, "At %s there is now another disk than the one protected as %q: %s.", src.Path, i.Name, why).
		With("instance", i.Name).With("disk", src.Path)
}

// matchID finds the instance that a queued job is for. Its disk is where its
// resource says, and must still be the same one.
func (s *Service) matchID(ctx context.Context, r BackupRequest, src *disk.Source) (*resource.Instance, error) {
	found, err := s.catalog.InstancesNamed(ctx, r.Instance)
	if err != nil {
		return nil, err
	}
	for _, i := range found {
		if i.ID != r.Instance {
			continue
		}
		old, err := identity(i)
		if err != nil {
			return nil, err
		}
		if other, why := old.Contradicts(src.Identity); other && i.Disk == src.Path && !r.AcceptReplaced {
			return nil, replaced(i, src, why)
		}
		i.Disk = src.Path
		return &i, nil
	}
	return nil, problem.New(problem.InstanceNotFound, "The backup instance of the job is gone.").With("instance", r.Instance)
}

func (s *Service) matchName(ctx context.Context, c call, r BackupRequest, src *disk.Source) (*resource.Instance, error) {
	found, err := s.catalog.InstancesNamed(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	for _, i := range found {
		if i.Name != r.Name {
			continue
		}
		old, err := identity(i)
		if err != nil {
			return nil, err
		}
		other, why := old.Contradicts(src.Identity)
		switch {
		case i.Disk == src.Path && (!other || r.AcceptReplaced):
			return &i, nil
		case i.Disk == src.Path:
			return nil, replaced(i, src, why)
		case len(old) > 0 && old.String() == src.Identity.String():
			c.notice(resource.Notice{Name: "DiskMoved", Message: fmt.Sprintf("The disk %q, known at %s, is now at %s.", i.Name, i.Disk, src.Path)})
			i.Disk = src.Path
			return &i, nil
		}
		return nil, problem.New(problem.InvalidArgument, "The name %q is that of the disk %s.", r.Name, i.Disk).
			Do("Choose another name with --name.").With("instance", r.Name)
	}
	return nil, nil
}

// protect makes the instance of a source, with the default vault, policy and
// store where nothing else is asked for.
func (s *Service) protect(ctx context.Context, c call, r BackupRequest, src *disk.Source) (i resource.Instance, made Created, err error) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	vault, policy, err := s.vaultAndPolicy(ctx, r, now, &made)
	if err != nil {
		return i, made, err
	}
	if _, err := policy.Rule(r.RetentionTag); err != nil {
		return i, made, err
	}
	name := r.Name
	if name == "" {
		if name, err = s.freeName(ctx, vault, src.Path); err != nil {
			return i, made, err
		}
	}
	if err := resource.CheckInstanceName(name); err != nil {
		return i, made, err
	}
	st, row, err := s.storeFor(ctx, c, r, &made)
	if err != nil {
		return i, made, err
	}
	id, err := json.Marshal(src.Identity)
	if err != nil {
		return i, made, err
	}
	i = resource.Instance{
		ID: uuid.NewString(), Name: name, Disk: src.Path, Kind: string(src.Kind), Size: src.Size, Identity: id,
		Vault: vault.Name, Policy: policy.Name, Store: row.ID, Created: now,
	}
	made.Instance = name
	// The store first: what the catalog knows must be rebuildable.
	if err := s.seal(ctx, st, vault, policy, i); err != nil {
		return i, made, err
	}
	return i, made, s.catalog.PutInstance(ctx, i)
}

func (s *Service) vaultAndPolicy(ctx context.Context, r BackupRequest, now time.Time, made *Created) (v resource.Vault, p resource.Policy, err error) {
	vaultName, policyName := r.Vault, r.Policy
	if vaultName == "" {
		vaultName = resource.DefaultName
	}
	if policyName == "" {
		policyName = resource.DefaultName
	}
	v, err = s.catalog.Vault(ctx, vaultName)
	if errors.Is(err, catalog.ErrNotFound) {
		if err = resource.CheckVaultName(vaultName); err != nil {
			return v, p, err
		}
		if vaultName != resource.DefaultName {
			return v, p, problem.New(problem.VaultNotFound, "There is no vault %q.", vaultName).With("vault", vaultName)
		}
		v = resource.Vault{Name: vaultName, Created: now}
		made.Vault = vaultName
		err = s.catalog.PutVault(ctx, v)
	}
	if err != nil {
		return v, p, err
	}
	p, err = s.catalog.Policy(ctx, vaultName, policyName)
	if errors.Is(err, catalog.ErrNotFound) {
		if err = resource.CheckPolicyName(policyName); err != nil {
			return v, p, err
		}
		if policyName != resource.DefaultName {
			return v, p, problem.New(problem.PolicyNotFound, "The vault %q has no policy %q.", vaultName, policyName).With("policy", policyName)
		}
		p = resource.DefaultPolicy(vaultName, now)
		made.Policy = policyName
		err = s.catalog.PutPolicy(ctx, p)
	}
	return v, p, err
}

// storeFor gives the store of a new instance. The one in the data folder is
// made when there is none; any other must exist, since a mistyped URL must not
// become a store.
func (s *Service) storeFor(ctx context.Context, c call, r BackupRequest, made *Created) (*store.Store, resource.Store, error) {
	known, err := s.catalog.Stores(ctx)
	if err != nil {
		return nil, resource.Store{}, err
	}
	if r.URL == "" && len(known) == 0 {
		st, row, err := s.makeStore(ctx, c, CreateStoreRequest{Default: true})
		made.Store = row.URL
		return st, row, err
	}
	return s.openStore(ctx, r.StoreRequest)
}

// seal writes the records of an instance's protection into its store.
func (s *Service) seal(ctx context.Context, st *store.Store, v resource.Vault, p resource.Policy, i resource.Instance) error {
	if err := st.PutRecord(ctx, recordVault, v.Ref(), v); err != nil {
		return err
	}
	if err := st.PutRecord(ctx, recordPolicy, p.Vault+"/"+p.Name, p); err != nil {
		return err
	}
	return st.PutRecord(ctx, recordInstance, i.ID, i)
}

// freeName makes a name that no instance has, and no deleted one of the vault.
func (s *Service) freeName(ctx context.Context, v resource.Vault, path string) (string, error) {
	names := resource.NameOf(path)
	for n := 2; n < 10000; n++ {
		names = append(names, fmt.Sprintf("%s-%d", names[0], n))
	}
	for _, name := range names {
		found, err := s.catalog.InstancesNamed(ctx, name)
		if err != nil {
			return "", err
		}
		_, none, err := s.known(ctx, v.Normal().ID.Child("backupInstances", name))
		if err != nil {
			return "", err
		}
		if len(found) == 0 && none {
			return name, nil
		}
	}
	return "", problem.New(problem.InvalidArgument, "No name is free for %s.", path).Do("Give one with --name.")
}
