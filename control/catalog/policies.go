package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/diskvault/diskvault/control/resource"
)

// PutVault adds or replaces a vault.
func (c *Catalog) PutVault(ctx context.Context, v resource.Vault) error {
	return c.write(ctx, func(tx *sql.Tx) error { return putVault(ctx, tx, v) })
}

func putVault(ctx context.Context, tx *sql.Tx, v resource.Vault) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO vault (name, body) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET body = excluded.body`, v.Name, body)
	return err
}

// Vault gives a vault by its name, or ErrNotFound.
func (c *Catalog) Vault(ctx context.Context, name string) (resource.Vault, error) {
	var v resource.Vault
	return v, c.body(ctx, &v, `SELECT body FROM vault WHERE name = $1`, name)
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
	_, err = tx.ExecContext(ctx, `INSERT INTO policy (vault, name, body) VALUES ($1, $2, $3)
		ON CONFLICT (vault, name) DO UPDATE SET body = excluded.body`, p.Vault, p.Name, body)
	return err
}

// Policy gives a policy by its vault and name, or ErrNotFound.
func (c *Catalog) Policy(ctx context.Context, vault, name string) (resource.Policy, error) {
	var p resource.Policy
	return p, c.body(ctx, &p, `SELECT body FROM policy WHERE vault = $1 AND name = $2`, vault, name)
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
