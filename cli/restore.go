package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/service"
)

// selector is what names an instance, in the catalog or in a store.
type selector struct {
	store string
	key   keyFlag
}

func (s *selector) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.store, "store", "", "look into this store instead of the catalog, as on a machine that has only the store and a key")
	s.key.add(cmd)
}

func (s *selector) request(inv *invocation, instance string) (r service.PointsRequest, err error) {
	r.Instance = instance
	if r.Path, err = absolute(instance); err != nil {
		return r, err
	}
	if r.URL, err = storeURL(s.store); err != nil {
		return r, err
	}
	r.Key, err = s.key.text(inv)
	return r, err
}

type restoreOptions struct {
	*invocation
	selector
	nbdPlace
	request service.RestoreRequest
	instant bool
}

func newRestore(inv *invocation) *cobra.Command {
	o := &restoreOptions{invocation: inv}
	cmd := &cobra.Command{
		Use:   "restore INSTANCE --to TARGET",
		Short: "Write a recovery point to a new file or a block device",
		Long: `Writes the content of a recovery point to TARGET: a new file, which appears
only when it is whole, or a block device. Every block is verified by its hash.

INSTANCE is the name, the path or the ID of a protected disk. The point is its
newest unless another is named: by its ID or how that begins, or by a time,
which means the newest point from then or before.

What holds data already is only overwritten with --overwrite; of an older image
of the same disk only what differs is written. An interrupted restore goes on
where it stopped when the same command is run again.

With --instant the disk can be used at once. Where a clone of the disk as it was
then is kept beside it, TARGET is a further clone, and the command is done.
Otherwise the disk is offered over NBD, to be read and written, while TARGET is
filled; what clients write stays. TARGET appears when it is whole, and the
command ends when its clients have left.`,
		Example: `  diskvault restore disk --to new.img
  diskvault restore disk --point 2026-03-01T12:00 --to new.img
  diskvault restore disk --to new.img --instant --socket /run/disk.socket
  diskvault restore web-root --to /dev/vg/root --overwrite
  diskvault restore disk --store s3://bucket/prefix --key-file recovery.key --to new.img`,
		Args: exactly("INSTANCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.request.To == "" {
				return usageError(cmd, "--to is missing: where shall the disk be restored to?")
			}
			switch o.request.Sparse {
			case "auto", "never":
			default:
				return usageError(cmd, "--sparse cannot be %q: auto and never are allowed.", o.request.Sparse)
			}
			var err error
			if o.request.PointsRequest, err = o.selector.request(inv, args[0]); err != nil {
				return err
			}
			if err := o.checkInstant(cmd); err != nil {
				return err
			}
			if isURL(o.request.To) {
				return usageError(cmd, "The target %s is not a path.", o.request.To)
			}
			if o.request.To, err = absolute(o.request.To); err != nil {
				return err
			}
			if o.instant {
				return o.runInstant(cmd.Context())
			}
			return o.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.request.Point, "point", "latest", "the recovery point: its ID, a time, or latest")
	f.StringVar(&o.request.To, "to", "", "a new file, or a block device")
	f.BoolVar(&o.request.Overwrite, "overwrite", false, "overwrite what the target holds")
	f.StringVar(&o.request.Sparse, "sparse", "auto", "auto leaves holes for zeros, never gives them room")
	f.BoolVar(&o.request.AllowDamaged, "allow-damaged", false, "leave zeros where the store is damaged, and go on")
	f.BoolVar(&o.instant, "instant", false, "let the disk be used at once, and restore it meanwhile")
	o.nbdPlace.add(cmd)
	o.selector.add(cmd)
	return cmd
}

// checkInstant holds that the flags fit one of the two ways of restoring.
func (o *restoreOptions) checkInstant(cmd *cobra.Command) error {
	for _, name := range []string{"overwrite", "sparse", "allow-damaged"} {
		if o.instant && cmd.Flags().Changed(name) {
			return usageError(cmd, "--instant and --%s exclude each other.", name)
		}
	}
	for _, name := range []string{"socket", "listen", "tls-cert", "tls-key", "tls-ca"} {
		if !o.instant && cmd.Flags().Changed(name) {
			return usageError(cmd, "--%s needs --instant.", name)
		}
	}
	return o.nbdPlace.check(cmd)
}

func (o *restoreOptions) runInstant(ctx context.Context) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	r, err := c.Instant(ctx, service.InstantRequest{PointsRequest: o.request.PointsRequest, Point: o.request.Point, To: o.request.To, NBDPlace: o.NBDPlace}, o.events)
	if err != nil {
		return err
	}
	return o.print(r, func() {
		how := "by a clone of a kept capture; nothing was read"
		if r.Verified {
			how = "every block verified"
		}
		o.printf("Restored %s as of %s UTC to %s: usable after %s, whole after %s; %s.\n", r.Instance, moment(r.PointTime), r.Target, duration(r.ReadySeconds), duration(r.DurationSeconds), how)
	})
}

func (o *restoreOptions) run(ctx context.Context) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	r, err := c.Restore(ctx, o.request, o.events)
	if err != nil {
		return err
	}
	for _, w := range r.Warnings {
		o.warn(w)
	}
	if len(r.Lost) > 0 {
		o.status = exitWarnings
	}
	return o.print(r, func() {
		b := r.Bytes
		verified := "every block verified"
		if !r.Verified {
			verified = "not verified"
		}
		o.printf("Restored %s as of %s UTC to %s in %s: %s written, %s zero, %s there already; %s.\n",
			r.Instance, moment(r.PointTime), r.Target, duration(r.DurationSeconds), size(b.Written), size(b.Zero), size(b.Skipped), verified)
	})
}
