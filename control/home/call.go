package home

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
)

// ErrHandedBack is what a Service returns for a request that it has not done
// because it is leaving; whoever asked asks the next owner.
var ErrHandedBack = errors.New("the request was handed back")

// Service does the requests of a data folder. Call may be called by many
// goroutines.
type Service interface {
	// Call does one request. It reports to emit, from any goroutine but
	// not after it returned, and ends early when ctx ends.
	Call(ctx context.Context, r Request, emit func(Event)) (json.RawMessage, error)
	// Leave makes requests that have not begun return ErrHandedBack, now
	// and from now on. Requests that have begun go on.
	Leave()
	// Close ends the service after its last call.
	Close() error
}

// Request asks for one use case.
type Request struct {
	Operation string          `json:"operation"`
	Arguments json.RawMessage `json:"arguments"`
	Asked     time.Time       `json:"asked"` // when a person or schedule asked; keeps its place in the queue
}

// Event is what is reported while a request is done. One of its fields is set.
type Event struct {
	Queued   int                `json:"queued,omitempty"` // position in the queue, from 1
	Progress *resource.Progress `json:"progress,omitempty"`
	Notice   *resource.Notice   `json:"notice,omitempty"`
}

// How long a folder may be owned by a process that does not answer. An owner
// answers within milliseconds of its start; one that is stopped, or works on
// another host over a network file system, does not.
const noAnswer = 30 * time.Second

// Call has a request done: by this process with the service that open gives,
// if nobody owns the folder, else by its owner. It waits as long as it takes,
// and tries again whenever an owner leaves or dies.
func (f Folder) Call(ctx context.Context, r Request, open func(context.Context) (Service, error), emit func(Event)) (json.RawMessage, error) {
	if r.Asked.IsZero() {
		r.Asked = time.Now()
	}
	silent := time.Now() // since when no owner answers
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		l, err := f.tryLock()
		if err != nil {
			return nil, err
		}
		if l != nil {
			return f.own(ctx, l, r, open, emit)
		}
		result, again, err := f.handOver(ctx, r, emit)
		if again == nil {
			return result, err
		}
		if again.answered {
			silent = time.Now()
		} else if time.Since(silent) > noAnswer {
			return nil, problem.Wrap(err, problem.HomeBusy, "The data folder %s is in use by process %s, which does not answer.", f.path, f.owner())
		}
		select {
		case <-ctx.Done():
		case <-time.After(again.after):
		}
	}
}

// Serve makes this process the owner of the folder, for as long as run takes:
// it gets the service, and those of other processes' requests are done beside
// it. If another process owns the folder Serve waits until that is done. run
// should return when its context ends.
func (f Folder) Serve(ctx context.Context, open func(context.Context) (Service, error), run func(context.Context, Service) error) (err error) {
	var l *lock
	for l == nil {
		if l, err = f.tryLock(); err != nil {
			return err
		}
		if l == nil {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	defer l.release()
	socket, err := f.listen()
	if err != nil {
		return trouble(err, "No socket can be made in the data folder %s.", f.path)
	}
	defer socket.close()
	service, err := open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.Close()) }()
	h := newHost(service)
	h.serve(socket)
	defer h.leave(ctx)
	return run(ctx, service)
}

// own does the request in this process, and those of others beside it.
func (f Folder) own(ctx context.Context, l *lock, r Request, open func(context.Context) (Service, error), emit func(Event)) (result json.RawMessage, err error) {
	defer l.release()
	socket, err := f.listen()
	if err != nil {
		return nil, trouble(err, "No socket can be made in the data folder %s.", f.path)
	}
	defer socket.close()
	service, err := open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, service.Close()) }()
	h := newHost(service)
	h.serve(socket)
	// The host ends before the service is closed, and the socket goes before
	// the lock.
	defer h.leave(ctx)
	return service.Call(ctx, r, emit)
}
