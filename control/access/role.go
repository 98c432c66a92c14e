// Package access decides who may do what where, and says why. People, programs
// and the identities of vaults hold roles at scopes; a role allows actions
// there and at everything below. Its functions are pure: roles and assignments
// come in, decisions with reasons come out.
package access

import (
	_ "embed"
	"encoding/json"
	"strings"
	"sync"

	"github.com/diskvault/diskvault/control/resource"
)

//go:embed roles.json
var rolesJSON []byte

var builtIn = sync.OnceValue(func() (out struct {
	Roles []struct {
		RoleName, GUID, Description                      string
		Actions, NotActions, DataActions, NotDataActions []string
	}
	Actions []string
}) {
	if err := json.Unmarshal(rolesJSON, &out); err != nil {
		panic(err) // a part of the program
	}
	return out
})

// BuiltIn gives the roles that everybody has, with the IDs and actions of
// Azure's.
func BuiltIn() []resource.RoleDefinition {
	var out []resource.RoleDefinition
	for _, r := range builtIn().Roles {
		out = append(out, resource.RoleDefinition{
			ID: resource.In("", resource.TypeRoleDefinition, r.GUID), RoleName: r.RoleName, Type: "BuiltInRole", Description: r.Description,
			AssignableScopes: []resource.ID{""}, // the tenant: anywhere
			Actions:          r.Actions, NotActions: r.NotActions, DataActions: r.DataActions, NotDataActions: r.NotDataActions,
		})
	}
	return out
}

// Actions lists the actions of the provider Microsoft.DataProtection.
func Actions() []string { return builtIn().Actions }

// The roles that Azure's documentation names for a vault's identity, and the
// one for those who assign roles.
const (
	DiskBackupReader        = "Disk Backup Reader"
	DiskSnapshotContributor = "Disk Snapshot Contributor"
	DiskRestoreOperator     = "Disk Restore Operator"
	Reader                  = "Reader"
)

// gentle are the roles that may be suggested, the one with the least power
// first.
var gentle = []string{
	"Backup Reader", "Backup Operator", "Backup Contributor", DiskBackupReader, DiskSnapshotContributor, DiskRestoreOperator, Reader,
	"Role Based Access Control Administrator", "Backup MUA Admin", "Contributor", "Owner",
}

// suggest names the gentlest built-in role that allows an action; empty if
// none does.
func suggest(action string) string {
	action = strings.ToLower(action)
	for _, name := range gentle {
		if r, ok := byName()[name]; ok && r.allows(action, false) {
			return name
		}
	}
	return ""
}

// role is a definition made ready for deciding: its patterns in small letters.
type role struct {
	name                        string
	id                          resource.ID
	actions, notActions         []string
	dataActions, notDataActions []string
}

func prepare(d resource.RoleDefinition) *role {
	lower := func(in []string) []string {
		out := make([]string, len(in))
		for i, s := range in {
			out[i] = strings.ToLower(s)
		}
		return out
	}
	return &role{d.RoleName, d.ID, lower(d.Actions), lower(d.NotActions), lower(d.DataActions), lower(d.NotDataActions)}
}

// byName holds the built-in roles.
var byName = sync.OnceValue(func() map[string]*role {
	m := map[string]*role{}
	for _, d := range BuiltIn() {
		m[d.RoleName] = prepare(d)
	}
	return m
})

// allows tells whether the role by itself allows an action, given in small
// letters.
func (r *role) allows(action string, data bool) bool {
	yes, no := r.actions, r.notActions
	if data {
		yes, no = r.dataActions, r.notDataActions
	}
	return anyOf(yes, action) && !anyOf(no, action)
}

func anyOf(patterns []string, action string) bool {
	for _, p := range patterns {
		if matches(p, action) {
			return true
		}
	}
	return false
}

// matches tells whether an action fits a pattern, in which * stands for any run
// of characters, slashes included. Both are in small letters.
func matches(pattern, action string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == action
	}
	action, ok := strings.CutPrefix(action, first)
	if !ok {
		return false
	}
	// Each piece between stars takes the first place where it fits; the last
	// piece must end the action.
	for {
		piece, more, star := strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(action, piece)
		}
		at := strings.Index(action, piece)
		if at < 0 {
			return false
		}
		action, rest = action[at+len(piece):], more
	}
}
