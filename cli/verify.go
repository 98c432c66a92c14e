package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/service"
)

// depth is how deep a check goes.
type depth struct {
	readData bool
	sample   float64 // percent
}

func (d *depth) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&d.readData, "read-data", false, "read all data back and compare every block with its hash")
	cmd.Flags().Float64Var(&d.sample, "sample", 0, "read this percentage of the data, chosen by chance")
}

func (d *depth) check(cmd *cobra.Command) error {
	if d.sample < 0 || d.sample > 100 || d.sample != d.sample {
		return usageError(cmd, "--sample is a percentage from 0 to 100.")
	}
	if d.sample > 0 && d.readData {
		return usageError(cmd, "--sample and --read-data exclude each other.")
	}
	return nil
}

type verifyOptions struct {
	*invocation
	selector
	depth
	point  string
	budget float64 // percent
	fsck   bool
}

func newVerify(inv *invocation) *cobra.Command {
	o := &verifyOptions{invocation: inv}
	cmd := &cobra.Command{
		Use:   "verify [INSTANCE]",
		Short: "Prove that recovery points can be restored",
		Long: `Checks the recovery points of a disk, or of all disks: that every block is where
its point says. With --read-data all data are read back and every block is
compared with its hash; --sample does so with a part of them.

With --fsck the programs of its file systems (e2fsck, xfs_repair, btrfs check,
fsck.fat, ntfsfix) check one point of a disk, its newest unless another is named.
They see an overlay in which the journal is replayed; the point never changes.

Damage is told with the points and the ranges of the disk that it costs.`,
		Example: `  diskvault verify
  diskvault verify disk --read-data
  diskvault verify disk --point 2026-03-01 --read-data
  diskvault verify disk --point 2026-03-01 --fsck
  diskvault verify --sample 5
  diskvault verify --budget 4                  # every day: all of the store in 25 days`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.depth.check(cmd); err != nil {
				return err
			}
			instance := ""
			if len(args) == 1 {
				instance = args[0]
			}
			if o.budget != 0 {
				if instance != "" || o.readData || o.sample > 0 || o.fsck || !(o.budget > 0 && o.budget <= 100) {
					return usageError(cmd, "--budget is a percentage from 0 to 100 of a store, and excludes a disk, --read-data, --sample and --fsck.")
				}
				return o.runScrub(cmd.Context())
			}
			if o.fsck {
				if instance == "" || o.readData || o.sample > 0 {
					return usageError(cmd, "--fsck needs a disk, and excludes --read-data and --sample.")
				}
				return o.runFSCK(cmd.Context(), instance)
			}
			return o.run(cmd.Context(), instance)
		},
	}
	cmd.Flags().StringVar(&o.point, "point", "", "only this recovery point: its ID, a time, or latest")
	cmd.Flags().Float64Var(&o.budget, "budget", 0, "read back this percentage of the store, what was read longest ago first")
	cmd.Flags().BoolVar(&o.fsck, "fsck", false, "let the programs of its file systems check one recovery point")
	o.depth.add(cmd)
	o.selector.add(cmd)
	return cmd
}

func (o *verifyOptions) runScrub(ctx context.Context) error {
	request, err := o.selector.request(o.invocation, "")
	if err != nil {
		return err
	}
	c, err := o.client()
	if err != nil {
		return err
	}
	r, err := c.Scrub(ctx, service.ScrubRequest{StoreRequest: request.StoreRequest, Share: o.budget / 100}, o.events)
	if err != nil {
		return err
	}
	return o.print(r, func() {
		o.printf("Read %s of %d back in %s, %s: all are whole. Of %s, %d were read back whole by now.\n",
			plural(r.Packs, "pack"), r.Of, duration(r.DurationSeconds), size(r.Bytes), plural(r.Points, "recovery point"), r.Verified)
	})
}

func (o *verifyOptions) runFSCK(ctx context.Context, instance string) error {
	request, err := o.selector.request(o.invocation, instance)
	if err != nil {
		return err
	}
	c, err := o.client()
	if err != nil {
		return err
	}
	r, err := c.FSCK(ctx, service.FSCKRequest{PointsRequest: request, Point: o.point}, o.events)
	if err != nil {
		return err
	}
	for _, w := range r.Warnings {
		o.warn(w)
	}
	return o.print(r, func() {
		for _, v := range r.Volumes {
			o.printf("%s  %s  %s  %s\n", v.Name, v.Kind, v.Verdict, v.Checker)
		}
		o.printf("Checked %s as of %s UTC in %s.\n", r.Instance, moment(r.PointTime), duration(r.DurationSeconds))
	})
}

func (o *verifyOptions) run(ctx context.Context, instance string) error {
	request, err := o.selector.request(o.invocation, instance)
	if err != nil {
		return err
	}
	c, err := o.client()
	if err != nil {
		return err
	}
	r, err := c.Verify(ctx, service.VerifyRequest{PointsRequest: request, Point: o.point, ReadData: o.readData, Sample: o.sample / 100}, o.events)
	if err != nil {
		return err
	}
	return o.print(r, func() { o.sayVerified(r) })
}

func (inv *invocation) sayVerified(r service.VerifyResult) {
	what := "their structure is whole; data were not read (--read-data does)"
	switch r.Method {
	case "data":
		what = "all their data were read back and are whole"
	case "sample":
		what = "their structure and the sampled data are whole"
	}
	inv.printf("Verified %s in %s, %s read: %s.\n", plural(r.Points, "recovery point"), duration(r.DurationSeconds), size(r.BytesRead), what)
}
