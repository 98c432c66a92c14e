package service

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/retention"
)

// VaultRequest asks for a vault to be as it says.
type VaultRequest struct {
	Vault resource.Vault // its ID names it; of the identity, the type and the IDs of user-assigned ones count
	Match string         // ETag that it must have; * for one that must exist
	// SecureByDefault holds the rules of api-versions from 2025-09-01 on:
	// soft delete must be AlwaysOn.
	SecureByDefault bool
}

const vaults = "Microsoft.DataProtection/backupVaults/"

// PutVault makes a vault or replaces its settings. It tells whether it is new.
func (a Acting) PutVault(ctx context.Context, r VaultRequest) (v resource.Vault, created bool, err error) {
	v, err = act(ctx, a, vaults+"write", r.Vault.ID, func() (resource.Vault, error) {
		if err := resource.CheckVaultName(r.Vault.ID.Name()); err != nil {
			return resource.Vault{}, err
		}
		if err := a.s.inGroup(ctx, r.Vault.ID); err != nil {
			return resource.Vault{}, err
		}
		v, err := a.s.changeVault(ctx, r.Vault.ID, func(old *resource.Vault) (resource.Vault, error) {
			created = old == nil
			if err := matches(r.Match, old); err != nil {
				return resource.Vault{}, err
			}
			return nextVault(old, r, time.Now().UTC())
		})
		if err == nil {
			err = a.s.knowIdentity(ctx, v)
		}
		return v, err
	})
	return v, created, err
}

// inGroup checks that the resource group of an ID is there. That of the home
// group needs no making.
func (s *Service) inGroup(ctx context.Context, id resource.ID) error {
	group := id.GroupID()
	if group.Same(resource.GroupID(resource.HomeSubscription, resource.HomeGroup)) {
		return nil
	}
	_, err := catalog.Resource[resource.Group](ctx, s.catalog, group)
	return missing(err, group)
}

// changeVault changes a vault and its records.
func (s *Service) changeVault(ctx context.Context, id resource.ID, decide func(old *resource.Vault) (resource.Vault, error)) (resource.Vault, error) {
	return sealed(decide,
		func() (resource.Vault, error) { return s.catalog.Vault(ctx, string(id)) },
		func(v resource.Vault) error {
			stores, err := s.catalog.StoresOf(ctx, id, "")
			if err != nil {
				return err
			}
			return s.sealIn(ctx, stores, recordVault, v.Ref(), v)
		},
		func(do func(old *resource.Vault) (resource.Vault, error)) (resource.Vault, error) {
			return s.catalog.ChangeVault(ctx, id, do)
		})
}

// nextVault says what a vault becomes.
func nextVault(old *resource.Vault, r VaultRequest, now time.Time) (resource.Vault, error) {
	v := r.Vault
	fail := func(err error) (resource.Vault, error) { return resource.Vault{}, err }
	if v.Location == "" && old != nil {
		v.Location = old.Location
	}
	if v.Location == "" {
		return fail(problem.New(problem.InvalidArgument, "The vault %q needs a location.", v.ID.Name()).Do("Give the site that it is for."))
	}
	v.Location = resource.Location(v.Location)
	from := resource.Vault{ID: v.ID, Location: v.Location, Created: now}.Normal()
	if old != nil {
		from = *old
		v.ID = old.ID
	}
	v.Created = from.Created
	if v.Location != from.Location {
		return fail(problem.New(problem.LocationConflict, "The vault %q lies in %s and cannot move to %s.", v.ID.Name(), from.Location, v.Location))
	}
	if v.SoftDelete == (resource.SoftDelete{}) {
		v.SoftDelete = from.SoftDelete
	}
	v.SoftDelete = v.SoftDelete.Effective()
	if err := retention.CheckSoftDelete(from.SoftDelete, v.SoftDelete, r.SecureByDefault); err != nil {
		return fail(err)
	}
	for _, s := range []struct {
		name, was, final string
		is               *string
		all              []string
	}{
		{"immutability", from.Immutability, "Locked", &v.Immutability, []string{"Disabled", "Unlocked", "Locked"}},
		{"cross-subscription restore", from.CrossSubscriptionRestore, "PermanentlyDisabled", &v.CrossSubscriptionRestore, []string{"Enabled", "Disabled", "PermanentlyDisabled"}},
		{"alerts for job failures", from.JobFailureAlerts, "", &v.JobFailureAlerts, []string{"Enabled", "Disabled"}},
	} {
		if *s.is == "" {
			*s.is = s.was
		}
		if !slices.Contains(s.all, *s.is) {
			return fail(problem.New(problem.InvalidArgument, "%q is no state of %s: it is one of %s.", *s.is, s.name, strings.Join(s.all, ", ")))
		}
		if s.was == s.final && *s.is != s.final {
			return fail(problem.New(problem.SettingIrreversible, "The setting %s of the vault %q is %s for good.", s.name, v.ID.Name(), s.final))
		}
	}
	// It becomes Locked from Unlocked only, which can be tried first.
	if v.Immutability == "Locked" && from.Immutability == "Disabled" {
		return fail(problem.New(problem.InvalidArgument, "Immutability goes from Disabled to Unlocked first, and from there to Locked."))
	}
	if err := checkStorage(v.Storage); err != nil {
		return fail(err)
	}
	if len(v.Storage) == 0 {
		v.Storage = from.Storage
	}
	if v.Stores == nil {
		v.Stores = from.Stores
	}
	id, err := nextIdentity(from.Identity, v.Identity, v.ID)
	v.Identity = id
	return v.Normal(), err
}

// vaultStorage says in a vault's settings how redundant so many stores are.
func vaultStorage(settings []resource.StorageSetting, stores int) []resource.StorageSetting {
	redundancy := "LocallyRedundant"
	if stores > 1 {
		redundancy = "GeoRedundant"
	}
	out := slices.DeleteFunc(slices.Clone(settings), func(s resource.StorageSetting) bool { return s.Tier == resource.VaultTier })
	return append(out, resource.StorageSetting{Tier: resource.VaultTier, Redundancy: redundancy})
}

func checkStorage(settings []resource.StorageSetting) error {
	for _, s := range settings {
		if !slices.Contains([]string{"OperationalStore", "VaultStore", "ArchiveStore", "SnapshotStore"}, s.Tier) {
			return problem.New(problem.InvalidArgument, "%q is no tier of a vault.", s.Tier)
		}
		if !slices.Contains([]string{"LocallyRedundant", "GeoRedundant", "ZoneRedundant"}, s.Redundancy) {
			return problem.New(problem.InvalidArgument, "%q is no redundancy of a tier.", s.Redundancy)
		}
	}
	return nil
}

// nextIdentity says what a vault acts as from now on. Whoever switches the
// vault's own identity off and on again gets another principal, so that roles
// of the old one never come back by themselves.
func nextIdentity(from, to resource.Identity, vault resource.ID) (resource.Identity, error) {
	if to.Type == "" {
		return from, nil
	}
	out := resource.Identity{Type: strings.ReplaceAll(to.Type, " ", "")}
	switch out.Type {
	case "None", "SystemAssigned", "UserAssigned", "SystemAssigned,UserAssigned":
	default:
		return from, problem.New(problem.InvalidArgument, "%q is no type of identity.", to.Type).
			Do("Use None, SystemAssigned, UserAssigned or SystemAssigned,UserAssigned.")
	}
	if out.System() {
		out.PrincipalID = from.PrincipalID
		if !from.System() || out.PrincipalID == "" {
			out.PrincipalID = uuid.NewString()
		}
	}
	if !strings.Contains(out.Type, "UserAssigned") {
		return out, nil
	}
	if len(to.Users) == 0 {
		return from, problem.New(problem.InvalidArgument, "The vault %q is to have user-assigned identities, but none is named.", vault.Name())
	}
	out.Users = map[resource.ID]resource.UserIdentity{}
	for text := range to.Users {
		id, err := resource.ParseID(string(text))
		if err != nil {
			return from, err
		}
		// Wherever an identity is used it is the same one.
		out.Users[id] = resource.UserIdentity{
			PrincipalID: uuid.NewSHA1(uuid.NameSpaceURL, []byte(id.Key())).String(),
			ClientID:    uuid.NewSHA1(uuid.NameSpaceURL, []byte(id.Key()+"/client")).String(),
		}
	}
	return out, nil
}

// knowIdentity makes the principals of a vault known, so that they can be
// given roles.
func (s *Service) knowIdentity(ctx context.Context, v resource.Vault) error {
	know := func(principal, name string) error {
		p := resource.Principal{ObjectID: principal, Type: "ServicePrincipal", Name: name, Created: time.Now().UTC()}
		_, err := putResource(ctx, s, p.ResourceID(), func(old *resource.Principal) (resource.Principal, error) {
			if old != nil {
				return *old, nil
			}
			return p, nil
		})
		return err
	}
	if v.Identity.System() {
		if err := know(v.Identity.PrincipalID, v.Name); err != nil {
			return err
		}
	}
	for id, u := range v.Identity.Users {
		if err := know(u.PrincipalID, id.Name()); err != nil {
			return err
		}
	}
	return nil
}

// VaultPatch changes some of a vault; what is nil stays.
type VaultPatch struct {
	ID                       resource.ID
	Match                    string
	SecureByDefault          bool
	Tags                     map[string]string
	Identity                 *resource.Identity
	SoftDelete               *resource.SoftDelete
	Immutability             *string
	JobFailureAlerts         *string
	CrossSubscriptionRestore *string
	Stores                   []string // URLs of the vault tier; empty, not nil: none from now on
}

// PatchVault changes some of a vault.
func (a Acting) PatchVault(ctx context.Context, r VaultPatch) (resource.Vault, error) {
	return act(ctx, a, vaults+"write", r.ID, func() (resource.Vault, error) {
		var stores []resource.VaultStore
		if r.Stores != nil {
			var err error
			if stores, err = a.s.vaultStores(ctx, r.ID, r.Stores); err != nil {
				return resource.Vault{}, err
			}
		}
		v, err := a.s.changeVault(ctx, r.ID, func(old *resource.Vault) (resource.Vault, error) {
			if old == nil {
				return resource.Vault{}, missing(catalog.ErrNotFound, r.ID)
			}
			if err := matches(r.Match, old); err != nil {
				return resource.Vault{}, err
			}
			v := *old
			if r.Tags != nil {
				v.Tags = r.Tags
			}
			if r.Identity != nil {
				v.Identity = *r.Identity
			}
			if r.SoftDelete != nil {
				v.SoftDelete = *r.SoftDelete
			}
			for to, from := range map[*string]*string{&v.Immutability: r.Immutability, &v.JobFailureAlerts: r.JobFailureAlerts, &v.CrossSubscriptionRestore: r.CrossSubscriptionRestore} {
				if from != nil {
					*to = *from
				}
			}
			if r.Stores != nil {
				v.Stores, v.Storage = stores, vaultStorage(v.Storage, len(stores))
			}
			// The rule of secure vaults is for who sets soft delete.
			return nextVault(old, VaultRequest{Vault: v, SecureByDefault: r.SecureByDefault && r.SoftDelete != nil}, time.Now().UTC())
		})
		if err == nil {
			err = a.s.knowIdentity(ctx, v)
		}
		return v, err
	})
}

// Vault gives a vault.
func (a Acting) Vault(ctx context.Context, id resource.ID) (resource.Vault, error) {
	return look(ctx, a, vaults+"read", id, func() (resource.Vault, error) {
		v, err := a.s.catalog.Vault(ctx, string(id))
		return v, missing(err, id)
	})
}

// Vaults lists the vaults of a resource group or subscription.
func (a Acting) Vaults(ctx context.Context, scope resource.ID, p Page) ([]resource.Vault, error) {
	return look(ctx, a, vaults+"read", scope, func() ([]resource.Vault, error) {
		return a.s.catalog.Vaults(ctx, scope, p.catalog())
	})
}

// DeleteVault removes a vault that holds nothing; false if it is not there.
func (a Acting) DeleteVault(ctx context.Context, id resource.ID) (bool, error) {
	return act(ctx, a, vaults+"delete", id, func() (bool, error) {
		v, err := a.s.catalog.Vault(ctx, string(id))
		if err != nil {
			if err := missing(err, id); !problem.Is(err, problem.VaultNotFound) {
				return false, err
			}
			return false, nil
		}
		removed, err := a.s.catalog.RemoveVault(ctx, id)
		if err != nil {
			return false, err
		}
		if !removed {
			return false, problem.New(problem.VaultInUse, "The vault %q still holds backup instances or policies.", v.Name)
		}
		if err := a.s.sealIn(ctx, nil, recordVault, v.Ref(), nil); err != nil {
			return false, err
		}
		if err := a.s.dropIdentity(ctx, v.Identity); err != nil {
			return false, err
		}
		_, err = a.s.catalog.RemoveResource(ctx, id) // what hangs on it, such as role assignments
		return true, err
	})
}

// dropIdentity forgets the principal that only a vault had.
func (s *Service) dropIdentity(ctx context.Context, i resource.Identity) error {
	if !i.System() {
		return nil
	}
	_, err := s.dropResource(ctx, resource.Principal{ObjectID: i.PrincipalID}.ResourceID())
	return err
}

// VaultNameFree tells whether a vault in the resource group could have a name;
// if not, why.
func (a Acting) VaultNameFree(ctx context.Context, group resource.ID, name string) (reason string, err error) {
	id := resource.In(group, resource.TypeVault, name)
	return look(ctx, a, vaults+"read", group, func() (string, error) {
		if err := resource.CheckVaultName(name); err != nil {
			return err.Error(), nil
		}
		_, err := a.s.catalog.Vault(ctx, string(id))
		if err == nil {
			return "There is a vault of this name.", nil
		}
		if err := missing(err, id); !problem.Is(err, problem.VaultNotFound) {
			return "", err
		}
		return "", nil
	})
}
