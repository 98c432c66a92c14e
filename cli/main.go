// Package cli is the command line: it reads arguments, calls one use case and
// prints what came of it. It decides nothing that the API would have to decide
// again.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/base/problem"
)

// The exit statuses, which scripts rely on.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitWarnings    = 3
	exitRefused     = 4
	exitNotFound    = 5
	exitInterrupted = 130
)

// commands are all commands, in the order in which help shows them.
func commands(inv *invocation) []*cobra.Command {
	return []*cobra.Command{
		newBackup(inv), newRestore(inv), newMount(inv), newNBD(inv), newListFiles(inv), newCopyFiles(inv), newPoints(inv), newStatus(inv), newJobs(inv), newDiagnose(inv), newVerify(inv),
		newExplain(inv), newDemo(inv), newStore(inv), newServe(inv), newRole(inv), newDisk(inv), newRecoveryPoint(inv), newVersion(inv),
	}
}

// Main runs the command line and returns its exit status. The arguments do
// not include the program's name; env is in the form of os.Environ.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer, env []string) int {
	inv := newInvocation(stdin, stdout, stderr, env)
	inv.formatHint(args)
	root := newRoot(inv)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)

	ctx, stop := inv.untilInterrupted()
	defer stop()
	err := root.ExecuteContext(ctx)
	inv.progress.clear()
	if perr := inv.profile.stop(); perr != nil && err == nil {
		err = perr
	}
	if err == nil {
		return inv.status
	}
	var p *problem.Error
	if !errors.As(err, &p) && !inv.begun {
		// What cobra says about arguments that it could not take.
		err = problem.New(problem.InvalidArgument, "%s.", err).Do("`diskvault --help` lists what there is.")
	}
	return inv.fail(ctx, err)
}

const rootLong = `diskvault backs up disks: images and block devices, incrementally for ever,
encrypted and deduplicated; and it says why a backup is slow.

  diskvault backup disk.img                     protect a disk and back it up
  diskvault points disk                         its recovery points
  diskvault restore disk --to new.img           get it back

Run a backup again and only what changed is stored. ` + "`diskvault demo`" + ` shows the
whole story on a disk made for it.

Settings come from flags, else from the environment (DISKVAULT_ and the flag's
name in capitals, as DISKVAULT_HOME), else from config.yaml in the data folder.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 done with warnings, 4 refused,
5 not found, 130 interrupted.`

func newRoot(inv *invocation) *cobra.Command {
	cobra.EnableCommandSorting = false
	root := &cobra.Command{
		Use:           "diskvault",
		Short:         "Back up disks, and know why a backup is slow",
		Long:          rootLong,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noCommand,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return inv.prepare(cmd)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError(cmd, "%v", err)
	})
	flags := root.PersistentFlags()
	flags.StringVar(&inv.home, "home", "", "the data folder (default /var/lib/diskvault for root, else $XDG_DATA_HOME/diskvault)")
	flags.StringVarP(&inv.format, "output", "o", "table", "how results are printed: table, json or yaml")
	flags.BoolVarP(&inv.quiet, "quiet", "q", false, "print results, warnings and errors only")
	flags.BoolVar(&inv.noColor, "no-color", false, "print without colors")
	flags.StringVar(&inv.profile.cpu, "cpuprofile", "", "write a CPU profile to this file")
	flags.StringVar(&inv.profile.memory, "memprofile", "", "write a memory profile to this file")
	flags.MarkHidden("cpuprofile")
	flags.MarkHidden("memprofile")
	root.AddCommand(commands(inv)...)
	return root
}

// untilInterrupted gives a context that ends with the first Ctrl-C or
// termination; the second ends the process at once.
func (inv *invocation) untilInterrupted() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	ended := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			select {
			case <-ended:
				return
			case <-signals:
			}
			if n > 0 {
				os.Exit(exitInterrupted)
			}
			inv.progress.clear()
			fmt.Fprintln(inv.stderr, "Stopping; what is stored so far is kept. Once more stops at once.")
			cancel(context.Canceled)
		}
	}()
	return ctx, func() { signal.Stop(signals); close(ended); cancel(nil) }
}

// usageError is wrong usage of one command, with the hint where to look.
func usageError(cmd *cobra.Command, format string, args ...any) error {
	p := problem.New(problem.InvalidArgument, format, args...)
	return p.Do("Usage: "+cmd.UseLine(), "`"+cmd.CommandPath()+" --help` explains it with examples.")
}

// noCommand refuses arguments of a command that only has commands below it,
// and offers those that look alike.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	p := problem.New(problem.InvalidArgument, "There is no command %q.", cmd.CommandPath()+" "+args[0])
	var actions []string
	for _, s := range cmd.SuggestionsFor(args[0]) {
		actions = append(actions, "Did you mean `"+cmd.CommandPath()+" "+s+"`?")
	}
	return p.Do(append(actions, "`"+cmd.CommandPath()+" --help` lists what there is.")...)
}

// exactly wants a number of arguments and names the one that is missing.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usageError(cmd, "%s is missing.", names[len(args)])
		}
		if len(args) > len(names) {
			return usageError(cmd, "%q is one argument too many.", args[len(names)])
		}
		return nil
	}
}

// atMost allows arguments to be left away.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usageError(cmd, "%q is one argument too many.", args[n])
		}
		return nil
	}
}
