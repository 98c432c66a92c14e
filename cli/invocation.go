package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/home"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

// invocation is one run of the command line.
type invocation struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	env    map[string]string

	home    string
	format  string
	quiet   bool
	noColor bool
	profile profile

	progress *progress
	begun    bool // a command has begun: what goes wrong now is no wrong usage
	status   int  // exit status if nothing goes wrong

	mu      sync.Mutex
	notices []resource.Notice // guarded by mu: all that were printed
}

func newInvocation(stdin io.Reader, stdout, stderr io.Writer, env []string) *invocation {
	inv := &invocation{stdin: stdin, stdout: stdout, stderr: stderr, env: map[string]string{}, format: "table"}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		inv.env[name] = value
	}
	inv.progress = &progress{}
	return inv
}

// formatHint finds the output format before flags are parsed, so that a
// mistake among them is reported in that format.
func (inv *invocation) formatHint(args []string) {
	inv.format = "table"
	if f := inv.env["DISKVAULT_OUTPUT"]; f != "" {
		inv.format = f
	}
	for i, a := range args {
		switch {
		case a == "--":
			return
		case (a == "-o" || a == "--output") && i+1 < len(args):
			inv.format = args[i+1]
		case strings.HasPrefix(a, "-o="), strings.HasPrefix(a, "--output="):
			_, inv.format, _ = strings.Cut(a, "=")
		case strings.HasPrefix(a, "-o") && len(a) > 2:
			inv.format = a[2:]
		}
	}
}

// prepare is called when the flags are parsed and before the command runs.
func (inv *invocation) prepare(cmd *cobra.Command) error {
	if err := inv.applySettings(cmd); err != nil {
		return err
	}
	switch inv.format {
	case "table", "json", "yaml":
	default:
		format := inv.format
		inv.format = "table"
		return usageError(cmd, "%q is no output format: table, json and yaml are.", format)
	}
	if isTerminal(inv.stderr) && !inv.quiet {
		inv.progress = newProgress(inv.stderr)
	}
	inv.begun = true
	return inv.profile.start()
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// homePath gives the data folder: flag, environment, or the usual place.
func (inv *invocation) homePath() string {
	switch {
	case inv.home != "":
		return inv.home
	case inv.env["DISKVAULT_HOME"] != "":
		return inv.env["DISKVAULT_HOME"]
	case os.Geteuid() == 0:
		return "/var/lib/diskvault"
	case inv.env["XDG_DATA_HOME"] != "":
		return filepath.Join(inv.env["XDG_DATA_HOME"], "diskvault")
	}
	return filepath.Join(inv.env["HOME"], ".local", "share", "diskvault")
}

// client gives access to the use cases of the data folder.
func (inv *invocation) client() (service.Client, error) {
	f, err := home.Open(inv.homePath())
	if err != nil {
		return service.Client{}, err
	}
	jobs, err := inv.jobsAtATime()
	return service.Client{Folder: f, Options: service.Options{Jobs: jobs}}, err
}

// events shows what happens while a request is done.
func (inv *invocation) events(e home.Event) {
	switch {
	case e.Notice != nil:
		inv.notice(*e.Notice)
	case e.Progress != nil:
		inv.progress.show(*e.Progress)
	case e.Queued > 0:
		inv.progress.queued(e.Queued)
	}
}

// notice prints something that a person should know. A key that is shown only
// once is printed whatever was asked for.
func (inv *invocation) notice(n resource.Notice) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	inv.notices = append(inv.notices, n)
	if inv.quiet && n.Secret == "" {
		return
	}
	inv.progress.clear()
	if n.Secret != "" {
		fmt.Fprintf(inv.stderr, "%s %s\n\n    %s\n\n", inv.color(yellow, "Keep this:"), n.Message, n.Secret)
		if n.RecommendedAction != "" {
			fmt.Fprintf(inv.stderr, "%s\n", n.RecommendedAction)
		}
		return
	}
	fmt.Fprintf(inv.stderr, "%s %s\n", inv.color(yellow, "Note:"), n.Message)
	if n.RecommendedAction != "" {
		fmt.Fprintf(inv.stderr, "      %s\n", n.RecommendedAction)
	}
}

// warn prints a warning of a job that was done.
func (inv *invocation) warn(text string) {
	inv.progress.clear()
	fmt.Fprintf(inv.stderr, "%s %s\n", inv.color(yellow, "Warning:"), text)
	inv.status = exitWarnings
}

// fail prints an error and gives the exit status that goes with it.
func (inv *invocation) fail(ctx context.Context, err error) int {
	p := problem.From(err)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) && p.Code == problem.InternalError {
		p = problem.Wrap(err, problem.OperationInterrupted, "The operation was interrupted.")
	}
	if inv.format == "json" {
		f := resource.FailureOf(p)
		f.Kind = ""
		if json.NewEncoder(inv.stderr).Encode(map[string]any{"error": f}) == nil {
			return exitOf(p.Kind)
		}
	}
	fmt.Fprintf(inv.stderr, "%s %s\n", inv.color(red, "Error:"), p.Error())
	for _, action := range p.Actions {
		fmt.Fprintf(inv.stderr, "  %s\n", action)
	}
	if p.Kind != problem.Usage && p.Kind != problem.Interrupted {
		fmt.Fprintf(inv.stderr, "  More: diskvault explain %s\n", p.Code)
	}
	return exitOf(p.Kind)
}

func exitOf(k problem.Kind) int {
	switch k {
	case problem.Usage:
		return exitUsage
	case problem.Refused:
		return exitRefused
	case problem.NotFound:
		return exitNotFound
	case problem.Interrupted:
		return exitInterrupted
	}
	return exitFailed
}

type color string

const (
	red    color = "\x1b[31m"
	yellow color = "\x1b[33m"
	green  color = "\x1b[32m"
)

func (inv *invocation) color(c color, text string) string {
	if inv.noColor || inv.env["NO_COLOR"] != "" || inv.env["TERM"] == "dumb" || !isTerminal(inv.stderr) {
		return text
	}
	return string(c) + text + "\x1b[0m"
}

// absolute makes the path that a person means of what was typed; URLs stay.
func absolute(text string) (string, error) {
	if text == "" || isURL(text) {
		return "", nil
	}
	path, err := filepath.Abs(text)
	if err != nil {
		return "", problem.Wrap(err, problem.InvalidArgument, "The path %s cannot be made absolute.", text)
	}
	return path, nil
}

func isURL(text string) bool {
	scheme, _, ok := strings.Cut(text, ":")
	if !ok || strings.ContainsAny(scheme, "/.") || len(scheme) < 2 {
		return false
	}
	_, err := os.Lstat(text)
	return err != nil
}

// storeURL makes the URL of a store of what was typed: a path becomes file:.
func storeURL(text string) (string, error) {
	if text == "" || isURL(text) && !strings.HasPrefix(text, "file:") {
		return text, nil
	}
	path, err := filepath.Abs(strings.TrimPrefix(strings.TrimPrefix(text, "file:"), "//"))
	return "file:" + path, err
}
