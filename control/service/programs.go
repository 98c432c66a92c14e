package service

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/access"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
)

// factEndpoint holds the URL of the server that ran last.
const factEndpoint = "endpoint"

// ProgramRequest asks for a program that can sign in and has a role.
type ProgramRequest struct {
	Name  string      `json:"name"`
	Role  string      `json:"role,omitempty"` // its name or GUID; empty: none
	Scope resource.ID `json:"scope"`          // of the role; empty: the home subscription
	Days  int         `json:"days,omitempty"` // how long the secret is good; 0: a year
}

// ProgramResult is what a program needs to sign in. The secret is in it and
// nowhere else.
type ProgramResult struct {
	TenantID       string    `json:"tenantId"`
	ClientID       string    `json:"clientId"`
	ClientSecret   string    `json:"clientSecret"`
	SubscriptionID string    `json:"subscriptionId"`
	ObjectID       string    `json:"objectId"`
	Expires        time.Time `json:"expires"`
	Endpoint       string    `json:"endpoint,omitempty"` // of the server that ran last; empty: none did
}

// MakeProgram makes a program that can sign in. One of the same name gets
// another secret; those that it has stay good.
func (a Acting) MakeProgram(ctx context.Context, r ProgramRequest) (ProgramResult, error) {
	if r.Name == "" {
		return ProgramResult{}, problem.New(problem.InvalidArgument, "A program needs a name.")
	}
	if r.Scope == "" {
		r.Scope = resource.SubscriptionID(resource.HomeSubscription)
	}
	if r.Days <= 0 {
		r.Days = 365
	}
	var role resource.ID
	if r.Role != "" {
		var err error
		if role, err = a.roleNamed(ctx, r.Role, r.Scope); err != nil {
			return ProgramResult{}, err
		}
	}
	tenant, err := a.s.Tenant(ctx)
	if err != nil {
		return ProgramResult{}, err
	}
	p, err := a.programNamed(ctx, r.Name)
	if err != nil {
		return ProgramResult{}, err
	}
	secret, kept := newSecret(time.Now().UTC(), r.Days)
	p.Secrets = append(p.Secrets, kept)
	if p, err = a.PutPrincipal(ctx, p); err != nil {
		return ProgramResult{}, err
	}
	if role != "" {
		_, _, err := a.PutRoleAssignment(ctx, resource.RoleAssignment{
			ID: resource.In(r.Scope, resource.TypeRoleAssignment, uuid.NewString()), Scope: r.Scope, Role: role, Principal: p.ObjectID, PrincipalType: p.Type,
		})
		if err != nil && !problem.Is(err, problem.AssignmentExists) {
			return ProgramResult{}, err
		}
	}
	endpoint, err := a.s.catalog.Fact(ctx, factEndpoint)
	subscription := r.Scope.Subscription()
	if subscription == "" {
		subscription = resource.HomeSubscription
	}
	return ProgramResult{TenantID: tenant, ClientID: p.AppID, ClientSecret: secret, SubscriptionID: subscription, ObjectID: p.ObjectID, Expires: kept.Expires, Endpoint: endpoint}, err
}

// programNamed finds a program by its name, or begins one. Its principal has
// an application ID, which those of vaults have not.
func (a Acting) programNamed(ctx context.Context, name string) (resource.Principal, error) {
	for after := (resource.ID)(""); ; {
		page, err := a.Principals(ctx, Page{After: after})
		if err != nil {
			return resource.Principal{}, err
		}
		for _, p := range page {
			if p.AppID != "" && p.Name == name {
				return p, nil
			}
			after = p.ResourceID()
		}
		if len(page) < pageOf {
			return resource.Principal{ObjectID: uuid.NewString(), Type: "ServicePrincipal", Name: name, AppID: uuid.NewString()}, nil
		}
	}
}

// roleNamed finds a role by its name or GUID.
func (a Acting) roleNamed(ctx context.Context, text string, scope resource.ID) (resource.ID, error) {
	all, err := a.RoleDefinitions(ctx, scope)
	if err != nil {
		return "", err
	}
	for _, r := range all {
		if strings.EqualFold(r.RoleName, text) || strings.EqualFold(r.ID.Name(), text) {
			return r.ID, nil
		}
	}
	return "", problem.New(problem.RoleUnknown, "There is no role %q that could be assigned at %s.", text, scope).With("role", text).
		Do("Use the name of a role, such as \"Backup Contributor\": diskvault role list --definitions")
}

// newSecret makes a client secret, and what is kept of it. It has 256 random
// bits, so that a plain hash gives nothing away: there is no list of likely
// secrets that a slow hash would have to protect against.
func newSecret(now time.Time, days int) (text string, kept resource.Secret) {
	random := make([]byte, 32)
	rand.Read(random) // never fails
	text = base64.RawURLEncoding.EncodeToString(random)
	return text, resource.Secret{ID: uuid.NewString(), Hash: hashOf(text), Created: now, Expires: now.AddDate(0, 0, days)}
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// SignIn checks the secret of a program. Whatever is wrong with the two, the
// problem is the same, so that nobody learns which programs there are.
func (s *Service) SignIn(ctx context.Context, appID, secret string) (resource.Principal, error) {
	wrong := problem.New(problem.SignInFailed, "No program signs in by this client ID and secret.")
	p, err := s.SignsIn(ctx, appID)
	if problem.Is(err, problem.PrincipalUnknown) {
		return resource.Principal{}, wrong
	}
	if err != nil {
		return resource.Principal{}, err
	}
	good := 0
	hash := hashOf(secret)
	for _, k := range p.Secrets {
		if k.Expires.IsZero() || time.Now().Before(k.Expires) {
			good |= subtle.ConstantTimeCompare([]byte(k.Hash), []byte(hash))
		}
	}
	if good == 0 {
		return resource.Principal{}, wrong
	}
	return p, nil
}

// Principal gives a principal by its object ID, for who has checked a token
// that names it. It is not authorized: it says who is asking.
func (s *Service) Principal(ctx context.Context, objectID string) (resource.Principal, error) {
	if s.catalogErr != nil {
		return resource.Principal{}, s.catalogErr
	}
	return s.principal(ctx, objectID)
}

// Tenant gives the GUID of the deployment's directory, which is made when it
// is first asked for.
func (s *Service) Tenant(ctx context.Context) (string, error) {
	if s.catalogErr != nil {
		return "", s.catalogErr
	}
	var t resource.Tenant
	t, err := catalog.Resource[resource.Tenant](ctx, s.catalog, t.ResourceID())
	if errors.Is(err, catalog.ErrNotFound) {
		t, err = putResource(ctx, s, t.ResourceID(), func(old *resource.Tenant) (resource.Tenant, error) {
			if old != nil {
				return *old, nil
			}
			return resource.Tenant{ID: uuid.NewString()}, nil
		})
	}
	return t.ID, err
}

// ServesAt notes the URL at which this server is reached.
func (s *Service) ServesAt(ctx context.Context, url string) error {
	return s.catalog.SetFact(ctx, factEndpoint, url)
}

// AssignRequest asks that a principal get a role.
type AssignRequest struct {
	Assignee string      `json:"assignee"` // object ID, application ID or name
	Role     string      `json:"role"`     // name or GUID
	Scope    resource.ID `json:"scope"`    // empty: the home subscription
}

// Assign gives a principal a role. One that it has already is no error.
func (a Acting) Assign(ctx context.Context, r AssignRequest) (resource.RoleAssignment, error) {
	if r.Scope == "" {
		r.Scope = resource.SubscriptionID(resource.HomeSubscription)
	}
	role, err := a.roleNamed(ctx, r.Role, r.Scope)
	if err != nil {
		return resource.RoleAssignment{}, err
	}
	p, err := a.principalNamed(ctx, r.Assignee)
	if err != nil {
		return resource.RoleAssignment{}, err
	}
	made, _, err := a.PutRoleAssignment(ctx, resource.RoleAssignment{
		ID: resource.In(r.Scope, resource.TypeRoleAssignment, uuid.NewString()), Scope: r.Scope, Role: role, Principal: p.ObjectID, PrincipalType: p.Type,
	})
	return made, err
}

// principalNamed finds a principal by what a person knows of it.
func (a Acting) principalNamed(ctx context.Context, text string) (resource.Principal, error) {
	for after := (resource.ID)(""); ; {
		page, err := a.Principals(ctx, Page{After: after})
		if err != nil {
			return resource.Principal{}, err
		}
		for _, p := range page {
			if strings.EqualFold(p.ObjectID, text) || strings.EqualFold(p.AppID, text) && text != "" || p.Name == text {
				return p, nil
			}
			after = p.ResourceID()
		}
		if len(page) < pageOf {
			return resource.Principal{}, problem.New(problem.PrincipalUnknown, "There is no principal %q.", text).With("principal", text)
		}
	}
}

// Assignment is a role assignment with the names that people know.
type Assignment struct {
	resource.RoleAssignment
	RoleName      string `json:"roleName"`
	PrincipalName string `json:"principalName,omitempty"`
}

// Assignments lists all role assignments within a scope and above it.
func (a Acting) Assignments(ctx context.Context, scope resource.ID) ([]Assignment, error) {
	all, err := a.RoleAssignments(ctx, scope, "", true)
	if err != nil {
		return nil, err
	}
	roles, err := catalog.Resources[resource.RoleDefinition](ctx, a.s.catalog, resource.TypeRoleDefinition, "", catalog.Page{})
	if err != nil {
		return nil, err
	}
	roles = append(access.BuiltIn(), roles...)
	out := []Assignment{}
	for _, one := range all {
		n := Assignment{RoleAssignment: one}
		if i := slices.IndexFunc(roles, func(r resource.RoleDefinition) bool { return strings.EqualFold(r.ID.Name(), one.Role.Name()) }); i >= 0 {
			n.RoleName = roles[i].RoleName
		}
		p, err := a.s.principal(ctx, one.Principal)
		if err != nil && !problem.Is(err, problem.PrincipalUnknown) {
			return nil, err
		}
		n.PrincipalName = p.Name
		out = append(out, n)
	}
	return out, nil
}

// MissingRequest names instances, by name or ID; empty: all.
type MissingRequest struct {
	Instance string       `json:"instance,omitempty"`
	Fix      bool         `json:"fix,omitempty"`
	At       access.Level `json:"at,omitempty"`
}

// Missing is what the identity of a vault lacks to back a disk up.
type Missing struct {
	Instance  resource.ID               `json:"instance"`
	Principal string                    `json:"principalId"`
	Roles     []MissingRole             `json:"missing"`
	Problems  []string                  `json:"problems"`
	Assigned  []resource.RoleAssignment `json:"assigned,omitempty"` // by this call
}

// MissingRole is a role assignment that a vault's identity lacks.
type MissingRole struct {
	Role   string      `json:"role"`
	Scope  resource.ID `json:"scope"`
	Reason string      `json:"reason"`
}

// MissingOf tells for backup instances which roles are missing, and assigns
// them if that is asked for. Disks that only have a path need none.
func (a Acting) MissingOf(ctx context.Context, r MissingRequest) ([]Missing, error) {
	found, err := a.s.catalog.Instances(ctx)
	if r.Instance != "" {
		var one resource.Instance
		one, err = a.s.instance(ctx, r.Instance, "")
		found = []resource.Instance{one}
	}
	if err != nil {
		return nil, err
	}
	out := []Missing{}
	for _, i := range found {
		if i.Deletion != nil || i.DiskID == "" {
			continue
		}
		report, err := a.s.preflight(ctx, i, access.Validate, "")
		if err != nil {
			return out, err
		}
		m := Missing{Instance: i.ResourceID(), Principal: report.Principal, Roles: []MissingRole{}, Problems: []string{}}
		for _, g := range report.Missing {
			m.Roles = append(m.Roles, MissingRole{Role: g.Role, Scope: g.Scope, Reason: g.Reason})
		}
		for _, p := range report.Problems {
			m.Problems = append(m.Problems, p.Message)
		}
		if r.Fix && len(report.Missing) > 0 {
			if m.Assigned, err = a.assignAll(ctx, report.Missing, r.At); err != nil {
				return out, err
			}
		}
		out = append(out, m)
	}
	return out, nil
}

// createProgram, assignRole, listRoles and missingRoles are the use cases of
// the Client.
func (s *Service) createProgram(ctx context.Context, _ call, r ProgramRequest) (ProgramResult, error) {
	return s.As(Local()).MakeProgram(ctx, r)
}

func (s *Service) assignRole(ctx context.Context, _ call, r AssignRequest) (resource.RoleAssignment, error) {
	return s.As(Local()).Assign(ctx, r)
}

func (s *Service) listRoles(ctx context.Context, _ call, scope resource.ID) ([]Assignment, error) {
	return s.As(Local()).Assignments(ctx, scope)
}

func (s *Service) listRoleDefinitions(ctx context.Context, _ call, scope resource.ID) ([]resource.RoleDefinition, error) {
	return s.As(Local()).RoleDefinitions(ctx, scope)
}

func (s *Service) missingRoles(ctx context.Context, _ call, r MissingRequest) ([]Missing, error) {
	return s.As(Local()).MissingOf(ctx, r)
}

// CreateProgram makes a program that can sign in.
func (c Client) CreateProgram(ctx context.Context, r ProgramRequest) (ProgramResult, error) {
	return ask[ProgramResult](ctx, c, "role.create-sp", r, nil)
}

// AssignRole gives a principal a role.
func (c Client) AssignRole(ctx context.Context, r AssignRequest) (resource.RoleAssignment, error) {
	return ask[resource.RoleAssignment](ctx, c, "role.assign", r, nil)
}

// Roles lists the role assignments within a scope and above it.
func (c Client) Roles(ctx context.Context, scope resource.ID) ([]Assignment, error) {
	return ask[[]Assignment](ctx, c, "role.list", scope, nil)
}

// RoleDefinitions lists the roles that can be assigned at a scope.
func (c Client) RoleDefinitions(ctx context.Context, scope resource.ID) ([]resource.RoleDefinition, error) {
	return ask[[]resource.RoleDefinition](ctx, c, "role.definitions", scope, nil)
}

// MissingRoles tells which roles are missing, and assigns them if asked to.
func (c Client) MissingRoles(ctx context.Context, r MissingRequest) ([]Missing, error) {
	return ask[[]Missing](ctx, c, "role.missing", r, nil)
}
