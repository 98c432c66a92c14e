package access

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name + ".txt"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

const (
	s1     = "/subscriptions/11111111-1111-1111-1111-111111111111"
	app    = s1 + "/resourceGroups/rg-app"
	snaps  = s1 + "/resourceGroups/rg-snapshots"
	back   = s1 + "/resourceGroups/rg-restore"
	diskID = app + "/providers/Microsoft.Compute/disks/data01"
	setID  = app + "/providers/Microsoft.Compute/diskEncryptionSets/keys"
	vaultV = s1 + "/resourceGroups/rg-backup/providers/Microsoft.DataProtection/backupVaults/v1"
	msi    = "aaaaaaaa-0000-0000-0000-000000000001"
	anna   = "bbbbbbbb-0000-0000-0000-000000000001"
	team   = "cccccccc-0000-0000-0000-000000000001"
)

// give makes an assignment of a built-in role, or of one given by its ID.
func give(principal, role string, scope resource.ID) resource.RoleAssignment {
	id := resource.ID(role)
	if r, ok := byName()[role]; ok {
		id = r.id
	}
	return resource.RoleAssignment{Principal: principal, Role: id, Scope: scope}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, action string
		want            bool
	}{
		{"*", "a/b/read", true}, {"*/read", "a/b/read", true}, {"*/read", "read", false}, {"*/read", "a/readall", false},
		{"a/*/read", "a/b/c/read", true}, {"a/*/read", "a/read", false}, {"a/*", "a/", true}, {"a/*", "ab", false},
		{"a/b/write", "a/b/write", true}, {"a/b/write", "a/b/writes", false}, {"a*b*c", "a-b-b-c", true}, {"a*b*c", "ac", false},
		{"a*a", "a", false}, {"**", "x", true}, {"", "", true}, {"", "x", false},
	} {
		if matches(c.pattern, c.action) != c.want {
			t.Errorf("%q, %q: want %v", c.pattern, c.action, c.want)
		}
	}
}

// The own matcher agrees with regular expressions.
func TestMatchesProperty(t *testing.T) {
	seed := time.Now().UnixNano()
	r := rand.New(rand.NewSource(seed))
	word := func(letters string, n int) string {
		var b strings.Builder
		for range r.Intn(n) {
			b.WriteByte(letters[r.Intn(len(letters))])
		}
		return b.String()
	}
	for range 20000 {
		p, a := word("ab/*", 8), word("ab/", 10)
		want := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(p), `\*`, ".*") + "$").MatchString(a)
		if matches(p, a) != want {
			t.Fatalf("seed %d: %q, %q: want %v", seed, p, a, want)
		}
	}
}

func TestDecide(t *testing.T) {
	custom := resource.RoleDefinition{ID: resource.SubscriptionID("1111").Child("providers/Microsoft.Authorization/roleDefinitions", "dddddddd-0000-0000-0000-000000000001"),
		RoleName: "Nearly all", Actions: []string{"*"}, NotActions: []string{"Microsoft.Compute/*/DELETE"}}
	forged := resource.RoleDefinition{ID: byName()[Reader].id, RoleName: "Reader", Actions: []string{"*"}}
	const read, del, begin = "Microsoft.Compute/disks/read", "Microsoft.Compute/disks/delete", "Microsoft.Compute/disks/beginGetAccess/action"
	var b strings.Builder
	for _, c := range []struct {
		what        string
		assignments []resource.RoleAssignment
		groups      []string
		action      string
		at          resource.ID
	}{
		{"nothing held", nil, nil, read, diskID},
		{"at the disk", []resource.RoleAssignment{give(anna, DiskBackupReader, diskID)}, nil, read, diskID},
		{"in other case", []resource.RoleAssignment{give(strings.ToUpper(anna), DiskBackupReader, resource.ID(strings.ToUpper(diskID)))}, nil, strings.ToUpper(begin), diskID},
		{"at the group", []resource.RoleAssignment{give(anna, DiskBackupReader, app)}, nil, begin, diskID},
		{"at the subscription", []resource.RoleAssignment{give(anna, DiskBackupReader, s1)}, nil, begin, diskID},
		{"at the tenant", []resource.RoleAssignment{give(anna, Reader, "")}, nil, read, diskID},
		{"at a disk beside it", []resource.RoleAssignment{give(anna, DiskBackupReader, diskID+"2")}, nil, read, diskID},
		{"at a disk whose name begins its name", []resource.RoleAssignment{give(anna, DiskBackupReader, resource.ID(diskID[:len(diskID)-1]))}, nil, read, diskID},
		{"below", []resource.RoleAssignment{give(anna, DiskBackupReader, diskID)}, nil, read, app},
		{"another principal's", []resource.RoleAssignment{give(msi, DiskBackupReader, diskID)}, nil, read, diskID},
		{"through a group", []resource.RoleAssignment{give(team, DiskBackupReader, app)}, []string{team}, read, diskID},
		{"a role without the action", []resource.RoleAssignment{give(anna, DiskBackupReader, diskID)}, nil, del, diskID},
		{"a custom role", []resource.RoleAssignment{give(anna, string(custom.ID), s1)}, nil, read, diskID},
		{"taken away by notActions", []resource.RoleAssignment{give(anna, string(custom.ID), s1)}, nil, del, diskID},
		{"taken away by notActions, given by another role", []resource.RoleAssignment{give(anna, string(custom.ID), s1), give(anna, "Contributor", app)}, nil, del, diskID},
		{"a role that does not exist", []resource.RoleAssignment{give(anna, "/providers/x/y/eeeeeeee", s1)}, nil, read, diskID},
		{"a custom role under the ID of a built-in one", []resource.RoleAssignment{give(anna, Reader, s1)}, nil, del, diskID},
		{"Contributor assigns no roles", []resource.RoleAssignment{give(anna, "Contributor", s1)}, nil, "Microsoft.Authorization/roleAssignments/write", snaps},
		{"Backup Contributor cannot list jobs", []resource.RoleAssignment{give(anna, "Backup Contributor", vaultV)}, nil, "Microsoft.DataProtection/backupVaults/backupJobs/read", vaultV + "/backupJobs/1"},
		{"Backup Operator backs up", []resource.RoleAssignment{give(anna, "Backup Operator", vaultV)}, nil, "Microsoft.DataProtection/backupVaults/backupInstances/backup/action", vaultV + "/backupInstances/i"},
		{"Backup Operator deletes no backups", []resource.RoleAssignment{give(anna, "Backup Operator", vaultV)}, nil, "Microsoft.DataProtection/backupVaults/backupInstances/delete", vaultV + "/backupInstances/i"},
		{"Backup Contributor suspends, in either spelling", []resource.RoleAssignment{give(anna, "Backup Contributor", vaultV)}, nil, "Microsoft.DataProtection/backupVaults/backupInstances/suspendBackups/action", vaultV + "/backupInstances/i"},
	} {
		g := NewGrants([]resource.RoleDefinition{custom, forged}, c.assignments)
		d := g.Decide(anna, c.groups, c.action, c.at)
		fmt.Fprintf(&b, "%s\n  %v: %s\n", c.what, d.Allowed, d.Reason)
		err := g.Authorize(resource.Caller{Principal: anna, Name: "anna", Groups: c.groups}, c.action, c.at)
		if (err == nil) != d.Allowed || err != nil && !problem.Is(err, problem.CallerNotAllowed) {
			t.Errorf("%s: %v", c.what, err)
		}
		if err != nil {
			fmt.Fprintf(&b, "  %s Do: %s\n", err, strings.Join(problem.From(err).Actions, " "))
		}
	}
	golden(t, "decide", b.String())

	g := NewGrants(nil, []resource.RoleAssignment{give(anna, "Data Operator for Managed Disks", app), give("", "Owner", "")})
	if !g.DecideData(anna, nil, "Microsoft.Compute/disks/download/action", diskID).Allowed || g.Decide(anna, nil, "Microsoft.Compute/disks/download/action", diskID).Allowed {
		t.Error("actions on data and others are not told apart")
	}
	if g.Decide("", nil, read, diskID).Allowed {
		t.Error("nobody is allowed something")
	}
}

func TestPreflight(t *testing.T) {
	system := resource.Identity{Type: "SystemAssigned", PrincipalID: msi}
	good := []resource.RoleAssignment{give(msi, DiskBackupReader, diskID), give(msi, DiskSnapshotContributor, snaps), give(msi, DiskRestoreOperator, back), give(msi, Reader, setID)}
	only := func(n ...int) (out []resource.RoleAssignment) {
		for _, i := range n {
			out = append(out, good[i])
		}
		return out
	}
	all := map[Place]Target{Disk: {diskID, true}, SnapshotGroup: {snaps, true}, TargetGroup: {back, true}}
	but := func(p Place, t Target) map[Place]Target {
		m := map[Place]Target{p: t}
		for k, v := range all {
			if k != p {
				m[k] = v
			}
		}
		return m
	}
	var b strings.Builder
	for _, c := range []struct {
		what        string
		work        Work
		facts       Facts
		assignments []resource.RoleAssignment
	}{
		{"all is well", Validate, Facts{system, "", all}, good},
		{"no identity", Validate, Facts{resource.Identity{Type: "None"}, "", all}, good},
		{"a user-assigned identity that is gone", Backup, Facts{resource.Identity{Type: "UserAssigned"}, app + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u", all}, good},
		{"a user-assigned identity", Backup, Facts{resource.Identity{Type: "UserAssigned", Users: map[resource.ID]resource.UserIdentity{app + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u": {PrincipalID: msi}}},
			app + "/providers/Microsoft.ManagedIdentity/USERASSIGNEDIDENTITIES/u", all}, good},
		{"no rights at all", Validate, Facts{system, "", all}, nil},
		{"no rights at all, in a job", Backup, Facts{system, "", all}, nil},
		{"nothing on the disk", Backup, Facts{system, "", all}, only(1, 2)},
		{"only Reader on the disk", Backup, Facts{system, "", all}, append(only(1), give(msi, Reader, diskID))},
		{"nothing on the snapshot group", Validate, Facts{system, "", all}, only(0)},
		{"only Reader on the snapshot group", Backup, Facts{system, "", all}, append(only(0), give(msi, Reader, snaps))},
		{"the disk is gone", Backup, Facts{system, "", but(Disk, Target{diskID, false})}, good},
		{"the disk is gone, and nobody could know", Validate, Facts{system, "", but(Disk, Target{diskID, false})}, only(1)},
		{"the snapshot group is gone", Backup, Facts{system, "", but(SnapshotGroup, Target{snaps, false})}, good},
		{"both are gone", Backup, Facts{system, "", map[Place]Target{Disk: {diskID, false}, SnapshotGroup: {snaps, false}}}, good},
		{"a customer's key", Validate, Facts{system, "", but(EncryptionSet, Target{setID, true})}, good},
		{"a customer's key that cannot be seen", Validate, Facts{system, "", but(EncryptionSet, Target{setID, true})}, only(0, 1)},
		{"a customer's key that is gone", Restore, Facts{system, "", but(EncryptionSet, Target{setID, false})}, good},
		{"Owner instead of the roles", Backup, Facts{system, "", all}, []resource.RoleAssignment{give(msi, "Owner", s1)}},
		{"disk in the snapshot group, which gives half of the rights", Validate, Facts{system, "", but(Disk, Target{snaps + "/providers/Microsoft.Compute/disks/d", true})}, only(1)},
		{"expiry", Expire, Facts{system, "", all}, good},
		{"expiry without rights", Expire, Facts{system, "", all}, append(only(0), give(msi, Reader, snaps))},
		{"restore", Restore, Facts{system, "", all}, good},
		{"restore without any rights", ValidateRestore, Facts{system, "", all}, nil},
		{"restore without rights on snapshots", Restore, Facts{system, "", all}, append(only(2), give(msi, Reader, snaps))},
		{"restore without rights on the target", Restore, Facts{system, "", all}, append(only(1), give(msi, Reader, back))},
		{"restore into a group that cannot be seen", Restore, Facts{system, "", all}, only(1)},
		{"restore into a group that is gone", Restore, Facts{system, "", but(TargetGroup, Target{back, false})}, good},
	} {
		g := NewGrants(nil, c.assignments)
		r := g.Preflight(c.work, c.facts)
		fmt.Fprintf(&b, "%s (%s)\n", c.what, c.work)
		for _, p := range r.Problems {
			fmt.Fprintf(&b, "  problem %s: %s\n    do: %s\n", p.Code, p.Message, strings.Join(p.Actions, "\n    do: "))
		}
		if err := r.Err(); err != nil {
			fmt.Fprintf(&b, "  fails with %s: %s\n", problem.From(err).Code, err)
		}
		for _, m := range r.Missing {
			fmt.Fprintf(&b, "  assign %s at %s, %s\n", m.Role, m.Scope, m.Reason)
		}
		for _, w := range r.Warnings {
			fmt.Fprintf(&b, "  warning: %s\n", w)
		}
		if len(r.Problems) == 0 && len(r.Warnings) == 0 {
			fmt.Fprintf(&b, "  may begin:\n    %s\n", strings.Join(r.Reasons, "\n    "))
		}
		// With what is missing added, rights are no problem any more; with one
		// less, they are.
		after := func(grants []Grant) (lacking int) {
			added := slices.Clone(c.assignments)
			for _, m := range grants {
				added = append(added, resource.RoleAssignment{Principal: m.Principal, Role: m.RoleID, Scope: m.Scope})
			}
			return len(NewGrants(nil, added).Preflight(c.work, c.facts).Missing)
		}
		if n := after(r.Missing); n > 0 {
			t.Errorf("%s: %d assignments are missing after all were made", c.what, n)
		}
		for i := range r.Missing {
			if after(slices.Delete(slices.Clone(r.Missing), i, i+1)) == 0 {
				t.Errorf("%s: the assignment %v is not needed", c.what, r.Missing[i])
			}
		}
	}
	golden(t, "preflight", b.String())
}

// Each step asks for no more than the role that is meant for it gives.
func TestRolesFitTheirSteps(t *testing.T) {
	for work, list := range steps {
		for _, s := range list {
			for _, a := range append([]string{s.see}, s.actions...) {
				if !byName()[s.role].allows(strings.ToLower(a), false) {
					t.Errorf("%s: %s does not allow %s", work, s.role, a)
				}
			}
			for _, code := range []problem.Code{s.unseen, s.gone, s.lacking} {
				if !problem.Known(code) {
					t.Errorf("%s: %s is not in the table", work, code)
				}
			}
		}
	}
	for _, name := range gentle {
		if byName()[name] == nil {
			t.Errorf("there is no role %s", name)
		}
	}
}

func TestGrantLevels(t *testing.T) {
	m := Grant{Scope: diskID}
	if m.At(AtResource).Scope != diskID || m.At(AtGroup).Scope != app || m.At(AtSubscription).Scope != s1 || (Grant{Scope: s1}).At(AtGroup).Scope != s1 {
		t.Error("a level is wrong")
	}
	g := NewGrants(nil, []resource.RoleAssignment{give(anna, "User Access Administrator", app)})
	who := resource.Caller{Principal: anna, Name: "anna"}
	if err := g.CheckGranter(who, []Grant{m}); err != nil {
		t.Error(err)
	}
	if err := g.CheckGranter(who, []Grant{m, {Scope: snaps}}); !problem.Is(err, problem.CallerNotAllowed) {
		t.Error(err)
	}
	if err := g.CheckGranter(resource.Caller{}, []Grant{m}); err != nil {
		t.Error("the owner of the data folder may not assign:", err)
	}
}

func TestAuthorizeOperation(t *testing.T) {
	who := resource.Caller{Principal: anna, Name: "anna"}
	snapshot := resource.ID(snaps + "/providers/Microsoft.Compute/snapshots/s")
	g := NewGrants(nil, []resource.RoleAssignment{give(anna, DiskSnapshotContributor, snaps)})
	for _, c := range []struct {
		operation string
		linked    []resource.ID
		want      problem.Code
	}{
		{"Snapshots.CreateOrUpdate", []resource.ID{diskID}, problem.LinkedNotAllowed},
		{"Snapshots.CreateOrUpdate", []resource.ID{snaps + "/providers/Microsoft.Compute/disks/d"}, ""},
		{"Snapshots.CreateOrUpdate", nil, ""},
		{"Disks.Delete", nil, problem.CallerNotAllowed},
		{"Snapshots.Format", nil, problem.CallerNotAllowed},
	} {
		err := g.AuthorizeOperation(who, c.operation, "", snapshot, c.linked...)
		if c.want == "" && err != nil || c.want != "" && !problem.Is(err, c.want) {
			t.Errorf("%s %v: %v, want %q", c.operation, c.linked, err, c.want)
		}
	}
	if err := g.AuthorizeOperation(resource.Caller{}, "Disks.Delete", "", diskID); err != nil {
		t.Error("the owner of the data folder may not delete a disk:", err)
	}
}

// Actions are those of the provider's list, and who may do what is a table that
// a person can check.
func TestOperations(t *testing.T) {
	known := map[string]bool{}
	for _, a := range Actions() {
		known[a] = true
	}
	names, routes := map[string]bool{}, map[string]string{}
	var b strings.Builder
	for _, o := range Operations {
		if strings.HasPrefix(o.Action, provider) && !known[o.Action] {
			t.Errorf("%s: Microsoft.DataProtection has no action %s", o.Name, o.Action)
		}
		if names[o.Name] {
			t.Errorf("%s stands in the table twice", o.Name)
		}
		names[o.Name] = true
		if was := routes[o.Method+o.Path]; was != "" && o.Name != "Disks.CreateFromSnapshot" {
			t.Errorf("%s and %s are the same request", was, o.Name)
		}
		routes[o.Method+o.Path] = o.Name
		action, ok := ActionOf(o.Name, "Microsoft.DataProtection")
		if !ok || strings.Contains(action, "{namespace}") {
			t.Errorf("%s: %q, %v", o.Name, action, ok)
		}
		var may []string
		for _, r := range BuiltIn() {
			if byName()[r.RoleName].allows(strings.ToLower(action), false) {
				may = append(may, r.RoleName)
			}
		}
		if len(may) == 0 {
			t.Errorf("%s: nobody may", o.Name)
		}
		fmt.Fprintf(&b, "%s: %s\n  %s\n", o.Name, action, strings.Join(may, ", "))
	}
	golden(t, "operations", b.String())
	if _, ok := ActionOf("Disks.Format", ""); ok {
		t.Error("an unknown operation has an action")
	}
}

func BenchmarkDecide(b *testing.B) {
	var as []resource.RoleAssignment
	for i := range 10000 {
		as = append(as, give(msi, DiskBackupReader, resource.ID(fmt.Sprintf("%s%d", diskID, i))))
	}
	g := NewGrants(nil, as)
	for b.Loop() {
		g.Decide(msi, nil, "Microsoft.Compute/disks/read", diskID+"9999")
	}
}
