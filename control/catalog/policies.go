package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strings"

	"github.com/diskvault/diskvault/control/resource"
)

// Page chooses a part of a list that is ordered by keys. Its zero value is the
// whole list.
type Page struct {
	After resource.ID // begin behind this one; empty: at the beginning
	Limit int         // 0: no limit
}

func (p Page) limit() int {
	if p.Limit <= 0 {
		return 1 << 30
	}
	return p.Limit
}

// PutVault adds or replaces a vault.
func (c *Catalog) PutVault(ctx context.Context, v resource.Vault) error {
	return c.write(ctx, func(tx *sql.Tx) error { return putVault(ctx, tx, v) })
}

func putVault(ctx context.Context, tx *sql.Tx, v resource.Vault) error {
	v = v.Normal()
	body, err := encode(v)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO vault (key, subscription, grp, body) VALUES ($1, $2, $3, $4)
		ON CONFLICT (key) DO UPDATE SET body = excluded.body`, v.ID.Key(), v.ID.Subscription(), strings.ToLower(v.ID.Group()), body)
	return err
}

// Vault gives a vault by its name in the home group or by its ID, or
// ErrNotFound.
func (c *Catalog) Vault(ctx context.Context, ref string) (resource.Vault, error) {
	var v resource.Vault
	err := c.body(ctx, &v, `SELECT body FROM vault WHERE key = $1`, resource.VaultID(ref).Key())
	if err != nil {
		return resource.Vault{}, err
	}
	return v.Normal(), nil
}

// Vaults gives the vaults within a scope, which is a subscription, a resource
// group or the tenant, by their keys.
func (c *Catalog) Vaults(ctx context.Context, scope resource.ID, p Page) ([]resource.Vault, error) {
	out, err := list[resource.Vault](ctx, c, `SELECT body FROM vault WHERE ($1 = '' OR subscription = $1) AND ($2 = '' OR grp = $2) AND key > $3 ORDER BY key LIMIT $4`,
		scope.Subscription(), strings.ToLower(scope.Group()), p.After.Key(), p.limit())
	for i := range out {
		out[i] = out[i].Normal()
	}
	return out, err
}

// ChangeVault replaces a vault by what do makes of it, nil for one that is not
// there. Nobody else's change is lost: do runs again if there was one
// meanwhile, so it must only compute. An error of do ends it.
func (c *Catalog) ChangeVault(ctx context.Context, id resource.ID, do func(old *resource.Vault) (resource.Vault, error)) (resource.Vault, error) {
	return change(ctx, c, `SELECT body FROM vault WHERE key = $1`, id.Key(), func(old *resource.Vault) (resource.Vault, error) {
		if old != nil {
			*old = old.Normal()
		}
		v, err := do(old)
		return v.Normal(), err
	}, func(ctx context.Context, tx *sql.Tx, v resource.Vault, was, body string) (sql.Result, error) {
		if was == "" {
			return tx.ExecContext(ctx, `INSERT INTO vault (key, subscription, grp, body) VALUES ($1, $2, $3, $4) ON CONFLICT (key) DO NOTHING`,
				v.ID.Key(), v.ID.Subscription(), strings.ToLower(v.ID.Group()), body)
		}
		return tx.ExecContext(ctx, `UPDATE vault SET body = $1 WHERE key = $2 AND body = $3`, body, v.ID.Key(), was)
	})
}

// RemoveVault removes a vault and its parts that protect nothing; false if
// instances or policies keep it, or it is not there.
func (c *Catalog) RemoveVault(ctx context.Context, id resource.ID) (removed bool, err error) {
	return c.remove(ctx, `DELETE FROM vault WHERE key = $1 AND NOT EXISTS (SELECT 1 FROM policy WHERE vault = $1) AND NOT EXISTS (SELECT 1 FROM instance WHERE vault = $1)`, id.Key())
}

// PutPolicy adds or replaces a policy of a vault that exists.
func (c *Catalog) PutPolicy(ctx context.Context, p resource.Policy) error {
	return c.write(ctx, func(tx *sql.Tx) error { return putPolicy(ctx, tx, p) })
}

func putPolicy(ctx context.Context, tx *sql.Tx, p resource.Policy) error {
	body, err := encode(p)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO policy (key, vault, body) VALUES ($1, $2, $3)
		ON CONFLICT (key) DO UPDATE SET body = excluded.body`, p.ResourceID().Key(), resource.VaultID(p.Vault).Key(), body)
	return err
}

// Policy gives a policy by its vault and name, or ErrNotFound.
func (c *Catalog) Policy(ctx context.Context, vault, name string) (resource.Policy, error) {
	var p resource.Policy
	err := c.body(ctx, &p, `SELECT body FROM policy WHERE key = $1`, resource.PolicyID(vault, name).Key())
	return p, err
}

// Policies gives the policies of a vault by their keys.
func (c *Catalog) Policies(ctx context.Context, vault resource.ID, p Page) ([]resource.Policy, error) {
	return list[resource.Policy](ctx, c, `SELECT body FROM policy WHERE vault = $1 AND key > $2 ORDER BY key LIMIT $3`, vault.Key(), p.After.Key(), p.limit())
}

// ChangePolicy is ChangeVault for a policy of a vault that exists. The
// scheduler looks at the instances of a changed policy at once.
func (c *Catalog) ChangePolicy(ctx context.Context, id resource.ID, do func(old *resource.Policy) (resource.Policy, error)) (resource.Policy, error) {
	return change(ctx, c, `SELECT body FROM policy WHERE key = $1`, id.Key(), do,
		func(ctx context.Context, tx *sql.Tx, p resource.Policy, was, body string) (sql.Result, error) {
			if was == "" {
				return tx.ExecContext(ctx, `INSERT INTO policy (key, vault, body) VALUES ($1, $2, $3) ON CONFLICT (key) DO NOTHING`,
					id.Key(), id.Parent().Key(), body)
			}
			if _, err := tx.ExecContext(ctx, `UPDATE instance SET next_run = NULL WHERE policy = $1`, id.Key()); err != nil {
				return nil, err
			}
			return tx.ExecContext(ctx, `UPDATE policy SET body = $1 WHERE key = $2 AND body = $3`, body, id.Key(), was)
		})
}

// RemovePolicy removes a policy; false if instances use it or it is not there.
func (c *Catalog) RemovePolicy(ctx context.Context, id resource.ID) (removed bool, err error) {
	return c.remove(ctx, `DELETE FROM policy WHERE key = $1 AND NOT EXISTS (SELECT 1 FROM instance WHERE policy = $1)`, id.Key())
}

// remove runs a statement that deletes, and tells whether it did.
func (c *Catalog) remove(ctx context.Context, query string, args ...any) (removed bool, err error) {
	err = c.write(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, query, args...)
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		removed = n > 0
		return err
	})
	return removed, err
}

// body reads the JSON of one row into v.
func (c *Catalog) body(ctx context.Context, v any, query string, args ...any) error {
	var body string
	err := c.db.QueryRowContext(ctx, query, args...).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	if err != nil {
		return c.problem(err)
	}
	return c.problem(json.Unmarshal([]byte(body), v))
}

// list reads the bodies of many rows.
func list[T any](ctx context.Context, c *Catalog, query string, args ...any) ([]T, error) {
	var out []T
	err := c.rows(ctx, func(r *sql.Rows) error {
		var body string
		if err := r.Scan(&body); err != nil {
			return err
		}
		var v T
		err := json.Unmarshal([]byte(body), &v)
		out = append(out, v)
		return err
	}, query, args...)
	return out, err
}

// change replaces one row by what do makes of it. put writes only if the row
// still has the body it had, or is still missing; else all is done again.
func change[T any](ctx context.Context, c *Catalog, query, key string, do func(old *T) (T, error),
	put func(ctx context.Context, tx *sql.Tx, v T, was, body string) (sql.Result, error)) (T, error) {
	for {
		var v, none T
		done := false
		err := c.write(ctx, func(tx *sql.Tx) error {
			var was string
			var old *T
			err := tx.QueryRowContext(ctx, query, key).Scan(&was)
			switch {
			case err == nil:
				old = new(T)
				if err := json.Unmarshal([]byte(was), old); err != nil {
					return err
				}
			case !errors.Is(err, sql.ErrNoRows):
				return err
			}
			if v, err = do(old); err != nil {
				return err
			}
			body, err := json.Marshal(v)
			if err != nil {
				return err
			}
			r, err := put(ctx, tx, v, was, string(body))
			if err != nil {
				return err
			}
			n, err := r.RowsAffected()
			done = n > 0
			return err
		})
		if err != nil {
			return none, err
		}
		if done {
			return v, nil
		}
	}
}
