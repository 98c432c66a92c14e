package catalog

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
)

// AddJob adds a queued job. There is one queued backup of an instance at a
// time; a second is a UserErrorMaxConcurrentOperationLimitReached problem.
func (c *Catalog) AddJob(ctx context.Context, j resource.Job) error {
	err := c.write(ctx, func(tx *sql.Tx) error { return putJob(ctx, tx, j) })
	if twice(err) {
		return problem.New(problem.OneBackupAtATime, "A backup of %q waits or runs already.", j.Instance).With("instance", j.Instance)
	}
	return err
}

// twice tells whether a row broke the rule that there is one of its kind.
func twice(err error) bool {
	var s *sqlite.Error
	var p *pgconn.PgError
	return errors.As(err, &s) && s.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || errors.As(err, &p) && p.Code == "23505"
}

// Waiting gives queued jobs that are to be run, by their IDs, behind the one
// given.
func (c *Catalog) Waiting(ctx context.Context, after string, limit int) ([]resource.Job, error) {
	var out []resource.Job
	err := c.rows(ctx, func(r *sql.Rows) error {
		j, err := scanJob(r)
		out = append(out, j)
		return err
	}, `SELECT `+jobColumns+` FROM job WHERE queued = 1 AND ended IS NULL AND status = 'Queued' AND host = '' AND id > $1 ORDER BY id LIMIT $2`, after, limit)
	return out, err
}

// Claim gives a queued job to a host, for one attempt; mine is false if it is
// no longer to be run, or somebody else has it. The job stays Queued until it
// begins.
func (c *Catalog) Claim(ctx context.Context, id string, attempt int, host string, now time.Time) (j resource.Job, mine bool, err error) {
	err = c.write(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `UPDATE job SET host = $1, beat = $2, attempt = attempt + 1 WHERE id = $3 AND attempt = $4 AND status = 'Queued' AND host = '' AND cancel = 0`,
			host, stamp(now), id, attempt)
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		mine = n > 0
		return err
	})
	if err != nil || !mine {
		return j, false, err
	}
	j, err = c.Job(ctx, id)
	return j, err == nil, err
}

// Release gives a claimed job back that has not begun.
func (c *Catalog) Release(ctx context.Context, id string) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE job SET host = '' WHERE id = $1 AND status = 'Queued'`, id)
		return err
	})
}

// PutBack puts an attempt of a job that failed back into the queue, until at.
// What it says of its error and time stays for people to see.
func (c *Catalog) PutBack(ctx context.Context, j resource.Job, at time.Time) error {
	j.Status, j.Start, j.End, j.Retry = resource.Queued, nil, nil, &at
	return c.write(ctx, func(tx *sql.Tx) error {
		if err := putJob(ctx, tx, j); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE job SET host = '' WHERE id = $1 AND host = $2 AND attempt = $3 AND ended IS NULL`, j.ID, j.Host, j.Attempt)
		return err
	})
}

// Requeue puts queued jobs back whose process is dead: those of the host given,
// unless they live, and those of which nothing was heard for long. One that
// has used up its attempts fails with the reason. It returns how many had been
// in progress.
func (c *Catalog) Requeue(ctx context.Context, host string, lives func(id string) bool, attempts int, reason *resource.Failure, now time.Time) (n int, err error) {
	failure, err := encode(reason)
	if err != nil {
		return 0, err
	}
	var dead []resource.Job
	if err := c.rows(ctx, func(r *sql.Rows) error {
		j, err := scanJob(r)
		if err == nil && !lives(j.ID) {
			dead = append(dead, j)
		}
		return err
	}, `SELECT `+jobColumns+` FROM job WHERE queued = 1 AND ended IS NULL AND host <> '' AND (host = $1 OR $2 AND $1 <> '' OR beat < $3)`,
		host, c.file, stamp(now.Add(-silent))); err != nil {
		return 0, err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		for _, j := range dead {
			if j.Status == resource.InProgress {
				n++
			}
			if j.Attempt >= attempts || j.Cancel {
				_, err := tx.ExecContext(ctx, `UPDATE job SET status = 'Failed', started = COALESCE(started, created), ended = $1, error = $2 WHERE id = $3 AND ended IS NULL AND attempt = $4`,
					stamp(now), failure, j.ID, j.Attempt)
				if err != nil {
					return err
				}
				continue
			}
			_, err := tx.ExecContext(ctx, `UPDATE job SET status = 'Queued', started = NULL, host = '', error = $1 WHERE id = $2 AND ended IS NULL AND attempt = $3`, failure, j.ID, j.Attempt)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

// AskCancel ends a job that waits, and notes for one that runs that it is to
// end. ended tells that it had ended before.
func (c *Catalog) AskCancel(ctx context.Context, id string, reason *resource.Failure, now time.Time) (ended, found bool, err error) {
	failure, err := encode(reason)
	if err != nil {
		return false, false, err
	}
	err = c.write(ctx, func(tx *sql.Tx) error {
		var status string
		err := tx.QueryRowContext(ctx, `SELECT status FROM job WHERE id = $1`, id).Scan(&status)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		found, ended = true, resource.Status(status).Final()
		if ended {
			return nil
		}
		if _, err := tx.ExecContext(ctx, `UPDATE job SET cancel = 1 WHERE id = $1 AND ended IS NULL`, id); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE job SET status = 'Cancelled', ended = $1, error = $2 WHERE id = $3 AND status = 'Queued' AND queued = 1 AND host = ''`, stamp(now), failure, id)
		return err
	})
	return ended, found, err
}

// CancelAsked tells whether a job that runs on a host is to end: because
// somebody asked for it, or because another host has taken it over.
func (c *Catalog) CancelAsked(ctx context.Context, id, host string) (bool, error) {
	var cancel int
	var at string
	err := c.db.QueryRowContext(ctx, `SELECT cancel, host FROM job WHERE id = $1`, id).Scan(&cancel, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return cancel == 1 || !strings.EqualFold(at, host), c.problem(err)
}

// CountJobs counts the jobs of an instance on demand since a time.
func (c *Catalog) CountJobs(ctx context.Context, instanceID, operation string, since time.Time) (n int, err error) {
	err = c.db.QueryRowContext(ctx, `SELECT count(*) FROM job WHERE instance_id = $1 AND operation = $2 AND trigger_by = 'OnDemand' AND created >= $3`,
		instanceID, operation, stamp(since)).Scan(&n)
	return n, c.problem(err)
}
