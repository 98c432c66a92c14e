package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/service"
)

type mountOptions struct {
	*invocation
	selector
	request service.MountRequest
}

func newMount(inv *invocation) *cobra.Command {
	o := &mountOptions{invocation: inv}
	cmd := &cobra.Command{
		Use:   "mount INSTANCE DIR",
		Short: "Show a recovery point as a folder",
		Long: `Mounts a recovery point read-only at DIR, which must be empty or not exist yet:

  disk.img            the whole disk; a tool may read it like the disk itself
  files/p1, p2…       the files of its partitions: ext2/3/4, XFS, FAT, NTFS
  files/volumes.txt   what is on the disk, also what cannot be read, and why

Nothing is copied before it is read, and every block is verified by its hash.
The journal of ext4 is replayed in memory; where a log cannot be replayed,
volumes.txt says what may be missing.

The command lasts until it is interrupted, somebody unmounts DIR, the job is
cancelled or the time of --for is over. A mount that a killed process left is
unmounted by the next one.`,
		Example: `  diskvault mount disk /mnt/disk
  diskvault mount disk /mnt/disk --point 2026-03-01T12:00 --for 2h
  diskvault mount disk /mnt/disk --store s3://bucket/prefix --key-file recovery.key`,
		Args: exactly("INSTANCE", "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.request.For < 0 {
				return usageError(cmd, "--for cannot be negative.")
			}
			var err error
			if o.request.PointsRequest, err = o.selector.request(inv, args[0]); err != nil {
				return err
			}
			if isURL(args[1]) {
				return usageError(cmd, "The folder %s is not a path.", args[1])
			}
			if o.request.Dir, err = absolute(args[1]); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.request.Point, "point", "latest", "the recovery point: its ID, a time, or latest")
	f.BoolVar(&o.request.Others, "allow-other", false, "let other users in, each as the files on the disk allow")
	f.DurationVar(&o.request.For, "for", 24*time.Hour, "unmount after this time; 0: never")
	o.selector.add(cmd)
	return cmd
}

func (o *mountOptions) run(ctx context.Context) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	r, err := c.Mount(ctx, o.request, o.events)
	if err != nil {
		return err
	}
	return o.print(r, func() { o.printf("Unmounted %s from %s after %s.\n", r.Instance, r.Dir, duration(r.DurationSeconds)) })
}
