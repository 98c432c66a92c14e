package service

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/access"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
)

const (
	assignments = "Microsoft.Authorization/roleAssignments/"
	definitions = "Microsoft.Authorization/roleDefinitions/"
)

// PutRoleAssignment gives a principal a role. The same assignment again changes
// nothing; another one under its name is refused. It tells whether it is new.
func (a Acting) PutRoleAssignment(ctx context.Context, r resource.RoleAssignment) (out resource.RoleAssignment, created bool, err error) {
	out, err = act(ctx, a, assignments+"write", r.Scope, func() (resource.RoleAssignment, error) {
		if _, err := uuid.Parse(r.ID.Name()); err != nil {
			return out, problem.New(problem.InvalidArgument, "%q cannot name a role assignment: it must be a GUID.", r.ID.Name())
		}
		if !builtIn(r.Role) {
			if _, err := catalog.Resource[resource.RoleDefinition](ctx, a.s.catalog, r.Role); err != nil {
				if err = missing(err, r.Role); problem.Is(err, problem.ResourceNotFound) {
					err = problem.New(problem.RoleUnknown, "There is no role definition %s.", r.Role).With("role", string(r.Role))
				}
				return out, err
			}
		}
		p, err := a.s.principal(ctx, r.Principal)
		switch {
		case err == nil && r.PrincipalType == "":
			r.PrincipalType = p.Type
		case problem.Is(err, problem.PrincipalUnknown) && r.PrincipalType == "ServicePrincipal":
			// Who says the type vouches for a principal that is about to be.
		case err != nil:
			return out, err
		}
		same, err := catalog.Linked[resource.RoleAssignment](ctx, a.s.catalog, resource.TypeRoleAssignment, r.Principal)
		if err != nil {
			return out, err
		}
		for _, other := range same {
			if !other.ID.Same(r.ID) && other.Scope.Same(r.Scope) && strings.EqualFold(other.Role.Name(), r.Role.Name()) {
				return out, problem.New(problem.AssignmentExists, "The principal has this role at this scope already, by the assignment %s.", other.ID.Name()).With("id", string(other.ID))
			}
		}
		return putResource(ctx, a.s, r.ID, func(old *resource.RoleAssignment) (resource.RoleAssignment, error) {
			created = old == nil
			if old == nil {
				r.Created, r.CreatedBy = time.Now().UTC(), a.who.Principal
				return r, nil
			}
			if !strings.EqualFold(old.Principal, r.Principal) || !old.Scope.Same(r.Scope) || !strings.EqualFold(old.Role.Name(), r.Role.Name()) {
				return r, problem.New(problem.AssignmentFixed, "The role assignment %q exists with another principal, role or scope.", r.ID.Name())
			}
			return *old, nil
		})
	})
	return out, created, err
}

func builtIn(role resource.ID) bool {
	return slices.ContainsFunc(access.BuiltIn(), func(r resource.RoleDefinition) bool { return strings.EqualFold(r.ID.Name(), role.Name()) })
}

// principal finds a principal by its object ID.
func (s *Service) principal(ctx context.Context, objectID string) (resource.Principal, error) {
	p, err := catalog.Resource[resource.Principal](ctx, s.catalog, resource.Principal{ObjectID: objectID}.ResourceID())
	if err != nil {
		if err = missing(err, "/x"); problem.Is(err, problem.ResourceNotFound) {
			err = problem.New(problem.PrincipalUnknown, "There is no principal %s.", objectID).With("principal", objectID)
		}
	}
	return p, err
}

// RoleAssignment gives an assignment.
func (a Acting) RoleAssignment(ctx context.Context, id resource.ID) (resource.RoleAssignment, error) {
	return look(ctx, a, assignments+"read", id.Parent(), func() (resource.RoleAssignment, error) {
		r, err := catalog.Resource[resource.RoleAssignment](ctx, a.s.catalog, id)
		return r, missing(err, id)
	})
}

// RoleAssignments lists the assignments that hold at a scope, which are those
// at it and above it; with below also those below it. Of one principal if it
// is named.
func (a Acting) RoleAssignments(ctx context.Context, scope resource.ID, principal string, below bool) ([]resource.RoleAssignment, error) {
	return look(ctx, a, assignments+"read", scope, func() ([]resource.RoleAssignment, error) {
		var all []resource.RoleAssignment
		var err error
		if principal != "" {
			all, err = catalog.Linked[resource.RoleAssignment](ctx, a.s.catalog, resource.TypeRoleAssignment, principal)
		} else {
			all, err = catalog.Resources[resource.RoleAssignment](ctx, a.s.catalog, resource.TypeRoleAssignment, "", catalog.Page{})
		}
		return slices.DeleteFunc(all, func(r resource.RoleAssignment) bool {
			return !scope.Within(r.Scope) && !(below && r.Scope.Within(scope))
		}), err
	})
}

// DeleteRoleAssignment takes a role from a principal; false if it is not there.
func (a Acting) DeleteRoleAssignment(ctx context.Context, id resource.ID) (bool, error) {
	return act(ctx, a, assignments+"delete", id.Parent(), func() (bool, error) { return a.s.dropResource(ctx, id) })
}

// PutRoleDefinition makes or replaces a role of people's own.
func (a Acting) PutRoleDefinition(ctx context.Context, r resource.RoleDefinition) (resource.RoleDefinition, error) {
	return act(ctx, a, definitions+"write", r.ID.Parent(), func() (resource.RoleDefinition, error) {
		if _, err := uuid.Parse(r.ID.Name()); err != nil {
			return r, problem.New(problem.InvalidArgument, "%q cannot name a role definition: it must be a GUID.", r.ID.Name())
		}
		if r.RoleName == "" || len(r.AssignableScopes) == 0 {
			return r, problem.New(problem.InvalidArgument, "A role needs a name and the scopes at which it can be assigned.")
		}
		return putResource(ctx, a.s, r.ID, func(old *resource.RoleDefinition) (resource.RoleDefinition, error) {
			r.Type, r.Created = "CustomRole", time.Now().UTC()
			if old != nil {
				r.Created = old.Created
			}
			return r, nil
		})
	})
}

// RoleDefinitions lists the roles that can be assigned at a scope, the built-in
// ones first.
func (a Acting) RoleDefinitions(ctx context.Context, scope resource.ID) ([]resource.RoleDefinition, error) {
	return look(ctx, a, definitions+"read", scope, func() ([]resource.RoleDefinition, error) {
		all, err := catalog.Resources[resource.RoleDefinition](ctx, a.s.catalog, resource.TypeRoleDefinition, "", catalog.Page{})
		return slices.DeleteFunc(append(access.BuiltIn(), all...), func(r resource.RoleDefinition) bool {
			return !slices.ContainsFunc(r.AssignableScopes, scope.Within)
		}), err
	})
}

// DeleteRoleDefinition removes a role of people's own that nobody has; false
// if it is not there.
func (a Acting) DeleteRoleDefinition(ctx context.Context, id resource.ID) (bool, error) {
	return act(ctx, a, definitions+"delete", id.Parent(), func() (bool, error) {
		all, err := catalog.Resources[resource.RoleAssignment](ctx, a.s.catalog, resource.TypeRoleAssignment, "", catalog.Page{})
		if err != nil {
			return false, err
		}
		for _, r := range all {
			if strings.EqualFold(r.Role.Name(), id.Name()) {
				return false, problem.New(problem.ResourceExists, "The role %q is assigned at %s.", id.Name(), r.Scope).Do("Remove its assignments first.")
			}
		}
		return a.s.dropResource(ctx, id)
	})
}

// PutPrincipal makes or replaces a principal.
func (a Acting) PutPrincipal(ctx context.Context, p resource.Principal) (resource.Principal, error) {
	return act(ctx, a, "diskvault/principals/write", p.ResourceID(), func() (resource.Principal, error) {
		if _, err := uuid.Parse(p.ObjectID); err != nil {
			return p, problem.New(problem.InvalidArgument, "%q cannot be the object ID of a principal: it must be a GUID.", p.ObjectID)
		}
		if !slices.Contains([]string{"User", "Group", "ServicePrincipal"}, p.Type) {
			return p, problem.New(problem.InvalidArgument, "%q is no type of principal: it is User, Group or ServicePrincipal.", p.Type)
		}
		return putResource(ctx, a.s, p.ResourceID(), func(old *resource.Principal) (resource.Principal, error) {
			p.Created = time.Now().UTC()
			if old != nil {
				p.Created = old.Created
			}
			return p, nil
		})
	})
}

// Principals lists the principals.
func (a Acting) Principals(ctx context.Context, p Page) ([]resource.Principal, error) {
	return look(ctx, a, "diskvault/principals/read", "", func() ([]resource.Principal, error) {
		return catalog.Resources[resource.Principal](ctx, a.s.catalog, "diskvault/principals", "", p.catalog())
	})
}

// DeletePrincipal removes a principal and the roles it has; false if it is not
// there.
func (a Acting) DeletePrincipal(ctx context.Context, objectID string) (bool, error) {
	id := resource.Principal{ObjectID: objectID}.ResourceID()
	return act(ctx, a, "diskvault/principals/delete", id, func() (bool, error) {
		has, err := catalog.Linked[resource.RoleAssignment](ctx, a.s.catalog, resource.TypeRoleAssignment, objectID)
		if err != nil {
			return false, err
		}
		for _, r := range has {
			if _, err := a.s.dropResource(ctx, r.ID); err != nil {
				return false, err
			}
		}
		return a.s.dropResource(ctx, id)
	})
}

// SignsIn finds the program that signs in by an application ID, for who checks
// its secret. It is not authorized: nobody is signed in yet.
func (s *Service) SignsIn(ctx context.Context, appID string) (resource.Principal, error) {
	if s.catalogErr != nil {
		return resource.Principal{}, s.catalogErr
	}
	found, err := catalog.Linked[resource.Principal](ctx, s.catalog, "diskvault/principals", appID)
	if err != nil {
		return resource.Principal{}, err
	}
	for _, p := range found {
		if appID != "" && !p.Disabled {
			return p, nil
		}
	}
	return resource.Principal{}, problem.New(problem.PrincipalUnknown, "No program signs in by %q.", appID)
}
