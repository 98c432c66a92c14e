package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/service"
)

type pointsOptions struct {
	*invocation
	selector
	request service.PointsRequest
}

func newPoints(inv *invocation) *cobra.Command {
	o := &pointsOptions{invocation: inv}
	cmd := &cobra.Command{
		Use:   "points INSTANCE",
		Short: "List the recovery points of a disk, and why each is kept",
		Long: `Lists the recovery points of a disk, newest first, with the reasons for which
each is kept. Each point is whole by itself: any can be restored, or deleted,
without another.`,
		Example: `  diskvault points disk
  diskvault points /dev/vg/root -o json | jq '.[0].keptBecause'`,
		Args: exactly("INSTANCE"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.request, err = o.selector.request(inv, args[0]); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	o.selector.add(cmd)
	return cmd
}

func (o *pointsOptions) run(ctx context.Context) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	points, err := c.Points(ctx, o.request)
	if err != nil {
		return err
	}
	return o.print(points, func() {
		if len(points) == 0 {
			o.printf("%s has no recovery point yet.\n", o.request.Instance)
			return
		}
		var rows [][]string
		for _, p := range points {
			state := "at one moment"
			if p.Consistency != "crashConsistent" {
				state = "inconsistent"
			}
			rows = append(rows, []string{p.ID, moment(p.Time), state, momentOr(p.VerifiedAt, "not yet"), size(p.StoredBytes), strings.Join(p.KeptBecause, "; ")})
		}
		o.table([]string{"RECOVERY POINT", "TIME (UTC)", "SHOWS THE DISK", "VERIFIED", "STORED", "KEPT BECAUSE"}, rows)
	})
}
