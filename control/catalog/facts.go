package catalog

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// The names of the facts kept about a data folder.
const (
	// RetentionPaused is set by a rebuild: no point is deleted by a rule
	// until a person confirms that the rules are as they should be.
	RetentionPaused = "retention-paused"
	// PointsStale is set while a job may have committed a point that the
	// catalog has not heard of.
	PointsStale = "points-stale"
	// StorePending is set while the first store is made: what lies at its
	// place then is this process' own work, or that of one that died.
	StorePending = "store-pending"
	// RecoveryKeyShown, followed by a store's ID, holds the ID of the
	// recovery key that a person has seen.
	RecoveryKeyShown = "recovery-key-shown:"
	// Collected, followed by a store's ID, holds when a server last began to
	// collect the store.
	Collected = "collected:"
	// Scrubbed, followed by a store's ID, holds when a server last began to read
	// a slice of the store back.
	Scrubbed = "scrubbed:"
)

// Fact gives the value of a fact; empty if it was never set.
func (c *Catalog) Fact(ctx context.Context, name string) (string, error) {
	var value string
	err := c.db.QueryRowContext(ctx, `SELECT value FROM fact WHERE name = $1`, name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return value, c.problem(err)
}

// SetFact sets a fact; an empty value removes it.
func (c *Catalog) SetFact(ctx context.Context, name, value string) error {
	return c.write(ctx, func(tx *sql.Tx) error { return setFact(ctx, tx, name, value) })
}

// TakeTurn sets a fact to the time given, unless it holds one later than since;
// of several servers that ask, one is told that the turn is its own.
func (c *Catalog) TakeTurn(ctx context.Context, name string, since, now time.Time) (mine bool, err error) {
	err = c.write(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `INSERT INTO fact (name, value) VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE fact.value <= $3`, name, stamp(now), stamp(since))
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		mine = n > 0
		return err
	})
	return mine, err
}

func setFact(ctx context.Context, tx *sql.Tx, name, value string) error {
	if value == "" {
		_, err := tx.ExecContext(ctx, `DELETE FROM fact WHERE name = $1`, name)
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO fact (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return err
}
