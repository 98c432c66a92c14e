package service

import (
	"context"
	"slices"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
)

const (
	guards  = "Microsoft.DataProtection/resourceGuards/"
	proxies = "Microsoft.DataProtection/backupVaults/backupResourceGuardProxies/"
)

// PutGuard makes a resource guard or replaces its settings. It tells whether
// the guard is new.
func (a Acting) PutGuard(ctx context.Context, g resource.Guard, match string) (out resource.Guard, created bool, err error) {
	out, err = act(ctx, a, guards+"write", g.ID, func() (resource.Guard, error) {
		if err := a.s.inGroup(ctx, g.ID); err != nil {
			return g, err
		}
		for _, o := range g.Excluded {
			known := false
			for _, c := range resource.CriticalOperations {
				known = known || c.Operation == o
			}
			if !known {
				return g, problem.New(problem.InvalidArgument, "%q is no critical operation.", o)
			}
		}
		return putResource(ctx, a.s, g.ID, func(old *resource.Guard) (resource.Guard, error) {
			created = old == nil
			if err := matches(match, old); err != nil {
				return g, err
			}
			n := g
			n.Location, n.Created = resource.Location(g.Location), time.Now().UTC()
			if old != nil {
				n.ID, n.Created = old.ID, old.Created
				if n.Location != "" && n.Location != old.Location {
					return g, problem.New(problem.LocationConflict, "The resource guard %q lies in %s and cannot move to %s.", n.ID.Name(), old.Location, n.Location)
				}
				n.Location = old.Location
			}
			return n, nil
		})
	})
	return out, created, err
}

// Guard gives a resource guard.
func (a Acting) Guard(ctx context.Context, id resource.ID) (resource.Guard, error) {
	return look(ctx, a, guards+"read", id, func() (resource.Guard, error) {
		g, err := catalog.Resource[resource.Guard](ctx, a.s.catalog, id)
		return g, missing(err, id)
	})
}

// Guards lists the resource guards of a resource group or subscription.
func (a Acting) Guards(ctx context.Context, scope resource.ID, p Page) ([]resource.Guard, error) {
	return look(ctx, a, guards+"read", scope, func() ([]resource.Guard, error) {
		return catalog.Resources[resource.Guard](ctx, a.s.catalog, resource.TypeGuard, scope, p.catalog())
	})
}

// DeleteGuard removes a resource guard that guards no vault; false if it is
// not there.
func (a Acting) DeleteGuard(ctx context.Context, id resource.ID) (bool, error) {
	return act(ctx, a, guards+"delete", id, func() (bool, error) {
		all, err := catalog.Resources[resource.GuardProxy](ctx, a.s.catalog, resource.TypeGuardProxy, "", catalog.Page{})
		if err != nil {
			return false, err
		}
		if i := slices.IndexFunc(all, func(p resource.GuardProxy) bool { return p.Guard.Same(id) }); i >= 0 {
			return false, problem.New(problem.ResourceExists, "The resource guard %q guards the vault %s.", id.Name(), all[i].ID.Parent().Name()).
				Do("Remove the vault's proxy first.")
		}
		return a.s.dropResource(ctx, id)
	})
}

// PutGuardProxy ties a vault to a guard.
func (a Acting) PutGuardProxy(ctx context.Context, p resource.GuardProxy) (resource.GuardProxy, error) {
	return act(ctx, a, proxies+"write", p.ID, func() (resource.GuardProxy, error) {
		vault := p.ID.Parent()
		if _, err := a.s.catalog.Vault(ctx, string(vault)); err != nil {
			return p, missing(err, vault)
		}
		if _, err := catalog.Resource[resource.Guard](ctx, a.s.catalog, p.Guard); err != nil {
			return p, missing(err, p.Guard)
		}
		others, err := a.s.proxies(ctx, vault)
		if err != nil {
			return p, err
		}
		if len(others) > 0 && !others[0].ID.Same(p.ID) {
			return p, problem.New(problem.ResourceExists, "The vault %q has the resource guard %s already.", vault.Name(), others[0].Guard)
		}
		return putResource(ctx, a.s, p.ID, func(old *resource.GuardProxy) (resource.GuardProxy, error) {
			n := p
			n.Updated, n.UnlockedUntil = time.Now().UTC(), time.Time{}
			if old != nil && !old.Guard.Same(p.Guard) {
				return p, problem.New(problem.PropertyFixed, "The proxy %q belongs to the resource guard %s.", p.ID.Name(), old.Guard)
			}
			return n, nil
		})
	})
}

func (s *Service) proxies(ctx context.Context, vault resource.ID) ([]resource.GuardProxy, error) {
	return catalog.Linked[resource.GuardProxy](ctx, s.catalog, resource.TypeGuardProxy, vault.Key())
}

// GuardProxy gives the proxy of a vault's guard.
func (a Acting) GuardProxy(ctx context.Context, id resource.ID) (resource.GuardProxy, error) {
	return look(ctx, a, proxies+"read", id, func() (resource.GuardProxy, error) {
		p, err := catalog.Resource[resource.GuardProxy](ctx, a.s.catalog, id)
		return p, missing(err, id)
	})
}

// GuardProxies lists the proxies of a vault; there is at most one.
func (a Acting) GuardProxies(ctx context.Context, vault resource.ID) ([]resource.GuardProxy, error) {
	return look(ctx, a, proxies+"read", vault, func() ([]resource.GuardProxy, error) { return a.s.proxies(ctx, vault) })
}

// unlocked is how long a vault stays open after it was unlocked.
const unlocked = 48 * time.Hour

// UnlockDelete opens a vault for what its guard holds back. It takes the right
// to delete the proxy at the vault, and a right at the guard itself, which the
// administrator of the vault does not have by that.
func (a Acting) UnlockDelete(ctx context.Context, id resource.ID) (until time.Time, err error) {
	return act(ctx, a, proxies+"unlockDelete/action", id, func() (time.Time, error) {
		p, err := catalog.Resource[resource.GuardProxy](ctx, a.s.catalog, id)
		if err != nil {
			return time.Time{}, missing(err, id)
		}
		if err := a.may(ctx, guards+"deleteBackupInstanceRequests/read", p.Guard); err != nil {
			return time.Time{}, err
		}
		p, err = putResource(ctx, a.s, id, func(old *resource.GuardProxy) (resource.GuardProxy, error) {
			if old == nil {
				return p, missing(catalog.ErrNotFound, id)
			}
			old.UnlockedUntil = time.Now().UTC().Add(unlocked)
			return *old, nil
		})
		return p.UnlockedUntil, err
	})
}

// DeleteGuardProxy takes a vault away from its guard; false if it is not there.
func (a Acting) DeleteGuardProxy(ctx context.Context, id resource.ID) (bool, error) {
	return act(ctx, a, proxies+"delete", id, func() (bool, error) { return a.s.dropResource(ctx, id) })
}
