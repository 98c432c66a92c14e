package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/service"
	"github.com/diskvault/diskvault/disk"
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
	o.printf("%s: %s%s, %s, %s of it allocated, format %s.\n", d.Path, kindText(d.Kind), where, size(d.Size), size(d.Allocated), d.Format)
	var rows [][]string
	row := func(name, format string, args ...any) {
		rows = append(rows, []string{name, fmt.Sprintf(format, args...)})
	}
	if c.Method != "" {
		row("captured by", "%s", c.Method)
		row("changes found by", "%s", c.Tracking)
		row("cost", "%s", c.Cost)
	}
	if c.Extents > 0 {
		row("extents", "%d", c.Extents)
	}
	for _, n := range c.Refusals {
		row("not by "+string(n.Method), "%s", n.Reason)
	}
	if c.Refused != "" {
		row("refused now", "%s", c.Refused)
	}
	for _, b := range c.Better {
		row("better", "%s", b)
	}
	o.table([]string{"WHAT", "HOW"}, rows)
}

func kindText(k disk.Kind) string {
	switch k {
	case disk.File:
		return "an image file"
	case disk.Block:
		return "a block device"
	case disk.Machine:
		return "a disk of a running QEMU machine"
	case disk.Ceph:
		return "a Ceph RBD image"
	case disk.Thin:
		return "an LVM thin volume"
	}
	return "a disk of the kind " + string(k)
}
