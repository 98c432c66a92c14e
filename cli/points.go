package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/resource"
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
without another. A point may lie in several stores, near the disk (operational)
and in the store of its vault (vault); -o json names them, each with its own
expiry.`,
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
			if p.Group != nil {
				state += fmt.Sprintf(", with group %s%s", p.Group.ID[:8], missing(p.Group))
			}
			var tiers []string
			for _, at := range p.Placements {
				if tier := map[string]string{resource.OperationalTier: "operational", resource.VaultTier: "vault"}[at.Tier]; !slices.Contains(tiers, tier) {
					tiers = append(tiers, tier)
				}
			}
			rows = append(rows, []string{p.ID, moment(p.Time), state, strings.Join(tiers, ", "), momentOr(p.VerifiedAt, "not yet"), size(p.StoredBytes), strings.Join(p.KeptBecause, "; ")})
		}
		o.table([]string{"RECOVERY POINT", "TIME (UTC)", "SHOWS THE DISK", "TIER", "VERIFIED", "STORED", "KEPT BECAUSE"}, rows)
	})
}
