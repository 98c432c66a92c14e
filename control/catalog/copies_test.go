package catalog

import (
	"slices"
	"testing"
	"time"

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

func TestPlacements(t *testing.T) { each(t, placements) }

// placements: what became of the copies of a point, by store.
func placements(t *testing.T, c *Catalog) {
	ctx := t.Context()
	all := contents()
	all.Vaults[0].Stores = []resource.VaultStore{{ID: "s3", URL: "file:/s3"}}
	for n := range all.Points {
		all.Points[n].Retention, all.Points[n].VaultRetention = "P1D", "P10Y"
	}
	must(t, c.Rebuild(ctx, all))
	for _, id := range []string{"s2", "s3"} {
		must(t, c.PutStore(ctx, resource.Store{ID: id, Realm: "r1", URL: "file:/" + id, Created: day}))
		must(t, c.AddPlacements(ctx, id, []string{"p1", "p2", "p3", "none"}, day.Add(time.Hour)))
	}
	points, err := c.Points(ctx, "i1")
	must(t, err)
	for _, p := range points {
		var got []string
		for _, q := range p.Placements {
			got = append(got, q.Store+" "+q.Tier+" "+q.Keep)
		}
		if want := []string{"s1 OperationalStore P1D", "s2 OperationalStore P10Y", "s3 VaultStore P10Y"}; !slices.Equal(got, want) && p.ID == "p1" {
			t.Errorf("%s: %q", p.ID, got)
		}
	}
	// Near the source they age alone.
	aging, err := c.Aging(ctx, day.AddDate(1, 0, 0), "", 10)
	must(t, err)
	if len(aging) != 1 || aging[0].Store != "s1" || len(aging[0].Points) != 2 {
		t.Errorf("%+v", aging)
	}
	aging, err = c.Aging(ctx, day.AddDate(11, 0, 0), "", 10)
	must(t, err)
	if len(aging) != 3 || aging[2].Store != "s3" || aging[2].Points[0].Keep != "P10Y" {
		t.Errorf("%+v", aging)
	}
	must(t, c.SetVerified(ctx, "s3", "p1", day))
	must(t, c.RemovePlacements(ctx, "s1", []string{"p1", "none"}))
	must(t, c.RemovePlacements(ctx, "s2", []string{"p1"}))
	held, deleted, err := c.Placed(ctx, "s2", "i1")
	must(t, err)
	if !held["p2"] || held["p1"] || !deleted["p1"] || len(deleted) != 1 {
		t.Errorf("held %v, deleted %v", held, deleted)
	}
	// What a store says counts more than what was said of it.
	if _, _, err := c.SetPoints(ctx, "s2", all.Points[:1]); err != nil {
		t.Fatal(err)
	}
	if held, deleted, err = c.Placed(ctx, "s2", ""); err != nil || len(deleted) != 0 || !held["p1"] || len(held) != 1 {
		t.Errorf("held %v, deleted %v, %v", held, deleted, err)
	}
	in, err := c.PointsIn(ctx, "s3")
	must(t, err)
	if len(in) != 2 || in[0].ID != "p1" {
		t.Errorf("%+v", in)
	}
	wanting, err := c.Wanting(ctx, resource.VaultID("default"), "s3", day, day, 10)
	must(t, err)
	lacking, err := c.Wanting(ctx, resource.VaultID("default"), "s4", day, day, 10)
	must(t, err)
	if len(wanting) != 0 || len(lacking) != 1 || lacking[0].ID != "i1" {
		t.Errorf("%+v, %+v", wanting, lacking)
	}
	must(t, c.RemovePlacements(ctx, "s3", []string{"p1"}))
	must(t, c.RemovePlacements(ctx, "s2", []string{"p1"}))
	if points, err = c.Points(ctx, "i1"); err != nil || len(points) != 1 || points[0].ID != "p2" {
		t.Errorf("%+v, %v", points, err)
	}
	for n, want := range []bool{true, false, false, true} {
		now := day.Add(time.Duration(n) * 10 * time.Hour)
		mine, err := c.TakeTurn(ctx, Collected+"s1", now.Add(-24*time.Hour), now)
		must(t, err)
		if mine != want {
			t.Errorf("turn %d: %v", n, mine)
		}
	}
	if removed, err := c.RemoveInstance(ctx, "i1"); err != nil || !removed {
		t.Error(removed, err)
	}
}
