// Package architecture holds the rules of the house as tests.
package architecture

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/diskvault/diskvault/"

// floors are the rooms from the ground up: a room imports only from floors
// below its own. Within a floor a room imports its own parts, unless it stands
// in order below.
var floors = [][]string{
	{"base"},
	{"store", "disk"},
	{"engine"},
	{"control"},
	{"api"},
	{"portal"},
	{"cli"},
	{"cmd"},
}

// order is that of the parts of a room that is larger than one subject: each
// imports only parts before it.
var order = map[string][]string{
	"base":    {"problem", "extent", "meter", "durable"},
	"control": {"resource", "schedule", "retention", "access", "support", "catalog", "job", "home", "service"},
	"api":     {"signin", "arm"},
}

// The rooms beside the house may import any; none may import them.
var outside = map[string]bool{"bench": true, "test": true, "docs": true}

func place(room string) int {
	for n, rooms := range floors {
		for _, r := range rooms {
			if r == room {
				return n
			}
		}
	}
	return -1
}

// judge says why a package may not import another; empty if it may.
func judge(from, to string) string {
	fromRoom, fromPart, _ := strings.Cut(from, "/")
	toRoom, toPart, _ := strings.Cut(to, "/")
	switch {
	case outside[fromRoom]:
		return ""
	case outside[toRoom]:
		return "nothing in the house may depend on " + toRoom + "/: move what both need into a room"
	case place(fromRoom) < 0:
		return fromRoom + "/ is no room of the house: put the package into the room that owns its noun, or give the new room its floor here and in ARCHITECTURE.md"
	case place(toRoom) < 0:
		return toRoom + "/ is no room of the house"
	case fromRoom == toRoom:
		return judgeParts(fromRoom, fromPart, toPart)
	case place(toRoom) == place(fromRoom):
		return fromRoom + " and " + toRoom + " must not know each other: join them in engine/, and pass plain values"
	case place(toRoom) > place(fromRoom):
		return "imports go only towards the ground: declare the interface that is needed in " + fromRoom + " and hand in what " + toRoom + " has, or move the code up"
	}
	return ""
}

func judgeParts(room, from, to string) string {
	parts := order[room]
	f, _, _ := strings.Cut(from, "/")
	t, _, _ := strings.Cut(to, "/")
	if parts == nil || f == t {
		return ""
	}
	at := func(p string) int {
		for n, q := range parts {
			if p == q {
				return n
			}
		}
		return -1
	}
	switch {
	case at(f) < 0:
		return room + "/" + f + " has no place in the order of its room: give it one here"
	case at(t) >= at(f):
		return room + "/" + t + " comes after " + room + "/" + f + ": pass what is needed as a value or a function"
	}
	return ""
}

func TestImportOrder(t *testing.T) {
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	checked := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata") {
			return filepath.SkipDir
		}
		// Tests may look from the outside: they are not part of the house.
		if d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		from := filepath.ToSlash(rel)
		for _, i := range file.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			checked++
			if strings.HasPrefix(from, "base") && strings.Contains(strings.Split(imported, "/")[0], ".") &&
				!strings.HasPrefix(imported, module) && !strings.HasPrefix(imported, "golang.org/x/sys") {
				t.Errorf("%s imports %s: base needs nothing but the standard library (and golang.org/x/sys): move the code to the room that needs the library", path, imported)
			}
			if to, ok := strings.CutPrefix(imported, module); ok {
				if why := judge(from, to); why != "" {
					t.Errorf("%s imports %s: %s", path, to, why)
				}
			}
			if strings.HasSuffix(imported, "faultbucket") || strings.HasSuffix(imported, "buckettest") || imported == "testing" {
				if !strings.Contains(from, "test") && !strings.HasSuffix(from, "faultbucket") {
					t.Errorf("%s imports %s: test helpers must not reach the product: use it from a _test.go file or from a package for tests", path, imported)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked < 100 {
		t.Errorf("only %d imports were looked at", checked)
	}
}

// The rule itself must be able to say no.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		from, to string
		good     bool
	}{
		{"cli", "control/service", true},
		{"store", "base/problem", true},
		{"store", "store/bucket", true},
		{"engine/backup", "disk/capture", true},
		{"control/service", "control/catalog", true},
		{"cmd/diskvault", "cli", true},
		{"bench", "cli", true},
		{"store", "disk", false},
		{"disk", "store/bucket", false},
		{"base/meter", "store", false},
		{"engine/backup", "control/job", false},
		{"control/catalog", "control/service", false},
		{"control/novelty", "control/catalog", false},
		{"cli", "bench", false},
		{"util", "base/problem", false},
	} {
		if why := judge(c.from, c.to); (why == "") != c.good {
			t.Errorf("%s imports %s: %q", c.from, c.to, why)
		}
	}
}
