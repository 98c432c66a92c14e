package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/access"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/catalog/catalogtest"
	"github.com/diskvault/diskvault/control/home"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
)

func TestMain(m *testing.M) { catalogtest.Main(m) }

// deployment is a service with a store, a resource group, a disk and a vault.
type deployment struct {
	*Service
	t                                         *testing.T
	group, disk, vault, policy, snaps, backup resource.ID
	source                                    string
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

const subscription = "11111111-2222-3333-4444-555555555555"

func deploy(t *testing.T, place string) *deployment {
	t.Helper()
	f := must[home.Folder](t)(home.Open(t.TempDir()))
	options := Options{Jobs: 2}
	if filepath.Ext(place) != ".db" {
		options.Catalog = place
	}
	s := must[*Service](t)(Open(t.Context(), f, options))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	must[StoreResult](t)(s.createStore(t.Context(), quiet(), CreateStoreRequest{Default: true}))
	rg := resource.GroupID(subscription, "App")
	d := &deployment{
		Service: s, t: t, group: rg, disk: resource.In(rg, resource.TypeDisk, "Data01"), vault: resource.In(rg, resource.TypeVault, "vault-01"),
		snaps: resource.GroupID(subscription, "Snaps"), source: filepath.Join(t.TempDir(), "data.img"),
	}
	d.policy, d.backup = d.vault.Child("backupPolicies", "disk-4h"), d.vault.Child("backupInstances", "data01-bi")
	if err := os.WriteFile(d.source, bytes.Repeat([]byte("diskvault"), 200_000), 0o600); err != nil {
		t.Fatal(err)
	}
	a := s.As(Local())
	for _, g := range []resource.ID{rg, d.snaps} {
		if _, created, err := a.PutGroup(t.Context(), resource.Group{ID: g, Location: "East US"}, ""); err != nil || !created {
			t.Fatal(created, err)
		}
	}
	if _, _, err := a.PutDisk(t.Context(), resource.Disk{ID: d.disk, Location: "eastus", SKU: "Premium_LRS", Source: "file://" + d.source}, ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.PutVault(t.Context(), VaultRequest{Vault: resource.Vault{ID: d.vault, Location: "eastus", Identity: resource.Identity{Type: "SystemAssigned"}}}); err != nil {
		t.Fatal(err)
	}
	must[resource.Policy](t)(a.PutPolicy(t.Context(), PolicyRequest{Policy: resource.Policy{
		Vault: string(d.vault), Name: "disk-4h", Schedule: resource.Schedule{Interval: "R/2025-01-06T02:00:00+00:00/PT4H", TimeZone: "UTC"},
		Retention: []resource.RetentionRule{{Tag: "Default", Duration: "P7D", Default: true}, {Tag: "Daily", Duration: "P14D", Criterion: resource.FirstOfDay, Priority: 25}},
	}}))
	return d
}

func (d *deployment) request() InstanceRequest {
	return InstanceRequest{ID: d.backup, Disk: d.disk, Policy: d.policy, Snapshots: d.snaps}
}

// protect brings the disk's instance to ProtectionConfigured.
func (d *deployment) protect() resource.Instance {
	d.t.Helper()
	a := d.As(Local())
	must[[]resource.RoleAssignment](d.t)(a.AddMissingRoles(d.t.Context(), d.request(), access.AtResource))
	i, _, err := a.PutInstance(d.t.Context(), d.request())
	if err != nil {
		d.t.Fatal(err)
	}
	i = must[resource.Instance](d.t)(d.Settle(d.t.Context(), i.ID))
	if i.State != resource.ProtectionConfigured {
		d.t.Fatalf("%s: %+v", i.State, i.Error)
	}
	return i
}

// serve runs jobs until the test ends.
func (d *deployment) serve() {
	ctx, cancel := context.WithCancel(d.t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- d.Serve(ctx, ServeOptions{Job: job.EngineOptions{Sites: []string{"eastus"}, Slots: 2}, Trouble: func(err error) { d.t.Error(err) }}, time.Second)
	}()
	d.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			d.t.Error(err)
		}
	})
	for range 500 {
		if d.queue() != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.t.Fatal("the server does not start")
}

func (d *deployment) wait(id string) resource.Job {
	d.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		j := must[resource.Job](d.t)(d.As(Local()).VaultJob(d.t.Context(), d.vault, id))
		if j.Status.Final() {
			return j
		}
	}
	d.t.Fatalf("the job %s does not end", id)
	return resource.Job{}
}

func wants(t *testing.T, err error, code problem.Code) {
	t.Helper()
	if !problem.Is(err, code) {
		t.Errorf("got %v, want %s", err, code)
	}
}

func TestProtectBackUpRestore(t *testing.T) { catalogtest.Each(t, protectBackUpRestore) }

func protectBackUpRestore(t *testing.T, place string) {
	d := deploy(t, place)
	ctx, a := t.Context(), d.As(Local())

	// Without roles protection fails, and says what is missing.
	wants(t, a.ValidateForBackup(ctx, d.request()), problem.RightsMissing)
	i, created, err := a.PutInstance(ctx, d.request())
	if err != nil || !created || i.State != resource.ConfiguringProtection {
		t.Fatal(i, created, err)
	}
	if i = must[resource.Instance](t)(d.Settle(ctx, i.ID)); i.State != resource.ConfiguringProtectionFailed || i.Error.Code != problem.RightsMissing {
		t.Fatalf("%s: %+v", i.State, i.Error)
	}
	i = d.protect()
	if err := a.ValidateForBackup(ctx, d.request()); err != nil {
		t.Error(err)
	}

	_, err = a.Backup(ctx, AdhocRequest{ID: d.backup})
	wants(t, err, problem.NoServer)
	d.serve()
	_, err = a.Backup(ctx, AdhocRequest{ID: d.backup, Rule: "Default"})
	wants(t, err, problem.BackupRuleUnknown)
	_, err = a.Backup(ctx, AdhocRequest{ID: d.backup, Tag: "Weekly"})
	wants(t, err, problem.RetentionTagNotFound)
	j := d.wait(must[resource.Job](t)(a.Backup(ctx, AdhocRequest{ID: d.backup, Rule: "backuphourly", Tag: "daily", PerDay: 1})).ID)
	if j.Status != resource.Completed || j.Point == "" || j.Tag != "Daily" || j.SubTasks()[0].Details["OriginalDatasourceSizeInBytes"] != "1800000" {
		t.Fatalf("%+v %+v", j, j.Error)
	}
	_, err = a.Backup(ctx, AdhocRequest{ID: d.backup, PerDay: 1})
	wants(t, err, problem.DailyLimitReached)
	points := must[[]resource.RecoveryPoint](t)(a.RecoveryPoints(ctx, RecoveryPointsRequest{ID: d.backup}))
	if len(points) != 1 || points[0].ID != j.Point || points[0].Expiry != nil {
		t.Errorf("%+v", points)
	}

	// A restore makes a new disk with the same content, once it may.
	target := resource.In(d.group, resource.TypeDisk, "Restored")
	r := DiskRestoreRequest{ID: d.backup, Point: j.Point, Target: target}
	wants(t, a.ValidateForRestore(ctx, r), problem.RightsMissing)
	v := must[resource.Vault](t)(a.Vault(ctx, d.vault))
	operator := resource.RoleAssignment{ID: resource.In(d.group, resource.TypeRoleAssignment, uuid.NewString()), Scope: d.group, Principal: v.Identity.PrincipalID,
		Role: resource.In("", resource.TypeRoleDefinition, "b50d9833-a0cb-478e-945f-707fcc997c13")}
	if _, created, err := a.PutRoleAssignment(ctx, operator); err != nil || !created {
		t.Fatal(err)
	}
	j = d.wait(must[resource.Job](t)(a.RestoreDisk(ctx, r)).ID)
	if j.Status != resource.Completed {
		t.Fatalf("%+v", j.Error)
	}
	made := must[resource.Disk](t)(a.Disk(ctx, target))
	was, _ := os.ReadFile(d.source)
	is, err := os.ReadFile(made.Source)
	if err != nil || !bytes.Equal(was, is) || made.Size != int64(len(was)) {
		t.Errorf("restored %d bytes of %d, %v", len(is), len(was), err)
	}
	wants(t, a.ValidateForRestore(ctx, r), problem.SameNameDisk)

	// The log knows who did what.
	lines := must[[]resource.Entry](t)(a.Audit(ctx, catalog.AuditFilter{Target: d.backup}))
	outcomes := map[resource.Outcome]int{}
	for _, l := range lines {
		outcomes[l.Outcome]++
	}
	if outcomes[resource.Done] < 3 || outcomes[resource.Undone] < 3 {
		t.Errorf("%v", outcomes)
	}
}

func TestLifeOfAnInstance(t *testing.T) { catalogtest.Each(t, lifeOfAnInstance) }

func lifeOfAnInstance(t *testing.T, place string) {
	d := deploy(t, place)
	ctx, a := t.Context(), d.As(Local())
	i := d.protect()
	if _, err := d.backupOnce(i); err != nil {
		t.Fatal(err)
	}

	other := d.request()
	other.ID = d.vault.Child("backupInstances", "second")
	_, _, err := a.PutInstance(ctx, other)
	wants(t, err, problem.DiskProtected)
	moved := d.request()
	moved.Snapshots = d.group
	_, _, err = a.PutInstance(ctx, moved)
	wants(t, err, problem.PropertyFixed)
	stale := d.request()
	stale.Match = `"old"`
	_, _, err = a.PutInstance(ctx, stale)
	wants(t, err, problem.ResourceChanged)

	for _, step := range []struct {
		do    func(context.Context, resource.ID) (resource.Instance, bool, error)
		state resource.Protection
		moved bool
	}{
		{a.ResumeBackups, resource.ProtectionConfigured, false},
		{a.StopProtection, resource.ProtectionStopped, true},
		{a.StopProtection, resource.ProtectionStopped, false},
		{a.ResumeProtection, resource.ProtectionConfigured, true},
		{a.SuspendBackups, resource.BackupSchedulesSuspended, true},
	} {
		i, moved, err := step.do(ctx, d.backup)
		if err != nil || i.State != step.state || moved != step.moved {
			t.Errorf("%s, %v, %v; want %s, %v", i.State, moved, err, step.state, step.moved)
		}
	}
	_, err = a.Backup(ctx, AdhocRequest{ID: d.backup})
	wants(t, err, problem.ProtectionStateConflict)
	_, err = d.backupOnce(i)
	wants(t, err, problem.ProtectionStateConflict)

	_, err = a.DeletePolicy(ctx, d.policy)
	wants(t, err, problem.PolicyInUse)
	_, err = a.DeleteVault(ctx, d.vault)
	wants(t, err, problem.VaultInUse)
	_, err = a.DeleteGroup(ctx, d.snaps)
	wants(t, err, problem.GroupInUse)

	if gone := must[bool](t)(a.DeleteInstance(ctx, d.backup, false)); !gone {
		t.Error("nothing was deleted")
	}
	_, err = a.Instance(ctx, d.backup)
	wants(t, err, problem.InstanceNotFound)
	_, err = a.DeletePolicy(ctx, d.policy)
	wants(t, err, problem.PolicyInSoftDeleted)
	_, _, err = a.PutInstance(ctx, d.request())
	wants(t, err, problem.ProtectionStateConflict)
	if ds := must[[]resource.Instance](t)(a.DeletedInstances(ctx, d.vault, Page{})); len(ds) != 1 || ds[0].Deletion == nil {
		t.Errorf("%+v", ds)
	}
	if i = must[resource.Instance](t)(a.Undelete(ctx, d.backup)); i.State != resource.ProtectionStopped {
		t.Error(i.State)
	}
	must[bool](t)(a.DeleteInstance(ctx, d.backup, false))

	// The end comes when it must, not before, and takes the points along.
	if err := d.Purge(ctx, time.Now().AddDate(0, 0, 13)); err != nil {
		t.Error(err)
	}
	must[resource.Instance](t)(a.DeletedInstance(ctx, d.backup))
	if err := d.Purge(ctx, time.Now().AddDate(0, 0, 15)); err != nil {
		t.Error(err)
	}
	_, err = a.DeletedInstance(ctx, d.backup)
	wants(t, err, problem.InstanceNotFound)
	st, _, err := d.openKnown(ctx, i.Store, "")
	if err != nil {
		t.Fatal(err)
	}
	for p, err := range st.Points(ctx) {
		t.Errorf("left in the store: %+v, %v", p, err)
	}
	for _, remove := range []func() (bool, error){
		func() (bool, error) { return a.DeletePolicy(ctx, d.policy) }, func() (bool, error) { return a.DeleteVault(ctx, d.vault) },
		func() (bool, error) { return a.DeleteGroup(ctx, d.snaps) },
	} {
		if !must[bool](t)(remove()) || must[bool](t)(remove()) {
			t.Error("it is not removed once")
		}
	}
}

// backupOnce makes a point without a queue.
func (d *deployment) backupOnce(i resource.Instance) (BackupResult, error) {
	return d.Service.backup(d.t.Context(), quiet(), BackupRequest{Instance: i.ID, Disk: i.Disk, Path: i.Disk})
}

func TestCallersNeedRoles(t *testing.T) {
	d := deploy(t, "catalog.db")
	ctx, who := t.Context(), resource.Caller{Principal: uuid.NewString(), Name: "eve", From: "192.0.2.7"}
	eve := d.As(who)
	_, err := eve.Vault(ctx, d.vault)
	wants(t, err, problem.CallerNotAllowed)
	_, err = eve.DeleteVault(ctx, d.vault)
	wants(t, err, problem.CallerNotAllowed)
	lines := must[[]resource.Entry](t)(d.As(Local()).Audit(ctx, catalog.AuditFilter{Target: d.vault}))
	if len(lines) < 2 || lines[0].Outcome != resource.Denied || lines[0].From != "192.0.2.7" || lines[0].Code != problem.CallerNotAllowed {
		t.Errorf("%+v", lines)
	}
	must[resource.Principal](t)(d.As(Local()).PutPrincipal(ctx, resource.Principal{ObjectID: who.Principal, Type: "User", Name: "eve"}))
	reader := resource.RoleAssignment{ID: resource.In(d.group, resource.TypeRoleAssignment, uuid.NewString()), Scope: d.group, Principal: who.Principal,
		Role: resource.In("", resource.TypeRoleDefinition, "acdd72a7-3385-48ef-bd42-f606fba81ae7")}
	if _, _, err := d.As(Local()).PutRoleAssignment(ctx, reader); err != nil {
		t.Fatal(err)
	}
	must[resource.Vault](t)(eve.Vault(ctx, d.vault))
	_, err = eve.DeleteVault(ctx, d.vault)
	wants(t, err, problem.CallerNotAllowed)
	again := reader
	again.Principal = uuid.NewString()
	again.PrincipalType = "ServicePrincipal"
	_, _, err = d.As(Local()).PutRoleAssignment(ctx, again)
	wants(t, err, problem.AssignmentFixed)
	must[bool](t)(d.As(Local()).DeleteRoleAssignment(ctx, reader.ID))
	_, err = eve.Vault(ctx, d.vault)
	wants(t, err, problem.CallerNotAllowed)
}

func TestVaultSettings(t *testing.T) {
	d := deploy(t, "catalog.db")
	ctx, a := t.Context(), d.As(Local())
	first := must[resource.Vault](t)(a.Vault(ctx, d.vault))
	patch := func(p VaultPatch) (resource.Vault, error) { p.ID = d.vault; return a.PatchVault(ctx, p) }
	off := must[resource.Vault](t)(patch(VaultPatch{Identity: &resource.Identity{Type: "None"}}))
	on := must[resource.Vault](t)(patch(VaultPatch{Identity: &resource.Identity{Type: "SystemAssigned, UserAssigned", Users: map[resource.ID]resource.UserIdentity{resource.In(d.group, resource.TypeUserIdentity, "u"): {}}}}))
	if off.Identity.System() || !on.Identity.System() || on.Identity.PrincipalID == first.Identity.PrincipalID || len(on.Identity.Users) != 1 {
		t.Errorf("%+v, then %+v", first.Identity, on.Identity)
	}
	text := func(s string) *string { return &s }
	_, err := patch(VaultPatch{Immutability: text("Locked")})
	wants(t, err, problem.InvalidArgument)
	must[resource.Vault](t)(patch(VaultPatch{Immutability: text("Unlocked")}))
	must[resource.Vault](t)(patch(VaultPatch{Immutability: text("Locked"), CrossSubscriptionRestore: text("PermanentlyDisabled")}))
	_, err = patch(VaultPatch{Immutability: text("Disabled")})
	wants(t, err, problem.SettingIrreversible)
	_, err = patch(VaultPatch{CrossSubscriptionRestore: text("Enabled")})
	wants(t, err, problem.SettingIrreversible)
	_, err = patch(VaultPatch{SoftDelete: &resource.SoftDelete{State: "On", Days: 7}})
	wants(t, err, problem.InvalidArgument)
	_, err = patch(VaultPatch{Match: resource.ETag(first)})
	wants(t, err, problem.ResourceChanged)
	_, _, err = a.PutVault(ctx, VaultRequest{Vault: resource.Vault{ID: d.vault, Location: "westus"}})
	wants(t, err, problem.LocationConflict)
	_, _, err = a.PutVault(ctx, VaultRequest{Vault: resource.Vault{ID: resource.In(resource.GroupID(subscription, "none"), resource.TypeVault, "v1"), Location: "westus"}})
	wants(t, err, problem.GroupNotFound)
}

func TestRebuiltCatalogKnowsTheDecisions(t *testing.T) {
	d := deploy(t, "catalog.db")
	ctx, a := t.Context(), d.As(Local())
	i := d.protect()
	for range 2 {
		if _, err := d.backupOnce(i); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := a.SuspendBackups(ctx, d.backup); err != nil {
		t.Fatal(err)
	}
	must[resource.Vault](t)(a.PatchVault(ctx, VaultPatch{ID: d.vault, SoftDelete: &resource.SoftDelete{State: "On", Days: 60}}))
	vault, instance := must[resource.Vault](t)(a.Vault(ctx, d.vault)), must[resource.Instance](t)(a.Instance(ctx, d.backup))

	d.catalogErr = errors.New("lost") // as if it were damaged
	must[RebuildCatalogResult](t)(d.rebuildCatalog(ctx, quiet(), StoreRequest{}))
	for what, same := range map[string]bool{
		"vault":    resource.ETag(must[resource.Vault](t)(a.Vault(ctx, d.vault))) == resource.ETag(vault),
		"instance": resource.ETag(must[resource.Instance](t)(a.Instance(ctx, d.backup))) == resource.ETag(instance),
	} {
		if !same {
			t.Errorf("the %s is another one", what)
		}
	}
	must[resource.Disk](t)(a.Disk(ctx, d.disk))
	if err := a.ValidateForRestore(ctx, DiskRestoreRequest{ID: d.backup, Point: must[[]catalog.Point](t)(d.catalog.Points(ctx, i.ID))[0].ID,
		Target: resource.In(d.snaps, resource.TypeDisk, "x")}); !problem.Is(err, problem.RightsMissing) {
		t.Errorf("roles are not as they were: %v", err)
	}

	// Nothing goes before a person has said so.
	later := time.Now().AddDate(0, 1, 0)
	if n := must[int](t)(d.Expire(ctx, later)); n != 0 {
		t.Errorf("%d points were deleted while retention is paused", n)
	}
	must[struct{}](t)(a.ConfirmRetention(ctx))
	_, err := a.ConfirmRetention(ctx)
	wants(t, err, problem.NothingToConfirm)
	if n := must[int](t)(d.Expire(ctx, later)); n != 1 {
		t.Errorf("%d points were deleted, want all but the newest", n)
	}
}

// The catalog may know a newest point that somebody else deleted in the store;
// then the older ones are all there is.
func TestExpireTrustsTheStoreOnly(t *testing.T) {
	d := deploy(t, "catalog.db")
	ctx := t.Context()
	i := d.protect()
	var last string
	for range 3 {
		last = must[BackupResult](t)(d.backupOnce(i)).RecoveryPoint.ID
	}
	st, _, err := d.openKnown(ctx, i.Store, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.DeletePoint(ctx, last); err != nil {
		t.Fatal(err)
	}
	later := time.Now().AddDate(0, 1, 0)
	if n, err := d.Expire(ctx, later); n != 0 || !problem.Is(err, problem.RecoveryPointNotFound) {
		t.Errorf("%d points were deleted, %v", n, err)
	}
	if n := must[int](t)(d.Expire(ctx, later)); n != 1 { // the catalog knows better now
		t.Errorf("%d points were deleted, want all but the newest that is there", n)
	}
	if points := must[[]catalog.Point](t)(d.catalog.Points(ctx, i.ID)); len(points) != 1 || points[0].ID == last {
		t.Errorf("%+v", points)
	}
}

// Points that an instance keeps for ever stay whatever their age.
func TestStoppedInstancesKeepAll(t *testing.T) {
	d := deploy(t, "catalog.db")
	ctx, a := t.Context(), d.As(Local())
	i := d.protect()
	for range 2 {
		must[BackupResult](t)(d.backupOnce(i))
	}
	if _, _, err := a.StopProtection(ctx, d.backup); err != nil {
		t.Fatal(err)
	}
	later := time.Now().AddDate(5, 0, 0)
	if n := must[int](t)(d.Expire(ctx, later)); n != 0 {
		t.Errorf("%d points were deleted", n)
	}
	if points := must[[]resource.RecoveryPoint](t)(a.RecoveryPoints(ctx, RecoveryPointsRequest{ID: d.backup})); points[1].Expiry != nil || len(points[1].KeptBecause) == 0 {
		t.Errorf("%+v", points[1])
	}
	if _, _, err := a.SuspendBackups(ctx, d.backup); err != nil {
		t.Fatal(err)
	}
	if n := must[int](t)(d.Expire(ctx, later)); n != 1 {
		t.Errorf("%d points were deleted, want all but the last", n)
	}
}

func TestScheduleMakesBackups(t *testing.T) { catalogtest.Each(t, scheduleMakesBackups) }

func scheduleMakesBackups(t *testing.T, place string) {
	d := deploy(t, place)
	ctx := t.Context()
	i := d.protect()
	now := time.Now()
	if n := must[int](t)(d.Plan(ctx, now)); n != 0 {
		t.Errorf("%d backups for slots before the protection", n)
	}
	next := now.Add(4 * time.Hour)
	for want := range 2 {
		if n := must[int](t)(d.Plan(ctx, next)); n != 1-want {
			t.Errorf("%d backups queued", n)
		}
	}
	jobs := must[[]resource.Job](t)(d.catalog.Jobs(ctx, catalog.JobFilter{Instance: i.ID}))
	if len(jobs) != 1 || jobs[0].Slot == nil || jobs[0].Trigger != resource.Scheduled || jobs[0].Site != "eastus" {
		t.Fatalf("%+v", jobs)
	}
	d.serve() // finds the job that nobody has ticketed
	j := d.wait(jobs[0].ID)
	if j.Status != resource.Completed || j.Tag != "Daily" {
		t.Fatalf("%s %s: %+v", j.Status, j.Tag, j.Error)
	}
	points := must[[]catalog.Point](t)(d.catalog.Points(ctx, i.ID))
	if len(points) != 1 || points[0].Trigger != resource.Scheduled || points[0].Retention != "P14D" {
		t.Errorf("%+v", points)
	}
}

// TestManyDisks holds the numbers of a deployment of full size.
func TestManyDisks(t *testing.T) {
	const many = 10000
	d := deploy(t, "catalog.db")
	ctx := t.Context()
	one := d.protect()
	for n := range many {
		i := one
		i.ID, i.Name, i.DiskID = fmt.Sprintf("i%05d", n), fmt.Sprintf("disk%05d", n), ""
		if _, err := d.catalog.ChangeInstance(ctx, i.ID, func(*resource.Instance) (resource.Instance, error) { return i, nil }); err != nil {
			t.Fatal(err)
		}
	}
	var m runtime.MemStats
	for _, pass := range []struct {
		name string
		at   time.Time
		most time.Duration
	}{
		{"the first look", time.Now(), 5 * time.Second},
		{"a look when nothing is due", time.Now(), time.Second},
		{"all are due", time.Now().Add(4 * time.Hour), 20 * time.Second},
	} {
		began := time.Now()
		n := must[int](t)(d.Plan(ctx, pass.at))
		runtime.ReadMemStats(&m)
		t.Logf("%s: %d queued, %v, %d MiB", pass.name, n, time.Since(began), m.HeapInuse>>20)
		if took := time.Since(began); took > pass.most {
			t.Errorf("%s took %v", pass.name, took)
		}
	}
	data, _ := json.Marshal(one)
	t.Logf("an instance is %d bytes", len(data))
}
