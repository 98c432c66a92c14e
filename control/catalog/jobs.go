package catalog

import (
	"cmp"
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
	row, err := jobRow(j)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, putJobSQL, row...)
	return err
}

// jobRow gives the arguments of putJobSQL.
func jobRow(j resource.Job) ([]any, error) {
	progress, err := encode(j.Detail)
	if err != nil {
		return nil, err
	}
	failure, err := encode(j.Error)
	if err != nil {
		return nil, err
	}
	record, err := encode(j.Record)
	if err != nil {
		return nil, err
	}
	var result any
	if len(j.Result) > 0 {
		result = string(j.Result)
	}
	extra, err := json.Marshal(jobExtra{j.Policy, j.DiskID, j.Tag, j.Point, j.PointAt, j.Target, j.Caller, j.Activity, j.Retry, j.Site, j.Slot, j.Reason, j.Request})
	if err != nil {
		return nil, err
	}
	queued := 0
	if len(j.Request) > 0 {
		queued = 1
	}
	return []any{
		j.ID, j.InstanceID, j.Instance, j.Operation, j.Trigger, string(j.Status), stamp(j.Created), stampOrNull(j.Start), stampOrNull(j.End),
		j.Progress.Done, j.Progress.Total, progress, failure, record, result,
		vaultKey(j.Vault), j.DiskID.Key(), j.Host, queued, stamp(time.Now()), string(extra), j.Attempt,
	}, nil
}

// A row that another process has taken over stays as that one wrote it.
const putJobSQL = `INSERT INTO job (id, instance_id, instance, operation, trigger_by, status, created, started, ended, done, total, progress, error, record, result,
			vault, disk, host, queued, beat, extra, attempt)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)
		ON CONFLICT (id) DO UPDATE SET instance_id = excluded.instance_id, instance = excluded.instance, status = excluded.status,
			started = excluded.started, ended = excluded.ended, done = excluded.done, total = excluded.total,
			progress = excluded.progress, error = excluded.error, record = excluded.record, result = excluded.result,
			vault = excluded.vault, disk = excluded.disk, host = excluded.host, beat = excluded.beat, extra = excluded.extra
		WHERE job.ended IS NULL AND job.host = excluded.host AND job.attempt = excluded.attempt`

// jobExtra is what no query asks for.
type jobExtra struct {
	Policy   string          `json:"policy,omitempty"`
	DiskID   resource.ID     `json:"diskId,omitempty"`
	Tag      string          `json:"tag,omitempty"`
	Point    string          `json:"point,omitempty"`
	PointAt  *time.Time      `json:"pointTime,omitempty"`
	Target   resource.ID     `json:"target,omitempty"`
	Caller   string          `json:"caller,omitempty"`
	Activity string          `json:"activity,omitempty"`
	Retry    *time.Time      `json:"retry,omitempty"`
	Site     string          `json:"site,omitempty"`
	Slot     *time.Time      `json:"slot,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Request  json.RawMessage `json:"request,omitempty"`
}

func (e jobExtra) into(j *resource.Job) {
	j.Policy, j.DiskID, j.Tag, j.Point, j.PointAt, j.Target = e.Policy, e.DiskID, e.Tag, e.Point, e.PointAt, e.Target
	j.Caller, j.Activity, j.Retry, j.Site, j.Slot, j.Reason, j.Request = e.Caller, e.Activity, e.Retry, e.Site, e.Slot, e.Reason, e.Request
}

func vaultKey(ref string) string {
	if ref == "" {
		return ""
	}
	return resource.VaultID(ref).Key()
}

// RemoveJob removes a job that never began.
func (c *Catalog) RemoveJob(ctx context.Context, id string) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM job WHERE id = $1 AND status = 'Queued'`, id)
		return err
	})
}

// EndOrphans ends the jobs that a process of the host left behind when it died:
// those in progress fail with the reason given, those that only waited are
// removed, since whoever asked for them asks again. Jobs of the queue are not
// touched: it takes care of them. To be called by the owner of the host's data
// folder before it starts any job. All jobs in a file are its own, whatever the
// host was called then; in a shared database also those are ended of which
// nothing was heard for a while. It returns how many had been in progress.
func (c *Catalog) EndOrphans(ctx context.Context, host string, reason *resource.Failure, now time.Time) (int, error) {
	failure, err := encode(reason)
	if err != nil {
		return 0, err
	}
	if c.file {
		host = ""
	}
	var n int64
	err = c.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM job WHERE status = 'Queued' AND queued = 0 AND ($1 = '' OR host = $1 OR beat < $2)`, host, stamp(now.Add(-silent))); err != nil {
			return err
		}
		r, err := tx.ExecContext(ctx, `UPDATE job SET status = 'Failed', ended = $1, error = $2 WHERE status = 'InProgress' AND queued = 0 AND ($3 = '' OR host = $3 OR beat < $4)`, stamp(now), failure, host, stamp(now.Add(-silent)))
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

// silent is how long a job may not be heard of before its process counts as
// dead: a running one is saved every second.
const silent = 10 * time.Minute

// JobFilter chooses jobs; its zero value chooses all.
type JobFilter struct {
	ID       string      // or how it begins
	Instance string      // ID of the instance
	Vault    resource.ID // of this vault
	Disk     resource.ID // of this disk's resource
	Status   resource.Status
	Since    time.Time
	After    string // ID of a job: begin behind it
	Limit    int    // 0: no limit
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
		add("substr(id, 1, length(CAST($%[1]d AS TEXT))) = $%[1]d", f.ID)
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
	if f.Vault != "" {
		add("vault = $%d", f.Vault.Key())
	}
	if f.Disk != "" {
		add("disk = $%d", f.Disk.Key())
	}
	if f.After != "" {
		add("(created, id) < (SELECT created, id FROM job WHERE id = $%d)", f.After)
	}
	query := `SELECT ` + jobColumns + ` FROM job`
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

const jobColumns = `id, instance_id, instance, operation, trigger_by, status, created, started, ended, done, total, progress, error, vault, host, attempt, cancel, extra, record, result`

func scanJob(r *sql.Rows) (resource.Job, error) {
	var j resource.Job
	var status, created string
	var cancel int
	var started, ended, progress, failure, vault, extra, record, result sql.NullString
	err := r.Scan(&j.ID, &j.InstanceID, &j.Instance, &j.Operation, &j.Trigger, &status, &created, &started, &ended,
		&j.Progress.Done, &j.Progress.Total, &progress, &failure, &vault, &j.Host, &j.Attempt, &cancel, &extra, &record, &result)
	if err != nil {
		return j, err
	}
	j.Status, j.Cancel = resource.Status(status), cancel == 1
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
	if vault.String != "" {
		j.Vault = resource.VaultRef(resource.ID(vault.String))
	}
	if extra.Valid {
		var e jobExtra
		if err := json.Unmarshal([]byte(extra.String), &e); err != nil {
			return j, err
		}
		e.into(&j)
	}
	if result.Valid {
		j.Result = json.RawMessage(result.String)
	}
	return j, nil
}

// Job gives a job by its whole ID, or ErrNotFound.
func (c *Catalog) Job(ctx context.Context, id string) (resource.Job, error) {
	var found []resource.Job
	err := c.rows(ctx, func(r *sql.Rows) error {
		j, err := scanJob(r)
		found = append(found, j)
		return err
	}, `SELECT `+jobColumns+` FROM job WHERE id = $1`, id)
	if err != nil || len(found) == 0 {
		return resource.Job{}, cmp.Or(err, ErrNotFound)
	}
	return found[0], nil
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
	}, `SELECT id, instance_id, instance, operation, trigger_by, status, created, started, ended, done, total, progress, error, vault, host, attempt, cancel, extra, NULL, NULL
		FROM job AS j WHERE operation = 'Backup' AND instance_id <> ''
		AND created = (SELECT max(created) FROM job WHERE instance_id = j.instance_id AND operation = 'Backup') ORDER BY id DESC`)
	return out, err
}
