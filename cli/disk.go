package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/service"
)

// newDisk is the noun for what is protected.
func newDisk(inv *invocation) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "disk",
		Short: "Look at disks",
		Args:  noCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDiskProbe(inv))
	return cmd
}

type diskProbeOptions struct {
	*invocation
	path   string
	budget time.Duration
}

func newDiskProbe(inv *invocation) *cobra.Command {
	o := &diskProbeOptions{invocation: inv}
	cmd := &cobra.Command{
		Use:   "probe DISK",
		Short: "Say what a disk is, and how it would be backed up",
		Long: `Says what a disk is, how a backup would capture it at one moment, how it would
find what changed, at what cost, and what would be better. Nothing is changed,
and the disk need not be protected.`,
		Example: `  diskvault disk probe disk.img
  diskvault disk probe /dev/sdb -o json | jq .capture.method`,
		Args: exactly("DISK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return o.run(cmd.Context())
		},
	}
	addStallBudget(cmd, &o.budget)
	return cmd
}

// addStallBudget adds the flag that says how long writers may wait.
func addStallBudget(cmd *cobra.Command, budget *time.Duration) {
	cmd.Flags().DurationVar(budget, "stall-budget", 0, "how long a capture may hold up the writers of the disk (default 1s)")
}

func (o *diskProbeOptions) run(ctx context.Context) error {
	r, err := service.ProbeDisk(ctx, o.path, o.budget)
	if err != nil {
		return err
	}
	return o.print(r, func() { o.say(r) })
}

func (o *diskProbeOptions) say(r service.ProbeResult) {
	d, c := r.Disk, r.Capture
	where := ""
	if d.FileSystem.Name != "" {
		where = " on " + d.FileSystem.Name
	}
	o.printf("%s: %s of %s%s, %s allocated, format %s\n", d.Path, d.Kind, size(d.Size), where, size(d.Allocated), d.Format)
	if c.Method != "" {
		o.printf("Captured by:     %s. %s\n", c.Method, c.Cost)
	}
	o.printf("Changes tracked: %s\n", c.Tracking)
	if c.Extents > 0 {
		o.printf("Extents:         %d\n", c.Extents)
	}
	for _, n := range c.Refusals {
		o.printf("Not by %s: %s\n", n.Method, n.Reason)
	}
	if c.Refused != "" {
		o.printf("A backup now would be refused: %s\n", c.Refused)
	}
	for _, b := range c.Better {
		o.printf("Better: %s\n", b)
	}
}
