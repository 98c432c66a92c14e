package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/resource"
)

func newStatus(inv *invocation) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what is protected, what failed and what runs",
		Example: `  diskvault status
  diskvault status -o json | jq '.instances[] | select(.state != "Protected")'`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return inv.runStatus(cmd.Context()) },
	}
}

func (inv *invocation) runStatus(ctx context.Context) error {
	c, err := inv.client()
	if err != nil {
		return err
	}
	r, err := c.Status(ctx)
	if err != nil {
		return err
	}
	return inv.print(r, func() {
		if len(r.Instances) == 0 {
			inv.printf("No disk is protected yet. Protect one: diskvault backup PATH\n")
			return
		}
		var rows [][]string
		for _, i := range r.Instances {
			last := "never"
			if i.LastPoint != nil {
				last = moment(i.LastPoint.Time)
			}
			rows = append(rows, []string{i.Name, i.Disk, size(i.Size), i.State, last, fmt.Sprint(i.Points)})
		}
		inv.table([]string{"DISK", "PATH", "SIZE", "STATE", "LAST POINT (UTC)", "POINTS"}, rows)
		for _, i := range r.Instances {
			if i.State == "Failed" && i.LastJob != nil && i.LastJob.Error != nil {
				inv.printf("\n%s: %s\n", i.Name, i.LastJob.Error.Message)
				for _, a := range i.LastJob.Error.RecommendedAction {
					inv.printf("  %s\n", a)
				}
			}
		}
		for n, j := range r.Running {
			if n == 0 {
				inv.printf("\n")
			}
			inv.printf("%s\n", runningText(j))
		}
		for _, s := range r.Stores {
			mark := ""
			if s.Default {
				mark = " (default)"
			}
			inv.printf("\nStore %s%s\n", s.URL, mark)
		}
		if !inv.quiet {
			for _, n := range r.Notices {
				inv.printf("Note: %s %s\n", n.Message, n.RecommendedAction)
			}
		}
	})
}

func runningText(j resource.Job) string {
	if j.Status == resource.Queued {
		return fmt.Sprintf("%s of %s waits", j.Operation, j.Instance)
	}
	text := fmt.Sprintf("%s of %s runs for %s", j.Operation, j.Instance, duration(j.Seconds))
	if j.Detail != nil {
		text += ": " + progressText(*j.Detail)
	}
	return text
}
