package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/service"
	"github.com/diskvault/diskvault/engine/diagnose"
)

type diagnoseOptions struct {
	*invocation
	request service.DiagnoseRequest
}

func newDiagnose(inv *invocation) *cobra.Command {
	o := &diagnoseOptions{invocation: inv}
	cmd := &cobra.Command{
		Use:   "diagnose [JOB|INSTANCE]",
		Short: "Say why a backup took as long as it did",
		Long: `Says whether a backup took longer than its work should take, and why: the
causes with their share of the extra time, the numbers that show them, what was
ruled out, and what to do. Without an argument, of the newest backup; with a
disk, of its newest one. ` + "`diskvault explain CODE`" + ` tells more of a cause.`,
		Example: `  diskvault diagnose
  diskvault diagnose web-root
  diskvault diagnose 3f2a -o json | jq .verdict.causes`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args) },
	}
	addMinExcess(cmd, &o.request.MinExcess)
	return cmd
}

func addMinExcess(cmd *cobra.Command, excess *time.Duration) {
	cmd.Flags().DurationVar(excess, "diagnosis-min-excess", 5*time.Minute, "by how much a backup must be late to be called slower")
}

func (o *diagnoseOptions) run(ctx context.Context, args []string) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	var r service.DiagnoseResult
	if len(args) == 0 {
		r, err = c.Diagnose(ctx, o.request)
	} else {
		r, err = o.named(ctx, c, args[0])
	}
	if err != nil {
		return err
	}
	return o.print(r, func() { o.show(r) })
}

// named takes the word for a disk, and if there is none of that name for a job.
func (o *diagnoseOptions) named(ctx context.Context, c service.Client, text string) (r service.DiagnoseResult, err error) {
	request := o.request
	request.Instance = text
	if request.Path, err = absolute(text); err != nil {
		return r, err
	}
	r, err = c.Diagnose(ctx, request)
	if problem.Is(err, problem.InstanceNotFound) {
		request = o.request
		request.Job = strings.ToLower(text)
		return c.Diagnose(ctx, request)
	}
	return r, err
}

func (o *diagnoseOptions) show(r service.DiagnoseResult) {
	v := r.Verdict
	o.printf("%s, job %s: %s\n\n%s\n", r.Instance, r.JobID[:8], v.State, r.Sentence)
	if len(v.Causes) > 0 {
		var rows [][]string
		for _, x := range v.Causes {
			rows = append(rows, []string{x.Code, duration(x.Blame), fmt.Sprintf("%.0f %%", 100*x.Confidence)})
		}
		o.printf("\n")
		o.table([]string{"CAUSE", "COST", "CONFIDENCE"}, rows)
		o.printf("\nRuled out:\n")
		for _, x := range v.Causes {
			for _, out := range x.RuledOut {
				o.printf("  - %s: %s\n", out.Code, out.Because)
			}
		}
	}
	if len(r.RecommendedAction) > 0 {
		o.printf("\nWhat to do:\n")
		for _, a := range r.RecommendedAction {
			o.printf("  - %s\n", a)
		}
	}
	if v.State == diagnose.Unknown && len(v.Absent) > 0 {
		o.printf("\nNot known, and perhaps the reason:\n")
		for _, a := range v.Absent {
			o.printf("  - %s: %s\n", a.Signal, a.Why)
		}
	}
}
