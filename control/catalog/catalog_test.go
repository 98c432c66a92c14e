package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog/catalogtest"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
)

var day = time.Date(2026, 3, 1, 1, 2, 3, 456789000, time.UTC)

func TestMain(m *testing.M) { catalogtest.Main(m) }

// each runs a test with a new catalog on every engine.
func each(t *testing.T, test func(t *testing.T, c *Catalog)) {
	t.Helper()
	catalogtest.Each(t, func(t *testing.T, place string) { test(t, open(t, place)) })
}

func open(t *testing.T, place string) *Catalog {
	t.Helper()
	c, err := Open(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// contents is a store with two instances and three points, one of them of a
// foreign instance.
func contents() Contents {
	vault := resource.Vault{Name: "default", Created: day}
	return Contents{
		Store:    resource.Store{ID: "s1", Realm: "r1", URL: "file:/s1", Default: true, Created: day},
		Vaults:   []resource.Vault{vault},
		Policies: []resource.Policy{resource.DefaultPolicy("default", day)},
		Instances: []resource.Instance{
			{ID: "i1", Name: "web", Disk: "/vms/web.img", Vault: "default", Policy: "default", Store: "s1", Created: day, Identity: json.RawMessage(`[1]`)},
			{ID: "i2", Name: "db", Disk: "/vms/db.img", Vault: "default", Policy: "default", Store: "s1", Created: day},
		},
		Points: []store.Point{
			{ID: "p1", Instance: "i1", Time: day, Created: day, Size: 1 << 40},
			{ID: "p2", Instance: "i1", Time: day.Add(-time.Hour), Created: day.Add(time.Hour)},
			{ID: "p3", Instance: "foreign", Time: day, Created: day},
		},
	}
}

func TestResourcesComeBackAsTheyWere(t *testing.T) { each(t, resourcesComeBack) }

func resourcesComeBack(t *testing.T, c *Catalog) {
	ctx, want := t.Context(), contents()
	must(t, c.Rebuild(ctx, want))

	stores, err := c.Stores(ctx)
	must(t, err)
	if !reflect.DeepEqual(stores, []resource.Store{want.Store}) {
		t.Errorf("stores: %+v", stores)
	}
	instances, err := c.Instances(ctx)
	must(t, err)
	if len(instances) != 2 || !reflect.DeepEqual(instances[1], want.Instances[0].Normal()) {
		t.Errorf("instances: %+v", instances)
	}
	for _, text := range []string{"i1", "web", "/vms/web.img"} {
		found, err := c.InstancesNamed(ctx, text)
		must(t, err)
		if len(found) != 1 || found[0].ID != "i1" {
			t.Errorf("%s: found %+v", text, found)
		}
	}
	policy, err := c.Policy(ctx, "default", "default")
	must(t, err)
	if !reflect.DeepEqual(policy, want.Policies[0]) {
		t.Errorf("policy: %+v", policy)
	}
	if _, err := c.Policy(ctx, "default", "other"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a policy that is not there: %v", err)
	}
	if _, err := c.Vault(ctx, "other"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a vault that is not there: %v", err)
	}
	paused, err := c.Fact(ctx, RetentionPaused)
	must(t, err)
	if !strings.Contains(paused, "file:/s1") {
		t.Errorf("retention is not paused after a rebuild: %q", paused)
	}

	points, err := c.Points(ctx, "i1")
	must(t, err)
	if len(points) != 2 || points[0].ID != "p2" || points[1].Size != 1<<40 {
		t.Errorf("points are not in the order of their commits: %+v", points)
	}
	must(t, c.SetVerified(ctx, "s1", "p1", day))
	added, removed, err := c.SetPoints(ctx, "s1", append(want.Points[:1:1], store.Point{ID: "p4", Instance: "i2", Time: day, Created: day}))
	must(t, err)
	if added != 1 || removed != 1 {
		t.Errorf("added %d, removed %d; want 1 and 1", added, removed)
	}
	points, err = c.Points(ctx, "i1")
	must(t, err)
	if len(points) != 1 || points[0].Verified == nil || !points[0].Verified.Equal(day) {
		t.Errorf("verification was forgotten: %+v", points)
	}
}

func TestOneDefaultStore(t *testing.T) { each(t, oneDefaultStore) }

func oneDefaultStore(t *testing.T, c *Catalog) {
	ctx := t.Context()
	for i := range 3 {
		must(t, c.PutStore(ctx, resource.Store{ID: fmt.Sprint(i), URL: fmt.Sprint("file:/", i), Default: true, Created: day}))
	}
	stores, err := c.Stores(ctx)
	must(t, err)
	n := 0
	for _, s := range stores {
		if s.Default {
			n++
		}
	}
	if n != 1 || stores[0].ID != "2" {
		t.Errorf("%+v", stores)
	}
}

func TestJobsSurviveTheirProcess(t *testing.T) { catalogtest.Each(t, jobsSurvive) }

func jobsSurvive(t *testing.T, path string) {
	ctx := t.Context()
	c, err := Open(ctx, path)
	must(t, err)
	start := day
	end := day.Add(90 * time.Second)
	done := resource.Job{
		ID: "done", InstanceID: "i1", Instance: "web", Operation: "Backup", Status: resource.Completed, Trigger: "OnDemand", Created: day, Start: &start, End: &end,
		Progress: resource.Amount{Done: 5, Total: 5}, Record: &meter.Record{Phases: []meter.PhaseRecord{{Phase: "transfer", Seconds: 90}}, Stages: []meter.StageRecord{}}, Result: json.RawMessage(`{"a":1}`),
	}
	must(t, c.PutJob(ctx, done))
	must(t, c.PutJob(ctx, resource.Job{ID: "waits", Host: "host", Operation: "Backup", Status: resource.Queued, Trigger: "OnDemand", Created: day.Add(1)}))
	must(t, c.PutJob(ctx, resource.Job{ID: "runs", Host: "host", InstanceID: "i1", Operation: "Backup", Status: resource.InProgress, Trigger: "OnDemand", Created: day.Add(time.Hour), Start: &start,
		Detail: &resource.Progress{Phase: "transfer", Done: 1, ETA: &resource.ETA{P50: 7}}}))
	must(t, c.Close())

	c, err = Open(ctx, path)
	must(t, err)
	defer c.Close()
	reason := resource.FailureOf(problem.New(problem.OperationInterrupted, "The process died."))
	n, err := c.EndOrphans(ctx, "host", reason, end)
	must(t, err)
	if n != 1 {
		t.Errorf("%d jobs had been in progress, want 1", n)
	}
	jobs, err := c.Jobs(ctx, JobFilter{})
	must(t, err)
	if len(jobs) != 2 || jobs[0].ID != "runs" || jobs[0].Status != resource.Failed || jobs[0].Error.Code != problem.OperationInterrupted || jobs[0].ETA.P50 != 7 {
		t.Errorf("after the start: %+v", jobs)
	}
	done.Seconds = 90
	if !reflect.DeepEqual(jobs[1], done) {
		t.Errorf("got %+v\nwant %+v", jobs[1], done)
	}
	stale, err := c.Fact(ctx, PointsStale)
	must(t, err)
	if stale == "" {
		t.Error("nobody is told that a point may be missing")
	}
	last, err := c.LastJobs(ctx)
	must(t, err)
	if len(last) != 1 || last["i1"].ID != "runs" {
		t.Errorf("last jobs: %+v", last)
	}
	for f, want := range map[JobFilter]int{
		{ID: "done"}: 1, {Instance: "i1"}: 2, {Instance: "i1", Status: resource.Failed}: 1, {Since: day.Add(time.Minute)}: 1, {Limit: 1}: 1, {Instance: "x"}: 0,
	} {
		got, err := c.Jobs(ctx, f)
		must(t, err)
		if len(got) != want {
			t.Errorf("%+v: %d jobs, want %d", f, len(got), want)
		}
	}
}

func TestImpossibleJobsAreRefused(t *testing.T) { each(t, impossibleJobs) }

func impossibleJobs(t *testing.T, c *Catalog) {
	ctx := t.Context()
	for _, j := range []resource.Job{
		{ID: "a", Status: resource.Completed, Created: day},
		{ID: "b", Status: resource.InProgress, Created: day},
		{ID: "c", Status: resource.Queued, Created: day, Start: &day},
		{ID: "d", Status: "Odd", Created: day, Start: &day, End: &day},
	} {
		if err := c.PutJob(ctx, j); err == nil {
			t.Errorf("job %s in state %s was stored", j.ID, j.Status)
		}
	}
}

func TestDamage(t *testing.T) {
	ctx := context.Background()
	for name, damage := range map[string]func(path string){
		"no database": func(path string) { must(t, os.WriteFile(path, []byte(strings.Repeat("no database\n", 1000)), 0o600)) },
		"torn": func(path string) {
			data, err := os.ReadFile(path)
			must(t, err)
			for i := 5000; i < len(data); i++ {
				data[i] ^= 0x5a
			}
			must(t, os.WriteFile(path, data, 0o600))
		},
		"short": func(path string) { must(t, os.Truncate(path, 4096)) },
	} {
		path := filepath.Join(t.TempDir(), "catalog.db")
		c, err := Open(ctx, path)
		must(t, err)
		must(t, c.Rebuild(ctx, contents()))
		must(t, c.Close())
		damage(path)
		c, err = Open(ctx, path)
		if err == nil {
			_, err = c.Instances(ctx)
			c.Close()
		}
		if !problem.Is(err, problem.CatalogDamaged) {
			t.Errorf("%s: got %v", name, err)
		} else if p := problem.From(err); !strings.Contains(strings.Join(p.Actions, " "), "store rebuild-catalog") {
			t.Errorf("%s: no remedy in %q", name, p.Actions)
		}
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	c, err := Open(t.Context(), path)
	must(t, err)
	_, err = c.db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`)
	must(t, err)
	must(t, c.Close())
	if _, err = Open(t.Context(), path); !problem.Is(err, problem.HomeNotUsable) {
		t.Errorf("got %v", err)
	}
}

func TestWritersWaitForOneAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog #1?.db")
	c, err := Open(t.Context(), path) // the schema is made under the lock of the data folder
	must(t, err)
	must(t, c.Close())
	var wg sync.WaitGroup
	for p := range 4 {
		wg.Go(func() {
			c, err := Open(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for i := range 20 {
				if err := c.SetFact(t.Context(), fmt.Sprint(p, i), "x"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
