package catalog

import (
	"context"
	"database/sql"
	"time"

	"github.com/diskvault/diskvault/control/resource"
)

// AddEntry writes a line into the audit log.
func (c *Catalog) AddEntry(ctx context.Context, e resource.Entry) error {
	body, err := encode(e)
	if err != nil {
		return err
	}
	return c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO audit (id, time, principal, target, outcome, body) VALUES ($1, $2, $3, $4, $5, $6)`,
			e.ID, stamp(e.Time), e.Principal, e.Target.Key(), string(e.Outcome), body)
		return err
	})
}

// AuditFilter chooses lines of the audit log; its zero value chooses all.
type AuditFilter struct {
	Since, Until time.Time   // Until is not included
	Target       resource.ID // of just this resource
	Limit        int         // 0: no limit
}

// Audit gives lines of the audit log, newest first.
func (c *Catalog) Audit(ctx context.Context, f AuditFilter) ([]resource.Entry, error) {
	until := f.Until
	if until.IsZero() {
		until = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return list[resource.Entry](ctx, c, `SELECT body FROM audit WHERE time >= $1 AND time < $2 AND ($3 = '' OR target = $3) ORDER BY time DESC, id DESC LIMIT $4`,
		stamp(f.Since), stamp(until), f.Target.Key(), Page{Limit: f.Limit}.limit())
}
