package service

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
)

// A process that dies between the copy of a point and telling the catalog leaves
// a point that the next look finds, and the next job does not send again.
func TestCopyThatDied(t *testing.T) {
	d := tier(t, "catalog.db", 1)
	ctx := t.Context()
	to := d.vaults
	a := d.As(Local())
	must[resource.Vault](t)(a.PatchVault(ctx, VaultPatch{ID: d.vault, Stores: []string{}})) // so that the backup copies nothing
	first, was := d.back("Daily", 1)
	second, _ := d.back("Daily", 2)
	must[resource.Vault](t)(a.PatchVault(ctx, VaultPatch{ID: d.vault, Stores: []string{to[0].URL}}))

	from, _, err := d.openKnown(ctx, d.instance.Store, "")
	if err != nil {
		t.Fatal(err)
	}
	dst, _, err := d.openKnown(ctx, to[0].ID, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := from.Copy(ctx, dst, store.CopyOptions{Points: []string{first.RecoveryPoint.ID}, Meter: meter.New("copy")}); err != nil {
		t.Fatal(err)
	}
	if got := d.tiers(first.RecoveryPoint.ID); got != resource.OperationalTier {
		t.Fatalf("the catalog knows already: %q", got)
	}
	if err := d.copiesAfter(ctx, quiet(), d.instance.ID); err != nil {
		t.Fatal(err)
	}
	jobs := must[[]resource.Job](t)(d.catalog.Jobs(ctx, catalog.JobFilter{Instance: d.instance.ID, Limit: 1}))
	var done CopyStoreResult
	if err := json.Unmarshal(jobs[0].Result, &done); err != nil || done.There != 1 || len(done.Copied) != 1 || done.Copied[0].ID != second.RecoveryPoint.ID {
		t.Errorf("%+v, %v", done, err)
	}
	for _, id := range []string{first.RecoveryPoint.ID, second.RecoveryPoint.ID} {
		if got := d.tiers(id); got != both {
			t.Errorf("%s is in %q", id, got)
		}
	}
	d.restores(RestoreRequest{PointsRequest: PointsRequest{StoreRequest: StoreRequest{URL: to[0].URL}}, Point: first.RecoveryPoint.ID}, was)
	if missing, base, err := d.vaultPoints(ctx, d.instance, to[0].ID, time.Now()); err != nil || len(missing) != 0 || base == "" {
		t.Errorf("%v, %q, %v", missing, base, err)
	}
}
