package cli

import (
	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/service"
)

func newStoreCopy(inv *invocation) *cobra.Command {
	var key, toKey keyFlag
	var limit sizeFlag
	var instance string
	cmd := &cobra.Command{
		Use:   "copy [FROM] TO",
		Short: "Copy recovery points to another store",
		Long: `Copies the recovery points that the store TO does not have yet, and the
configuration that belongs to them. Without FROM they come from the default
store, or with --instance from the store of that disk. TO alone is then enough
to restore from, or to rebuild the catalog.

Only data that TO does not have is sent. Backups and restores go on beside it,
in both stores. An interrupted copy goes on where it stopped when the same
command is run again. A point whose data is damaged is not copied and is told,
with the parts of the disk that are lost; the others are copied.

TO must be a store of the same deployment, as "diskvault store create" makes it.
Nothing is ever deleted there by a copy. In a server, the copies expire by the same
rules as the points that they are of, those in a vault's own store by the rules of
the vault tier; what was deleted from TO, by hand or by a rule, is not copied there again.`,
		Example: `  diskvault store create 's3://bucket/second?endpoint=https://s3.example.org'
  diskvault store copy 's3://bucket/second?endpoint=https://s3.example.org'
  diskvault store copy /mnt/backup/store /mnt/usb/store --instance web-root --limit-rate 50M`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError(cmd, "TO is missing: which store shall the recovery points be copied to?")
			}
			return atMost(2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			r := service.CopyStoreRequest{LimitRate: limit.bytes}
			if r.To.URL, err = storeURL(args[len(args)-1]); err != nil {
				return err
			}
			if len(args) == 2 {
				if r.URL, err = storeURL(args[0]); err != nil {
					return err
				}
			}
			if r.Key, err = key.text(inv); err != nil {
				return err
			}
			if toKey.file != "" { // the key in the environment is that of FROM
				if r.To.Key, err = toKey.text(inv); err != nil {
					return err
				}
			}
			if instance != "" {
				r.Instance = instance
				if r.Path, err = absolute(instance); err != nil {
					return err
				}
			}
			c, err := inv.client()
			if err != nil {
				return err
			}
			done, err := c.CopyStore(cmd.Context(), r, inv.events)
			if err != nil {
				return err
			}
			for _, w := range done.Warnings {
				inv.warn(w)
			}
			return inv.print(done, func() { inv.sayCopied(done) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&instance, "instance", "", "only the recovery points of this disk: its name, path or ID")
	f.Var(&limit, "limit-rate", "read at most this many bytes a second, as 50M")
	key.add(cmd)
	f.StringVar(&toKey.file, "to-key-file", "", "file with a key of TO: a recovery key or a passphrase (default: the key of this machine)")
	return cmd
}

func (inv *invocation) sayCopied(r service.CopyStoreResult) {
	if len(r.Copied) == 0 && len(r.Failed) == 0 {
		inv.printf("%s has all of %s already: %s.\n", r.To, r.From, plural(r.There, "recovery point"))
		return
	}
	inv.printf("Copied %s of %s to %s in %s: %s new, %s stored there.\n",
		plural(len(r.Copied), "recovery point"), r.From, r.To, duration(r.DurationSeconds), size(r.Bytes.New), size(r.Bytes.Stored))
}
