package access

import (
	"fmt"
	"slices"
	"strings"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
)

// Facts is what Preflight needs to know of one work of a vault.
type Facts struct {
	Identity resource.Identity // of the vault
	// User is the user-assigned identity that the instance names; empty: the
	// vault's own.
	User resource.ID
	// Places are those of the work. A place that it does not need, such as the
	// encryption set of a disk without one, is left out.
	Places map[Place]Target
}

// Target is a place as it is.
type Target struct {
	ID     resource.ID
	Exists bool
}

// Grant is a role assignment that is missing.
type Grant struct {
	Principal string
	Role      string      // by name
	RoleID    resource.ID // of the tenant
	Scope     resource.ID
	Reason    string // what it is for
}

// Level is how high a missing role is assigned.
type Level int

const (
	AtResource Level = iota
	AtGroup
	AtSubscription
)

// At gives the same grant for a resource group or the subscription, so that
// other disks there need none.
func (g Grant) At(l Level) Grant {
	switch {
	case l == AtGroup && g.Scope.Group() != "":
		g.Scope = g.Scope.GroupID()
	case l == AtSubscription && g.Scope.Subscription() != "":
		g.Scope = resource.SubscriptionID(g.Scope.Subscription())
	}
	return g
}

// Report is all that Preflight found.
type Report struct {
	Principal string           // that the vault acts as; empty if it has none
	Problems  []*problem.Error // in the order of the checks; empty: the work may begin
	Missing   []Grant          // the fewest assignments that give all the rights that are missing
	Warnings  []string         // what works, and is not as it should be
	Reasons   []string         // why each right is there
	work      Work
}

// Preflight checks all that the vault's identity needs for a work, and reports
// everything that is wrong at once. The same checks hold before each step of
// the work itself.
func (g *Grants) Preflight(w Work, f Facts) Report {
	r := Report{work: w}
	var p *problem.Error
	if r.Principal, p = identity(f); p != nil {
		r.Problems = append(r.Problems, p)
		return r
	}
	var lacking []want
	for _, s := range steps[w] {
		t, ok := f.Places[s.place]
		if !ok {
			continue
		}
		var absent []string
		var by Decision
		for _, action := range append([]string{s.see}, s.actions...) {
			d := g.Decide(r.Principal, nil, action, t.ID)
			if !d.Allowed {
				absent = append(absent, action)
				lacking = append(lacking, want{action, t.ID})
				continue
			}
			r.Reasons = append(r.Reasons, d.Reason)
			by = d
		}
		meant := func(held *role) bool { return held == byName()[s.role] }
		if len(absent) == 0 && g.find(r.Principal, t.ID, meant) == nil {
			r.Warnings = append(r.Warnings, fmt.Sprintf("The role %s at %s gives the vault its rights on the %s; the role meant for it is %s.",
				by.Role, scopeName(by.Scope), s.place, s.role))
		}
		if p := s.judge(t, absent, r.Principal); p != nil {
			r.Problems = append(r.Problems, p)
		}
		if len(absent) > 0 {
			r.Missing = append(r.Missing, Grant{r.Principal, s.role, byName()[s.role].id, t.ID, fmt.Sprintf("for %s on the %s", strings.Join(absent, ", "), s.place)})
		}
	}
	r.Missing = fewest(r.Missing, lacking)
	return r
}

// identity gives the principal that a vault acts as.
func identity(f Facts) (string, *problem.Error) {
	if f.User != "" {
		if p, ok := f.Identity.Of(f.User); ok && p != "" {
			return p, nil
		}
		return "", problem.New(problem.IdentityGone, "The user-assigned identity %s does not belong to the vault.", f.User).With("identity", string(f.User))
	}
	if !f.Identity.System() || f.Identity.PrincipalID == "" {
		return "", problem.New(problem.IdentityOff, "The vault has no identity of its own to act with.")
	}
	return f.Identity.PrincipalID, nil
}

// judge gives the problem of one step; nil if there is none.
func (s step) judge(t Target, absent []string, principal string) *problem.Error {
	mend := fmt.Sprintf("Assign the role %s at %s to the vault's identity %s.", s.role, t.ID, principal)
	switch {
	case slices.Contains(absent, s.see):
		return problem.New(s.unseen, "The %s %s does not exist, or the vault's identity may not see it.", s.place, t.ID).
			With("missing", absent).With("scope", string(t.ID)).With("role", s.role).
			Do(mend, fmt.Sprintf("If the %s was deleted or moved, make it again or correct its ID.", s.place))
	case !t.Exists:
		return problem.New(s.gone, "The %s %s does not exist.", s.place, t.ID).With("scope", string(t.ID))
	case len(absent) > 0:
		return problem.New(s.lacking, "The vault's identity may see the %s %s, but lacks %s there.", s.place, t.ID, strings.Join(absent, ", ")).
			With("missing", absent).With("scope", string(t.ID)).With("role", s.role).Do(mend)
	}
	return nil
}

// want is a right that somebody lacks.
type want struct {
	action string
	at     resource.ID
}

// fewest leaves out every grant whose rights the others give.
func fewest(grants []Grant, lacking []want) []Grant {
	enough := func(grants []Grant) bool {
		return !slices.ContainsFunc(lacking, func(w want) bool {
			return !slices.ContainsFunc(grants, func(g Grant) bool {
				return w.at.Within(g.Scope) && byName()[g.Role].allows(strings.ToLower(w.action), false)
			})
		})
	}
	for i := 0; i < len(grants); {
		if rest := slices.Delete(slices.Clone(grants), i, i+1); enough(rest) {
			grants = rest
			continue
		}
		i++
	}
	return grants
}

// Err gives one problem for all, nil if there are none. A job fails with the
// first; where rights are missing on the disk and on the snapshot resource
// group, with DiskBackupAuthorizationFailed. A validation that found rights
// missing says UserErrorMissingRequiredPermissions. All problems stand in the
// details under "problems".
func (r Report) Err() error {
	if len(r.Problems) == 0 {
		return nil
	}
	var rows []map[string]any
	rights := 0
	for _, p := range r.Problems {
		rows = append(rows, map[string]any{"code": string(p.Code), "message": p.Message, "recommendedAction": p.Actions})
		if p.Details["missing"] != nil {
			rights++
		}
	}
	first := *r.Problems[0]
	p := &first
	var actions []string
	for _, each := range r.Problems {
		actions = append(actions, each.Actions...)
	}
	switch {
	case rights > 0 && (r.work == Validate || r.work == ValidateRestore):
		p = problem.New(problem.RightsMissing, "The vault's identity lacks rights: %s", first.Message).Do(actions...)
	case rights > 1 && r.work == Backup:
		p = problem.New(problem.BackupRightsMissing, "The vault's identity lacks rights on the disk and on the snapshot resource group.").Do(actions...)
	}
	details := map[string]any{"problems": rows}
	for k, v := range p.Details {
		details[k] = v
	}
	p.Details = details
	return p
}

// CheckGranter returns an AuthorizationFailed problem unless the caller may
// make the assignments himself.
func (g *Grants) CheckGranter(who resource.Caller, grants []Grant) error {
	if who.Owner() {
		return nil
	}
	for _, m := range grants {
		if err := g.Authorize(who, "Microsoft.Authorization/roleAssignments/write", m.Scope); err != nil {
			return err
		}
	}
	return nil
}
