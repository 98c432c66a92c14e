package catalog

import (
	"testing"

	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
)

func TestCopiesOfPoints(t *testing.T) { each(t, copiesOfPoints) }

// copiesOfPoints: a point that another store has a copy of stays where it is,
// with the place of its tree there, until the catalog is rebuilt from the copies.
func copiesOfPoints(t *testing.T, c *Catalog) {
	ctx := t.Context()
	must(t, c.Rebuild(ctx, contents()))
	second := contents()
	second.Store = resource.Store{ID: "s2", Realm: "r1", URL: "file:/s2", Created: day}
	for i := range second.Instances {
		second.Instances[i].Store = "s2"
	}
	for i := range second.Points {
		second.Points[i].Top.Place.Length = 7
	}
	must(t, c.PutStore(ctx, second.Store))
	want := func(id string, length uint32) {
		t.Helper()
		points, err := c.Points(ctx, "i1")
		must(t, err)
		for _, p := range points {
			if p.Store != id || p.Top.Place.Length != length {
				t.Errorf("point %s is in %s with a tree at %v", p.ID, p.Store, p.Top.Place)
			}
		}
		if len(points) != 2 {
			t.Errorf("there are %d points", len(points))
		}
	}
	if _, _, err := c.SetPoints(ctx, "s2", second.Points); err != nil {
		t.Fatal(err)
	}
	want("s1", 0)
	if _, _, err := c.SetPoints(ctx, "s2", []store.Point{}); err != nil {
		t.Fatal(err)
	}
	want("s1", 0)
	must(t, c.Rebuild(ctx, second))
	want("s2", 7)
}
