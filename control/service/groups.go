package service

import (
	"context"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
)

const groups = "Microsoft.Resources/subscriptions/resourceGroups/"

// PutGroup makes a resource group or replaces its tags. The store of the
// operational tier that it stands for stays once it is set. It tells whether
// the group is new.
func (a Acting) PutGroup(ctx context.Context, g resource.Group, match string) (out resource.Group, created bool, err error) {
	out, err = act(ctx, a, groups+"write", g.ID, func() (resource.Group, error) {
		if g.Location == "" {
			return resource.Group{}, problem.New(problem.InvalidArgument, "The resource group %q needs a location.", g.ID.Name()).Do("Give the site that it is for.")
		}
		if g.Store != "" {
			if _, _, err := a.s.openKnown(ctx, g.Store, ""); err != nil {
				return resource.Group{}, err
			}
		}
		return putResource(ctx, a.s, g.ID, func(old *resource.Group) (resource.Group, error) {
			created = old == nil
			if err := matches(match, old); err != nil {
				return resource.Group{}, err
			}
			n := g
			n.Location, n.Created = resource.Location(g.Location), time.Now().UTC()
			if old == nil {
				return n, nil
			}
			n.ID, n.Created = old.ID, old.Created
			if n.Location != old.Location {
				return resource.Group{}, problem.New(problem.LocationConflict, "The resource group %q lies in %s and cannot move to %s.", n.ID.Name(), old.Location, n.Location)
			}
			if n.Store == "" {
				n.Store = old.Store
			}
			if old.Store != "" && n.Store != old.Store {
				return resource.Group{}, problem.New(problem.PropertyFixed, "The resource group %q has its store already.", n.ID.Name())
			}
			return n, nil
		})
	})
	return out, created, err
}

// Group gives a resource group. The home group is always there.
func (a Acting) Group(ctx context.Context, id resource.ID) (resource.Group, error) {
	return look(ctx, a, groups+"read", id, func() (resource.Group, error) { return a.s.group(ctx, id) })
}

func (s *Service) group(ctx context.Context, id resource.ID) (resource.Group, error) {
	g, err := catalog.Resource[resource.Group](ctx, s.catalog, id)
	if err != nil {
		err = missing(err, id)
		home := resource.GroupID(resource.HomeSubscription, resource.HomeGroup)
		if problem.Is(err, problem.GroupNotFound) && id.Same(home) {
			return resource.Group{ID: home, Location: resource.HomeLocation}, nil
		}
	}
	return g, err
}

// Groups lists the resource groups of a subscription.
func (a Acting) Groups(ctx context.Context, subscription resource.ID, p Page) ([]resource.Group, error) {
	return look(ctx, a, groups+"read", subscription, func() ([]resource.Group, error) {
		return catalog.Resources[resource.Group](ctx, a.s.catalog, resource.TypeGroup, subscription, p.catalog())
	})
}

// InGroup gives the IDs of up to limit resources in a group.
func (a Acting) InGroup(ctx context.Context, id resource.ID, limit int) ([]resource.ID, error) {
	return look(ctx, a, groups+"read", id, func() ([]resource.ID, error) {
		if _, err := a.s.group(ctx, id); err != nil {
			return nil, err
		}
		return a.s.catalog.InGroup(ctx, id, limit)
	})
}

// DeleteGroup removes an empty resource group; false if it is not there. It
// never takes what lies in it along: backups among it would be lost by one
// call.
func (a Acting) DeleteGroup(ctx context.Context, id resource.ID) (bool, error) {
	return act(ctx, a, groups+"delete", id, func() (bool, error) {
		in, err := a.s.catalog.InGroup(ctx, id, 10)
		if err != nil {
			return false, err
		}
		if len(in) > 0 {
			return false, problem.New(problem.GroupInUse, "The resource group %q still holds %s.", id.Name(), in[0]).With("resources", in)
		}
		using, err := a.s.catalog.SnapshotsIn(ctx, id, 1)
		if err != nil {
			return false, err
		}
		if len(using) > 0 {
			return false, problem.New(problem.GroupInUse, "The resource group %q holds the recovery points of the backup instance %q.", id.Name(), using[0].Name).With("instances", []string{using[0].Name})
		}
		return a.s.dropResource(ctx, id)
	})
}
