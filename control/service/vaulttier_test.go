package service

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/catalog/catalogtest"
	"github.com/diskvault/diskvault/control/home"
	"github.com/diskvault/diskvault/control/resource"
)

// tiered is a deployment whose vault has a store of its own, and whose policy
// keeps daily points there for ten years.
type tiered struct {
	*deployment
	instance resource.Instance
	vaults   []resource.VaultStore
}

func tier(t *testing.T, place string, stores int) *tiered {
	d := &tiered{deployment: deploy(t, place)}
	var urls []string
	for range stores {
		made := must[StoreResult](t)(d.createStore(t.Context(), quiet(), CreateStoreRequest{URL: "file:" + filepath.Join(t.TempDir(), "vault")}))
		urls = append(urls, made.URL)
	}
	a := d.As(Local())
	v := must[resource.Vault](t)(a.PatchVault(t.Context(), VaultPatch{ID: d.vault, Stores: urls}))
	d.vaults = v.Stores
	p := must[resource.Policy](t)(a.Policy(t.Context(), d.policy))
	p.Retention[1].VaultDuration = "P10Y" // Daily
	must[resource.Policy](t)(a.PutPolicy(t.Context(), PolicyRequest{Policy: p}))
	d.instance = d.protect()
	return d
}

// back makes a point of a tag, of content of its own, which it returns.
func (d *tiered) back(tag string, seed uint64) (BackupResult, []byte) {
	d.t.Helper()
	content := make([]byte, 3<<20)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range content[:1<<20] {
		content[i] = byte(r.Uint32())
	}
	if err := os.WriteFile(d.source, content, 0o600); err != nil {
		d.t.Fatal(err)
	}
	return must[BackupResult](d.t)(d.Service.backup(d.t.Context(), quiet(), BackupRequest{Instance: d.instance.ID, Disk: d.instance.Disk, Path: d.instance.Disk, RetentionTag: tag})), content
}

// tiers says which stores hold a point.
func (d *tiered) tiers(point string) string {
	d.t.Helper()
	for _, p := range must[[]resource.RecoveryPoint](d.t)(d.As(Local()).RecoveryPoints(d.t.Context(), RecoveryPointsRequest{ID: d.deployment.backup})) {
		if p.ID != point {
			continue
		}
		var all []string
		for _, q := range p.Placements {
			all = append(all, q.Tier)
		}
		return strings.Join(all, " ")
	}
	return ""
}

func (d *tiered) restores(r RestoreRequest, want []byte) RestoreResult {
	d.t.Helper()
	r.Instance, r.To = d.instance.ID, filepath.Join(d.t.TempDir(), "restored.img")
	done := must[RestoreResult](d.t)(d.restore(d.t.Context(), quiet(), r))
	is, err := os.ReadFile(r.To)
	if err != nil || !bytes.Equal(is, want) {
		d.t.Errorf("%s: restored %d bytes of %d from %s, %v", r.Point, len(is), len(want), done.Store, err)
	}
	return done
}

const both = resource.OperationalTier + " " + resource.VaultTier

func TestVaultTier(t *testing.T) { catalogtest.Each(t, vaultTier) }

// vaultTier: points of a tag with a vault duration are copied by the backup,
// outlive those near the source, and can be restored and listed all along.
func vaultTier(t *testing.T, place string) {
	d := tier(t, place, 1)
	ctx := t.Context()
	first, was := d.back("Daily", 1)
	other, _ := d.back("Default", 2)
	last, _ := d.back("Default", 3)
	for id, want := range map[string]string{first.RecoveryPoint.ID: both, other.RecoveryPoint.ID: resource.OperationalTier, last.RecoveryPoint.ID: resource.OperationalTier} {
		if got := d.tiers(id); got != want {
			t.Errorf("%s is in %q, want %q", id, got, want)
		}
	}
	jobs := must[[]resource.Job](t)(d.catalog.Jobs(ctx, catalog.JobFilter{Instance: d.instance.ID}))
	if n := slices.IndexFunc(jobs, func(j resource.Job) bool {
		return j.Operation == resource.OperationCopy && j.Status == resource.Completed
	}); n < 0 {
		t.Errorf("no job copied: %+v", jobs)
	}
	if done := d.restores(RestoreRequest{Point: first.RecoveryPoint.ID}, was); done.Store == d.vaults[0].URL {
		t.Error("the operational tier comes first")
	}
	d.restores(RestoreRequest{PointsRequest: PointsRequest{StoreRequest: StoreRequest{URL: d.vaults[0].URL}}, Point: first.RecoveryPoint.ID}, was)

	// A month later only the copy is left of the daily point, and of the others the
	// newest. Each tier keeps its own newest.
	later := time.Now().AddDate(0, 1, 0)
	if n := must[int](t)(d.Expire(ctx, later)); n != 2 {
		t.Errorf("%d points expired, want 2", n)
	}
	if got := d.tiers(first.RecoveryPoint.ID); got != resource.VaultTier {
		t.Errorf("the daily point is in %q", got)
	}
	if got := d.tiers(other.RecoveryPoint.ID); got != "" {
		t.Errorf("the expired point is in %q", got)
	}
	if done := d.restores(RestoreRequest{Point: first.RecoveryPoint.ID}, was); done.Store != d.vaults[0].URL {
		t.Errorf("restored from %s", done.Store)
	}
	v := must[VerifyResult](t)(d.verify(ctx, quiet(), VerifyRequest{PointsRequest: PointsRequest{Instance: d.instance.ID}, ReadData: true}))
	if v.Points != 2 || !v.Verified {
		t.Errorf("%+v", v)
	}
	points := must[[]resource.RecoveryPoint](t)(d.points(ctx, quiet(), PointsRequest{Instance: d.instance.ID}))
	if len(points) != 2 || points[1].Placements[0].State != "Verified" || points[1].VerifiedAt == nil {
		t.Errorf("%+v", points)
	}

	// A backup beside it has a parent near the source, not in the vault.
	newest, _ := d.back("Daily", 4)
	if got := d.tiers(newest.RecoveryPoint.ID); got != both {
		t.Errorf("the next one is in %q", got)
	}
	// Ten years later the vault lets go of the old one too.
	if n := must[int](t)(d.Expire(ctx, time.Now().AddDate(10, 0, 1))); n != 2 {
		t.Errorf("%d points expired, want the last default one and the old daily one", n)
	}
	if got := d.tiers(first.RecoveryPoint.ID); got != "" {
		t.Errorf("the daily point is still in %q", got)
	}
	if got := d.tiers(newest.RecoveryPoint.ID); got != both {
		t.Errorf("the newest point is in %q", got)
	}
}

// A server copies by queued jobs, to two stores, and takes up what was missed.
func TestServerFillsVaults(t *testing.T) { catalogtest.Each(t, serverFillsVaults) }

func serverFillsVaults(t *testing.T, place string) {
	d := tier(t, place, 2)
	ctx, a := t.Context(), d.As(Local())
	if got := must[resource.Vault](t)(a.Vault(ctx, d.vault)).Storage; got[len(got)-1].Redundancy != "GeoRedundant" {
		t.Errorf("%+v", got)
	}
	d.serve()
	j := d.wait(must[resource.Job](t)(a.Backup(ctx, AdhocRequest{ID: d.deployment.backup, Tag: "Daily"})).ID)
	d.holds(j.Point, both+" "+resource.VaultTier)

	// A point that vanished from one store, nobody knows how, is copied again.
	st, _, err := d.openKnown(ctx, d.vaults[1].ID, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.DeletePoint(ctx, j.Point); err != nil {
		t.Fatal(err)
	}
	if err := d.catalog.SetFact(ctx, catalog.PointsStale, "yes"); err != nil {
		t.Fatal(err)
	}
	must[[]resource.RecoveryPoint](t)(d.points(ctx, quiet(), PointsRequest{Instance: d.instance.ID}))
	d.holds(j.Point, both)
	if n := must[int](t)(d.FillVaults(ctx, time.Now())); n != 1 {
		t.Errorf("%d copies queued", n)
	}
	if n := must[int](t)(d.FillVaults(ctx, time.Now().AddDate(10, 0, 1))); n != 0 {
		t.Errorf("%d copies queued of points that would expire at once", n)
	}
	d.holds(j.Point, both+" "+resource.VaultTier)

	// One that was deleted there on purpose is not.
	r := DeletePointsRequest{PointsRequest: PointsRequest{Instance: d.instance.ID, StoreRequest: StoreRequest{URL: d.vaults[1].URL}}, IDs: []string{j.Point}, Last: true}
	must[DeletePointsResult](t)(d.deletePoints(ctx, quiet(), r))
	d.holds(j.Point, both)
	if n := must[int](t)(d.FillVaults(ctx, time.Now())); n != 0 {
		t.Errorf("%d copies of a deleted point queued", n)
	}
	done := must[CopyStoreResult](t)(d.copyStore(ctx, quiet(), CopyStoreRequest{To: StoreRequest{URL: d.vaults[1].URL}}))
	if len(done.Copied) != 0 {
		t.Errorf("a deleted point was copied again: %+v", done)
	}
	// Without a store it goes from everywhere.
	must[DeletePointsResult](t)(d.deletePoints(ctx, quiet(), DeletePointsRequest{PointsRequest: PointsRequest{Instance: d.instance.ID}, IDs: []string{j.Point}, Last: true}))
	d.holds(j.Point, "")
	for _, v := range append(d.vaults, resource.VaultStore{ID: d.instance.Store}) {
		st, _, err := d.openKnown(ctx, v.ID, "")
		if err != nil {
			t.Fatal(err)
		}
		for p, err := range st.Points(ctx) {
			t.Errorf("%s holds %s, %v", v.URL, p.ID, err)
		}
	}
}

// holds waits until a point is in the tiers given.
func (d *tiered) holds(point, want string) {
	d.t.Helper()
	got := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got = d.tiers(point); got == want {
			return
		}
	}
	d.t.Fatalf("the point is in %q, want %q", got, want)
}

// If the store near the source is lost the vault's serves, and says so.
func TestLostOperationalStore(t *testing.T) {
	d := tier(t, "catalog.db", 1)
	ctx := t.Context()
	first, was := d.back("Daily", 1)
	path := strings.TrimPrefix(d.defaultURL(), "file:")
	if err := os.RemoveAll(filepath.Join(path, "data")); err != nil {
		t.Fatal(err)
	}
	broken := 0
	for _, name := range must[[]string](t)(filepath.Glob(filepath.Join(path, "*", "*"))) {
		if strings.Contains(name, "pack") || strings.Contains(name, "data") {
			if err := os.RemoveAll(name); err != nil {
				t.Fatal(err)
			}
			broken++
		}
	}
	if broken == 0 {
		t.Fatal("nothing was damaged")
	}
	_, err := d.restore(ctx, quiet(), RestoreRequest{PointsRequest: PointsRequest{Instance: d.instance.ID}, Point: first.RecoveryPoint.ID, To: filepath.Join(t.TempDir(), "x")})
	if p := problem.From(err); p == nil || !strings.Contains(strings.Join(p.Actions, " "), d.vaults[0].URL) {
		t.Errorf("nothing says that the vault has it: %v", err)
	}
	// The store is gone altogether.
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := d.stores.close(); err != nil {
		t.Fatal(err)
	}
	d.stores = newStores(d.folder)
	var notices []string
	loud := call{asked: time.Now(), emit: func(e home.Event) {
		if e.Notice != nil {
			notices = append(notices, e.Notice.Message)
		}
	}}
	to := filepath.Join(t.TempDir(), "y")
	done := must[RestoreResult](t)(d.restore(ctx, loud, RestoreRequest{PointsRequest: PointsRequest{Instance: d.instance.ID}, Point: first.RecoveryPoint.ID, To: to}))
	if is, err := os.ReadFile(to); err != nil || !bytes.Equal(is, was) || done.Store != d.vaults[0].URL || len(notices) != 1 {
		t.Errorf("%d bytes, %v, from %s; %q", len(is), err, done.Store, notices)
	}
}

// A catalog that is made anew from several stores knows all placements, whatever
// the order, and disks stay at home where their store can be read.
func TestRebuiltCatalogKnowsPlacements(t *testing.T) {
	for _, vaultFirst := range []bool{false, true} {
		d := tier(t, "catalog.db", 1)
		ctx := t.Context()
		first, was := d.back("Daily", 1)
		urls := []string{d.defaultURL(), d.vaults[0].URL}
		if vaultFirst {
			slices.Reverse(urls)
		}
		d.catalogErr = os.ErrInvalid // as if it were damaged
		for n, url := range urls {
			done := must[RebuildCatalogResult](t)(d.rebuildCatalog(ctx, quiet(), StoreRequest{URL: url}))
			if n == 0 && !vaultFirst && !strings.Contains(strings.Join(done.Warnings, " "), d.vaults[0].URL) {
				t.Errorf("nobody is told of the vault's store: %q", done.Warnings)
			}
		}
		if got := d.tiers(first.RecoveryPoint.ID); got != both {
			t.Errorf("vault first %v: the point is in %q", vaultFirst, got)
		}
		if i := must[resource.Instance](t)(d.As(Local()).Instance(ctx, d.deployment.backup)); i.Store != d.instance.Store {
			t.Errorf("vault first %v: the disk is backed up to %s", vaultFirst, i.Store)
		}
		d.restores(RestoreRequest{Point: first.RecoveryPoint.ID}, was)
		must[struct{}](t)(d.As(Local()).ConfirmRetention(ctx))
		d.back("Default", 2)
		must[int](t)(d.Expire(ctx, time.Now().AddDate(1, 0, 0)))
		if got := d.tiers(first.RecoveryPoint.ID); got != resource.VaultTier {
			t.Errorf("vault first %v: after a year the point is in %q", vaultFirst, got)
		}
	}
}

func TestVaultStoresAreOthers(t *testing.T) {
	d := tier(t, "catalog.db", 1)
	ctx, a := t.Context(), d.As(Local())
	for _, urls := range [][]string{{d.defaultURL()}, {d.vaults[0].URL, d.vaults[0].URL}, {"file:/a", "file:/b", "file:/c"}} {
		_, err := a.PatchVault(ctx, VaultPatch{ID: d.vault, Stores: urls})
		wants(t, err, problem.InvalidArgument)
	}
	strange := deploy(t, "catalog.db")
	_, err := a.PatchVault(ctx, VaultPatch{ID: d.vault, Stores: []string{strange.defaultURL()}})
	if err == nil {
		t.Error("a store of another realm became one of the vault")
	}
	if v := must[resource.Vault](t)(a.Vault(ctx, d.vault)); len(v.Stores) != 1 {
		t.Errorf("%+v", v.Stores)
	}
	if known := must[[]resource.Store](t)(d.catalog.Stores(ctx)); len(known) != 2 {
		t.Errorf("%+v", known)
	}
}

// Each store is collected once a day, whoever looks how often.
func TestCollectDue(t *testing.T) { catalogtest.Each(t, collectDue) }

func collectDue(t *testing.T, place string) {
	d := tier(t, place, 1)
	ctx, now := t.Context(), time.Now()
	for _, pass := range []struct {
		at   time.Time
		want int
	}{{now, 2}, {now.Add(23 * time.Hour), 2}, {now.Add(25 * time.Hour), 4}} {
		if err := d.CollectDue(ctx, pass.at); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, j := range must[[]resource.Job](t)(d.catalog.Jobs(ctx, catalog.JobFilter{})) {
			if j.Operation == resource.OperationCollect && j.Status == resource.Completed && j.Trigger == resource.Scheduled {
				n++
			}
		}
		if n != pass.want {
			t.Errorf("%d collections after %v, want %d", n, pass.at.Sub(now), pass.want)
		}
	}
}
