// Package arm is diskvault in the words of Azure Resource Manager: paths,
// shapes, errors and long-running operations as Azure's clients expect them. A
// handler decodes, calls one use case and encodes; who may do what is decided
// by control/access, by the name of the operation.
package arm

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/access"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

// authority tells whose token it is, or returns an InvalidAuthenticationToken
// problem.
type authority interface {
	Caller(ctx context.Context, token string) (resource.Caller, error)
}

// Options say how the surface works. The zero value is good.
type Options struct {
	Log *slog.Logger // hears of each request; nil: nobody does
	// PerDay is how many backups and how many restores on demand an instance
	// may have in 24 hours; 0: 10 of each, as in Azure; negative: any number.
	PerDay int
	// Rate is how many requests of a kind (reading, writing, deleting) a
	// caller may send a second, with ten times as many at once; 0: 100.
	Rate float64
}

// Server answers the requests of ARM clients. Its methods are safe for
// concurrent use.
type Server struct {
	service   *service.Service
	authority authority
	options   Options
	routes    []route
	limits    *limits
}

// New makes the surface of a service.
func New(s *service.Service, a authority, o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.PerDay == 0:
		o.PerDay = 10
	case o.PerDay < 0:
		o.PerDay = 0
	}
	o.Rate = cmp.Or(o.Rate, 100)
	return &Server{service: s, authority: a, options: o, routes: routes(), limits: newLimits(o.Rate)}
}

// request is what a handler gets: somebody known and allowed asks for an
// operation.
type request struct {
	*http.Request
	server    *Server
	as        service.Acting
	who       resource.Caller
	operation access.Operation
	names     map[string]string // of the path, by the words in braces
	at        resource.ID       // the resource of the path, or the scope of a list
	query     url.Values
}

func (q *request) version() string { return q.query.Get("api-version") }

// base is how the client reaches this server.
func (q *request) base() string { return "https://" + q.Host }

// reply is the answer of a handler. A nil body is an empty answer.
type reply struct {
	status int
	body   any
	header map[string]string
}

func ok(body any) (reply, error) { return reply{status: http.StatusOK, body: body}, nil }

// done answers a deletion: 204 for what was not there.
func done(was bool, err error) (reply, error) {
	switch {
	case err != nil:
		return reply{}, err
	case was:
		return reply{status: http.StatusOK}, nil
	}
	return reply{status: http.StatusNoContent}, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	id := uuid.NewString()
	correlation := r.Header.Get("x-ms-correlation-request-id")
	if _, err := uuid.Parse(correlation); err != nil {
		correlation = id
	}
	h := w.Header()
	h.Set("x-ms-request-id", id)
	h.Set("x-ms-correlation-request-id", correlation)
	h.Set("x-ms-routing-request-id", "DISKVAULT:"+began.UTC().Format("20060102T150405Z")+":"+id)
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	if c := r.Header.Get("x-ms-client-request-id"); c != "" {
		h.Set("x-ms-client-request-id", c)
	}
	q := &request{Request: r, server: s, query: r.URL.Query(), who: resource.Caller{From: r.RemoteAddr, Activity: correlation}}
	out, err := s.answer(q, h)
	if err != nil {
		out = failure(q, err, h)
	}
	for name, value := range out.header {
		h.Set(name, value)
	}
	var body []byte
	if out.body != nil && r.Method != http.MethodHead {
		if body, err = json.Marshal(out.body); err != nil {
			out.status, body = http.StatusInternalServerError, nil
		}
		h.Set("Content-Type", "application/json; charset=utf-8")
	}
	w.WriteHeader(out.status)
	w.Write(body)
	s.options.Log.Info("request", "method", r.Method, "path", r.URL.Path, "status", out.status, "seconds", time.Since(began).Seconds(),
		"caller", q.who.Principal, "from", q.who.From, "operation", q.operation.Name, "id", id, "correlation", correlation, "error", errorText(err))
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// answer finds out who asks for what, and has it done.
func (s *Server) answer(q *request, h http.Header) (out reply, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.fault(q.URL.Path, p)
		}
	}()
	token, _ := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer ")
	who, err := s.authority.Caller(q.Context(), token)
	if err != nil {
		return out, err
	}
	who.From, who.Activity = q.who.From, q.who.Activity
	q.who, q.as = who, s.service.As(who)
	if err := s.limits.admit(who.Principal, q.Method, h); err != nil {
		return out, err
	}
	do, err := s.find(q, h)
	if err != nil {
		return out, err
	}
	if err := checkVersion(q); err != nil {
		return out, err
	}
	if !do.open {
		if err := q.as.Allow(q.Context(), q.operation.Name, q.names["namespace"], q.at); err != nil {
			return out, err
		}
	}
	registers := strings.HasPrefix(q.operation.Name, "Providers.")
	if ns := namespace(q.URL.Path); !registers && q.Method != http.MethodGet && q.Method != http.MethodHead && (ns == "microsoft.dataprotection" || ns == "microsoft.compute") {
		if err := q.as.Registered(q.Context(), resource.SubscriptionID(q.at.Subscription()), ns); err != nil {
			return out, err
		}
	}
	return do.handle(q)
}

// fault is the error for what a panic ended; the log hears of all of it.
func (s *Server) fault(path string, value any) error {
	s.options.Log.Error("panic", "path", path, "value", value, "stack", string(debug.Stack()))
	return problem.New(problem.InternalError, "Something went wrong that diskvault does not know.")
}

// The api-versions that are answered: all of the years whose shapes these are.
const (
	oldestVersion = "2021-01-01"
	newestVersion = "2026-06-01"
)

// checkVersion holds the api-version. The requests about subscriptions and
// their providers are as old as ARM itself.
func checkVersion(q *request) error {
	v := q.version()
	if v == "" {
		return problem.New(problem.APIVersionMissing, "The api-version query parameter (?api-version=) is required for all requests.")
	}
	day := strings.TrimSuffix(v, "-preview")
	_, err := time.Parse(time.DateOnly, day)
	core := strings.HasPrefix(q.operation.Action, "Microsoft.Resources/") || strings.HasPrefix(q.operation.Name, "Providers.") || strings.HasPrefix(q.operation.Name, "Subscriptions.")
	old := day < oldestVersion && !(core && day >= "2014-01-01")
	old = old && !strings.HasPrefix(q.operation.Action, "Microsoft.Authorization/")
	if err != nil || old || day > newestVersion {
		return problem.New(problem.APIVersionUnknown, "No registered resource provider found for API version %q of %s. The supported api-versions are those from %s to %s.", v, q.operation.Name, oldestVersion, newestVersion)
	}
	return nil
}

// secure tells whether the request is of an api-version that wants soft delete
// to be always on.
func (q *request) secure() bool { return q.version() >= "2025-09-01" }
