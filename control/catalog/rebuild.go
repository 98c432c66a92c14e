package catalog

import (
	"context"
	"database/sql"

	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
)

// Contents is what a store says about the resources of a deployment.
type Contents struct {
	Store     resource.Store
	Vaults    []resource.Vault
	Policies  []resource.Policy
	Instances []resource.Instance
	Points    []store.Point
	Documents []Document // all other resources
}

// Rebuild fills the catalog from what a store holds, in one transaction, and
// pauses retention: a rule that was changed after the records were written
// must not delete anything before a person has looked.
func (c *Catalog) Rebuild(ctx context.Context, from Contents) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		if err := putStore(ctx, tx, from.Store); err != nil {
			return err
		}
		for _, v := range from.Vaults {
			if err := putVault(ctx, tx, v); err != nil {
				return err
			}
		}
		for _, p := range from.Policies {
			if err := putPolicy(ctx, tx, p); err != nil {
				return err
			}
		}
		for _, i := range from.Instances {
			if err := putInstance(ctx, tx, i); err != nil {
				return err
			}
		}
		for _, d := range from.Documents {
			if err := putDocument(ctx, tx, d); err != nil {
				return err
			}
		}
		if _, _, err := setPoints(ctx, tx, from.Store.ID, from.Points); err != nil {
			return err
		}
		return setFact(ctx, tx, RetentionPaused, "the catalog was rebuilt from "+from.Store.URL)
	})
}
