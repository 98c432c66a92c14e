package catalog

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
)

// first makes a catalog of the first schema, as released data folders hold it.
func first(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "catalog.db")
	c, err := openFile(t.Context(), path)
	must(t, err)
	sub, err := fs.Sub(migrations, "migrations")
	must(t, err)
	p, err := goose.NewProvider(goose.DialectSQLite3, c.db, sub)
	must(t, err)
	_, err = p.UpTo(t.Context(), 1)
	must(t, err)
	for _, q := range []string{
		`INSERT INTO store VALUES ('s1', 'r1', 'file:/s1', 1, '2026-03-01T01:02:03.456789Z')`,
		`INSERT INTO vault VALUES ('default', '{"name":"default","created":"2026-03-01T01:02:03Z"}')`,
		`INSERT INTO policy VALUES ('default', 'default', '{"vault":"default","name":"default","schedule":{"interval":"R/2024-01-01T01:00:00+00:00/P1D","timeZone":"UTC"},"retention":[{"tag":"Default","duration":"P30D","isDefault":true}],"created":"2026-03-01T01:02:03Z"}')`,
		`INSERT INTO instance VALUES ('i1', 'web', '/vms/web.img', 'default', 'default', 's1', '{"id":"i1","name":"web","disk":"/vms/web.img","kind":"file","sizeBytes":7,"vault":"default","policy":"default","store":"s1","created":"2026-03-01T01:02:03Z"}')`,
		`INSERT INTO instance VALUES ('i2', 'WEB', '/vms/WEB.img', 'default', 'default', 's1', '{"id":"i2","name":"WEB","disk":"/vms/WEB.img","kind":"file","sizeBytes":7,"vault":"default","policy":"default","store":"s1","created":"2026-03-01T01:02:03Z"}')`,
		`INSERT INTO point VALUES ('p1', 'i1', 's1', '2026-03-01T01:02:03.000000Z', '2026-03-01T01:02:04.000000Z', '2026-03-02T00:00:00.000000Z', '{"id":"p1","instance":"i1","time":"2026-03-01T01:02:03Z","created":"2026-03-01T01:02:04Z","retentionTag":"Default","retention":"P30D","consistency":"crashConsistent"}')`,
		`INSERT INTO job (id, instance_id, instance, operation, trigger_by, status, created, started, ended) VALUES ('j1', 'i1', 'web', 'Backup', 'OnDemand', 'Completed', '2026-03-01T01:02:03.000000Z', '2026-03-01T01:02:03.000000Z', '2026-03-01T01:02:04.000000Z')`,
	} {
		_, err := c.db.Exec(q)
		must(t, err)
	}
	must(t, c.Close())
	return path
}

func TestOldCatalogMigrates(t *testing.T) {
	c, ctx := open(t, first(t)), t.Context()
	v, err := c.Vault(ctx, "default")
	must(t, err)
	if v.ID != resource.VaultID("default") || v.SoftDelete.Days != 14 || v.Identity.PrincipalID == "" {
		t.Errorf("vault: %+v", v)
	}
	p, err := c.Policy(ctx, "default", "DEFAULT")
	must(t, err)
	if p.Name != "default" || len(p.Retention) != 1 {
		t.Errorf("policy: %+v", p)
	}
	is, err := c.Instances(ctx)
	must(t, err)
	if len(is) != 2 || is[1].State != resource.ProtectionConfigured || is[1].Since.IsZero() {
		t.Errorf("instances: %+v", is)
	}
	web, err := c.Instance(ctx, is[1].ResourceID())
	must(t, err)
	if web.ID != "i1" {
		t.Errorf("%s is found by the name of the other", web.ID)
	}
	points, err := c.Points(ctx, "i1")
	must(t, err)
	if len(points) != 1 || points[0].Verified == nil || points[0].Retention != "P30D" {
		t.Errorf("points: %+v", points)
	}
	aging, err := c.Aging(ctx, day.AddDate(0, 0, 31), "", 10)
	must(t, err)
	if len(aging) != 1 || aging[0].Points[0].Keep != "P30D" || !aging[0].Points[0].Good {
		t.Errorf("aging: %+v", aging)
	}
	jobs, err := c.Jobs(ctx, JobFilter{})
	must(t, err)
	if len(jobs) != 1 || jobs[0].Seconds != 1 {
		t.Errorf("jobs: %+v", jobs)
	}
	// The constraints are there again, and hold for what comes now.
	if _, err := c.db.Exec(`DELETE FROM instance WHERE id = 'i1'`); err == nil {
		t.Error("an instance with points was deleted")
	}
	must(t, c.PutPoint(ctx, "s1", store.Point{ID: "p2", Instance: "i2", Time: day, Created: day}))
}

func TestResources(t *testing.T) { each(t, resources) }

func resources(t *testing.T, c *Catalog) {
	ctx := t.Context()
	group := resource.GroupID("S1", "App")
	disk := resource.In(group, resource.TypeDisk, "Data01")
	_, err := ChangeResource(ctx, c, group, func(old *resource.Group) (resource.Group, error) {
		return resource.Group{ID: group, Location: "east"}, nil
	})
	must(t, err)
	_, err = ChangeResource(ctx, c, disk, func(old *resource.Disk) (resource.Disk, error) {
		return resource.Disk{ID: disk, Source: "/a"}, nil
	})
	must(t, err)
	role := func(name, who string, at resource.ID) {
		id := resource.In(at, resource.TypeRoleAssignment, name)
		_, err := ChangeResource(ctx, c, id, func(old *resource.RoleAssignment) (resource.RoleAssignment, error) {
			return resource.RoleAssignment{ID: id, Scope: at, Principal: who}, nil
		})
		must(t, err)
	}
	role("a", "P1", disk)
	role("b", "p1", group)
	role("c", "p2", resource.In(group, resource.TypeDisk, "Data011"))

	d, err := Resource[resource.Disk](ctx, c, resource.ID("/SUBSCRIPTIONS/s1/resourcegroups/APP/providers/microsoft.compute/DISKS/data01"))
	must(t, err)
	if d.Source != "/a" || d.ID.Name() != "Data01" {
		t.Errorf("disk: %+v", d)
	}
	found, err := Linked[resource.RoleAssignment](ctx, c, resource.TypeRoleAssignment, "p1")
	must(t, err)
	if len(found) != 2 {
		t.Errorf("assignments of p1: %+v", found)
	}
	in, err := c.InGroup(ctx, group, 10)
	must(t, err)
	if len(in) != 1 || !in[0].Same(disk) {
		t.Errorf("in the group: %v", in)
	}
	disks, err := Resources[resource.Disk](ctx, c, resource.TypeDisk, resource.SubscriptionID("s1"), Page{})
	must(t, err)
	none, err := Resources[resource.Disk](ctx, c, resource.TypeDisk, resource.SubscriptionID("s2"), Page{})
	must(t, err)
	if len(disks) != 1 || len(none) != 0 {
		t.Errorf("disks: %v, elsewhere %v", disks, none)
	}
	removed, err := c.RemoveResource(ctx, disk)
	must(t, err)
	again, err := c.RemoveResource(ctx, disk)
	must(t, err)
	if !removed || again {
		t.Errorf("removed %v, then %v", removed, again)
	}
	left, err := Resources[resource.RoleAssignment](ctx, c, resource.TypeRoleAssignment, "", Page{})
	must(t, err)
	if len(left) != 2 {
		t.Errorf("the disk's assignments went, and only they: %+v", left)
	}
	if _, err := Resource[resource.Disk](ctx, c, disk); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed disk: %v", err)
	}
}

func TestNoChangeIsLost(t *testing.T) { each(t, noChangeIsLost) }

func noChangeIsLost(t *testing.T, c *Catalog) {
	id := resource.VaultID("counted")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				_, err := c.ChangeVault(t.Context(), id, func(old *resource.Vault) (resource.Vault, error) {
					if old == nil {
						return resource.Vault{ID: id, SoftDelete: resource.SoftDelete{Days: 1}}, nil
					}
					old.SoftDelete.Days++
					return *old, nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	v, err := c.Vault(t.Context(), "counted")
	must(t, err)
	if v.SoftDelete.Days != 40 {
		t.Errorf("%d of 40 changes are left", v.SoftDelete.Days)
	}
}

func TestBackupDoesNotUndoAChange(t *testing.T) { each(t, backupDoesNotUndo) }

func backupDoesNotUndo(t *testing.T, c *Catalog) {
	ctx := t.Context()
	must(t, c.Rebuild(ctx, contents()))
	is, err := c.InstancesNamed(ctx, "i1")
	must(t, err)
	stale := is[0]
	_, err = c.ChangeInstance(ctx, "i1", func(old *resource.Instance) (resource.Instance, error) {
		old.State = resource.ProtectionStopped
		return *old, nil
	})
	must(t, err)
	stale.Size = 99
	must(t, c.PutInstance(ctx, stale))
	is, err = c.InstancesNamed(ctx, "i1")
	must(t, err)
	if is[0].State != resource.ProtectionStopped || is[0].Size != 99 {
		t.Errorf("%+v", is[0])
	}
}

func TestADiskIsProtectedOnce(t *testing.T) { each(t, protectedOnce) }

func protectedOnce(t *testing.T, c *Catalog) {
	ctx := t.Context()
	must(t, c.Rebuild(ctx, contents()))
	add := func(id, name string, disk resource.ID, deleted bool) error {
		_, err := c.ChangeInstance(ctx, id, func(*resource.Instance) (resource.Instance, error) {
			i := resource.Instance{ID: id, Name: name, DiskID: disk, Vault: "default", Policy: "default", Store: "s1", Created: day}
			if deleted {
				i.Deletion = &resource.Deletion{Purge: day}
			}
			return i, nil
		})
		return err
	}
	must(t, add("a", "a", "/d", false))
	if err := add("b", "b", "/D", false); !problem.Is(err, problem.DiskProtected) {
		t.Errorf("the same disk again: %v", err)
	}
	if err := add("c", "A", "/e", false); !problem.Is(err, problem.DiskProtected) {
		t.Errorf("the same name again: %v", err)
	}
	must(t, add("a", "a", "/d", true))
	must(t, add("b", "b", "/D", false))
	is, err := c.InstancesOf(ctx, "/d")
	must(t, err)
	if len(is) != 2 {
		t.Errorf("%+v", is)
	}
}

func TestVaultsAndPoliciesInUseStay(t *testing.T) { each(t, inUseStay) }

func inUseStay(t *testing.T, c *Catalog) {
	ctx := t.Context()
	must(t, c.Rebuild(ctx, contents()))
	vault, policy := resource.VaultID("default"), resource.PolicyID("default", "default")
	for _, want := range []bool{false, true} {
		p, err := c.RemovePolicy(ctx, policy)
		must(t, err)
		v, err := c.RemoveVault(ctx, vault)
		must(t, err)
		if p != want || v != want {
			t.Errorf("policy removed %v, vault removed %v; want %v", p, v, want)
		}
		for _, id := range []string{"i1", "i2"} {
			_, err := c.RemoveInstance(ctx, id)
			must(t, err)
		}
	}
}

func TestAudit(t *testing.T) { each(t, audit) }

func audit(t *testing.T, c *Catalog) {
	ctx := t.Context()
	for n, target := range []resource.ID{"/a", "/b", "/A"} {
		must(t, c.AddEntry(ctx, resource.Entry{ID: fmt.Sprint(n), Time: day.Add(time.Duration(n) * time.Hour), Target: target, Outcome: resource.Denied}))
	}
	for want, f := range map[string]AuditFilter{
		"210": {}, "20": {Target: "/a"}, "2": {Limit: 1}, "21": {Since: day.Add(time.Hour)}, "0": {Until: day.Add(time.Hour)},
	} {
		es, err := c.Audit(ctx, f)
		must(t, err)
		got := ""
		for _, e := range es {
			got += e.ID
		}
		if got != want {
			t.Errorf("%+v: %s, want %s", f, got, want)
		}
	}
}

// Two schedulers that look at the same time must not both take a slot.
func TestOneJobForASlot(t *testing.T) { each(t, oneJobForASlot) }

func oneJobForASlot(t *testing.T, c *Catalog) {
	ctx := t.Context()
	must(t, c.Rebuild(ctx, contents()))
	plan := func(id string, slot time.Time) int {
		p := []Plan{{ID: "i1", Slot: &slot, Next: slot.Add(time.Hour), Job: &resource.Job{ID: id, InstanceID: "i1", Operation: resource.OperationBackup,
			Trigger: resource.Scheduled, Status: resource.Queued, Created: day, Request: []byte("{}")}}}
		must(t, c.SetPlans(ctx, p))
		if p[0].Job == nil {
			return 0
		}
		return 1
	}
	next := day.Add(time.Hour)
	if n := plan("a", day) + plan("b", day) + plan("c", next); n != 1 { // c: a backup waits already
		t.Errorf("%d jobs, want 1", n)
	}
	jobs, err := c.Jobs(ctx, JobFilter{})
	must(t, err)
	if len(jobs) != 1 || jobs[0].ID != "a" {
		t.Errorf("%+v", jobs)
	}
	j, mine, err := c.Claim(ctx, "a", 0, "h", day)
	if err != nil || !mine {
		t.Fatal(mine, err)
	}
	if _, mine, err := c.Claim(ctx, "a", 0, "g", day); err != nil || mine {
		t.Errorf("claimed twice: %v", err)
	}
	j.Status, j.Start, j.End = resource.Completed, &day, &next
	must(t, c.PutJob(ctx, j))
	if n := plan("d", day) + plan("c", next); n != 1 {
		t.Errorf("%d jobs after the first, want the one for the next slot", n)
	}
}

func TestForget(t *testing.T) { each(t, forget) }

func forget(t *testing.T, c *Catalog) {
	ctx, now := t.Context(), day.AddDate(1, 0, 0)
	for n, j := range []resource.Job{
		{ID: "old", InstanceID: "i", Operation: resource.OperationBackup, Created: day},
		{ID: "last", InstanceID: "i", Operation: resource.OperationBackup, Created: day.Add(time.Hour)},
		{ID: "restore", InstanceID: "i", Operation: resource.OperationRestore, Created: day.Add(time.Hour)},
		{ID: "new", InstanceID: "j", Operation: resource.OperationRestore, Created: now},
	} {
		j.Status, j.Start, j.End = resource.Completed, &day, &now
		must(t, c.PutJob(ctx, j))
		must(t, c.AddEntry(ctx, resource.Entry{ID: fmt.Sprint(n), Time: j.Created.AddDate(0, -2, 0), Outcome: resource.Done}))
		o := resource.Operation{Name: j.ID, Start: j.Created}
		_, err := ChangeResource(ctx, c, o.ResourceID(), func(*resource.Operation) (resource.Operation, error) { return o, nil })
		must(t, err)
	}
	must(t, c.Forget(ctx, now))
	jobs, err := c.Jobs(ctx, JobFilter{})
	must(t, err)
	var left []string
	for _, j := range jobs {
		left = append(left, j.ID)
	}
	lines, err := c.Audit(ctx, AuditFilter{})
	must(t, err)
	operations, err := Resources[resource.Operation](ctx, c, "diskvault/operations", "", Page{})
	must(t, err)
	if fmt.Sprint(left) != "[new last]" || len(lines) != 1 || len(operations) != 1 {
		t.Errorf("left: %v, %d lines, %d operations", left, len(lines), len(operations))
	}
}

func TestPages(t *testing.T) { each(t, pages) }

func pages(t *testing.T, c *Catalog) {
	ctx, all := t.Context(), contents()
	all.Points = nil
	for n := range 25 {
		all.Points = append(all.Points, store.Point{ID: fmt.Sprintf("p%02d", n), Instance: "i1", Time: day.Add(time.Duration(n) * time.Hour), Created: day.Add(time.Duration(n/2) * time.Hour)})
	}
	must(t, c.Rebuild(ctx, all))
	var got []string
	for after := ""; ; {
		ps, err := c.PointsPage(ctx, "i1", PointPage{After: after, Limit: 4})
		must(t, err)
		if len(ps) == 0 {
			break
		}
		for _, p := range ps {
			got = append(got, p.ID)
		}
		after = ps[len(ps)-1].ID
	}
	want, err := c.Points(ctx, "i1")
	must(t, err)
	if !slices.EqualFunc(got, want, func(id string, p Point) bool { return id == p.ID }) {
		t.Errorf("page by page: %v", got)
	}
	few, err := c.PointsPage(ctx, "i1", PointPage{Since: day.Add(time.Hour), Until: day.Add(3 * time.Hour)})
	must(t, err)
	if len(few) != 2 {
		t.Errorf("between two times: %d points", len(few))
	}
	for n := range 10 {
		must(t, c.PutJob(ctx, resource.Job{ID: fmt.Sprint(n), Vault: "default", Status: resource.Queued, Created: day}))
	}
	var jobs []string
	for after := ""; ; {
		js, err := c.Jobs(ctx, JobFilter{Vault: resource.VaultID("default"), After: after, Limit: 3})
		must(t, err)
		if len(js) == 0 {
			break
		}
		for _, j := range js {
			jobs = append(jobs, j.ID)
		}
		after = js[len(js)-1].ID
	}
	if fmt.Sprint(jobs) != "[9 8 7 6 5 4 3 2 1 0]" {
		t.Errorf("jobs: %v", jobs)
	}
}

// many is how many instances a deployment of full size has.
const many = 10000

// TestManyInstances holds the numbers of a deployment of full size: a
// scheduler's look at all instances, a list page by page, and the points that
// may have expired.
func TestManyInstances(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	c, ctx, all := open(t, path), t.Context(), contents()
	all.Instances, all.Points = nil, nil
	for n := range many {
		all.Instances = append(all.Instances, resource.Instance{ID: fmt.Sprintf("i%05d", n), Name: fmt.Sprintf("disk%05d", n), Disk: fmt.Sprint("/d/", n), Vault: "default", Policy: "default", Store: "s1", Created: day})
	}
	must(t, c.Rebuild(ctx, all))

	quick := func(what string, most time.Duration, do func()) {
		t.Helper()
		began := time.Now()
		do()
		took := time.Since(began)
		t.Logf("%s: %v", what, took)
		if took > most {
			t.Errorf("%s took %v, more than %v", what, took, most)
		}
	}
	quick("listing all instances by 100", 5*time.Second, func() {
		n := 0
		for after := resource.ID(""); ; {
			is, err := c.InstancesIn(ctx, resource.VaultID("default"), false, Page{After: after, Limit: 100})
			must(t, err)
			if len(is) == 0 {
				break
			}
			n, after = n+len(is), is[len(is)-1].ResourceID()
		}
		if n != many {
			t.Errorf("%d instances listed", n)
		}
	})
	quick("planning all instances", 5*time.Second, func() {
		n := 0
		for after := ""; ; {
			due, err := c.Due(ctx, day, after, 1000)
			must(t, err)
			if len(due) == 0 {
				break
			}
			var plans []Plan
			for _, d := range due {
				plans = append(plans, Plan{ID: d.ID, Next: day.Add(time.Hour)})
			}
			must(t, c.SetPlans(ctx, plans))
			n, after = n+len(due), due[len(due)-1].ID
		}
		if n != many {
			t.Errorf("%d instances planned", n)
		}
	})
	quick("a look when nothing is due", 100*time.Millisecond, func() {
		due, err := c.Due(ctx, day, "", 1000)
		must(t, err)
		if len(due) != 0 {
			t.Errorf("%d are due", len(due))
		}
	})
}

// TestManyPoints looks for expired points among those of many instances: the
// memory is that of one portion.
func TestManyPoints(t *testing.T) {
	const instances, each = 100, 450
	c, ctx, all := open(t, filepath.Join(t.TempDir(), "catalog.db")), t.Context(), contents()
	all.Instances, all.Points = nil, nil
	for n := range instances {
		all.Instances = append(all.Instances, resource.Instance{ID: fmt.Sprintf("i%05d", n), Name: fmt.Sprintf("disk%05d", n), Vault: "default", Policy: "default", Store: "s1", Created: day})
	}
	must(t, c.Rebuild(ctx, all))
	must(t, c.write(ctx, func(tx *sql.Tx) error {
		for n := range instances {
			for p := range each {
				at := day.Add(time.Duration(p) * time.Hour)
				if err := putPoint(ctx, tx, "s1", stand{true, resource.OperationalTier}, store.Point{ID: fmt.Sprintf("p%d.%d", n, p), Instance: fmt.Sprintf("i%05d", n), Time: at, Created: at, Retention: "P7D", RetentionTag: "Default"}); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	began := time.Now()
	n := 0
	for after := ""; ; {
		aging, err := c.Aging(ctx, day.AddDate(0, 0, 10), after, 20)
		must(t, err)
		if len(aging) == 0 {
			break
		}
		for _, a := range aging {
			n += len(a.Points)
			if !slices.IsSortedFunc(a.Points, func(a, b AgingPoint) int { return b.Created.Compare(a.Created) }) {
				t.Error("points are not newest first")
			}
		}
		after = aging[len(aging)-1].Instance
	}
	t.Logf("%d points in %v", n, time.Since(began))
	if want := instances * (73 + 1); n != want { // those of three days and one hour, and the newest
		t.Errorf("%d points, want %d", n, want)
	}
	none, err := c.Aging(ctx, day.AddDate(0, 0, 6), "", 20)
	must(t, err)
	if len(none) != 0 {
		t.Error("points are looked at before any can have expired")
	}
}
