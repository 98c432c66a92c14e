package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/service"
)

// nbdPlace is where NBD clients find a disk.
type nbdPlace struct{ service.NBDPlace }

func (p *nbdPlace) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.Socket, "socket", "", "listen on this Unix socket (default: one in the data folder)")
	f.StringVar(&p.Listen, "listen", "", "listen on this HOST:PORT; port 0: any that is free")
	f.StringVar(&p.Certificate, "tls-cert", "", "let clients in over TLS only, with this certificate (PEM)")
	f.StringVar(&p.Key, "tls-key", "", "the key of the certificate (PEM)")
	f.StringVar(&p.Authorities, "tls-ca", "", "let only clients in that have a certificate of these authorities (PEM)")
}

// check holds that the flags fit, and makes their paths absolute.
func (p *nbdPlace) check(cmd *cobra.Command) (err error) {
	switch {
	case p.Socket != "" && p.Listen != "":
		return usageError(cmd, "--socket and --listen exclude each other.")
	case (p.Certificate == "") != (p.Key == ""):
		return usageError(cmd, "--tls-cert and --tls-key belong together.")
	case p.Authorities != "" && p.Certificate == "":
		return usageError(cmd, "--tls-ca needs --tls-cert and --tls-key.")
	}
	for _, path := range []*string{&p.Socket, &p.Certificate, &p.Key, &p.Authorities} {
		if *path, err = absolute(*path); err != nil {
			return err
		}
	}
	return nil
}

type nbdOptions struct {
	*invocation
	selector
	nbdPlace
	request service.NBDRequest
}

func newNBD(inv *invocation) *cobra.Command {
	o := &nbdOptions{invocation: inv}
	cmd := &cobra.Command{
		Use:   "nbd INSTANCE",
		Short: "Offer a recovery point as a disk over NBD",
		Long: `Offers a recovery point to every program that speaks NBD: qemu, libnbd, nbdkit.
Nothing is copied before it is read, and every block is verified by its hash.

With --writable clients may write over it; a machine can boot from it. The
recovery point itself never changes. What they write goes to a file of this
host without a name, and is discarded in the end, or becomes a new recovery
point of the disk with --keep. That point counts as no backup of the disk: it is
never restored unless it is named.

The command prints the URL for clients. It lasts until it is interrupted, the
job is cancelled or the time of --for is over; what clients have asked for by
then is still answered.`,
		Example: `  diskvault nbd disk
  diskvault nbd disk --socket /run/disk.socket --point 2026-03-01T12:00
  diskvault nbd disk --writable --keep --for 8h
  diskvault nbd disk --listen 0.0.0.0:10809 --tls-cert cert.pem --tls-key key.pem`,
		Args: exactly("INSTANCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.request.For < 0 {
				return usageError(cmd, "--for cannot be negative.")
			}
			if o.request.Keep && !o.request.Writable {
				return usageError(cmd, "--keep needs --writable.")
			}
			if err := o.nbdPlace.check(cmd); err != nil {
				return err
			}
			o.request.NBDPlace = o.nbdPlace.NBDPlace
			var err error
			if o.request.PointsRequest, err = o.selector.request(inv, args[0]); err != nil {
				return err
			}
			if o.request.Overlay, err = absolute(o.request.Overlay); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.request.Point, "point", "latest", "the recovery point: its ID, a time, or latest")
	o.nbdPlace.add(cmd)
	f.BoolVar(&o.request.Writable, "writable", false, "let clients write; the recovery point itself never changes")
	f.BoolVar(&o.request.Keep, "keep", false, "make a recovery point of what was written, in the end")
	f.StringVar(&o.request.Overlay, "overlay", "", "the folder for what clients write (default: in the data folder)")
	f.DurationVar(&o.request.For, "for", 24*time.Hour, "end after this time; 0: never")
	o.selector.add(cmd)
	return cmd
}

func (o *nbdOptions) run(ctx context.Context) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	r, err := c.NBD(ctx, o.request, o.events)
	if err != nil {
		return err
	}
	return o.print(r, func() {
		o.printf("Ended the export of %s after %s", r.Instance, duration(r.DurationSeconds))
		if r.Writable {
			o.printf("; %s written", size(r.WrittenBytes))
		}
		if r.Kept != "" {
			o.printf(", kept as recovery point %s", r.Kept)
		}
		o.printf(".\n")
	})
}
