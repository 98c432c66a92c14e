package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/diskvault/diskvault/control/resource"
)

// PutJob adds or replaces a job.
func (c *Catalog) PutJob(ctx context.Context, j resource.Job) error {
	return c.write(ctx, func(tx *sql.Tx) error { return putJob(ctx, tx, j) })
}

func putJob(ctx context.Context, tx *sql.Tx, j resource.Job) error {
	progress, err := encode(j.Detail)
	if err != nil {
		return err
	}
	failure, err := encode(j.Error)
	if err != nil {
		return err
	}
	record, err := encode(j.Record)
	if err != nil {
		return err
	}
	var result any
	if len(j.Result) > 0 {
		result = string(j.Result)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO job (id, instance_id, instance, operation, trigger_by, status, created, started, ended, done, total, progress, error, record, result)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
		ON CONFLICT (id) DO UPDATE SET instance_id = excluded.instance_id, instance = excluded.instance, status = excluded.status,
			started = excluded.started, ended = excluded.ended, done = excluded.done, total = excluded.total,
			progress = excluded.progress, error = excluded.error, record = excluded.record, result = excluded.result`,
		j.ID, j.InstanceID, j.Instance, j.Operation, j.Trigger, string(j.Status), stamp(j.Created), stampOrNull(j.Start), stampOrNull(j.End),
		j.Progress.Done, j.Progress.Total, progress, failure, record, result)
	return err
}

// RemoveJob removes a job that never began.
func (c *Catalog) RemoveJob(ctx context.Context, id string) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM job WHERE id = $1 AND status = 'Queued'`, id)
		return err
	})
}

// EndOrphans ends the jobs that a process left behind when it died: those in
// progress fail with the reason given, those that only waited are removed,
// since whoever asked for them asks again. To be called by the owner of the
// data folder before it starts any job. It returns how many had been in
// progress.
func (c *Catalog) EndOrphans(ctx context.Context, reason *resource.Failure, now time.Time) (int, error) {
	failure, err := encode(reason)
	if err != nil {
		return 0, err
	}
	var n int64
	err = c.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM job WHERE status = 'Queued'`); err != nil {
			return err
		}
		r, err := tx.ExecContext(ctx, `UPDATE job SET status = 'Failed', ended = $1, error = $2 WHERE status = 'InProgress'`, stamp(now), failure)
		if err != nil {
			return err
		}
		if n, err = r.RowsAffected(); err != nil || n == 0 {
			return err
		}
		return setFact(ctx, tx, PointsStale, "yes")
	})
	return int(n), err
}

// JobFilter chooses jobs; its zero value chooses all.
type JobFilter struct {
	ID       string // or how it begins
	Instance string // ID of the instance
	Status   resource.Status
	Since    time.Time
	Limit    int // 0: no limit
}

// Jobs gives the jobs that fit, newest first.
func (c *Catalog) Jobs(ctx context.Context, f JobFilter) ([]resource.Job, error) {
	var where []string
	var args []any
	add := func(condition string, arg any) {
		args = append(args, arg)
		where = append(where, fmt.Sprintf(condition, len(args)))
	}
	if f.ID != "" {
		add("substr(id, 1, length($%[1]d)) = $%[1]d", f.ID)
	}
	if f.Instance != "" {
		add("instance_id = $%d", f.Instance)
	}
	if f.Status != "" {
		add("status = $%d", string(f.Status))
	}
	if !f.Since.IsZero() {
		add("created >= $%d", stamp(f.Since))
	}
	query := `SELECT id, instance_id, instance, operation, trigger_by, status, created, started, ended, done, total, progress, error, record, result FROM job`
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	query += " ORDER BY created DESC, id DESC"
	if f.Limit > 0 {
		args = append(args, f.Limit)
		query += fmt.Sprintf(" LIMIT $%d", len(args))
	}
	var out []resource.Job
	err := c.rows(ctx, func(r *sql.Rows) error {
		j, err := scanJob(r)
		out = append(out, j)
		return err
	}, query, args...)
	return out, err
}

func scanJob(r *sql.Rows) (resource.Job, error) {
	var j resource.Job
	var status, created string
	var started, ended, progress, failure, record, result sql.NullString
	err := r.Scan(&j.ID, &j.InstanceID, &j.Instance, &j.Operation, &j.Trigger, &status, &created, &started, &ended,
		&j.Progress.Done, &j.Progress.Total, &progress, &failure, &record, &result)
	if err != nil {
		return j, err
	}
	j.Status = resource.Status(status)
	if j.Created, err = parseTime(created); err != nil {
		return j, err
	}
	if j.Start, err = parseTimeOrNil(started); err != nil {
		return j, err
	}
	if j.End, err = parseTimeOrNil(ended); err != nil {
		return j, err
	}
	if j.Start != nil && j.End != nil {
		j.Seconds = j.End.Sub(*j.Start).Seconds()
	}
	for _, f := range []struct {
		text sql.NullString
		into any
	}{{progress, &j.Detail}, {failure, &j.Error}, {record, &j.Record}} {
		if f.text.Valid {
			if err := json.Unmarshal([]byte(f.text.String), f.into); err != nil {
				return j, err
			}
		}
	}
	if j.Detail != nil {
		j.ETA = j.Detail.ETA
	}
	if result.Valid {
		j.Result = json.RawMessage(result.String)
	}
	return j, nil
}

// LastJobs gives the newest job of each instance, by the instance's ID.
func (c *Catalog) LastJobs(ctx context.Context) (map[string]resource.Job, error) {
	out := map[string]resource.Job{}
	err := c.rows(ctx, func(r *sql.Rows) error {
		j, err := scanJob(r)
		if _, seen := out[j.InstanceID]; !seen {
			out[j.InstanceID] = j
		}
		return err
	}, `SELECT id, instance_id, instance, operation, trigger_by, status, created, started, ended, done, total, progress, error, NULL, NULL
		FROM job AS j WHERE operation = 'Backup' AND instance_id <> ''
		AND created = (SELECT max(created) FROM job WHERE instance_id = j.instance_id AND operation = 'Backup') ORDER BY id DESC`)
	return out, err
}
