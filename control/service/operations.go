package service

import (
	"context"
	"encoding/base64"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
)

// Begin runs work that goes on after the answer to its request, and gives the
// operation by which a client follows it. The work may return the ID of a job.
// It ends with the service; an operation whose process died stays unfinished
// and counts as failed after an hour.
func (a Acting) Begin(ctx context.Context, target resource.ID, work func(ctx context.Context) (job string, err error)) (resource.Operation, error) {
	if a.s.catalogErr != nil {
		return resource.Operation{}, a.s.catalogErr
	}
	// As Azure names them, so that clients that look inside find what they
	// expect.
	name := base64.StdEncoding.EncodeToString([]byte(uuid.NewString() + ";" + uuid.NewString()))
	o := resource.Operation{Name: name, Target: target, Start: time.Now().UTC()}
	put := func(ctx context.Context, o resource.Operation) error {
		_, err := catalog.ChangeResource(ctx, a.s.catalog, o.ResourceID(), func(*resource.Operation) (resource.Operation, error) { return o, nil })
		return err
	}
	if err := put(ctx, o); err != nil {
		return o, err
	}
	a.s.background.Go(func() {
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		stop := context.AfterFunc(a.s.life, cancel)
		defer stop()
		job, err := work(ctx)
		end := time.Now().UTC()
		o.End, o.Job, o.Error = &end, job, resource.FailureOf(err)
		// If this cannot be written, the client sees it time out.
		_ = put(context.WithoutCancel(ctx), o)
	})
	return o, nil
}

// Operation gives an operation that Begin began.
func (a Acting) Operation(ctx context.Context, name string) (resource.Operation, error) {
	id := resource.Operation{Name: name}.ResourceID()
	o, err := catalog.Resource[resource.Operation](ctx, a.s.catalog, id)
	if err != nil {
		return o, missing(err, id)
	}
	if err := a.may(ctx, vaults+"operationResults/read", o.Target); err != nil {
		return o, err
	}
	if o.End == nil && time.Since(o.Start) > time.Hour {
		o.End, o.Error = &o.Start, resource.FailureOf(errors.New("the process that did this ended before it was done"))
	}
	return o, nil
}
