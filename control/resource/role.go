package resource

import "time"

// RoleDefinition is a set of actions under a name. The built-in ones belong to
// the decisions of control/access; these are made by people.
type RoleDefinition struct {
	ID               ID        `json:"id"`
	RoleName         string    `json:"roleName"`
	Type             string    `json:"type"` // BuiltInRole or CustomRole
	Description      string    `json:"description"`
	AssignableScopes []ID      `json:"assignableScopes"`
	Actions          []string  `json:"actions"`
	NotActions       []string  `json:"notActions"`
	DataActions      []string  `json:"dataActions"`
	NotDataActions   []string  `json:"notDataActions"`
	Created          time.Time `json:"created"`
}

// ResourceID is the ID of the definition.
func (r RoleDefinition) ResourceID() ID { return r.ID }

// RoleAssignment gives a principal a role at a scope and all below it. It
// cannot be altered, only removed.
type RoleAssignment struct {
	ID            ID        `json:"id"` // lies below the scope; its name is a GUID
	Scope         ID        `json:"scope"`
	Role          ID        `json:"roleDefinitionId"` // qualified by a subscription or not
	Principal     string    `json:"principalId"`      // a GUID
	PrincipalType string    `json:"principalType"`    // User, Group, ServicePrincipal, ForeignGroup, Device
	Description   string    `json:"description,omitempty"`
	Created       time.Time `json:"created"`
	CreatedBy     string    `json:"createdBy,omitempty"` // ID of a principal
}

// ResourceID is the ID of the assignment.
func (a RoleAssignment) ResourceID() ID { return a.ID }

// Link is the principal whose assignments are looked for.
func (a RoleAssignment) Link() string { return a.Principal }

// Principal is somebody who can be given a role: a person, a program or a
// group of them.
type Principal struct {
	ObjectID string    `json:"objectId"` // a GUID
	Type     string    `json:"type"`     // User, Group or ServicePrincipal
	Name     string    `json:"name"`
	AppID    string    `json:"appId,omitempty"` // by which a program signs in; a GUID
	Secrets  []Secret  `json:"secrets,omitempty"`
	Groups   []string  `json:"groups,omitempty"` // object IDs of the groups that it is in
	Disabled bool      `json:"disabled,omitempty"`
	Created  time.Time `json:"created"`
}

// Secret is what is kept of a password: never the password.
type Secret struct {
	ID      string    `json:"id"`
	Hash    string    `json:"hash"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // zero: never
}

// ResourceID is a place for the principal among the resources. It is no ID of
// ARM, where principals live in a directory.
func (p Principal) ResourceID() ID { return In("", "diskvault/principals", p.ObjectID) }

// Link is what a program signs in by.
func (p Principal) Link() string { return p.AppID }
