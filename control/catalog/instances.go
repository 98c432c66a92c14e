package catalog

import (
	"context"
	"database/sql"
	"encoding/json"

	"github.com/diskvault/diskvault/control/resource"
)

// PutInstance adds or replaces an instance, whose vault, policy and store
// exist.
func (c *Catalog) PutInstance(ctx context.Context, i resource.Instance) error {
	return c.write(ctx, func(tx *sql.Tx) error { return putInstance(ctx, tx, i) })
}

func putInstance(ctx context.Context, tx *sql.Tx, i resource.Instance) error {
	body, err := encode(i)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO instance (id, name, disk, vault, policy, store, body) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, disk = excluded.disk, vault = excluded.vault,
			policy = excluded.policy, store = excluded.store, body = excluded.body`,
		i.ID, i.Name, i.Disk, i.Vault, i.Policy, i.Store, body)
	return err
}

// Instances gives all instances by name.
func (c *Catalog) Instances(ctx context.Context) ([]resource.Instance, error) {
	return c.instances(ctx, `SELECT body FROM instance ORDER BY name`)
}

// InstancesNamed gives the instances whose ID, name or disk is the text.
func (c *Catalog) InstancesNamed(ctx context.Context, text string) ([]resource.Instance, error) {
	return c.instances(ctx, `SELECT body FROM instance WHERE id = $1 OR name = $1 OR disk = $1 ORDER BY name`, text)
}

func (c *Catalog) instances(ctx context.Context, query string, args ...any) ([]resource.Instance, error) {
	var out []resource.Instance
	err := c.rows(ctx, func(r *sql.Rows) error {
		var body string
		if err := r.Scan(&body); err != nil {
			return err
		}
		var i resource.Instance
		err := json.Unmarshal([]byte(body), &i)
		out = append(out, i)
		return err
	}, query, args...)
	return out, err
}
