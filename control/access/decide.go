package access

import (
	"fmt"
	"strings"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
)

// Grants are the roles and assignments that decisions are made by. They do not
// change, so that any number of goroutines may use them.
type Grants struct {
	roles map[string]*role // by their GUIDs, in small letters
	held  map[holding][]grip
}

// holding is somebody at a scope, both in small letters. A vault's identity may
// hold a role at each of ten thousand disks, so a decision asks for the few
// scopes above a resource, and not for all that somebody holds.
type holding struct{ principal, scope string }

type grip struct {
	role  *role
	scope resource.ID // as it was assigned
}

// NewGrants gathers assignments, and custom roles beside the built-in ones. An
// assignment of a role that does not exist grants nothing.
func NewGrants(custom []resource.RoleDefinition, assignments []resource.RoleAssignment) *Grants {
	g := &Grants{map[string]*role{}, map[holding][]grip{}}
	for _, r := range byName() {
		g.roles[guid(r.id)] = r
	}
	for _, d := range custom {
		// Nobody can put other actions under the ID of a built-in role.
		if _, taken := g.roles[guid(d.ID)]; !taken {
			g.roles[guid(d.ID)] = prepare(d)
		}
	}
	for _, a := range assignments {
		if r := g.roles[guid(a.Role)]; r != nil && a.Principal != "" {
			h := holding{strings.ToLower(a.Principal), a.Scope.Key()}
			g.held[h] = append(g.held[h], grip{r, a.Scope})
		}
	}
	return g
}

// find gives the nearest role of a principal at a resource or above that fits;
// nil if there is none.
func (g *Grants) find(principal string, at resource.ID, fits func(*role) bool) *grip {
	h := holding{strings.ToLower(principal), at.Key()}
	for {
		for i, held := range g.held[h] {
			if fits(held.role) {
				return &g.held[h][i]
			}
		}
		if h.scope == "" {
			return nil
		}
		h.scope = h.scope[:max(0, strings.LastIndexByte(h.scope, '/'))]
	}
}

// guid is what tells roles apart, whether their ID names a subscription or not.
func guid(id resource.ID) string { return strings.ToLower(id.Name()) }

// Decision is whether something is allowed, and why.
type Decision struct {
	Allowed bool
	Role    string      // that allows it, by name
	Scope   resource.ID // at which that role is assigned
	Reason  string      // one sentence
}

// Decide tells whether somebody may do an action at a resource: whether a role
// that allows it is assigned to the principal, or to one of its groups, there
// or at a scope above. NotActions take away from their own role only.
func (g *Grants) Decide(principal string, groups []string, action string, at resource.ID) Decision {
	return g.decide(principal, groups, action, at, false)
}

// DecideData is Decide for an action on data.
func (g *Grants) DecideData(principal string, groups []string, action string, at resource.ID) Decision {
	return g.decide(principal, groups, action, at, true)
}

func (g *Grants) decide(principal string, groups []string, action string, at resource.ID, data bool) Decision {
	lower := strings.ToLower(action)
	for i, who := range append([]string{principal}, groups...) {
		held := g.find(who, at, func(r *role) bool { return r.allows(lower, data) })
		if held == nil {
			continue
		}
		reason := fmt.Sprintf("%s is granted by the role %s at %s", action, held.role.name, scopeName(held.scope))
		if i > 0 {
			reason += fmt.Sprintf(", through the group %s", who)
		}
		return Decision{true, held.role.name, held.scope, reason + "."}
	}
	reason := fmt.Sprintf("No role held at %s or above allows %s", scopeName(at), action)
	if name := suggest(action); name != "" && !data {
		reason += fmt.Sprintf("; the role %s at %s would", name, scopeName(roleScope(at)))
	}
	return Decision{Reason: reason + "."}
}

// Authorize returns an AuthorizationFailed problem unless the caller may do the
// action at the resource.
func (g *Grants) Authorize(who resource.Caller, action string, at resource.ID) error {
	d := g.Decide(who.Principal, who.Groups, action, at)
	if d.Allowed {
		return nil
	}
	name := who.Name
	if name == "" {
		name = who.Principal
	}
	p := problem.New(problem.CallerNotAllowed, "%s may not do %s at %s.", name, action, scopeName(at)).
		With("principal", who.Principal).With("action", action).With("scope", string(at))
	if role := suggest(action); role != "" {
		p.With("role", role)
		p.Do(fmt.Sprintf("Have the role %s assigned to it at %s or above.", role, scopeName(roleScope(at))))
	}
	return p
}

// AuthorizeOperation is Authorize for a request of the table Operations. Linked
// are the resources that its body names, in the order of Operation.Linked; a
// right that is missing there is a LinkedAuthorizationFailed problem. Namespace
// is that of the path, in requests that have one.
func (g *Grants) AuthorizeOperation(who resource.Caller, operation, namespace string, at resource.ID, linked ...resource.ID) error {
	o, known := operations[operation]
	switch {
	case !known:
		return problem.New(problem.CallerNotAllowed, "The operation %q is not one that anybody may be allowed.", operation)
	case who.Owner():
		return nil
	}
	action, _ := ActionOf(operation, namespace)
	if err := g.Authorize(who, action, at); err != nil {
		return err
	}
	for i, action := range o.Linked {
		if i >= len(linked) {
			break // the body names no such resource
		}
		if err := g.Authorize(who, action, linked[i]); err != nil {
			p := problem.From(err)
			return problem.New(problem.LinkedNotAllowed, "%s", p.Message).With("action", action).With("linkedScope", string(linked[i])).Do(p.Actions...)
		}
	}
	return nil
}

// roleScope is where a role for something is best assigned: at the vault for
// what lies in it, at other resources themselves.
func roleScope(at resource.ID) resource.ID {
	for at.Type() != "" && strings.Count(at.Type(), "/") > 1 {
		at = at.Parent()
	}
	return at
}

func scopeName(id resource.ID) string {
	if id == "" {
		return "the tenant"
	}
	return string(id)
}
