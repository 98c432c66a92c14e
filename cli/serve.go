package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/api/arm"
	"github.com/diskvault/diskvault/api/signin"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/job"
	"github.com/diskvault/diskvault/control/service"
)

const (
	defaultListen = "127.0.0.1:8440"
	defaultTLS    = "127.0.0.1:8443"
)

type serveOptions struct {
	*invocation
	listen    string
	tlsListen string
	publicURL string
	names     []string
	database  string
	locations []string
	issuer    string
	audience  string
	rate      float64
	perDay    int
	requests  bool
	grace     time.Duration
}

func newServe(inv *invocation) *cobra.Command {
	o := &serveOptions{invocation: inv}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server: schedules, queued jobs and the ARM API",
		Long: `Runs until it is interrupted: it backs disks up by their policies, removes
recovery points by their rules, does the jobs that clients queue, and answers
the clients of Azure Resource Manager over TLS.

Clients sign in with what ` + "`diskvault role create-sp`" + ` prints, and know the server
by the certificate authority that is made in the data folder at the first start.

It listens on the loopback interface only, unless an address is given.`,
		Example: `  diskvault serve
  diskvault serve --tls-listen :8443 --public-url https://backup.corp.example:8443
  diskvault serve --database postgres://diskvault@db/diskvault --location eastus`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", defaultListen, "address for checks of health, without TLS; empty: none")
	f.StringVar(&o.tlsListen, "tls-listen", defaultTLS, "address of the ARM API, with TLS")
	f.StringVar(&o.publicURL, "public-url", "", "URL by which clients reach the ARM API (default: made of --tls-listen)")
	f.StringSliceVar(&o.names, "tls-name", nil, "further name or address of this server, for its certificate")
	f.StringVar(&o.database, "database", "", "URL of a PostgreSQL database that several hosts share (default: a file in the data folder)")
	f.StringSliceVar(&o.locations, "location", nil, "location whose disks this host reaches (default: all)")
	f.StringVar(&o.issuer, "issuer", "", "outside OpenID issuer that is trusted instead of the own one")
	f.StringVar(&o.audience, "audience", "", "audience that tokens of --issuer must be for")
	f.Float64Var(&o.rate, "request-rate", 100, "requests a second that a caller may send, of each kind")
	f.IntVar(&o.perDay, "on-demand-per-day", 10, "backups, and restores, on demand that an instance may have in a day; 0: any number")
	f.BoolVar(&o.requests, "log-requests", false, "write a line for each request to standard error")
	f.DurationVar(&o.grace, "grace", 30*time.Second, "how long running jobs may go on when the server is to end")
	return cmd
}

// servedAt tells how a server is reached.
type servedAt struct {
	Endpoint string `json:"endpoint"`
	Health   string `json:"health,omitempty"`
	CAFile   string `json:"caFile"`
	Home     string `json:"home"`
}

func (o *serveOptions) run(ctx context.Context) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	c.Options.Catalog = o.database
	if o.rate <= 0 || o.perDay < 0 {
		return problem.New(problem.InvalidArgument, "--request-rate must be more than 0, and --on-demand-per-day not less.")
	}
	slots, err := o.jobsAtATime()
	if err != nil {
		return err
	}
	if err := o.firstStore(ctx, c); err != nil {
		return err
	}
	ca, err := signin.OpenCA(filepath.Join(c.Folder.Path(), "tls"))
	if err != nil {
		return err
	}
	secure, err := listen(o.tlsListen)
	if err != nil {
		return err
	}
	defer secure.Close()
	at := servedAt{Endpoint: endpointOf(o.publicURL, secure.Addr()), CAFile: ca.File(), Home: c.Folder.Path()}
	var plain net.Listener
	if o.listen != "" {
		if plain, err = listen(o.listen); err != nil {
			return err
		}
		defer plain.Close()
		at.Health = "http://" + plain.Addr().String() + "/health"
	}
	locations := o.locations
	if len(locations) == 0 {
		locations = []string{job.AnySite}
	}
	options := service.ServeOptions{Job: job.EngineOptions{Sites: locations, Slots: slots}, Schedule: true, Trouble: o.trouble}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err = c.Serve(ctx, options, o.grace, func(s *service.Service) {
		h, err := o.handler(ctx, s, c.Folder.Path(), at.Endpoint)
		if err != nil {
			cancel(err)
			return
		}
		tls := ca.Server(append(o.names, namesOf(at.Endpoint, secure.Addr())...))
		o.answer(ctx, cancel, &http.Server{Handler: h, TLSConfig: tls}, secure)
		if plain != nil {
			o.answer(ctx, cancel, &http.Server{Handler: http.HandlerFunc(health)}, plain)
		}
		if err := o.print(at, func() {
			o.printf("The ARM API is at %s; its certificate authority is %s.\n", at.Endpoint, at.CAFile)
			o.printf("Make a program that can sign in: diskvault role create-sp NAME --role \"Backup Contributor\"\n")
		}); err != nil {
			cancel(err)
		}
	})
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if errors.Is(err, context.Canceled) {
		return nil // it was asked to end
	}
	return err
}

// firstStore makes the store in the data folder if there is none at all, so
// that disks can be protected through the API from the beginning.
func (o *serveOptions) firstStore(ctx context.Context, c service.Client) error {
	known, err := c.Status(ctx)
	if err != nil || len(known.Stores) > 0 {
		return err
	}
	_, err = c.CreateStore(ctx, service.CreateStoreRequest{Default: true}, o.events)
	return err
}

// trouble says what went wrong and is tried again.
func (o *serveOptions) trouble(err error) {
	fmt.Fprintf(o.stderr, "%s %s %s\n", time.Now().UTC().Format(time.RFC3339), o.color(yellow, "Trouble:"), err)
}

func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, problem.Wrap(err, problem.ListenFailed, "The server cannot listen at %s.", address)
	}
	return l, nil
}

// endpointOf is the URL by which clients reach a server.
func endpointOf(public string, addr net.Addr) string {
	if public != "" {
		return strings.TrimRight(public, "/")
	}
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return "https://" + addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		if name, err := os.Hostname(); err == nil {
			host = name
		}
	}
	return "https://" + net.JoinHostPort(host, port)
}

// namesOf are the names and addresses by which a server may be called.
func namesOf(endpoint string, addr net.Addr) []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if u, err := url.Parse(endpoint); err == nil {
		names = append(names, u.Hostname())
	}
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	if host, _, err := net.SplitHostPort(addr.String()); err == nil {
		ip := net.ParseIP(host)
		if ip != nil && !ip.IsUnspecified() {
			names = append(names, host)
		}
		if all, err := net.InterfaceAddrs(); err == nil && ip != nil && ip.IsUnspecified() {
			for _, a := range all {
				if n, ok := a.(*net.IPNet); ok {
					names = append(names, n.IP.String())
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// handler gives the surface of a service.
func (o *serveOptions) handler(ctx context.Context, s *service.Service, home, endpoint string) (http.Handler, error) {
	if err := s.ServesAt(ctx, endpoint); err != nil {
		return nil, err
	}
	authority, err := signin.Open(ctx, s, signin.Options{Folder: filepath.Join(home, "signin"), Issuer: o.issuer, Audience: o.audience})
	if err != nil {
		return nil, err
	}
	out := io.Discard
	if o.requests {
		out = o.stderr
	}
	perDay := o.perDay
	if perDay == 0 {
		perDay = -1
	}
	surface := arm.New(s, authority, arm.Options{Log: slog.New(slog.NewTextHandler(out, nil)), PerDay: perDay, Rate: o.rate})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case authority.Serve(w, r):
		case r.URL.Path == "/health":
			health(w, r)
		default:
			surface.ServeHTTP(w, r)
		}
	}), nil
}

// health says that the server runs.
func health(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/health" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	io.WriteString(w, `{"status":"ok"}`+"\n")
}

// answer serves until ctx ends; what goes wrong ends it.
func (o *serveOptions) answer(ctx context.Context, fail context.CancelCauseFunc, s *http.Server, l net.Listener) {
	s.ReadHeaderTimeout, s.ReadTimeout, s.WriteTimeout, s.IdleTimeout = 10*time.Second, time.Minute, 5*time.Minute, 2*time.Minute
	s.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo) // clients that give up a handshake
	go func() {
		serve := s.Serve
		if s.TLSConfig != nil {
			serve = func(l net.Listener) error { return s.ServeTLS(l, "", "") }
		}
		if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
			fail(problem.Wrap(err, problem.ListenFailed, "The server no longer listens at %s.", l.Addr()))
		}
	}()
	context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if s.Shutdown(end) != nil {
			s.Close()
		}
	})
}
