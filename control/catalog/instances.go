package catalog

import (
	"context"
	"database/sql"
	"encoding/json"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
)

// PutInstance adds an instance, whose vault, policy and store exist. Of one
// that exists it takes over what a backup learns of the disk: its path, kind,
// size and identity. All else may have been changed while the backup ran, and
// stays as it is.
func (c *Catalog) PutInstance(ctx context.Context, i resource.Instance) error {
	_, err := c.ChangeInstance(ctx, i.ID, func(old *resource.Instance) (resource.Instance, error) {
		if old == nil {
			return i, nil
		}
		old.Disk, old.Kind, old.Size, old.Identity = i.Disk, i.Kind, i.Size, i.Identity
		return *old, nil
	})
	return err
}

// ChangeInstance is ChangeVault for an instance, which is named by its GUID. A
// second instance of a disk's resource, or of a name in its vault, is a
// UserErrorDppDatasourceAlreadyProtected problem.
func (c *Catalog) ChangeInstance(ctx context.Context, id string, do func(old *resource.Instance) (resource.Instance, error)) (resource.Instance, error) {
	i, err := change(ctx, c, `SELECT body FROM instance WHERE id = $1`, id, func(old *resource.Instance) (resource.Instance, error) {
		if old != nil {
			*old = old.Normal()
		}
		i, err := do(old)
		return i.Normal(), err
	}, func(ctx context.Context, tx *sql.Tx, i resource.Instance, was, body string) (sql.Result, error) {
		if was == "" {
			return addInstance(ctx, tx, i.ResourceID().Key(), i, body)
		}
		return tx.ExecContext(ctx, `UPDATE instance SET disk = $1, disk_key = $2, policy = $3, store = $4, state = $5, purge = $6, next_run = NULL, body = $7, snapshots = $8 WHERE id = $9 AND body = $10`,
			i.Disk, i.DiskID.Key(), i.PolicyID().Key(), i.Store, string(i.State), purge(i), body, i.Snapshots.Key(), i.ID, was)
	})
	if twice(err) {
		return i, problem.New(problem.DiskProtected, "The disk is protected already, or there is a backup instance of the same name.").With("instance", id)
	}
	return i, err
}

func purge(i resource.Instance) any {
	if i.Deletion == nil {
		return nil
	}
	return stamp(i.Deletion.Purge)
}

func addInstance(ctx context.Context, tx *sql.Tx, key string, i resource.Instance, body string) (sql.Result, error) {
	return tx.ExecContext(ctx, `INSERT INTO instance (id, key, name, disk, disk_key, vault, policy, store, state, purge, body, snapshots) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (id) DO NOTHING`,
		i.ID, key, i.Name, i.Disk, i.DiskID.Key(), resource.VaultID(i.Vault).Key(), i.PolicyID().Key(), i.Store, string(i.State), purge(i), body, i.Snapshots.Key())
}

// putInstance adds or replaces all of an instance.
func putInstance(ctx context.Context, tx *sql.Tx, i resource.Instance) error {
	i = i.Normal()
	body, err := json.Marshal(i)
	if err != nil {
		return err
	}
	r, err := tx.ExecContext(ctx, `UPDATE instance SET disk = $1, disk_key = $2, vault = $3, policy = $4, store = $5, state = $6, purge = $7, next_run = NULL, body = $8, snapshots = $9 WHERE id = $10`,
		i.Disk, i.DiskID.Key(), resource.VaultID(i.Vault).Key(), i.PolicyID().Key(), i.Store, string(i.State), purge(i), string(body), i.Snapshots.Key(), i.ID)
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil || n > 0 {
		return err
	}
	// Old data folders may hold names that differ by case alone; the second of
	// them gets a key of its own.
	key, taken := i.ResourceID().Key(), 0
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM instance WHERE key = $1`, key).Scan(&taken); err != nil {
		return err
	}
	if taken > 0 {
		key += "~" + i.ID
	}
	_, err = addInstance(ctx, tx, key, i, string(body))
	return err
}

// RemoveInstance removes an instance and all that the catalog knows of its
// points; false if it is not there. Its jobs stay as history.
func (c *Catalog) RemoveInstance(ctx context.Context, id string) (removed bool, err error) {
	err = c.write(ctx, func(tx *sql.Tx) error {
		for _, query := range []string{`DELETE FROM placement WHERE instance = $1`, `DELETE FROM point WHERE instance = $1`} {
			if _, err := tx.ExecContext(ctx, query, id); err != nil {
				return err
			}
		}
		r, err := tx.ExecContext(ctx, `DELETE FROM instance WHERE id = $1`, id)
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		removed = n > 0
		return err
	})
	return removed, err
}

// Instances gives all instances that are not deleted, by name.
func (c *Catalog) Instances(ctx context.Context) ([]resource.Instance, error) {
	return c.instances(ctx, `SELECT body FROM instance WHERE purge IS NULL ORDER BY name, id`)
}

// InstancesNamed gives the instances whose ID, name or disk is the text; of
// deleted ones only that with the ID.
func (c *Catalog) InstancesNamed(ctx context.Context, text string) ([]resource.Instance, error) {
	return c.instances(ctx, `SELECT body FROM instance WHERE id = $1 OR (name = $1 OR disk = $1) AND purge IS NULL ORDER BY name, id`, text)
}

// Instance gives an instance by its resource ID, or ErrNotFound. Deleted ones
// are found under the same ID.
func (c *Catalog) Instance(ctx context.Context, id resource.ID) (resource.Instance, error) {
	var i resource.Instance
	if err := c.body(ctx, &i, `SELECT body FROM instance WHERE key = $1`, id.Key()); err != nil {
		return resource.Instance{}, err
	}
	return i.Normal(), nil
}

// InstancesIn gives the instances of a vault by their keys: those that are
// deleted, or those that are not.
func (c *Catalog) InstancesIn(ctx context.Context, vault resource.ID, deleted bool, p Page) ([]resource.Instance, error) {
	if deleted {
		return c.instances(ctx, `SELECT body FROM instance WHERE vault = $1 AND purge IS NOT NULL AND key > $2 ORDER BY key LIMIT $3`, vault.Key(), p.After.Key(), p.limit())
	}
	return c.instances(ctx, `SELECT body FROM instance WHERE vault = $1 AND purge IS NULL AND key > $2 ORDER BY key LIMIT $3`, vault.Key(), p.After.Key(), p.limit())
}

// InstancesUsing gives the instances that use a policy, the deleted ones among
// them.
func (c *Catalog) InstancesUsing(ctx context.Context, policy resource.ID, p Page) ([]resource.Instance, error) {
	return c.instances(ctx, `SELECT body FROM instance WHERE policy = $1 AND key > $2 ORDER BY key LIMIT $3`, policy.Key(), p.After.Key(), p.limit())
}

// InstancesOf gives the instances of a disk's resource in all vaults, the
// deleted ones among them.
func (c *Catalog) InstancesOf(ctx context.Context, disk resource.ID) ([]resource.Instance, error) {
	if disk == "" {
		return nil, nil
	}
	return c.instances(ctx, `SELECT body FROM instance WHERE disk_key = $1 ORDER BY key`, disk.Key())
}

func (c *Catalog) instances(ctx context.Context, query string, args ...any) ([]resource.Instance, error) {
	out, err := list[resource.Instance](ctx, c, query, args...)
	for i := range out {
		out[i] = out[i].Normal()
	}
	return out, err
}

// SnapshotsIn gives the instances whose snapshot resource group is the one
// given, the deleted ones among them.
func (c *Catalog) SnapshotsIn(ctx context.Context, group resource.ID, limit int) ([]resource.Instance, error) {
	return c.instances(ctx, `SELECT body FROM instance WHERE snapshots = $1 ORDER BY key LIMIT $2`, group.Key(), limit)
}

// StoresOf gives the stores that hold instances of a vault; of one policy of
// it, if that is given.
func (c *Catalog) StoresOf(ctx context.Context, vault, policy resource.ID) ([]string, error) {
	var out []string
	err := c.rows(ctx, func(r *sql.Rows) error {
		var id string
		err := r.Scan(&id)
		out = append(out, id)
		return err
	}, `SELECT DISTINCT store FROM instance WHERE vault = $1 AND ($2 = '' OR policy = $2) ORDER BY store`, vault.Key(), policy.Key())
	return out, err
}
