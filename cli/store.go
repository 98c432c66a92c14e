package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

func newStore(inv *invocation) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Make, check and repair stores, and keep their keys",
		Long: `A store holds recovery points: in a folder (file:/path) or in an object store
(s3://bucket/prefix?endpoint=https://host&region=name, with the credentials of
the environment). It is encrypted; three kinds of keys open it: that of this
machine, recovery keys and passphrases.

Without a URL these commands mean the default store.`,
		Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newStoreCreate(inv), newStoreShow(inv), newStoreCheck(inv), newStoreHeal(inv), newStoreCollect(inv), newStoreCopy(inv), newStoreRebuildIndex(inv), newStoreRebuildCatalog(inv), newStoreKey(inv))
	return cmd
}

// storeArgument is the optional URL that the commands of a store take.
type storeArgument struct{ key keyFlag }

func (s *storeArgument) request(inv *invocation, args []string) (r service.StoreRequest, err error) {
	if len(args) > 0 {
		if r.URL, err = storeURL(args[0]); err != nil {
			return r, err
		}
	}
	r.Key, err = s.key.text(inv)
	return r, err
}

func newStoreCreate(inv *invocation) *cobra.Command {
	var block sizeFlag
	var passphrase, vault, vaultRetention string
	var asDefault bool
	cmd := &cobra.Command{
		Use:   "create [URL]",
		Short: "Make a store",
		Long: `Makes a store, after proving that the storage keeps the promises that a store
depends on. Its recovery key is shown once. Without a URL the store lies in the
data folder.

With --vault the store becomes the vault tier of that vault: after each backup
the points whose retention rule asks for it are copied there, and live for a
time of their own. A second store of a vault makes it geo-redundant.`,
		Example: `  diskvault store create /mnt/backup/store --default
  diskvault store create 's3://bucket/diskvault?endpoint=https://s3.example.org&region=eu'
  diskvault store create /mnt/offsite/store --vault default --vault-retention P5Y`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := service.CreateStoreRequest{BlockSize: int(block.bytes), Default: asDefault, Vault: vault, VaultRetention: resource.Duration(vaultRetention)}
			if vaultRetention != "" && vault == "" {
				return usageError(cmd, "--vault-retention goes with --vault.")
			}
			var err error
			if len(args) > 0 {
				if r.URL, err = storeURL(args[0]); err != nil {
					return err
				}
			}
			if passphrase != "" {
				if r.Passphrase, err = (&keyFlag{passphrase}).text(inv); err != nil {
					return err
				}
			}
			c, err := inv.client()
			if err != nil {
				return err
			}
			made, err := c.CreateStore(cmd.Context(), r, inv.events)
			if err != nil {
				return err
			}
			return inv.print(withNotices[service.StoreResult]{made, inv.notices}, func() {
				inv.printf("Made the store %s (%s blocks, ID %s).\n", made.URL, size(int64(made.BlockSize)), made.ID)
			})
		},
	}
	cmd.Flags().Var(&block, "block-size", "unit of deduplication, 16K to 1M, fixed for good (default 64K)")
	cmd.Flags().StringVar(&passphrase, "passphrase-file", "", "file with a passphrase that opens the store too")
	cmd.Flags().BoolVar(&asDefault, "default", false, "disks that are protected from now on go there")
	cmd.Flags().StringVar(&vault, "vault", "", "vault whose copies go there, for its vault tier")
	cmd.Flags().StringVar(&vaultRetention, "vault-retention", "", "how long copies are kept in the vault tier, as P90D or P5Y, by the rules of the vault's policies that say nothing of it")
	return cmd
}

func newStoreShow(inv *invocation) *cobra.Command {
	var a storeArgument
	cmd := &cobra.Command{
		Use:     "show [URL]",
		Short:   "Tell what a store is and holds",
		Example: "  diskvault store show",
		Args:    atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.request(inv, args)
			if err != nil {
				return err
			}
			c, err := inv.client()
			if err != nil {
				return err
			}
			s, err := c.ShowStore(cmd.Context(), r)
			if err != nil {
				return err
			}
			return inv.print(s, func() {
				inv.printf("Store    %s\nID       %s\nRealm    %s\nMade     %s UTC, format version %d, %s blocks\n", s.URL, s.ID, s.Realm, moment(s.Created), s.Version, size(int64(s.BlockSize)))
				if t := s.Statistics; t != nil {
					inv.printf("Holds    %s in %d objects: %s, %d data packs of %s, %d metadata packs of %s\n",
						size(t.Bytes), t.Objects, plural(int(t.Points), "recovery point"), t.DataPacks, size(t.DataBytes), t.MetadataPacks, size(t.MetadataBytes))
				}
			})
		},
	}
	a.key.add(cmd)
	return cmd
}

func newStoreCheck(inv *invocation) *cobra.Command {
	var a storeArgument
	var d depth
	cmd := &cobra.Command{
		Use:     "check [URL]",
		Short:   "Check all of a store",
		Example: "  diskvault store check\n  diskvault store check --read-data",
		Args:    atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.check(cmd); err != nil {
				return err
			}
			r, err := a.request(inv, args)
			if err != nil {
				return err
			}
			c, err := inv.client()
			if err != nil {
				return err
			}
			v, err := c.CheckStore(cmd.Context(), service.CheckStoreRequest{StoreRequest: r, ReadData: d.readData, Sample: d.sample / 100}, inv.events)
			if err != nil {
				return err
			}
			return inv.print(v, func() { inv.sayVerified(v) })
		},
	}
	d.add(cmd)
	a.key.add(cmd)
	return cmd
}

func newStoreRebuildIndex(inv *invocation) *cobra.Command {
	var a storeArgument
	cmd := &cobra.Command{
		Use:   "rebuild-index [URL]",
		Short: "Make the local index of a store anew",
		Long: `Makes the local index of a store anew from the store. The index only serves to
find blocks that are stored already: without it more is stored than needed, but
nothing is lost.`,
		Example: "  diskvault store rebuild-index",
		Args:    atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.request(inv, args)
			if err != nil {
				return err
			}
			c, err := inv.client()
			if err != nil {
				return err
			}
			done, err := c.RebuildIndex(cmd.Context(), r, inv.events)
			if err != nil {
				return err
			}
			if done.DamagedPacks > 0 {
				inv.warn(fmt.Sprintf("%d packs are damaged and were left out: `diskvault store check` tells what depends on them.", done.DamagedPacks))
			}
			return inv.print(done, func() {
				inv.printf("Rebuilt the index of %s from %s in %s.\n", done.Store, plural(int(done.Packs), "pack"), duration(done.DurationSeconds))
			})
		},
	}
	a.key.add(cmd)
	return cmd
}

func newStoreRebuildCatalog(inv *invocation) *cobra.Command {
	var a storeArgument
	cmd := &cobra.Command{
		Use:   "rebuild-catalog [URL]",
		Short: "Make the catalog anew from what a store holds",
		Long: `Makes the catalog of the data folder anew: disks, policies and recovery points
come back from the store; the history of jobs does not. Until somebody confirms
the rules, retention deletes nothing. On a new machine, give the URL of the
store and its recovery key.`,
		Example: `  diskvault store rebuild-catalog
  diskvault store rebuild-catalog /mnt/backup/store --key-file recovery.key`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.request(inv, args)
			if err != nil {
				return err
			}
			c, err := inv.client()
			if err != nil {
				return err
			}
			started := time.Now()
			done, err := c.RebuildCatalog(cmd.Context(), r, inv.events)
			if err != nil {
				return err
			}
			for _, w := range done.Warnings {
				inv.warn(w)
			}
			return inv.print(done, func() {
				inv.printf("Rebuilt the catalog from %s in %s: %s, %s.\n", done.Store, duration(time.Since(started).Seconds()), plural(done.Instances, "disk"), plural(done.Points, "recovery point"))
				if done.SetAside != "" {
					inv.printf("The damaged catalog was set aside as %s.\n", done.SetAside)
				}
				inv.printf("Retention is paused: no point is deleted by a rule.\n")
			})
		},
	}
	a.key.add(cmd)
	return cmd
}
