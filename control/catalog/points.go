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

// Point is the row of a recovery point: what a store says of it, and what was
// found out since.
type Point struct {
	store.Point
	Store      string      // ID of the store that says so: the place of the tree is that in it
	Placements []Placement // the stores that hold it: never none; the operational tier first
	Verified   *time.Time  // when all its data were last read back, wherever
}

// PutPoint adds a point that a store holds, of an instance that exists. What is
// known of its verification stays.
func (c *Catalog) PutPoint(ctx context.Context, storeID string, p store.Point) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		all, err := stands(ctx, tx, storeID, p.Instance)
		if err != nil {
			return err
		}
		return putPoint(ctx, tx, storeID, all[p.Instance], p)
	})
}

func putPoint(ctx context.Context, tx *sql.Tx, storeID string, s stand, p store.Point) error {
	body, err := encode(p)
	if err != nil {
		return err
	}
	// A copy in another store has its tree elsewhere: what the instance's own
	// store says counts.
	_, err = tx.ExecContext(ctx, `INSERT INTO point (id, instance, store, time, created, tag, vault_until, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (id) DO UPDATE SET store = excluded.store, body = excluded.body WHERE point.store = excluded.store OR $9 = 1`,
		p.ID, p.Instance, storeID, stamp(p.Time), stamp(p.Created), p.RetentionTag, expires(p, p.VaultRetention), body, number(s.home))
	if err != nil {
		return err
	}
	return putPlacement(ctx, tx, storeID, s, p, p.Created)
}

// expires is the moment before which a rule that keeps a point so long does not
// let go of it; NULL: it never does. It only spares looking at points: whether
// one expires is decided from its duration.
func expires(p store.Point, keep string) any {
	from := p.Created
	if p.Time.Before(from) {
		from = p.Time
	}
	at, err := resource.Duration(keep).After(from)
	if err != nil {
		return nil
	}
	return stamp(at)
}

func number(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// good is 1 for a point that shows one point in time.
func good(p store.Point) int {
	return number(p.Consistency == store.CrashConsistent)
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
		if _, err := tx.ExecContext(ctx, `UPDATE point SET tag = $1, keep = $2, expires = $3, good = $4 WHERE id = $5`, p.RetentionTag, p.Retention, expires(p.Point, p.Retention), good(p.Point), p.ID); err != nil {
			return err
		}
	}
	return nil
}

// SetPoints makes the catalog agree with a store: the points given are all
// that it holds. Points of instances that the catalog does not know belong to
// other data folders and are left alone. It returns how many points came and
// went there.
func (c *Catalog) SetPoints(ctx context.Context, storeID string, points []store.Point) (added, removed int, err error) {
	err = c.write(ctx, func(tx *sql.Tx) error {
		added, removed, err = setPoints(ctx, tx, storeID, points)
		return err
	})
	return added, removed, err
}

func setPoints(ctx context.Context, tx *sql.Tx, storeID string, points []store.Point) (added, removed int, err error) {
	instances, err := stands(ctx, tx, storeID, "")
	if err != nil {
		return 0, 0, err
	}
	have, err := keys(ctx, tx, `SELECT point FROM placement WHERE store = $1 AND state = 'Committed'`, storeID)
	if err != nil {
		return 0, 0, err
	}
	for _, p := range points {
		s, known := instances[p.Instance]
		if !known {
			continue
		}
		if !have[p.ID] {
			added++
		}
		delete(have, p.ID)
		if err := putPoint(ctx, tx, storeID, s, p); err != nil {
			return 0, 0, err
		}
	}
	for id := range have {
		// Nobody is known to have deleted it on purpose, so a copy may bring it back.
		if _, err := tx.ExecContext(ctx, `DELETE FROM placement WHERE point = $1 AND store = $2`, id, storeID); err != nil {
			return 0, 0, err
		}
		if err := forgetPoint(ctx, tx, id); err != nil {
			return 0, 0, err
		}
	}
	return added, len(have), nil
}

// SetVerified notes that all data of a point were read back from a store at a
// time.
func (c *Catalog) SetVerified(ctx context.Context, storeID, pointID string, at time.Time) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE placement SET verified = $1 WHERE point = $2 AND store = $3 AND state = 'Committed'`, stamp(at), pointID, storeID)
		return err
	})
}

// SetStoreVerified notes that all data of all points that a store held at a
// time were read back then.
func (c *Catalog) SetStoreVerified(ctx context.Context, storeID string, at time.Time) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE placement SET verified = $1 WHERE store = $2 AND committed <= $1 AND state = 'Committed'`, stamp(at), storeID)
		return err
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
	query, args := `SELECT store, body FROM point WHERE instance = $1 AND time >= $2 AND time < $3`, []any{instanceID, stamp(p.Since), stamp(until)}
	if p.After != "" {
		query += ` AND (created, id) < (SELECT created, id FROM point WHERE id = $5)`
		args = append(args, Page{Limit: p.Limit}.limit(), p.After)
	} else {
		args = append(args, Page{Limit: p.Limit}.limit())
	}
	return c.points(ctx, instanceID, query+` ORDER BY created DESC, id DESC LIMIT $4`, args...)
}

// Points gives the points of an instance, newest first. Newest is by the
// order of their commits, which store.Point.Created keeps even if a clock is
// set back.
func (c *Catalog) Points(ctx context.Context, instanceID string) ([]Point, error) {
	return c.points(ctx, instanceID, `SELECT store, body FROM point WHERE instance = $1 ORDER BY created DESC, id DESC`, instanceID)
}

// PointsIn gives the points that a store holds, by their IDs, as Points does but
// for their placements.
func (c *Catalog) PointsIn(ctx context.Context, storeID string) ([]Point, error) {
	return c.readPoints(ctx, `SELECT p.store, p.body FROM placement AS q JOIN point AS p ON p.id = q.point WHERE q.store = $1 AND q.state = 'Committed' ORDER BY p.id`, storeID)
}

func (c *Catalog) points(ctx context.Context, instanceID, query string, args ...any) ([]Point, error) {
	out, err := c.readPoints(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	placements, err := c.placements(ctx, instanceID)
	if err != nil {
		return nil, err
	}
	for n := range out {
		p := &out[n]
		p.Placements = placements[p.ID]
		for _, q := range p.Placements {
			if q.Verified != nil && (p.Verified == nil || q.Verified.After(*p.Verified)) {
				p.Verified = q.Verified
			}
		}
	}
	// What was deleted between the two queries has no placement any more.
	return slices.DeleteFunc(out, func(p Point) bool { return len(p.Placements) == 0 }), nil
}

func (c *Catalog) readPoints(ctx context.Context, query string, args ...any) ([]Point, error) {
	var out []Point
	err := c.rows(ctx, func(r *sql.Rows) error {
		var p Point
		var body string
		if err := r.Scan(&p.Store, &body); err != nil {
			return err
		}
		err := json.Unmarshal([]byte(body), &p.Point)
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
