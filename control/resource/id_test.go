package resource

import (
	"testing"

	"github.com/diskvault/diskvault/base/problem"
)

func TestParseID(t *testing.T) {
	for text, want := range map[string]ID{
		"":                                    "",
		"/":                                   "",
		"/subscriptions/AB":                   "/subscriptions/ab",
		"/SUBSCRIPTIONS/ab/resourcegroups/Rg": "/subscriptions/ab/resourceGroups/Rg",
		"/subscriptions/a/resourcegroups/rg/providers/microsoft.dataprotection/BACKUPVAULTS/Vault/backupinstances/Disk":                     "/subscriptions/a/resourceGroups/rg/providers/Microsoft.DataProtection/backupVaults/Vault/backupInstances/Disk",
		"/subscriptions/a/resourceGroups/disks/providers/Microsoft.Compute/DISKS/disks/providers/microsoft.authorization/roleassignments/G": "/subscriptions/a/resourceGroups/disks/providers/Microsoft.Compute/disks/disks/providers/Microsoft.Authorization/roleAssignments/G",
		"/providers/microsoft.authorization/roledefinitions/G":                                                                              "/providers/Microsoft.Authorization/roleDefinitions/G",
		"/subscriptions/a/providers/Own.Things/widgets/w":                                                                                   "/subscriptions/a/providers/Own.Things/widgets/w",
	} {
		got, err := ParseID(text)
		if err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "subscriptions/a", "/vaults/a", "/subscriptions", "/subscriptions/a/resourceGroups", "/subscriptions/a//b", "/subscriptions/a/providers/x", "/subscriptions/a/providers/x/y"} {
		if got, err := ParseID(text); !problem.Is(err, problem.ResourceIDInvalid) {
			t.Errorf("%s was taken for %s, %v", text, got, err)
		}
	}
}

func TestPartsOfAnID(t *testing.T) {
	disk := In(GroupID("S", "Rg"), TypeDisk, "d")
	role := In(disk, TypeRoleAssignment, "r")
	vault := VaultID("v")
	for _, c := range []struct{ got, want string }{
		{disk.Type(), TypeDisk}, {role.Type(), TypeRoleAssignment}, {disk.GroupID().Type(), TypeGroup}, {SubscriptionID("s").Type(), ""},
		{PolicyID("v", "p").Type(), TypePolicy}, {disk.Subscription(), "s"}, {role.Group(), "Rg"}, {role.Name(), "r"},
		{string(disk.Parent()), string(GroupID("s", "Rg"))}, {string(role.Parent()), string(disk)}, {string(PolicyID("v", "p").Parent()), string(vault)},
		{VaultRef(vault), "v"}, {VaultRef(In(GroupID("s", "g"), TypeVault, "v")), "/subscriptions/s/resourceGroups/g/providers/Microsoft.DataProtection/backupVaults/v"},
		{string(VaultID(VaultRef(vault))), string(vault)}, {Location("East US"), "eastus"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	for _, c := range []struct {
		id, scope ID
		in        bool
	}{
		{disk, "", true}, {disk, disk, true}, {disk, GroupID("s", "RG"), true}, {disk, SubscriptionID("S"), true},
		{disk, GroupID("s", "r"), false}, {GroupID("s", "rg"), disk, false}, {disk, SubscriptionID("t"), false},
	} {
		if c.id.Within(c.scope) != c.in {
			t.Errorf("%s within %s: want %v", c.id, c.scope, c.in)
		}
	}
}
