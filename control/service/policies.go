package service

import (
	"context"
	"errors"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/retention"
)

// PolicyRequest asks for a policy to be as it says.
type PolicyRequest struct {
	Policy resource.Policy // vault and name name it
	Match  string          // ETag that it must have; * for one that must exist
}

const policies = "Microsoft.DataProtection/backupVaults/backupPolicies/"

// PutPolicy makes a policy or replaces its rules. New rules govern new points:
// those that exist carry their own duration.
func (a Acting) PutPolicy(ctx context.Context, r PolicyRequest) (resource.Policy, error) {
	id := r.Policy.ResourceID()
	return act(ctx, a, policies+"write", id, func() (resource.Policy, error) {
		if err := resource.CheckPolicyName(r.Policy.Name); err != nil {
			return resource.Policy{}, err
		}
		v, err := a.s.catalog.Vault(ctx, r.Policy.Vault)
		if err != nil {
			return resource.Policy{}, missing(err, id.Parent())
		}
		if _, err := retention.Check(r.Policy); err != nil {
			return resource.Policy{}, err
		}
		return a.s.changePolicy(ctx, id, func(old *resource.Policy) (resource.Policy, error) {
			if err := matches(r.Match, old); err != nil {
				return resource.Policy{}, err
			}
			p := r.Policy
			p.Vault = v.Ref()
			now := time.Now().UTC()
			p.Created, p.Modified = now, time.Time{}
			if old != nil {
				p.Name, p.Created, p.Modified = old.Name, old.Created, old.Modified
				if resource.ETag(p) != resource.ETag(*old) {
					p.Modified = now
				}
			}
			return p, nil
		})
	})
}

// changePolicy changes a policy and its records.
func (s *Service) changePolicy(ctx context.Context, id resource.ID, decide func(old *resource.Policy) (resource.Policy, error)) (resource.Policy, error) {
	return sealed(decide,
		func() (resource.Policy, error) { return s.catalog.Policy(ctx, string(id.Parent()), id.Name()) },
		func(p resource.Policy) error {
			stores, err := s.catalog.StoresOf(ctx, id.Parent(), id)
			if err != nil {
				return err
			}
			return s.sealIn(ctx, stores, recordPolicy, p.Vault+"/"+p.Name, p)
		},
		func(do func(old *resource.Policy) (resource.Policy, error)) (resource.Policy, error) {
			return s.catalog.ChangePolicy(ctx, id, do)
		})
}

// Policy gives a policy.
func (a Acting) Policy(ctx context.Context, id resource.ID) (resource.Policy, error) {
	return look(ctx, a, policies+"read", id, func() (resource.Policy, error) {
		p, err := a.s.catalog.Policy(ctx, string(id.Parent()), id.Name())
		return p, missing(err, id)
	})
}

// Policies lists the policies of a vault.
func (a Acting) Policies(ctx context.Context, vault resource.ID, p Page) ([]resource.Policy, error) {
	return look(ctx, a, policies+"read", vault, func() ([]resource.Policy, error) {
		if _, err := a.s.catalog.Vault(ctx, string(vault)); err != nil {
			return nil, missing(err, vault)
		}
		return a.s.catalog.Policies(ctx, vault, p.catalog())
	})
}

// DeletePolicy removes a policy that nothing uses; false if it is not there.
func (a Acting) DeletePolicy(ctx context.Context, id resource.ID) (bool, error) {
	return act(ctx, a, policies+"delete", id, func() (bool, error) {
		p, err := a.s.catalog.Policy(ctx, string(id.Parent()), id.Name())
		if errors.Is(err, catalog.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		removed, err := a.s.catalog.RemovePolicy(ctx, id)
		if err != nil {
			return false, err
		}
		if removed {
			return true, a.s.sealIn(ctx, nil, recordPolicy, p.Vault+"/"+p.Name, nil)
		}
		return false, a.s.policyInUse(ctx, id)
	})
}

// policyInUse names what keeps a policy.
func (s *Service) policyInUse(ctx context.Context, id resource.ID) error {
	users, err := s.catalog.InstancesUsing(ctx, id, catalog.Page{Limit: pageOf})
	if err != nil {
		return err
	}
	var live, deleted []string
	for _, i := range users {
		if i.Deletion != nil {
			deleted = append(deleted, i.Name)
		} else {
			live = append(live, i.Name)
		}
	}
	if len(live) > 0 {
		return problem.New(problem.PolicyInUse, "The policy %q is used by %d backup instances, %q among them.", id.Name(), len(live), live[0]).With("instances", live)
	}
	return problem.New(problem.PolicyInSoftDeleted, "The policy %q is used by %d deleted backup instances that can still be had back.", id.Name(), len(deleted)).With("instances", deleted)
}
