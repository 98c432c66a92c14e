package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

type jobsOptions struct {
	*invocation
	watch    bool
	instance string
	status   string
	since    string
	limit    int
	request  service.JobsRequest
}

func newJobs(inv *invocation) *cobra.Command {
	o := &jobsOptions{invocation: inv}
	cmd := &cobra.Command{
		Use:   "jobs [JOB]",
		Short: "List jobs, newest first",
		Long: `Lists jobs, newest first; those that run with their live progress. With the ID
of a job, or how it begins, only that one.`,
		Example: `  diskvault jobs
  diskvault jobs --watch
  diskvault jobs --instance disk --status Failed --since 7d
  diskvault jobs 3f2a -o json | jq '.[0].record.phases'`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(cmd, args); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.watch, "watch", "w", false, "go on showing until interrupted")
	f.StringVar(&o.instance, "instance", "", "only jobs of this disk")
	f.StringVar(&o.status, "status", "", "only jobs in this state")
	f.StringVar(&o.since, "since", "", "only jobs since then: 36h, 7d, or a time")
	f.IntVar(&o.limit, "limit", 0, "at most this many (default 25 in a table, else all)")
	return cmd
}

func (o *jobsOptions) complete(cmd *cobra.Command, args []string) (err error) {
	if len(args) == 1 {
		o.request.ID = strings.ToLower(args[0])
	}
	o.request.Instance = o.instance
	if o.request.Path, err = absolute(o.instance); err != nil {
		return err
	}
	if o.status != "" {
		var names []string
		for _, s := range resource.Statuses {
			names = append(names, string(s))
			if strings.EqualFold(o.status, string(s)) {
				o.request.Status = s
			}
		}
		if o.request.Status == "" {
			return usageError(cmd, "%q is no state of a job: %s are.", o.status, strings.Join(names, ", "))
		}
	}
	if o.since != "" {
		if o.request.Since, err = parseSince(o.since, time.Now()); err != nil {
			return usageError(cmd, "--since: %v.", err)
		}
	}
	if o.limit < 0 {
		return usageError(cmd, "--limit cannot be negative.")
	}
	o.request.Limit = o.limit
	if o.limit == 0 && o.format == "table" {
		o.request.Limit = 25
	}
	return nil
}

func (o *jobsOptions) run(ctx context.Context) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	for {
		jobs, err := c.Jobs(ctx, o.request)
		if err != nil {
			return err
		}
		if o.watch && o.format == "table" && isTerminal(o.stdout) {
			o.printf("\x1b[H\x1b[2J")
		}
		if err := o.print(jobs, func() { o.show(jobs) }); err != nil || !o.watch {
			return err
		}
		select {
		case <-ctx.Done():
			return nil // the way to end a watch is no failure
		case <-time.After(time.Second):
		}
	}
}

func (o *jobsOptions) show(jobs []resource.Job) {
	if len(jobs) == 0 {
		o.printf("No jobs.\n")
		return
	}
	var rows [][]string
	for _, j := range jobs {
		took, what := "-", ""
		if j.Start != nil {
			took = duration(j.Seconds)
		}
		switch {
		case j.Error != nil:
			what = string(j.Error.Code) + ": " + j.Error.Message
		case j.Detail != nil:
			what = progressText(*j.Detail)
		}
		instance := j.Instance
		if instance == "" {
			instance = "-"
		}
		rows = append(rows, []string{j.ID[:8], j.Operation, instance, string(j.Status), moment(j.Created), took, what})
	}
	o.table([]string{"JOB", "OPERATION", "DISK", "STATUS", "ASKED (UTC)", "TOOK", ""}, rows)
	if len(jobs) == o.request.Limit {
		fmt.Fprintf(o.stderr, "These are the newest %d; --limit and --since show others.\n", len(jobs))
	}
}
