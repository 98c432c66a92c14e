package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/service"
	"github.com/diskvault/diskvault/store"
)

func newStoreCollect(inv *invocation) *cobra.Command {
	var a storeArgument
	var grace time.Duration
	var maxUnused float64
	var compact bool
	cmd := &cobra.Command{
		Use:   "collect [URL]",
		Short: "Give back the space of deleted recovery points",
		Long: `Finds what no recovery point, running backup or restore refers to any more, and
removes it. Backups, restores and checks go on beside it; it yields to them.

What is found is condemned first and removed by the first collection after a
grace of 24 hours, in case somebody still reads it; --grace 0s removes it at
once. Packs of which little is in use are rewritten, until no more than
--max-unused of the space in use is wasted. A collection may be interrupted at
any time; the next one goes on.`,
		Example: `  diskvault store collect
  diskvault store collect --grace 0s
  diskvault store collect --max-unused 20 /mnt/backup/store`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if grace < 0 {
				return usageError(cmd, "--grace is a time from 0s on.")
			}
			if maxUnused < 0 || maxUnused > 100 || maxUnused != maxUnused {
				return usageError(cmd, "--max-unused is a percentage from 0 to 100.")
			}
			r := service.CollectRequest{Grace: grace, MaxUnused: maxUnused / 100}
			if !compact {
				r.MaxUnused = -1
			}
			var err error
			if r.StoreRequest, err = a.request(inv, args); err != nil {
				return err
			}
			c, err := inv.client()
			if err != nil {
				return err
			}
			done, err := c.CollectStore(cmd.Context(), r, inv.events)
			if err != nil {
				return err
			}
			return inv.print(done, func() { inv.sayCollected(done) })
		},
	}
	cmd.Flags().DurationVar(&grace, "grace", store.DefaultGrace, "how long condemned packs stay before they are removed")
	cmd.Flags().Float64Var(&maxUnused, "max-unused", 100*store.DefaultMaxUnused, "percentage of the space in use that may be wasted")
	cmd.Flags().BoolVar(&compact, "compact", true, "rewrite packs of which little is in use")
	a.key.add(cmd)
	return cmd
}

func (inv *invocation) sayCollected(r service.CollectResult) {
	inv.printf("Collected %s in %s: %s in use", r.Store, duration(r.DurationSeconds), size(r.InUse.Bytes))
	if r.Removed.Packs > 0 {
		inv.printf(", %s removed in %s", size(r.Removed.Bytes), plural(int(r.Removed.Packs), "pack"))
	}
	inv.printf(".\n")
	if r.Compacted.Packs > 0 {
		inv.printf("Compacted %s of %s into %s.\n", plural(int(r.Compacted.Packs), "pack"), size(r.Compacted.Bytes), size(r.Written))
	}
	switch {
	case r.Condemned.Packs == 0:
	case !r.Until.IsZero():
		inv.printf("Condemned: %s in %s; the first collection after %s UTC removes them (--grace 0s does at once).\n",
			size(r.Condemned.Bytes), plural(int(r.Condemned.Packs), "pack"), moment(r.Until))
	default:
		inv.printf("Condemned: %s in %s, which wait. %s Collect again later.\n", size(r.Condemned.Bytes), plural(int(r.Condemned.Packs), "pack"), r.WaitingFor)
	}
	if r.Spared.Packs > 0 {
		inv.printf("Spared: %s in %s that a run under way, or an interrupted one, may need.\n", size(r.Spared.Bytes), plural(int(r.Spared.Packs), "pack"))
	}
	if r.YieldedSeconds >= 0.1 {
		var jobs []string
		for _, b := range r.Beside {
			jobs = append(jobs, b.Job)
		}
		inv.printf("It waited %s for others to go first: %s.\n", duration(r.YieldedSeconds), strings.Join(jobs, ", "))
	}
}
