package cli

import (
	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/service"
)

func newRecoveryPoint(inv *invocation) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "recovery-point",
		Short: "List and delete recovery points",
		Args:  noCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	list := newPoints(inv)
	list.Use, list.Short = "list INSTANCE", "List the recovery points of a disk, as `diskvault points` does"
	list.Example = "  diskvault recovery-point list disk"
	cmd.AddCommand(list, newRecoveryPointDelete(inv))
	return cmd
}

func newRecoveryPointDelete(inv *invocation) *cobra.Command {
	var points []string
	var last bool
	s := &selector{}
	cmd := &cobra.Command{
		Use:   "delete INSTANCE --point ID [--point ID …]",
		Short: "Delete recovery points for good",
		Long: `Deletes recovery points. No other point is touched: each is whole by itself. The
space comes back when the store is collected (diskvault store collect).

A point is deleted from all stores that hold it; with --store from that one only.

The last good point of a disk is kept unless --last says otherwise.`,
		Example: `  diskvault recovery-point delete disk --point 0f3c
  diskvault recovery-point delete disk --point 2026-03-01 --point 2026-03-02`,
		Args: exactly("INSTANCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(points) == 0 {
				return usageError(cmd, "Name the recovery points to delete: --point ID.")
			}
			request, err := s.request(inv, args[0])
			if err != nil {
				return err
			}
			c, err := inv.client()
			if err != nil {
				return err
			}
			done, err := c.DeletePoints(cmd.Context(), service.DeletePointsRequest{PointsRequest: request, IDs: points, Last: last})
			if err != nil {
				return err
			}
			return inv.print(done, func() {
				for _, id := range done.Deleted {
					inv.printf("Deleted the recovery point %s of %s.\n", id, done.Instance)
				}
				inv.printf("%s left. Space comes back with: diskvault store collect\n", plural(done.Left, "recovery point"))
			})
		},
	}
	cmd.Flags().StringArrayVar(&points, "point", nil, "a recovery point: its ID or the beginning of it, a time, or latest; may be repeated")
	cmd.Flags().BoolVar(&last, "last", false, "delete even the last good point")
	s.add(cmd)
	return cmd
}
