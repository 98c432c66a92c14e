package arm

import (
	"net/http"
	"slices"
	"strings"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
)

type roleBody struct {
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	Type       string         `json:"type"`
	Properties roleProperties `json:"properties"`
}

type roleProperties struct {
	RoleName         string        `json:"roleName"`
	Type             string        `json:"type"`
	Description      string        `json:"description"`
	AssignableScopes []string      `json:"assignableScopes"`
	Permissions      []permissions `json:"permissions"`
}

type permissions struct {
	Actions        []string `json:"actions"`
	NotActions     []string `json:"notActions"`
	DataActions    []string `json:"dataActions"`
	NotDataActions []string `json:"notDataActions"`
}

// qualified is the ID of a role definition as clients of a subscription know
// it.
func qualified(role, scope resource.ID) string {
	if s := scope.Subscription(); s != "" {
		return string(resource.In(resource.SubscriptionID(s), resource.TypeRoleDefinition, role.Name()))
	}
	return string(role)
}

func roleOf(r resource.RoleDefinition, scope resource.ID) roleBody {
	p := permissions{append([]string{}, r.Actions...), append([]string{}, r.NotActions...), append([]string{}, r.DataActions...), append([]string{}, r.NotDataActions...)}
	b := roleBody{ID: qualified(r.ID, scope), Name: r.ID.Name(), Type: resource.TypeRoleDefinition,
		Properties: roleProperties{RoleName: r.RoleName, Type: r.Type, Description: r.Description, AssignableScopes: []string{}, Permissions: []permissions{p}}}
	for _, s := range r.AssignableScopes {
		if s == "" {
			s = "/"
		}
		b.Properties.AssignableScopes = append(b.Properties.AssignableScopes, string(s))
	}
	return b
}

// scope is that at which roles are asked for: of a single one what is above it.
func (q *request) scope() resource.ID {
	if t := q.at.Type(); t == resource.TypeRoleDefinition || t == resource.TypeRoleAssignment {
		return q.at.Parent()
	}
	return q.at
}

func listRoles(q *request) (reply, error) {
	terms, err := parseFilter(q.query.Get("$filter"))
	if err != nil {
		return reply{}, err
	}
	found, err := q.as.RoleDefinitions(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	for _, t := range terms {
		switch {
		case strings.EqualFold(t.name, "roleName") && t.operator == "eq":
			found = slices.DeleteFunc(found, func(r resource.RoleDefinition) bool { return !strings.EqualFold(r.RoleName, t.value) })
		case strings.EqualFold(t.name, "type") && t.operator == "eq":
			found = slices.DeleteFunc(found, func(r resource.RoleDefinition) bool { return !strings.EqualFold(r.Type, t.value) })
		case strings.EqualFold(t.name, "atScopeAndBelow"), strings.EqualFold(t.name, "atScope"): // all that can be assigned here
		default:
			return reply{}, t.unknown()
		}
	}
	out := page[roleBody]{Value: []roleBody{}}
	for _, r := range found {
		out.Value = append(out.Value, roleOf(r, q.at))
	}
	return ok(out)
}

func getRole(q *request) (reply, error) {
	found, err := q.as.RoleDefinitions(q.Context(), q.scope())
	if err != nil {
		return reply{}, err
	}
	for _, r := range found {
		if strings.EqualFold(r.ID.Name(), q.names["role"]) {
			return ok(roleOf(r, q.scope()))
		}
	}
	return reply{}, problem.New(problem.ResourceNotFound, "There is no role definition %q at %s.", q.names["role"], q.scope())
}

func putRole(q *request) (reply, error) {
	var b roleBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	r := resource.RoleDefinition{ID: q.at, RoleName: b.Properties.RoleName, Description: b.Properties.Description}
	for _, p := range b.Properties.Permissions {
		r.Actions, r.NotActions = append(r.Actions, p.Actions...), append(r.NotActions, p.NotActions...)
		r.DataActions, r.NotDataActions = append(r.DataActions, p.DataActions...), append(r.NotDataActions, p.NotDataActions...)
	}
	for _, s := range b.Properties.AssignableScopes {
		id, err := resource.ParseID(s)
		if err != nil {
			return reply{}, err
		}
		r.AssignableScopes = append(r.AssignableScopes, id)
	}
	r, err := q.as.PutRoleDefinition(q.Context(), r)
	return reply{status: http.StatusCreated, body: roleOf(r, q.scope())}, err
}

func deleteRole(q *request) (reply, error) { return done(q.as.DeleteRoleDefinition(q.Context(), q.at)) }

type assignmentBody struct {
	ID         string               `json:"id"`
	Name       string               `json:"name"`
	Type       string               `json:"type"`
	Properties assignmentProperties `json:"properties"`
}

type assignmentProperties struct {
	Role             string  `json:"roleDefinitionId"`
	Principal        string  `json:"principalId"`
	PrincipalType    string  `json:"principalType"`
	Scope            string  `json:"scope"`
	Condition        *string `json:"condition"`
	ConditionVersion *string `json:"conditionVersion"`
	CreatedOn        string  `json:"createdOn"`
	UpdatedOn        string  `json:"updatedOn"`
	CreatedBy        *string `json:"createdBy"`
	UpdatedBy        *string `json:"updatedBy"`
	Delegated        *string `json:"delegatedManagedIdentityResourceId"`
	Description      *string `json:"description"`
}

func assignmentOf(r resource.RoleAssignment) assignmentBody {
	scope := string(r.Scope)
	if scope == "" {
		scope = "/"
	}
	at := timeText(r.Created)
	return assignmentBody{ID: string(r.ID), Name: r.ID.Name(), Type: resource.TypeRoleAssignment, Properties: assignmentProperties{
		Role: qualified(r.Role, r.Scope), Principal: r.Principal, PrincipalType: r.PrincipalType, Scope: scope, CreatedOn: at, UpdatedOn: at,
		CreatedBy: text(r.CreatedBy), UpdatedBy: text(r.CreatedBy), Description: text(r.Description),
	}}
}

func putAssignment(q *request) (reply, error) {
	var b assignmentBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	if valueOf(b.Properties.Condition) != "" {
		return reply{}, problem.New(problem.ParameterInvalid, "Conditions of role assignments are not supported, so an assignment with one is refused.")
	}
	role, err := idIn(b.Properties.Role)
	if err != nil {
		return reply{}, err
	}
	r, created, err := q.as.PutRoleAssignment(q.Context(), resource.RoleAssignment{
		ID: q.at, Scope: q.scope(), Role: role, Principal: strings.ToLower(b.Properties.Principal), PrincipalType: b.Properties.PrincipalType, Description: valueOf(b.Properties.Description),
	})
	if err != nil {
		return reply{}, err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return reply{status: status, body: assignmentOf(r)}, nil
}

func getAssignment(q *request) (reply, error) {
	r, err := q.as.RoleAssignment(q.Context(), q.at)
	return reply{status: http.StatusOK, body: assignmentOf(r)}, err
}

func deleteAssignment(q *request) (reply, error) {
	r, err := q.as.RoleAssignment(q.Context(), q.at)
	if problem.Is(err, problem.ResourceNotFound) {
		return done(false, nil)
	}
	if err != nil {
		return reply{}, err
	}
	if _, err := q.as.DeleteRoleAssignment(q.Context(), q.at); err != nil {
		return reply{}, err
	}
	return ok(assignmentOf(r))
}

func listAssignments(q *request) (reply, error) {
	terms, err := parseFilter(q.query.Get("$filter"))
	if err != nil {
		return reply{}, err
	}
	principal, below := "", true
	for _, t := range terms {
		switch {
		case strings.EqualFold(t.name, "atScope"):
			below = false
		case strings.EqualFold(t.name, "assignedTo"), strings.EqualFold(t.name, "principalId") && t.operator == "eq":
			principal = strings.ToLower(t.value)
		default:
			return reply{}, t.unknown()
		}
	}
	found, err := q.as.RoleAssignments(q.Context(), q.at, principal, below)
	if err != nil {
		return reply{}, err
	}
	out := page[assignmentBody]{Value: []assignmentBody{}}
	for _, r := range found {
		out.Value = append(out.Value, assignmentOf(r))
	}
	return ok(out)
}
