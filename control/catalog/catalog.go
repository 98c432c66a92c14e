// Package catalog keeps the resources of a deployment in SQL: in an SQLite file
// of the data folder, or in a PostgreSQL database that several hosts share. It
// can be lost without loss of backups: all but the history of jobs and the
// audit log is rebuilt from the stores.
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

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
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
	path string // as people know it; without a password
	file bool   // it is an SQLite file
	pool *pgxpool.Pool
}

// Open opens the catalog at a place, the path of an SQLite file or the URL of
// a PostgreSQL database (postgres://…), and brings it to the present schema. A
// file that does not exist is made. A file that is no catalog, or is damaged,
// is a CatalogDamaged problem; a server that cannot be reached a
// CatalogUnreachable one.
func Open(ctx context.Context, place string) (*Catalog, error) {
	open := openFile
	if strings.HasPrefix(place, "postgres://") || strings.HasPrefix(place, "postgresql://") {
		open = openServer
	}
	c, err := open(ctx, place)
	if err != nil {
		return nil, err
	}
	if err := c.migrate(ctx); err != nil {
		return nil, errors.Join(c.problem(err), c.Close())
	}
	return c, nil
}

func openFile(_ context.Context, path string) (*Catalog, error) {
	c := &Catalog{path: path, file: true}
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
	return c, nil
}

func openServer(ctx context.Context, place string) (*Catalog, error) {
	name := "PostgreSQL"
	if u, err := url.Parse(place); err == nil {
		name = u.Redacted()
	}
	pool, err := pgxpool.New(ctx, place)
	if err != nil {
		return nil, problem.New(problem.CatalogUnreachable, "The catalog %s has no usable URL.", name) // the cause may hold the password
	}
	c := &Catalog{path: name, pool: pool, db: stdlib.OpenDBFromPool(pool)}
	if err := c.db.PingContext(ctx); err != nil {
		return nil, errors.Join(c.problem(err), c.Close())
	}
	return c, nil
}

func (c *Catalog) migrate(ctx context.Context) error {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	dialect, options := goose.DialectSQLite3, []goose.ProviderOption{
		goose.WithDisableGlobalRegistry(true),
		goose.WithGoMigrations(goose.NewGoMigration(3, &goose.GoFunc{RunTx: fillPoints}, nil)),
	}
	if !c.file {
		// Hosts that start at the same time take turns; a file has one owner.
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return err
		}
		dialect, options = goose.DialectPostgres, append(options, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(dialect, c.db, sub, options...)
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

// Queue gives what a job queue needs to work in the same database: the
// connections, and the pool of a PostgreSQL server, which is nil for a file.
func (c *Catalog) Queue() (*sql.DB, *pgxpool.Pool) { return c.db, c.pool }

// Close closes the catalog.
func (c *Catalog) Close() error {
	err := c.db.Close()
	if c.pool != nil {
		c.pool.Close()
	}
	return err
}

// problem turns what SQLite says about a damaged file or a full disk, and what
// keeps a server from answering, into a problem; other errors stay as they are.
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
	var connect *pgconn.ConnectError
	var state *pgconn.PgError
	if errors.As(err, &connect) || errors.As(err, &state) && (strings.HasPrefix(state.Code, "08") || strings.HasPrefix(state.Code, "57P") || strings.HasPrefix(state.Code, "53")) {
		return problem.Wrap(err, problem.CatalogUnreachable, "The catalog %s cannot be reached.", c.path)
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
