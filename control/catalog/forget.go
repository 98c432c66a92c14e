package catalog

import (
	"context"
	"database/sql"
	"time"

	"github.com/diskvault/diskvault/control/resource"
)

// How long history is kept that nothing depends on.
const (
	keepJobs       = 180 * 24 * time.Hour
	keepAudit      = 400 * 24 * time.Hour
	keepOperations = 7 * 24 * time.Hour
)

// Forget removes history that has had its time: ended jobs, but for the newest
// backup of each instance, lines of the audit log, and operations.
func (c *Catalog) Forget(ctx context.Context, now time.Time) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM job WHERE created < $1 AND ended IS NOT NULL AND (operation <> 'Backup' OR EXISTS (
				SELECT 1 FROM job AS newer WHERE newer.instance_id = job.instance_id AND newer.operation = 'Backup' AND newer.created > job.created))`,
			stamp(now.Add(-keepJobs))); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM audit WHERE time < $1`, stamp(now.Add(-keepAudit))); err != nil {
			return err
		}
		old := resource.Operation{Start: now.Add(-keepOperations)}
		_, err := tx.ExecContext(ctx, `DELETE FROM resource WHERE type = $1 AND link < $2`, typeOf(old.ResourceID()), old.Link())
		return err
	})
}
