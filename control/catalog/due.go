package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/diskvault/diskvault/control/resource"
)

// Planned is what the scheduler knows of an instance.
type Planned struct {
	ID       string
	Name     string // as people know the disk
	DiskID   resource.ID
	State    resource.Protection
	Policy   string     // key of its policy
	LastSlot *time.Time // that a run was made for
	Next     *time.Time // when to look again; nil: at once
	Since    time.Time
	Running  bool // a backup of it waits or runs
}

// Due gives instances that the scheduler has to look at, by their IDs: those
// whose time has come, and those that it never saw as they are now. It reads
// no more than limit of them, behind the one given.
func (c *Catalog) Due(ctx context.Context, now time.Time, after string, limit int) ([]Planned, error) {
	var out []Planned
	err := c.rows(ctx, func(r *sql.Rows) error {
		var p Planned
		var last, next sql.NullString
		var state, body string
		if err := r.Scan(&p.ID, &state, &p.Policy, &last, &next, &p.Running, &body); err != nil {
			return err
		}
		p.State = resource.Protection(state)
		if err := p.read(body); err != nil {
			return err
		}
		var err error
		if p.LastSlot, err = parseTimeOrNil(last); err != nil {
			return err
		}
		p.Next, err = parseTimeOrNil(next)
		out = append(out, p)
		return err
	}, `SELECT id, state, policy, last_slot, next_run,
			EXISTS (SELECT 1 FROM job WHERE job.instance_id = instance.id AND job.ended IS NULL AND job.operation = 'Backup'), body
		FROM instance WHERE (next_run IS NULL OR next_run <= $1) AND purge IS NULL AND id > $2 ORDER BY id LIMIT $3`,
		stamp(now), after, limit)
	return out, err
}

// Plan is what the scheduler decided about an instance.
type Plan struct {
	ID   string
	Slot *time.Time    // that a run is made for now; nil: none
	Next time.Time     // when to look again
	Job  *resource.Job // the run; nil: none
}

// SetPlans keeps what the scheduler decided, in one transaction: an instance
// has the slot of a run exactly if it has the job. A run for a slot that
// another scheduler took meanwhile, or of an instance that has a queued backup,
// is left out; its plan then has no job any longer.
func (c *Catalog) SetPlans(ctx context.Context, plans []Plan) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		set, err := tx.PrepareContext(ctx, `UPDATE instance SET next_run = $1, last_slot = COALESCE(CAST($2 AS TEXT), last_slot) WHERE id = $3
			AND (CAST($2 AS TEXT) IS NULL OR last_slot IS NULL OR last_slot <> $2)
			AND (CAST($2 AS TEXT) IS NULL OR NOT EXISTS (SELECT 1 FROM job WHERE job.instance_id = $3 AND job.ended IS NULL AND job.queued = 1 AND job.operation = 'Backup'))`)
		if err != nil {
			return err
		}
		defer set.Close()
		add, err := tx.PrepareContext(ctx, putJobSQL)
		if err != nil {
			return err
		}
		defer add.Close()
		for n := range plans {
			p := &plans[n]
			r, err := set.ExecContext(ctx, stamp(p.Next), stampOrNull(p.Slot), p.ID)
			if err != nil {
				return err
			}
			written, err := r.RowsAffected()
			if err != nil {
				return err
			}
			if written == 0 {
				p.Job = nil
			}
			if p.Job != nil {
				row, err := jobRow(*p.Job)
				if err != nil {
					return err
				}
				if _, err := add.ExecContext(ctx, row...); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Wake has the scheduler look at an instance at once.
func (c *Catalog) Wake(ctx context.Context, id string) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE instance SET next_run = NULL WHERE id = $1`, id)
		return err
	})
}

// SetGoodSlot notes that the scheduled backup for a slot succeeded.
func (c *Catalog) SetGoodSlot(ctx context.Context, id string, slot time.Time) error {
	return c.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE instance SET good_slot = $1 WHERE id = $2`, stamp(slot), id)
		return err
	})
}

// GoodSlot is the slot of the scheduled backup of an instance that succeeded
// last; zero if none did.
func (c *Catalog) GoodSlot(ctx context.Context, id string) (time.Time, error) {
	var slot sql.NullString
	err := c.db.QueryRowContext(ctx, `SELECT good_slot FROM instance WHERE id = $1`, id).Scan(&slot)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, ErrNotFound
	}
	if err != nil || !slot.Valid {
		return time.Time{}, c.problem(err)
	}
	t, err := parseTime(slot.String)
	return t, c.problem(err)
}

// Aging are points of an instance in one store of which one may have expired
// there, newest first: those that may have, the newest of all and the newest good
// one. The decision needs no others.
type Aging struct {
	Instance string
	State    resource.Protection
	Store    string // that holds the points
	Points   []AgingPoint
}

// AgingPoint is a point in Aging.
type AgingPoint struct {
	ID            string
	Time, Created time.Time
	Tag, Keep     string
	Good          bool // it shows one point in time
}

// Aging gives instances of which a point may have expired by now, by their IDs,
// and for each the stores of which that is so: those whose state lets points
// expire. It reads no more than limit instances, behind the one given, with four
// queries for all of them.
func (c *Catalog) Aging(ctx context.Context, now time.Time, after string, limit int) ([]Aging, error) {
	var states []any
	for _, p := range resource.Protections {
		if p.Expires() {
			states = append(states, string(p))
		}
	}
	found := map[string]resource.Protection{}
	var ids []any
	err := c.rows(ctx, func(r *sql.Rows) error {
		var id, state string
		err := r.Scan(&id, &state)
		found[id], ids = resource.Protection(state), append(ids, id)
		return err
	}, `SELECT id, state FROM instance AS i WHERE id > $1 AND EXISTS (SELECT 1 FROM placement WHERE instance = i.id AND expires <= $2 AND state = 'Committed')
		AND state IN (`+marks(4, len(states))+`) ORDER BY id LIMIT $3`, append([]any{after, stamp(now), limit}, states...)...)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	type place struct{ instance, store string }
	out := map[place]*Aging{}
	var places []place
	read := func(r *sql.Rows) error {
		var p AgingPoint
		var at place
		var of, created string
		var good int
		if err := r.Scan(&at.instance, &at.store, &p.ID, &of, &created, &p.Tag, &p.Keep, &good); err != nil {
			return err
		}
		p.Good = good == 1
		var err error
		if p.Time, err = parseTime(of); err != nil {
			return err
		}
		if out[at] == nil {
			out[at], places = &Aging{Instance: at.instance, State: found[at.instance], Store: at.store}, append(places, at)
		}
		p.Created, err = parseTime(created)
		out[at].Points = append(out[at].Points, p)
		return err
	}
	const columns = `SELECT q.instance, q.store, q.point, p.time, p.created, p.tag, q.keep, q.good FROM `
	const aging = `(SELECT DISTINCT instance, store FROM placement WHERE expires <= $1 AND state = 'Committed' AND instance IN (`
	newest := func(which string) string {
		return columns + aging + marks(2, len(ids)) + `)) AS a JOIN placement AS q ON q.store = a.store AND q.point = (SELECT point FROM placement
			WHERE instance = a.instance AND store = a.store AND state = 'Committed'` + which + ` ORDER BY created DESC, point DESC LIMIT 1) JOIN point AS p ON p.id = q.point`
	}
	args := append([]any{stamp(now)}, ids...)
	for _, query := range []string{
		columns + `placement AS q JOIN point AS p ON p.id = q.point WHERE q.expires <= $1 AND q.state = 'Committed' AND q.instance IN (` + marks(2, len(ids)) + `)`,
		newest(``), newest(` AND good = 1`),
	} {
		if err := c.rows(ctx, read, query, args...); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(places, func(x, y place) int {
		return cmp.Or(cmp.Compare(x.instance, y.instance), cmp.Compare(x.store, y.store))
	})
	var list []Aging
	for _, at := range places {
		a := out[at]
		slices.SortFunc(a.Points, func(x, y AgingPoint) int { return cmp.Or(y.Created.Compare(x.Created), cmp.Compare(y.ID, x.ID)) })
		a.Points = slices.CompactFunc(a.Points, func(x, y AgingPoint) bool { return x.ID == y.ID })
		list = append(list, *a)
	}
	return list, nil
}

// marks gives n places for arguments, the first with the number given.
func marks(first, n int) string {
	var out []string
	for i := range n {
		out = append(out, "$"+strconv.Itoa(first+i))
	}
	return strings.Join(out, ", ")
}

// Purgeable gives the deleted instances whose time to be undeleted is over.
func (c *Catalog) Purgeable(ctx context.Context, now time.Time) ([]resource.Instance, error) {
	return c.instances(ctx, `SELECT body FROM instance WHERE purge <= $1 ORDER BY purge, id`, stamp(now))
}

// read takes what no column holds out of the body of an instance.
func (p *Planned) read(body string) error {
	var i struct {
		Name, FriendlyName string
		DiskID             resource.ID
		Since, Created     time.Time
	}
	if err := json.Unmarshal([]byte(body), &i); err != nil {
		return err
	}
	p.Name, p.DiskID, p.Since = cmp.Or(i.FriendlyName, i.Name), i.DiskID, i.Since
	if p.Since.IsZero() {
		p.Since = i.Created
	}
	return nil
}
