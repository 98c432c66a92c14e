package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/control/service"
	"github.com/diskvault/diskvault/store"
)

func newStoreHeal(inv *invocation) *cobra.Command {
	var a storeArgument
	var fromKey keyFlag
	var from string
	r := service.HealRequest{}
	cmd := &cobra.Command{
		Use:   "heal [URL]",
		Short: "Mend what is damaged in a store",
		Long: `Checks a store and mends what is damaged: documents from what the catalog and
their second copies say; data from other places in the store, from a copy of the
store (--from), and from the disks where they still hold what was lost. Only
content with the right hash is taken, so nothing wrong can come in.

What cannot be mended is listed by disk and byte range; everything else can be
restored. With --read-data all data are read first, which finds damage that the
structure does not show. Damaged packs go with the next collection.`,
		Example: `  diskvault store heal
  diskvault store heal --read-data
  diskvault store heal --from 's3://bucket/second?endpoint=https://s3.example.org'`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if r.StoreRequest, err = a.request(inv, args); err != nil {
				return err
			}
			if from != "" {
				if r.From.URL, err = storeURL(from); err != nil {
					return err
				}
			}
			if fromKey.file != "" { // the key in the environment is that of the store
				if r.From.Key, err = fromKey.text(inv); err != nil {
					return err
				}
			}
			c, err := inv.client()
			if err != nil {
				return err
			}
			done, err := c.HealStore(cmd.Context(), r, inv.events)
			if err != nil {
				return err
			}
			for _, d := range done.Lost {
				inv.warn(lostText(d))
			}
			return inv.print(done, func() { inv.sayHealed(done) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "a copy of the store to take from, as \"diskvault store copy\" makes it")
	f.StringVar(&fromKey.file, "from-key-file", "", "file with a key of that copy: a recovery key or a passphrase (default: the key of this machine)")
	f.BoolVar(&r.ReadData, "read-data", false, "read all data first and compare every block with its hash")
	f.BoolVar(&r.NoDisks, "no-disks", false, "do not read the disks again")
	a.key.add(cmd)
	return cmd
}

// lostText says what is lost of one object, by disk and range.
func lostText(d store.Damage) string {
	var parts []string
	for _, l := range d.Losses {
		name := l.Name
		if name == "" {
			name = "an unknown disk"
		}
		if len(l.Ranges) == 0 {
			parts = append(parts, fmt.Sprintf("the recovery point %s of %s", l.Point, name))
		}
		for _, g := range l.Ranges {
			parts = append(parts, fmt.Sprintf("%s, bytes %d to %d of point %s", name, g.Offset, g.Offset+g.Length, l.Point))
		}
	}
	text := fmt.Sprintf("%s could not be mended: %s.", d.Object, d.What)
	if len(parts) > 0 {
		text += " Lost: " + strings.Join(parts, "; ") + "."
	}
	return text
}

func (inv *invocation) sayHealed(r service.HealResult) {
	if r.Damaged == 0 && r.Documents == 0 && r.PutBack == 0 && r.Packs == 0 && len(r.Lost) == 0 {
		inv.printf("There is nothing to mend in %s.\n", r.Store)
		return
	}
	pieces := r.HealReport.Found + r.Saved + r.Fetched + r.Reread
	inv.printf("Healed %s in %s: %s and %s of %s mended, %s put back.\n", r.Store, duration(r.DurationSeconds),
		plural(int(r.Documents), "document"), plural(int(pieces), "piece"), plural(int(r.Packs), "pack"), plural(int(r.PutBack), "recovery point"))
	if pieces > 0 {
		inv.printf("Pieces came from the store itself (%d), a copy (%d) and the disks (%d).\n", r.HealReport.Found+r.Saved, r.Fetched, r.Reread)
		inv.printf("The damaged packs go with the next collection: diskvault store collect\n")
	}
}
