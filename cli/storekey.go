package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

// withNotices adds to a result what was said beside it.
type withNotices[T any] struct {
	Result  T                 `json:"result"`
	Notices []resource.Notice `json:"notices,omitempty"`
}

func newStoreKey(inv *invocation) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Keep the keys that open a store",
		Args:  noCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeyList(inv), newKeyAdd(inv), newKeyRemove(inv), newKeyExport(inv))
	return cmd
}

// keyCommand makes one command about keys; all take --store and --key-file.
func keyCommand(inv *invocation, cmd *cobra.Command, run func(cmd *cobra.Command, c service.Client, r service.StoreRequest, args []string) error) *cobra.Command {
	var store string
	var key keyFlag
	cmd.Flags().StringVar(&store, "store", "", "URL of the store (default: the default store)")
	key.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		var r service.StoreRequest
		if r.URL, err = storeURL(store); err != nil {
			return err
		}
		if r.Key, err = key.text(inv); err != nil {
			return err
		}
		c, err := inv.client()
		if err != nil {
			return err
		}
		return run(cmd, c, r, args)
	}
	return cmd
}

func newKeyList(inv *invocation) *cobra.Command {
	return keyCommand(inv, &cobra.Command{
		Use: "list", Short: "List the keys that open a store", Args: atMost(0), Example: "  diskvault store key list",
	}, func(cmd *cobra.Command, c service.Client, r service.StoreRequest, _ []string) error {
		keys, err := c.ListKeys(cmd.Context(), r)
		if err != nil {
			return err
		}
		return inv.print(keys, func() {
			var rows [][]string
			for _, k := range keys {
				rows = append(rows, []string{k.ID, string(k.Type), moment(k.Created)})
			}
			inv.table([]string{"KEY", "TYPE", "MADE (UTC)"}, rows)
		})
	})
}

func newKeyAdd(inv *invocation) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "add", Short: "Let a passphrase open a store", Args: atMost(0),
		Long:    "Lets a passphrase open the store, beside the keys that do already. It is asked for on the terminal, or read from a file.",
		Example: "  diskvault store key add\n  diskvault store key add --passphrase-file phrase.txt",
	}
	cmd.Flags().StringVar(&file, "passphrase-file", "", "file with the passphrase")
	return keyCommand(inv, cmd, func(cmd *cobra.Command, c service.Client, r service.StoreRequest, _ []string) error {
		passphrase, err := inv.newPassphrase(file)
		if err != nil {
			return err
		}
		k, err := c.AddKey(cmd.Context(), service.AddKeyRequest{StoreRequest: r, Passphrase: passphrase})
		if err != nil {
			return err
		}
		return inv.print(k, func() { inv.printf("The passphrase opens %s from now on (key %s).\n", k.Store, k.ID) })
	})
}

// newPassphrase reads a passphrase from a file, or twice from the terminal.
func (inv *invocation) newPassphrase(file string) (string, error) {
	if file != "" {
		text, err := (&keyFlag{file}).text(inv)
		return strings.TrimRight(text, "\r\n"), err
	}
	in, ok := inv.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", problem.New(problem.InvalidArgument, "There is no terminal to ask for a passphrase.").Do("Give it in a file: --passphrase-file FILE.")
	}
	var typed [2]string
	for n, prompt := range []string{"New passphrase: ", "Once more: "} {
		fmt.Fprint(inv.stderr, prompt)
		data, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(inv.stderr)
		if err != nil {
			return "", err
		}
		typed[n] = string(data)
	}
	if typed[0] != typed[1] {
		return "", problem.New(problem.InvalidArgument, "The two passphrases differ.").Do("Run the command again.")
	}
	if len(typed[0]) < 8 {
		return "", problem.New(problem.InvalidArgument, "A passphrase needs at least 8 characters.").Do("Run the command again.")
	}
	return typed[0], nil
}

func newKeyRemove(inv *invocation) *cobra.Command {
	return keyCommand(inv, &cobra.Command{
		Use: "remove KEY", Short: "Make a key useless for a store", Args: exactly("KEY"),
		Long:    "Makes a key useless for the store. The last one with which the store could be opened on another machine stays.",
		Example: "  diskvault store key remove passphrase-3f2a91c0",
	}, func(cmd *cobra.Command, c service.Client, r service.StoreRequest, args []string) error {
		k, err := c.RemoveKey(cmd.Context(), service.RemoveKeyRequest{StoreRequest: r, ID: args[0]})
		if err != nil {
			return err
		}
		return inv.print(k, func() { inv.printf("The key %s no longer opens %s.\n", k.ID, k.Store) })
	})
}

func newKeyExport(inv *invocation) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use: "export", Short: "Make a new recovery key and print it", Args: atMost(0),
		Long: `Makes a new recovery key and prints it, or writes it to a new file. It is kept
nowhere else. Recovery keys made before stay good until they are removed.`,
		Example: "  diskvault store key export\n  diskvault store key export --to /media/usb/recovery.key",
	}
	cmd.Flags().StringVar(&to, "to", "", "write it to this new file instead")
	return keyCommand(inv, cmd, func(cmd *cobra.Command, c service.Client, r service.StoreRequest, _ []string) (err error) {
		var file *os.File
		if to != "" {
			// Before the key exists: it must not be lost to a bad path.
			if file, err = os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
				return problem.Wrap(err, problem.InvalidArgument, "The file %s cannot be made.", to)
			}
			defer file.Close()
		}
		k, err := c.ExportKey(cmd.Context(), r)
		if err != nil {
			if file != nil {
				os.Remove(to)
			}
			return err
		}
		if file != nil {
			if _, err := fmt.Fprintf(file, "# diskvault: recovery key of the store %s\n%s\n", k.Store, k.Secret); err != nil {
				return err
			}
			if err := file.Sync(); err != nil {
				return err
			}
			k.Secret = ""
		}
		return inv.print(k, func() {
			if to != "" {
				inv.printf("Wrote a new recovery key of %s to %s (key %s).\n", k.Store, to, k.ID)
				return
			}
			inv.printf("%s\n", k.Secret)
			fmt.Fprintf(inv.stderr, "This is a new recovery key of %s (key %s). It is shown only now.\n", k.Store, k.ID)
		})
	})
}
