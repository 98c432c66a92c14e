package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"time"

	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
)

// Placement is a store that holds a recovery point.
type Placement struct {
	Store     string // its ID
	Tier      string
	Committed time.Time  // when the store got the point
	Keep      string     // for how long from the point's creation on; empty: until somebody deletes it
	Verified  *time.Time // when all data of it were last read back
}

// stand is what a store is to an instance.
type stand struct {
	home bool // backups go there
	tier string
}

// stands tells what a store is to an instance that exists, or to all of them if
// none is named.
func stands(ctx context.Context, tx *sql.Tx, storeID, instanceID string) (map[string]stand, error) {
	query, args := `SELECT id, store, vault FROM instance`, []any{}
	if instanceID != "" {
		query, args = query+` WHERE id = $1`, []any{instanceID}
	}
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out, vaults, keeps := map[string]stand{}, map[string]string{}, map[string]bool{}
	for rows.Next() {
		var id, home, vault string
		if err := rows.Scan(&id, &home, &vault); err != nil {
			return nil, err
		}
		out[id], vaults[id] = stand{home == storeID, resource.OperationalTier}, vault
		keeps[vault] = false
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for key := range keeps {
		var body string
		var v resource.Vault
		if err := tx.QueryRowContext(ctx, `SELECT body FROM vault WHERE key = $1`, key).Scan(&body); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			return nil, err
		}
		keeps[key] = v.Keeps(storeID)
	}
	for id, s := range out {
		if keeps[vaults[id]] {
			s.tier = resource.VaultTier
			out[id] = s
		}
	}
	return out, nil
}

// keep is how long a point stays in a store. A copy that a rule of the vault tier
// made outlives that the store belongs to the vault; one that somebody made by
// hand in the vault tier stays until somebody deletes it.
func (s stand) keep(p store.Point) string {
	if s.tier == resource.VaultTier || !s.home && p.VaultRetention != "" {
		return p.VaultRetention
	}
	return p.Retention
}

// putPlacement notes that a store holds a point since a time.
func putPlacement(ctx context.Context, tx *sql.Tx, storeID string, s stand, p store.Point, since time.Time) error {
	keep := s.keep(p)
	_, err := tx.ExecContext(ctx, `INSERT INTO placement (point, store, instance, tier, state, created, committed, keep, expires, good) VALUES ($1, $2, $3, $4, 'Committed', $5, $6, $7, $8, $9)
		ON CONFLICT (point, store) DO UPDATE SET tier = excluded.tier, state = excluded.state, keep = excluded.keep, expires = excluded.expires`,
		p.ID, storeID, p.Instance, s.tier, stamp(p.Created), stamp(since), keep, expires(p, keep), good(p))
	return err
}

// AddPlacements notes that a store got points; those that the catalog does not
// know belong to other data folders.
func (c *Catalog) AddPlacements(ctx context.Context, storeID string, ids []string, now time.Time) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		known := map[string]stand{}
		for _, id := range ids {
			var body string
			err := tx.QueryRowContext(ctx, `SELECT body FROM point WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM placement WHERE point = $1 AND store = $2 AND state = 'Committed')`, id, storeID).Scan(&body)
			if err == sql.ErrNoRows {
				continue
			}
			if err != nil {
				return err
			}
			var p store.Point
			if err := json.Unmarshal([]byte(body), &p); err != nil {
				return err
			}
			if _, ok := known[p.Instance]; !ok {
				found, err := stands(ctx, tx, storeID, p.Instance)
				if err != nil {
					return err
				}
				known[p.Instance] = found[p.Instance]
			}
			if err := putPlacement(ctx, tx, storeID, known[p.Instance], p, now); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemovePlacements notes that points were deleted from a store on purpose, so
// that no copy brings them back there. A point that no store holds any longer is
// forgotten. Points that are not there do not matter.
func (c *Catalog) RemovePlacements(ctx context.Context, storeID string, ids []string) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, `UPDATE placement SET state = 'Deleted', verified = NULL WHERE point = $1 AND store = $2`, id, storeID); err != nil {
				return err
			}
			if err := forgetPoint(ctx, tx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// forgetPoint removes a point that no store holds.
func forgetPoint(ctx context.Context, tx *sql.Tx, id string) error {
	var held bool
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM placement WHERE point = $1 AND state = 'Committed')`, id).Scan(&held); err != nil || held {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM placement WHERE point = $1`, id); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM point WHERE id = $1`, id)
	return err
}

// Placed gives the IDs of the points of an instance, or of all, that a store
// holds, and of those that were deleted from it while another still holds them.
func (c *Catalog) Placed(ctx context.Context, storeID, instanceID string) (held, deleted map[string]bool, err error) {
	held, deleted = map[string]bool{}, map[string]bool{}
	query, args := `SELECT point, state FROM placement WHERE store = $1`, []any{storeID}
	if instanceID != "" {
		query, args = query+` AND instance = $2`, append(args, instanceID)
	}
	err = c.rows(ctx, func(r *sql.Rows) error {
		var id, state string
		err := r.Scan(&id, &state)
		if state == "Deleted" {
			deleted[id] = true
		} else {
			held[id] = true
		}
		return err
	}, query, args...)
	return held, deleted, err
}

// placements gives the stores that hold the points of an instance, by point:
// those of the operational tier first.
func (c *Catalog) placements(ctx context.Context, instanceID string) (map[string][]Placement, error) {
	out := map[string][]Placement{}
	err := c.rows(ctx, func(r *sql.Rows) error {
		var p Placement
		var id, committed string
		var verified sql.NullString
		if err := r.Scan(&id, &p.Store, &p.Tier, &committed, &p.Keep, &verified); err != nil {
			return err
		}
		var err error
		if p.Committed, err = parseTime(committed); err != nil {
			return err
		}
		p.Verified, err = parseTimeOrNil(verified)
		out[id] = append(out[id], p)
		return err
	}, `SELECT point, store, tier, committed, keep, verified FROM placement WHERE instance = $1 AND state = 'Committed'`, instanceID)
	for _, ps := range out {
		slices.SortFunc(ps, func(a, b Placement) int {
			return cmp.Or(cmp.Compare(a.Tier, b.Tier), a.Committed.Compare(b.Committed), cmp.Compare(a.Store, b.Store))
		})
	}
	return out, err
}

// Wanting gives the instances of a vault, deleted ones not among them, of which
// the store of its vault tier lacks a point that it wants to have, of which
// nothing is being copied, and no copy failed since the time given. It reads no
// more than limit.
func (c *Catalog) Wanting(ctx context.Context, vault resource.ID, storeID string, now, since time.Time, limit int) ([]resource.Instance, error) {
	return c.instances(ctx, `SELECT body FROM instance AS i WHERE vault = $1 AND purge IS NULL AND id IN (
			SELECT p.instance FROM point AS p WHERE p.vault_until > $2 AND NOT EXISTS (SELECT 1 FROM placement AS q WHERE q.point = p.id AND q.store = $3))
		AND NOT EXISTS (SELECT 1 FROM job WHERE job.instance_id = i.id AND job.operation = 'Copy'
			AND (job.ended IS NULL OR job.ended > $4 AND job.status <> 'Completed')) ORDER BY id LIMIT $5`,
		vault.Key(), stamp(now), storeID, stamp(since), limit)
}
