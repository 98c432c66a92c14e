package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"strings"

	"github.com/diskvault/diskvault/control/resource"
)

// document is a resource of which diskvault asks little: it is found by its
// ID, by where it lies, and by one link.
type document interface{ ResourceID() resource.ID }

// linked is a document that is looked up by something besides its ID.
type linked interface{ Link() string }

// LinkOf gives what a resource is looked up by besides its ID; empty: nothing.
func LinkOf(d document) string {
	if l, ok := d.(linked); ok {
		return strings.ToLower(l.Link())
	}
	return ""
}

// typeOf is the type that a document is listed by: a subscription's has none
// in its ID.
func typeOf(id resource.ID) string {
	if t := id.Type(); t != "" {
		return strings.ToLower(t)
	}
	return "subscriptions"
}

// Document is a resource as its record in a store keeps it.
type Document struct {
	ID   resource.ID     `json:"id"`
	Link string          `json:"link,omitempty"`
	Body json.RawMessage `json:"body"`
}

func putDocument(ctx context.Context, tx *sql.Tx, d Document) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO resource (key, type, subscription, grp, link, body) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (key) DO UPDATE SET link = excluded.link, body = excluded.body`,
		d.ID.Key(), typeOf(d.ID), d.ID.Subscription(), strings.ToLower(d.ID.Group()), d.Link, string(d.Body))
	return err
}

// Resource gives a resource by its ID, or ErrNotFound.
func Resource[T document](ctx context.Context, c *Catalog, id resource.ID) (T, error) {
	var v T
	err := c.body(ctx, &v, `SELECT body FROM resource WHERE key = $1`, id.Key())
	return v, err
}

// HasResource tells whether there is a resource of any type with an ID.
func (c *Catalog) HasResource(ctx context.Context, id resource.ID) (has bool, err error) {
	err = c.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM resource WHERE key = $1)`, id.Key()).Scan(&has)
	return has, c.problem(err)
}

// Resources gives the resources of a type within a scope, which is a
// subscription, a resource group or the tenant, by their keys.
func Resources[T document](ctx context.Context, c *Catalog, kind string, scope resource.ID, p Page) ([]T, error) {
	return list[T](ctx, c, `SELECT body FROM resource WHERE type = $1 AND ($2 = '' OR subscription = $2) AND ($3 = '' OR grp = $3) AND key > $4 ORDER BY key LIMIT $5`,
		strings.ToLower(kind), scope.Subscription(), strings.ToLower(scope.Group()), p.After.Key(), p.limit())
}

// Linked gives the resources of a type that are linked to something, by their
// keys.
func Linked[T document](ctx context.Context, c *Catalog, kind, to string) ([]T, error) {
	return list[T](ctx, c, `SELECT body FROM resource WHERE type = $1 AND link = $2 ORDER BY key`, strings.ToLower(kind), strings.ToLower(to))
}

// ChangeResource is ChangeVault for any other resource.
func ChangeResource[T document](ctx context.Context, c *Catalog, id resource.ID, do func(old *T) (T, error)) (T, error) {
	return change(ctx, c, `SELECT body FROM resource WHERE key = $1`, id.Key(), do,
		func(ctx context.Context, tx *sql.Tx, v T, was, body string) (sql.Result, error) {
			if was == "" {
				id := v.ResourceID()
				return tx.ExecContext(ctx, `INSERT INTO resource (key, type, subscription, grp, link, body) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (key) DO NOTHING`,
					id.Key(), typeOf(id), id.Subscription(), strings.ToLower(id.Group()), LinkOf(v), body)
			}
			return tx.ExecContext(ctx, `UPDATE resource SET body = $1, link = $2 WHERE key = $3 AND body = $4`, body, LinkOf(v), id.Key(), was)
		})
}

// RemoveResource removes a resource, and the role assignments at it and below
// it; false if it is not there.
func (c *Catalog) RemoveResource(ctx context.Context, id resource.ID) (removed bool, err error) {
	err = c.write(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `DELETE FROM resource WHERE key = $1`, id.Key())
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		if removed = n > 0; err != nil || !removed || id == "" {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM resource WHERE type = $1 AND substr(key, 1, length(CAST($2 AS TEXT))) = $2`,
			strings.ToLower(resource.TypeRoleAssignment), id.Key()+"/")
		return err
	})
	return removed, err
}

// InGroup gives the IDs of some resources of all types that lie in a resource
// group, vaults and disks among them; role assignments do not count.
func (c *Catalog) InGroup(ctx context.Context, group resource.ID, limit int) ([]resource.ID, error) {
	var out []resource.ID
	err := c.rows(ctx, func(r *sql.Rows) error {
		var key string
		err := r.Scan(&key)
		out = append(out, resource.ID(key))
		return err
	}, `SELECT key FROM vault WHERE subscription = $1 AND grp = $2
		UNION ALL SELECT key FROM resource WHERE subscription = $1 AND grp = $2 AND type NOT IN ($3, $4) LIMIT $5`,
		group.Subscription(), strings.ToLower(group.Group()), strings.ToLower(resource.TypeGroup), strings.ToLower(resource.TypeRoleAssignment), limit)
	return out, err
}
