package service

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/access"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
)

// Providers are the namespaces of the resource providers that there are.
var Providers = []string{"Microsoft.Authorization", "Microsoft.Compute", "Microsoft.DataProtection", "Microsoft.ManagedIdentity", "Microsoft.Resources"}

// Allow returns an AuthorizationFailed problem unless the caller may do a
// request of the table access.Operations, by its name, at the resource of its
// path. A refusal is written into the audit log. Namespace is that of the
// path, in requests that have one.
func (a Acting) Allow(ctx context.Context, operation, namespace string, at resource.ID, linked ...resource.ID) error {
	if a.s.catalogErr != nil {
		return a.s.catalogErr
	}
	if a.who.Owner() {
		return nil
	}
	grants, err := a.s.grants(ctx, append([]string{a.who.Principal}, a.who.Groups...)...)
	if err != nil {
		return err
	}
	if err := grants.AuthorizeOperation(a.who, operation, namespace, at, linked...); err != nil {
		action, _ := access.ActionOf(operation, namespace)
		return errors.Join(err, a.log(ctx, cmp.Or(action, operation), at, resource.Denied, err))
	}
	return nil
}

// subscription gives a subscription. It need not be made: whoever has a role in
// it uses it, and all providers are registered until somebody says otherwise.
func (s *Service) subscription(ctx context.Context, id resource.ID) (resource.Subscription, error) {
	v, err := catalog.Resource[resource.Subscription](ctx, s.catalog, id)
	if errors.Is(err, catalog.ErrNotFound) {
		return resource.Subscription{ID: id, Name: "diskvault", Registered: Providers}, nil
	}
	return v, err
}

// Subscription gives a subscription.
func (a Acting) Subscription(ctx context.Context, id resource.ID) (resource.Subscription, error) {
	return look(ctx, a, "Microsoft.Resources/subscriptions/read", id, func() (resource.Subscription, error) { return a.s.subscription(ctx, id) })
}

// Subscriptions lists those in which the caller has a role; for the owner of
// the data folder the home subscription and those in which anybody has.
func (a Acting) Subscriptions(ctx context.Context) ([]resource.Subscription, error) {
	if a.s.catalogErr != nil {
		return nil, a.s.catalogErr
	}
	var all []resource.RoleAssignment
	var err error
	if a.who.Owner() {
		all, err = catalog.Resources[resource.RoleAssignment](ctx, a.s.catalog, resource.TypeRoleAssignment, "", catalog.Page{})
	}
	for _, p := range append([]string{a.who.Principal}, a.who.Groups...) {
		if p == "" || err != nil {
			continue
		}
		var has []resource.RoleAssignment
		has, err = catalog.Linked[resource.RoleAssignment](ctx, a.s.catalog, resource.TypeRoleAssignment, p)
		all = append(all, has...)
	}
	if err != nil {
		return nil, err
	}
	ids := map[string]bool{}
	for _, r := range all {
		ids[cmp.Or(r.Scope.Subscription(), resource.HomeSubscription)] = true
	}
	if a.who.Owner() {
		ids[resource.HomeSubscription] = true
	}
	out := []resource.Subscription{}
	for id := range ids {
		s, err := a.s.subscription(ctx, resource.SubscriptionID(id))
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b resource.Subscription) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// Register says whether a subscription uses a resource provider.
func (a Acting) Register(ctx context.Context, id resource.ID, namespace string, use bool) (resource.Subscription, error) {
	known, ok := providerNamed(namespace)
	if !ok {
		return resource.Subscription{}, problem.New(problem.NamespaceUnknown, "There is no resource provider %q.", namespace)
	}
	verb := "register"
	if !use {
		verb = "unregister"
	}
	return act(ctx, a, known+"/"+verb+"/action", id, func() (resource.Subscription, error) {
		return putResource(ctx, a.s, id, func(old *resource.Subscription) (resource.Subscription, error) {
			s := resource.Subscription{ID: id, Name: "diskvault", Registered: Providers, Created: time.Now().UTC()}
			if old != nil {
				s = *old
			}
			s.Registered = slices.DeleteFunc(slices.Clone(s.Registered), func(n string) bool { return n == known })
			if use {
				s.Registered = append(s.Registered, known)
				slices.Sort(s.Registered)
			}
			return s, nil
		})
	})
}

func providerNamed(namespace string) (string, bool) {
	for _, p := range Providers {
		if strings.EqualFold(p, namespace) {
			return p, true
		}
	}
	return "", false
}

// Registered returns a MissingSubscriptionRegistration problem if a
// subscription does not use a resource provider. It is not authorized: the
// request that asks is.
func (a Acting) Registered(ctx context.Context, id resource.ID, namespace string) error {
	if a.s.catalogErr != nil {
		return a.s.catalogErr
	}
	s, err := a.s.subscription(ctx, id)
	if err != nil {
		return err
	}
	if known, ok := providerNamed(namespace); ok && !slices.Contains(s.Registered, known) {
		return problem.New(problem.NotRegistered, "The subscription %s is not registered to use the namespace %q.", id.Name(), known).With("namespace", known)
	}
	return nil
}
