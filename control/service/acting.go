package service

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
)

// Acting does the use cases of the control plane for one caller: each is
// authorized, and each that would change something is written into the audit
// log, whatever comes of it. Its methods are safe for concurrent use.
type Acting struct {
	s   *Service
	who resource.Caller
}

// As gives the use cases for a caller.
func (s *Service) As(who resource.Caller) Acting { return Acting{s, who} }

// Local is the person or program that owns the data folder.
func Local() resource.Caller {
	return resource.Caller{Name: "local", From: "local", Activity: uuid.NewString()}
}

// look does a use case that changes nothing.
func look[T any](ctx context.Context, a Acting, action string, at resource.ID, do func() (T, error)) (T, error) {
	if err := a.may(ctx, action, at); err != nil {
		var none T
		return none, errors.Join(err, a.log(ctx, action, at, resource.Denied, err))
	}
	return do()
}

// act does a use case that changes something.
func act[T any](ctx context.Context, a Acting, action string, at resource.ID, do func() (T, error)) (T, error) {
	var none T
	if err := a.may(ctx, action, at); err != nil {
		return none, errors.Join(err, a.log(ctx, action, at, resource.Denied, err))
	}
	v, err := do()
	outcome := resource.Done
	if err != nil {
		outcome = resource.Undone
	}
	if logErr := a.log(ctx, action, at, outcome, err); logErr != nil {
		return none, errors.Join(err, logErr)
	}
	return v, err
}

// log writes the line of a request. A request that was cancelled is logged as
// well.
func (a Acting) log(ctx context.Context, action string, at resource.ID, outcome resource.Outcome, err error) error {
	if a.s.catalogErr != nil {
		return nil // nowhere to write it
	}
	id, idErr := uuid.NewV7()
	if idErr != nil {
		return idErr
	}
	e := resource.Entry{
		ID: id.String(), Time: time.Now().UTC(), Principal: a.who.Principal, Name: a.who.Name, From: a.who.From, Activity: a.who.Activity,
		Action: action, Target: at, Outcome: outcome,
	}
	if p := problem.From(err); p != nil {
		e.Code, e.Message = p.Code, p.Message
	}
	return a.s.catalog.AddEntry(context.WithoutCancel(ctx), e)
}

// Absent stands for the ETag of what must not exist yet.
const Absent = "absent"

// matches checks an ETag that a caller gave: empty for any, * for one that
// exists. Else it is a PreconditionFailed problem.
func matches[T any](match string, old *T) error {
	switch {
	case match == "", match == Absent && old == nil, match == "*" && old != nil, old != nil && match == resource.ETag(*old):
		return nil
	case match == Absent:
		return problem.New(problem.ResourceChanged, "There is such a resource already, although the request says that there is none.")
	case old == nil:
		return problem.New(problem.ResourceChanged, "There is no such resource, although the request says what it should be.")
	}
	return problem.New(problem.ResourceChanged, "The resource is no longer what it was when it was read.").With("etag", resource.ETag(*old))
}

// missing turns ErrNotFound into the problem of the resource.
func missing(err error, id resource.ID) error {
	if !errors.Is(err, catalog.ErrNotFound) {
		return err
	}
	switch id.Type() {
	case resource.TypeGroup:
		return problem.New(problem.GroupNotFound, "There is no resource group %q.", id.Name()).With("id", string(id))
	case resource.TypeVault:
		return problem.New(problem.VaultNotFound, "There is no vault %q.", id.Name()).With("id", string(id))
	case resource.TypePolicy:
		return problem.New(problem.PolicyNotFound, "The vault %q has no policy %q.", id.Parent().Name(), id.Name()).With("id", string(id))
	case resource.TypeInstance, resource.TypeDeletedInstance:
		return problem.New(problem.InstanceNotFound, "The vault %q has no backup instance %q.", id.Parent().Name(), id.Name()).With("id", string(id))
	}
	return problem.New(problem.ResourceNotFound, "There is no resource %s.", id).With("id", string(id))
}

// errMoved says that somebody changed a resource between reading and writing.
var errMoved = errors.New("changed meanwhile")

// sealed changes a resource of which retention or a rebuilt catalog depends:
// first the records in the stores, then the catalog. If somebody else changes
// it meanwhile all is done again, so that the newest record always says what
// the catalog says.
func sealed[T any](decide func(old *T) (T, error), load func() (T, error), seal func(T) error,
	change func(func(old *T) (T, error)) (T, error)) (T, error) {
	for {
		var none T
		var old *T
		have, err := load()
		switch {
		case err == nil:
			old = &have
		case !errors.Is(err, catalog.ErrNotFound):
			return none, err
		}
		was := resource.ETag(old)
		next, err := decide(old)
		if err != nil {
			return none, err
		}
		if err := seal(next); err != nil {
			return none, err
		}
		done, err := change(func(now *T) (T, error) {
			if resource.ETag(now) != was {
				return none, errMoved
			}
			return next, nil
		})
		if !errors.Is(err, errMoved) {
			return done, err
		}
	}
}

// recordResource is the kind of the records of all resources that have no kind
// of their own.
const recordResource = "resource"

// sealIn writes a record into stores; without any named, into the default one,
// if there is a store yet: a first one gets the records when a disk is
// protected in it.
func (s *Service) sealIn(ctx context.Context, stores []string, kind, name string, body any) error {
	if len(stores) == 0 {
		known, err := s.catalog.Stores(ctx)
		if err != nil || len(known) == 0 {
			return err
		}
		stores = []string{known[0].ID}
	}
	for _, id := range stores {
		st, _, err := s.openKnown(ctx, id, "")
		if err != nil {
			return err
		}
		if err := st.PutRecord(ctx, kind, name, body); err != nil {
			return err
		}
	}
	return nil
}

// putResource changes a resource and its record.
func putResource[T interface{ ResourceID() resource.ID }](ctx context.Context, s *Service, id resource.ID, decide func(old *T) (T, error)) (T, error) {
	return sealed(decide,
		func() (T, error) { return catalog.Resource[T](ctx, s.catalog, id) },
		func(v T) error {
			body, err := json.Marshal(v)
			if err != nil {
				return err
			}
			return s.sealIn(ctx, nil, recordResource, id.Key(), catalog.Document{ID: id, Link: catalog.LinkOf(v), Body: body})
		},
		func(do func(old *T) (T, error)) (T, error) { return catalog.ChangeResource(ctx, s.catalog, id, do) })
}

// dropResource removes a resource and its record; false if it is not there.
func (s *Service) dropResource(ctx context.Context, id resource.ID) (bool, error) {
	if err := s.sealIn(ctx, nil, recordResource, id.Key(), nil); err != nil {
		return false, err
	}
	return s.catalog.RemoveResource(ctx, id)
}

// pageOf is how many entries a list gives at a time unless asked otherwise.
const pageOf = 200

// Page chooses a part of a list.
type Page struct {
	After resource.ID // the last entry of the page before; empty: from the beginning
	Limit int         // 0: 200
}

func (p Page) catalog() catalog.Page {
	if p.Limit <= 0 {
		p.Limit = pageOf
	}
	return catalog.Page{After: p.After, Limit: p.Limit}
}
