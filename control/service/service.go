// Package service holds the use cases: what a person, a script or a schedule
// asks of diskvault. It is the only place where decisions, catalog, jobs and
// engine meet.
//
// A use case is reached through a Client, which has it done in this process or
// by the owner of the data folder; both ways take the same road, arguments and
// results as JSON, so that there is no difference to be found.
package service

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/home"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/engine/upkeep"
)

// Options say how the service works. The zero value is good.
type Options struct {
	Jobs int // how many jobs run at a time; 0: one
	// Brief is for a process that only looks something up: it takes no
	// jobs, since it would have to stay until they are done.
	Brief bool
	// Catalog is the URL of a PostgreSQL database that several hosts share;
	// empty: the file in the data folder.
	Catalog string
}

// Service does the requests of a data folder, whose owner the process must be.
type Service struct {
	folder  home.Folder
	options Options
	stores  *stores
	disks   locks        // by path: one operation at a time; "" for what is made on first use
	front   upkeep.Front // jobs that upkeep yields to
	use     sync.RWMutex // held shared by jobs, alone by one that replaces an index

	// Without a catalog only its own rebuilding can be asked for;
	// catalogErr says why there is none.
	catalog    *catalog.Catalog
	catalogErr error
	jobs       *job.Runner

	serving sync.Mutex  // guards engine
	engine  *job.Engine // of a server; nil: nobody runs jobs that nobody waits for

	background sync.WaitGroup // what goes on after the answer to its request
	life       context.Context
	end        context.CancelFunc
}

// Open starts the service of a folder. A damaged catalog does not keep it from
// starting, since the remedy is one of the requests.
func Open(ctx context.Context, f home.Folder, o Options) (*Service, error) {
	s := &Service{folder: f, options: o, stores: newStores(f)}
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.catalog, s.catalogErr = catalog.Open(ctx, cmp.Or(o.Catalog, f.Catalog()))
	if s.catalogErr == nil {
		s.jobs, s.catalogErr = job.NewRunner(ctx, s.catalog, o.Jobs)
	}
	if s.catalogErr == nil && o.Brief {
		s.jobs.Close()
	}
	if s.catalogErr == nil {
		s.catalogErr = s.noticeLostCatalog(ctx)
	}
	if s.catalogErr != nil && !problem.Is(s.catalogErr, problem.CatalogDamaged) {
		return nil, errors.Join(s.catalogErr, s.Close())
	}
	return s, nil
}

// Leave implements home.Service.
func (s *Service) Leave() {
	if s.jobs != nil {
		s.jobs.Close()
	}
}

// Close implements home.Service.
func (s *Service) Close() error {
	s.end()
	s.background.Wait()
	err := s.stores.close()
	if s.catalog != nil {
		err = errors.Join(err, s.catalog.Close())
	}
	return err
}

// call is what a use case knows of who asked.
type call struct {
	asked   time.Time
	emit    func(home.Event)
	trigger string // of its jobs; empty: OnDemand
}

func (c call) notice(n resource.Notice) { c.emit(home.Event{Notice: &n}) }

// spec begins the description of a job for this call.
func (c call) spec(operation string) job.Spec {
	return job.Spec{
		Operation: operation, Trigger: cmp.Or(c.trigger, resource.OnDemand), Asked: c.asked,
		Queued:   func(p int) { c.emit(home.Event{Queued: p}) },
		Progress: func(p resource.Progress) { c.emit(home.Event{Progress: &p}) },
	}
}

type operation func(*Service, context.Context, call, json.RawMessage) (any, error)

// typed makes an operation of a use case.
func typed[In, Out any](do func(*Service, context.Context, call, In) (Out, error)) operation {
	return func(s *Service, ctx context.Context, c call, arguments json.RawMessage) (any, error) {
		var in In
		if err := json.Unmarshal(arguments, &in); err != nil {
			return nil, problem.Wrap(err, problem.InvalidArgument, "The request cannot be read.")
		}
		return do(s, ctx, c, in)
	}
}

// operations are the use cases by their names on the socket.
var operations = map[string]struct {
	do             operation
	job            bool // it runs as a job
	withoutCatalog bool // it works without a catalog
}{
	"backup.group":          {typed((*Service).backupGroup), true, false},
	"backup":                {typed((*Service).backup), true, false},
	"restore":               {typed((*Service).restore), true, false},
	"mount":                 {typed((*Service).mount), true, false},
	"restore.instant":       {typed((*Service).instant), true, false},
	"nbd":                   {typed((*Service).exportNBD), true, false},
	"files.list":            {typed((*Service).listFiles), false, false},
	"files.copy":            {typed((*Service).copyFiles), true, false},
	"points":                {typed((*Service).points), false, false},
	"points.delete":         {typed((*Service).deletePoints), false, false},
	"verify":                {typed((*Service).verify), true, false},
	"verify.fsck":           {typed((*Service).fsck), true, false},
	"status":                {typed((*Service).status), false, false},
	"jobs":                  {typed((*Service).listJobs), false, false},
	"diagnose":              {typed((*Service).diagnose), false, false},
	"role.create-sp":        {typed((*Service).createProgram), false, false},
	"role.assign":           {typed((*Service).assignRole), false, false},
	"role.list":             {typed((*Service).listRoles), false, false},
	"role.definitions":      {typed((*Service).listRoleDefinitions), false, false},
	"role.missing":          {typed((*Service).missingRoles), false, false},
	"retention.confirm":     {typed((*Service).confirmRetention), false, false},
	"store.create":          {typed((*Service).createStore), false, false},
	"store.show":            {typed((*Service).showStore), false, false},
	"store.check":           {typed((*Service).checkStore), true, false},
	"store.collect":         {typed((*Service).collectStore), true, false},
	"store.scrub":           {typed((*Service).scrub), true, false},
	"store.heal":            {typed((*Service).healStore), true, false},
	"store.copy":            {typed((*Service).copyStore), true, false},
	"store.rebuild-index":   {typed((*Service).rebuildIndex), true, false},
	"store.rebuild-catalog": {typed((*Service).rebuildCatalog), false, true},
	"store.key.list":        {typed((*Service).listKeys), false, false},
	"store.key.add":         {typed((*Service).addKey), false, false},
	"store.key.remove":      {typed((*Service).removeKey), false, false},
	"store.key.export":      {typed((*Service).exportKey), false, false},
}

// takesJobs tells whether a process that asks for an operation may run jobs.
// It stands apart from the table, which refers to all use cases.
func takesJobs(name string) bool { return operations[name].job }

// Call implements home.Service.
func (s *Service) Call(ctx context.Context, r home.Request, emit func(home.Event)) (json.RawMessage, error) {
	op, ok := operations[r.Operation]
	if !ok {
		return nil, problem.New(problem.InvalidArgument, "This diskvault does not know the request %q; another version owns the data folder.", r.Operation).
			Do("Wait until its process has ended, or use the same version.")
	}
	if s.catalogErr != nil && !op.withoutCatalog {
		return nil, s.catalogErr
	}
	result, err := op.do(s, ctx, call{asked: r.Asked, emit: emit}, r.Arguments)
	if errors.Is(err, job.ErrClosed) {
		return nil, home.ErrHandedBack
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(result)
}
