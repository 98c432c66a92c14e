package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
)

// Point is the row of a recovery point: what its store says of it, and what
// was found out since.
type Point struct {
	store.Point
	Store    string     // ID of the store that holds it
	Verified *time.Time // when all its data were last read back
}

// PutPoint adds a point of an instance that exists. What is known of its
// verification stays.
func (c *Catalog) PutPoint(ctx context.Context, storeID string, p store.Point) error {
	return c.write(ctx, func(tx *sql.Tx) error { return putPoint(ctx, tx, storeID, p) })
}

func putPoint(ctx context.Context, tx *sql.Tx, storeID string, p store.Point) error {
	body, err := encode(p)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO point (id, instance, store, time, created, tag, keep, expires, good, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (id) DO UPDATE SET body = excluded.body WHERE point.store = excluded.store`, // a copy in another store has its tree elsewhere
		p.ID, p.Instance, storeID, stamp(p.Time), stamp(p.Created), p.RetentionTag, p.Retention, expires(p), good(p), body)
	return err
}

// expires is the moment before which no rule lets go of a point; NULL: none
// ever does. It only spares looking at points: whether one expires is decided
// from its duration.
func expires(p store.Point) any {
	from := p.Created
	if p.Time.Before(from) {
		from = p.Time
	}
	at, err := resource.Duration(p.Retention).After(from)
	if err != nil {
		return nil
	}
	return stamp(at)
}

// good is 1 for a point that shows one point in time.
func good(p store.Point) int {
	if p.Consistency == store.CrashConsistent {
		return 1
	}
	return 0
}

// fillPoints is a migration: it takes out of the bodies of points what became
// columns.
func fillPoints(ctx context.Context, tx *sql.Tx) error {
	rows, err := tx.QueryContext(ctx, `SELECT store, body FROM point`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var points []Point
	for rows.Next() {
		var p Point
		var body string
		if err := rows.Scan(&p.Store, &body); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(body), &p.Point); err != nil {
			return err
		}
		points = append(points, p)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, p := range points {
		if _, err := tx.ExecContext(ctx, `UPDATE point SET tag = $1, keep = $2, expires = $3, good = $4 WHERE id = $5`, p.RetentionTag, p.Retention, expires(p.Point), good(p.Point), p.ID); err != nil {
			return err
		}
	}
	return nil
}

// SetPoints makes the catalog agree with a store: the points given are all
// that it holds. Points of instances that the catalog does not know belong to
// other data folders, and those of instances with another store are copies; both
// are left alone. It returns how many points came and
// went.
func (c *Catalog) SetPoints(ctx context.Context, storeID string, points []store.Point) (added, removed int, err error) {
	err = c.write(ctx, func(tx *sql.Tx) error {
		added, removed, err = setPoints(ctx, tx, storeID, points)
		return err
	})
	return added, removed, err
}

func setPoints(ctx context.Context, tx *sql.Tx, storeID string, points []store.Point) (added, removed int, err error) {
	instances, err := keys(ctx, tx, `SELECT id FROM instance WHERE store = $1`, storeID)
	if err != nil {
		return 0, 0, err
	}
	have, err := keys(ctx, tx, `SELECT id FROM point WHERE store = $1`, storeID)
	if err != nil {
		return 0, 0, err
	}
	for _, p := range points {
		if !instances[p.Instance] {
			continue
		}
		if !have[p.ID] {
			added++
		}
		delete(have, p.ID)
		if err := putPoint(ctx, tx, storeID, p); err != nil {
			return 0, 0, err
		}
	}
	for id := range have {
		if _, err := tx.ExecContext(ctx, `DELETE FROM point WHERE id = $1`, id); err != nil {
			return 0, 0, err
		}
	}
	return added, len(have), nil
}

// SetVerified notes that all data of a point were read back at a time.
func (c *Catalog) SetVerified(ctx context.Context, pointID string, at time.Time) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE point SET verified = $1 WHERE id = $2`, stamp(at), pointID)
		return err
	})
}

// SetStoreVerified notes that all data of all points that a store held at a
// time were read back then.
func (c *Catalog) SetStoreVerified(ctx context.Context, storeID string, at time.Time) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE point SET verified = $1 WHERE store = $2 AND created <= $1`, stamp(at), storeID)
		return err
	})
}

// RemovePoints forgets points; those that are not there do not matter.
func (c *Catalog) RemovePoints(ctx context.Context, ids []string) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		for part := range slices.Chunk(ids, 500) { // SQLite takes no more than 32766 arguments
			var args []any
			for _, id := range part {
				args = append(args, id)
			}
			if _, err := tx.ExecContext(ctx, `DELETE FROM point WHERE id IN (`+marks(1, len(args))+`)`, args...); err != nil {
				return err
			}
		}
		return nil
	})
}

// PointPage chooses points of an instance, newest first.
type PointPage struct {
	Since, Until time.Time // by their time; Until is not included; zero: no bound
	After        string    // begin behind this point; empty: at the newest
	Limit        int       // 0: no limit
}

// PointsPage gives some points of an instance, newest first, as Points does.
func (c *Catalog) PointsPage(ctx context.Context, instanceID string, p PointPage) ([]Point, error) {
	until := p.Until
	if until.IsZero() {
		until = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	query, args := `SELECT store, verified, body FROM point WHERE instance = $1 AND time >= $2 AND time < $3`, []any{instanceID, stamp(p.Since), stamp(until)}
	if p.After != "" {
		query += ` AND (created, id) < (SELECT created, id FROM point WHERE id = $5)`
		args = append(args, Page{Limit: p.Limit}.limit(), p.After)
	} else {
		args = append(args, Page{Limit: p.Limit}.limit())
	}
	return c.points(ctx, query+` ORDER BY created DESC, id DESC LIMIT $4`, args...)
}

// Points gives the points of an instance, newest first. Newest is by the
// order of their commits, which store.Point.Created keeps even if a clock is
// set back.
func (c *Catalog) Points(ctx context.Context, instanceID string) ([]Point, error) {
	return c.points(ctx, `SELECT store, verified, body FROM point WHERE instance = $1 ORDER BY created DESC, id DESC`, instanceID)
}

func (c *Catalog) points(ctx context.Context, query string, args ...any) ([]Point, error) {
	var out []Point
	err := c.rows(ctx, func(r *sql.Rows) error {
		var p Point
		var body string
		var verified sql.NullString
		err := r.Scan(&p.Store, &verified, &body)
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(body), &p.Point); err != nil {
			return err
		}
		p.Verified, err = parseTimeOrNil(verified)
		out = append(out, p)
		return err
	}, query, args...)
	return out, err
}

func keys(ctx context.Context, tx *sql.Tx, query string, args ...any) (map[string]bool, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]bool{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		out[id] = true
	}
	return out, rows.Err()
}
