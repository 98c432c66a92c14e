package resource

import (
	"strings"

	"github.com/diskvault/diskvault/base/problem"
)

// ID is a resource ID of ARM in canonical form:
//
//	/subscriptions/{s}
//	/subscriptions/{s}/resourceGroups/{g}
//	/subscriptions/{s}/resourceGroups/{g}/providers/{namespace}/{type}/{name}[/{type}/{name}…]
//
// and any of them followed by /providers/{namespace}/{type}/{name} of an
// extension such as a role assignment. Names keep the case in which they were
// made; two IDs are the same if their keys are. The empty ID is the tenant.
type ID string

// What a data folder lays its resources in unless told otherwise.
const (
	HomeSubscription = "00000000-0000-0000-0000-000000000001"
	HomeGroup        = "diskvault"
	HomeLocation     = "local"
)

// The types of resources, as they are written in IDs.
const (
	TypeGroup           = "Microsoft.Resources/resourceGroups"
	TypeVault           = "Microsoft.DataProtection/backupVaults"
	TypePolicy          = "Microsoft.DataProtection/backupVaults/backupPolicies"
	TypeInstance        = "Microsoft.DataProtection/backupVaults/backupInstances"
	TypeDeletedInstance = "Microsoft.DataProtection/backupVaults/deletedBackupInstances"
	TypeJob             = "Microsoft.DataProtection/backupVaults/backupJobs"
	TypeGuard           = "Microsoft.DataProtection/resourceGuards"
	TypeGuardProxy      = "Microsoft.DataProtection/backupVaults/backupResourceGuardProxies"
	TypeDisk            = "Microsoft.Compute/disks"
	TypeSnapshot        = "Microsoft.Compute/snapshots"
	TypeUserIdentity    = "Microsoft.ManagedIdentity/userAssignedIdentities"
	TypeRoleDefinition  = "Microsoft.Authorization/roleDefinitions"
	TypeRoleAssignment  = "Microsoft.Authorization/roleAssignments"
)

// canonical gives the segments of IDs whose case matters to clients, by their
// small letters.
var canonical = func() map[string]string {
	m := map[string]string{}
	words := "subscriptions resourceGroups providers recoveryPoints operationStatus operationResults"
	for _, t := range []string{TypeGroup, TypeVault, TypePolicy, TypeInstance, TypeDeletedInstance, TypeJob, TypeGuard, TypeGuardProxy,
		TypeDisk, TypeSnapshot, TypeUserIdentity, TypeRoleDefinition, TypeRoleAssignment} {
		words += " " + strings.ReplaceAll(t, "/", " ")
	}
	for _, w := range strings.Fields(words) {
		m[strings.ToLower(w)] = w
	}
	return m
}()

// ParseID reads a resource ID in any case, or returns a ResourceIDInvalid
// problem. Type names get the case that clients expect; subscriptions become
// small letters; other names stay as they are.
func ParseID(text string) (ID, error) {
	bad := func() (ID, error) {
		return "", problem.New(problem.ResourceIDInvalid, "%q is no resource ID.", text).With("id", text)
	}
	if text == "/" || text == "" {
		return "", nil
	}
	parts := strings.Split(strings.TrimSuffix(text, "/"), "/")
	if parts[0] != "" {
		return bad()
	}
	parts = parts[1:]
	for _, p := range parts {
		if p == "" {
			return bad()
		}
	}
	// Words stand at the even places of subscriptions and groups; after
	// "providers" comes a namespace and then pairs again.
	for i := 0; i < len(parts); {
		word, ok := canonical[strings.ToLower(parts[i])]
		if i == 0 && word != "subscriptions" && word != "providers" {
			return bad()
		}
		if ok {
			parts[i] = word
		}
		if i+1 == len(parts) {
			return bad() // a type without a name
		}
		switch {
		case word == "providers":
			if ns, ok := canonical[strings.ToLower(parts[i+1])]; ok {
				parts[i+1] = ns
			}
			if i+3 >= len(parts) {
				return bad()
			}
		case word == "subscriptions":
			parts[i+1] = strings.ToLower(parts[i+1])
		}
		i += 2
	}
	return ID("/" + strings.Join(parts, "/")), nil
}

// Key is the ID in small letters: what is compared, stored and sorted by.
func (id ID) Key() string { return strings.ToLower(string(id)) }

// Same tells whether both name the same resource.
func (id ID) Same(other ID) bool { return strings.EqualFold(string(id), string(other)) }

// after gives the segment behind the first of the words; empty if there is
// none.
func (id ID) after(word string) string {
	parts := strings.Split(string(id), "/")
	for i := 1; i+1 < len(parts) && !strings.EqualFold(parts[i], "providers"); i += 2 {
		if strings.EqualFold(parts[i], word) {
			return parts[i+1]
		}
	}
	return ""
}

// Subscription is the ID of the subscription; empty for the tenant.
func (id ID) Subscription() string { return id.after("subscriptions") }

// Group is the name of the resource group; empty above one.
func (id ID) Group() string { return id.after("resourceGroups") }

// GroupID is the ID of the resource group that the resource lies in.
func (id ID) GroupID() ID { return GroupID(id.Subscription(), id.Group()) }

// Name is the last segment.
func (id ID) Name() string { return string(id[strings.LastIndexByte(string(id), '/')+1:]) }

// Parent is the ID one pair of type and name up: of a policy its vault, of a
// disk its resource group.
func (id ID) Parent() ID {
	parts := strings.Split(string(id), "/")
	n := max(0, len(parts)-2)
	if n >= 2 && strings.EqualFold(parts[n-2], "providers") {
		n -= 2
	}
	return ID(strings.Join(parts[:n], "/"))
}

// Type is the type of the resource, such as Microsoft.Compute/disks; empty for
// a subscription and the tenant.
func (id ID) Type() string {
	parts := strings.Split(string(id), "/")
	last := -1
	for i, p := range parts {
		if strings.EqualFold(p, "providers") && i%2 == 1 {
			last = i
		}
	}
	if last < 0 {
		if id.Group() != "" {
			return TypeGroup
		}
		return ""
	}
	out := parts[last+1]
	for i := last + 2; i < len(parts); i += 2 {
		out += "/" + parts[i]
	}
	return out
}

// Child is the ID of a part of this resource, such as a policy of a vault.
func (id ID) Child(kind, name string) ID { return id + ID("/"+kind+"/"+name) }

// Within tells whether the resource is the scope or lies below it. Everything
// lies within the tenant.
func (id ID) Within(scope ID) bool {
	key, in := id.Key(), scope.Key()
	return key == in || strings.HasPrefix(key, in+"/")
}

// SubscriptionID is the ID of a subscription.
func SubscriptionID(subscription string) ID {
	return ID("/subscriptions/" + strings.ToLower(subscription))
}

// GroupID is the ID of a resource group.
func GroupID(subscription, group string) ID {
	return SubscriptionID(subscription).Child("resourceGroups", group)
}

// In is the ID of a resource of a type, with one name, in a resource group or
// other scope.
func In(scope ID, kind, name string) ID {
	return scope.Child("providers", kind+"/"+name)
}

// VaultID gives the ID that a reference to a vault means: an ID as it is, a
// plain name as a vault in the home group.
func VaultID(ref string) ID {
	if id, err := ParseID(ref); err == nil && id != "" {
		return id
	}
	return In(GroupID(HomeSubscription, HomeGroup), TypeVault, ref)
}

// VaultRef is the shortest reference to a vault: its name in the home group,
// elsewhere its ID.
func VaultRef(id ID) string {
	if id.Parent().Same(GroupID(HomeSubscription, HomeGroup)) {
		return id.Name()
	}
	return string(id)
}

// PolicyID is the ID of a policy of the vault that a reference means.
func PolicyID(vault, name string) ID { return VaultID(vault).Child("backupPolicies", name) }

// SameLocation compares two locations as ARM does: without blanks and case.
func SameLocation(a, b string) bool { return Location(a) == Location(b) }

// Location is a location in its short form: "East US" is eastus.
func Location(text string) string { return strings.ToLower(strings.ReplaceAll(text, " ", "")) }
