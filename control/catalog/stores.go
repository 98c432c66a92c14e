package catalog

import (
	"context"
	"database/sql"

	"github.com/diskvault/diskvault/control/resource"
)

// PutStore adds or replaces a store. A store that is the default takes that
// place from any other.
func (c *Catalog) PutStore(ctx context.Context, s resource.Store) error {
	return c.write(ctx, func(tx *sql.Tx) error { return putStore(ctx, tx, s) })
}

func putStore(ctx context.Context, tx *sql.Tx, s resource.Store) error {
	isDefault := 0
	if s.Default {
		isDefault = 1
		if _, err := tx.ExecContext(ctx, `UPDATE store SET is_default = 0 WHERE id <> $1`, s.ID); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO store (id, realm, url, is_default, created) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (id) DO UPDATE SET realm = excluded.realm, url = excluded.url, is_default = excluded.is_default, created = excluded.created`,
		s.ID, s.Realm, s.URL, isDefault, stamp(s.Created))
	return err
}

// Stores gives all stores, the default one first.
func (c *Catalog) Stores(ctx context.Context) ([]resource.Store, error) {
	var out []resource.Store
	err := c.rows(ctx, func(r *sql.Rows) error {
		var s resource.Store
		var isDefault int
		var created string
		if err := r.Scan(&s.ID, &s.Realm, &s.URL, &isDefault, &created); err != nil {
			return err
		}
		s.Default = isDefault == 1
		var err error
		s.Created, err = parseTime(created)
		out = append(out, s)
		return err
	}, `SELECT id, realm, url, is_default, created FROM store ORDER BY is_default DESC, created, id`)
	return out, err
}
