// Package catalog keeps the resources of a data folder in SQL. It can be lost
// without loss of backups: all but the history of jobs is rebuilt from the
// stores.
//
// Exported methods open the transaction, unexported functions take it, so that
// they compose. The SQL is plain and uses $1 parameters, which SQLite and
// PostgreSQL both know. All methods are safe for concurrent use.
package catalog

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/diskvault/diskvault/base/problem"
)

//go:embed migrations/*.sql
var migrations embed.FS

// ErrNotFound is returned where a row asked for by its key does not exist;
// the caller knows the name by which a person asked.
var ErrNotFound = errors.New("not in the catalog")

// Catalog is an open catalog.
type Catalog struct {
	db   *sql.DB
	path string
}

// Open opens the SQLite catalog at path, makes it if it does not exist, and
// brings it to the present schema. A file that is no catalog, or is damaged,
// is a CatalogDamaged problem.
func Open(ctx context.Context, path string) (*Catalog, error) {
	c := &Catalog{path: path}
	// The file must not be readable by others; SQLite gives its -wal and
	// -shm files the same mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, problem.Wrap(err, problem.HomeNotUsable, "The catalog %s cannot be opened.", path)
	}
	f.Close()
	// WAL: readers beside the writer. busy_timeout: a second pool waits
	// instead of failing. immediate: a transaction that will write never
	// has to be repeated because another one wrote first. foreign_keys: off
	// by default for old programs' sake. synchronous(NORMAL) in WAL mode
	// may lose the last jobs in a power failure, never the file.
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() +
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=foreign_keys(1)&_txlock=immediate"
	c.db, err = sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	// SQLite writes one at a time; more connections only add lock waits.
	c.db.SetMaxOpenConns(1)
	if err := c.migrate(ctx); err != nil {
		c.db.Close()
		return nil, c.problem(err)
	}
	return c, nil
}

func (c *Catalog) migrate(ctx context.Context) error {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, c.db, sub)
	if err != nil {
		return err
	}
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	known := int64(0)
	for _, s := range p.ListSources() {
		known = max(known, s.Version)
	}
	if have > known {
		return problem.New(problem.HomeNotUsable, "The catalog %s was written by a newer diskvault (schema %d, this one knows %d).", c.path, have, known).
			Do("Use the newer diskvault with this data folder.")
	}
	if have == known {
		return nil
	}
	_, err = p.Up(ctx)
	return err
}

// Close closes the catalog.
func (c *Catalog) Close() error { return c.db.Close() }

// problem turns what SQLite says about a damaged file, or a full disk, into a
// problem; other errors stay as they are.
func (c *Catalog) problem(err error) error {
	var p *problem.Error
	if err == nil || errors.Is(err, ErrNotFound) || errors.As(err, &p) || errors.Is(err, context.Canceled) {
		return err
	}
	var se *sqlite.Error
	if errors.As(err, &se) {
		switch se.Code() & 0xff {
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_SCHEMA:
			return c.damaged(err)
		case sqlite3.SQLITE_FULL:
			return c.noRoom(err)
		case sqlite3.SQLITE_IOERR:
			// SQLite does not say so when the index of its log has no room.
			var fs unix.Statfs_t
			if unix.Statfs(filepath.Dir(c.path), &fs) == nil && int64(fs.Bavail)*fs.Bsize < enough {
				return c.noRoom(err)
			}
			return problem.Wrap(err, problem.HomeNotUsable, "The catalog %s cannot be used.", c.path)
		case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
			return problem.Wrap(err, problem.HomeNotUsable, "The catalog %s cannot be used.", c.path)
		case sqlite3.SQLITE_ERROR:
			if strings.Contains(se.Error(), "no such table") || strings.Contains(se.Error(), "no such column") || strings.Contains(se.Error(), "already exists") {
				return c.damaged(err)
			}
		}
	}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	var when *time.ParseError
	if errors.As(err, &syntax) || errors.As(err, &kind) || errors.As(err, &when) {
		return c.damaged(err)
	}
	return fmt.Errorf("catalog %s: %w", c.path, err)
}

// enough room for the catalog to grow by what one job writes, in bytes.
const enough = 256 << 10

func (c *Catalog) noRoom(err error) error {
	return problem.Wrap(err, problem.HomeFull, "There is no room left for the catalog %s.", c.path)
}

func (c *Catalog) damaged(err error) error {
	return problem.Wrap(err, problem.CatalogDamaged, "The catalog %s is damaged; the backups in the store are not affected.", c.path)
}

// write runs do in a transaction that is committed if do returns nil.
func (c *Catalog) write(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return c.problem(err)
	}
	defer tx.Rollback()
	if err := do(tx); err != nil {
		return c.problem(err)
	}
	return c.problem(tx.Commit())
}

// rows runs a query and gives each row to scan.
func (c *Catalog) rows(ctx context.Context, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := c.db.QueryContext(ctx, query, args...)
	if err != nil {
		return c.problem(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return c.problem(err)
		}
	}
	return c.problem(rows.Err())
}

const timeLayout = "2006-01-02T15:04:05.000000Z"

func stamp(t time.Time) string { return t.UTC().Format(timeLayout) }

func stampOrNull(t *time.Time) any {
	if t == nil {
		return nil
	}
	return stamp(*t)
}

func parseTime(s string) (time.Time, error) { return time.Parse(timeLayout, s) }

func parseTimeOrNil(s sql.NullString) (*time.Time, error) {
	if !s.Valid {
		return nil, nil
	}
	t, err := parseTime(s.String)
	return &t, err
}

// encode gives the JSON of v, or NULL for a nil pointer or empty message.
func encode(v any) (any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if string(data) == "null" {
		return nil, nil
	}
	return string(data), nil
}
