// Package catalogtest gives tests catalogs on every database that diskvault
// runs on: a new SQLite file, and a new database of a PostgreSQL server that
// belongs to the test process.
package catalogtest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// server is the PostgreSQL server of this process, started by the first test
// that wants it.
var server struct {
	once     sync.Once
	dir      string
	command  *exec.Cmd
	skip     string // why there is none
	err      error
	database atomic.Int64
}

// Main runs the tests of a package and then stops the server. Call it from
// TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if server.command != nil {
		server.command.Process.Signal(syscall.SIGQUIT) // at once: nothing in it is needed
		server.command.Wait()
	}
	if server.dir != "" {
		os.RemoveAll(server.dir)
	}
	os.Exit(code)
}

// Each runs a test on every engine. The place is what catalog.Open takes.
func Each(t *testing.T, test func(t *testing.T, place string)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "catalog.db")) })
	t.Run("PostgreSQL", func(t *testing.T) { test(t, Postgres(t)) })
}

// Postgres makes an empty database and gives its URL.
func Postgres(t *testing.T) string {
	t.Helper()
	server.once.Do(start)
	if server.skip != "" {
		t.Skip("skip: needs " + server.skip)
	}
	if server.err != nil {
		t.Fatal(server.err)
	}
	conn, err := connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	name := fmt.Sprintf("test%d", server.database.Add(1))
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return place(name)
}

func place(database string) string {
	return "postgres://postgres@/" + database + "?host=" + url.QueryEscape(server.dir)
}

func connect(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, place("postgres")) }

// binary finds a program of PostgreSQL, which Debian does not put into PATH.
func binary(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

func start() {
	initdb, postgres := binary("initdb"), binary("postgres")
	if initdb == "" || postgres == "" {
		server.skip = "PostgreSQL (the package postgresql)"
		return
	}
	// PostgreSQL does not run as root, and must reach its folder.
	as := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	dir, err := os.MkdirTemp("", "diskvault-pg-")
	if err != nil {
		server.err = err
		return
	}
	server.dir = dir
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			server.skip = "the user postgres"
			return
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if server.err = os.Chown(dir, uid, gid); server.err != nil {
			return
		}
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	data := filepath.Join(dir, "data")
	make := exec.Command(initdb, "-A", "trust", "-U", "postgres", "--locale=C", "-E", "UTF8", "--no-sync", "-D", data)
	make.SysProcAttr, make.Dir = as, dir
	if out, err := make.CombinedOutput(); err != nil {
		server.err = fmt.Errorf("%w: %s", err, out)
		return
	}
	run := exec.Command(postgres, "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200")
	run.SysProcAttr, run.Dir = as, dir
	if server.err = run.Start(); server.err != nil {
		return
	}
	server.command = run
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		conn, err := connect(context.Background())
		if err == nil {
			server.err = conn.Close(context.Background())
			return
		}
		if time.Now().After(end) {
			server.err = err
			return
		}
	}
}
