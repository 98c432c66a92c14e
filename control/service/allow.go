package service

import (
	"context"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/access"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
)

// may returns an AuthorizationFailed problem unless the caller may do an action
// of ARM, such as Microsoft.DataProtection/backupVaults/write, at a resource.
func (a Acting) may(ctx context.Context, action string, at resource.ID) error {
	if a.s.catalogErr != nil {
		return a.s.catalogErr
	}
	if a.who.Owner() {
		return nil
	}
	grants, err := a.s.grants(ctx, append([]string{a.who.Principal}, a.who.Groups...)...)
	if err != nil {
		return err
	}
	return grants.Authorize(a.who, action, at)
}

// grants gives what some principals may do. It is read anew for each decision:
// a role that was taken away must not work any longer.
func (s *Service) grants(ctx context.Context, principals ...string) (*access.Grants, error) {
	custom, err := catalog.Resources[resource.RoleDefinition](ctx, s.catalog, resource.TypeRoleDefinition, "", catalog.Page{})
	if err != nil {
		return nil, err
	}
	var all []resource.RoleAssignment
	for _, p := range principals {
		if p == "" {
			continue
		}
		has, err := catalog.Linked[resource.RoleAssignment](ctx, s.catalog, resource.TypeRoleAssignment, p)
		if err != nil {
			return nil, err
		}
		all = append(all, has...)
	}
	return access.NewGrants(custom, all), nil
}

// preflight checks that the identity of an instance's vault may do a work; for
// a restore also in the target's resource group. Disks that have only a path
// are the owner's of the data folder, as the command line's are: there is no
// resource at which a role could be assigned.
func (s *Service) preflight(ctx context.Context, i resource.Instance, w access.Work, target resource.ID) (access.Report, error) {
	if i.DiskID == "" {
		return access.Report{}, nil
	}
	v, err := s.catalog.Vault(ctx, i.Vault)
	if err != nil {
		return access.Report{}, missing(err, resource.VaultID(i.Vault))
	}
	facts := access.Facts{Identity: v.Identity, User: i.ActsAs, Places: map[access.Place]access.Target{}}
	_, err = catalog.Resource[resource.Disk](ctx, s.catalog, i.DiskID)
	if err := there(&facts, access.Disk, i.DiskID, missing(err, i.DiskID)); err != nil {
		return access.Report{}, err
	}
	for place, id := range map[access.Place]resource.ID{access.SnapshotGroup: i.Snapshots, access.TargetGroup: target} {
		if id == "" {
			continue
		}
		_, err := s.group(ctx, id)
		if err := there(&facts, place, id, err); err != nil {
			return access.Report{}, err
		}
	}
	principal := v.Identity.PrincipalID
	if i.ActsAs != "" {
		principal, _ = v.Identity.Of(i.ActsAs)
	}
	grants, err := s.grants(ctx, principal)
	if err != nil {
		return access.Report{}, err
	}
	return grants.Preflight(w, facts), nil
}

// there notes whether a place is there; err is what looking for it gave.
func there(f *access.Facts, place access.Place, id resource.ID, err error) error {
	absent := problem.Is(err, problem.ResourceNotFound) || problem.Is(err, problem.GroupNotFound)
	if err != nil && !absent {
		return err
	}
	f.Places[place] = access.Target{ID: id, Exists: !absent}
	return nil
}

// MissingRoles gives the fewest role assignments that the vault's identity
// still needs to back a disk up.
func (a Acting) MissingRoles(ctx context.Context, r InstanceRequest) (access.Report, error) {
	return look(ctx, a, vaults+"validateForBackup/action", r.ID.Parent(), func() (access.Report, error) {
		i, err := a.s.wanted(ctx, r)
		if err != nil {
			return access.Report{}, err
		}
		return a.s.preflight(ctx, i, access.Validate, "")
	})
}

// AddMissingRoles makes the role assignments that are missing, at the resources
// or above them. The caller must have the right to assign them.
func (a Acting) AddMissingRoles(ctx context.Context, r InstanceRequest, at access.Level) ([]resource.RoleAssignment, error) {
	report, err := a.MissingRoles(ctx, r)
	if err != nil {
		return nil, err
	}
	return a.assignAll(ctx, report.Missing, at)
}

// assignAll makes role assignments at the resources named or above them.
func (a Acting) assignAll(ctx context.Context, missing []access.Grant, at access.Level) ([]resource.RoleAssignment, error) {
	grants, err := a.s.grants(ctx, append([]string{a.who.Principal}, a.who.Groups...)...)
	if err != nil {
		return nil, err
	}
	var wanted []access.Grant
	for _, m := range missing {
		wanted = append(wanted, m.At(at))
	}
	if err := grants.CheckGranter(a.who, wanted); err != nil {
		return nil, err
	}
	var out []resource.RoleAssignment
	for _, m := range wanted {
		made, _, err := a.PutRoleAssignment(ctx, resource.RoleAssignment{
			ID: resource.In(m.Scope, resource.TypeRoleAssignment, uuid.NewString()), Scope: m.Scope, Role: m.RoleID, Principal: m.Principal,
			PrincipalType: "ServicePrincipal", Description: m.Reason,
		})
		switch {
		case problem.Is(err, problem.AssignmentExists): // two places below one scope
		case err != nil:
			return out, err
		default:
			out = append(out, made)
		}
	}
	return out, nil
}
