package cli

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/api/signin"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/access"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

// newRole is the noun for who may do what.
func newRole(inv *invocation) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "role",
		Short: "Say who may do what through the API",
		Args:  noCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRoleCreateSP(inv), newRoleAssign(inv), newRoleList(inv), newRoleMissing(inv))
	return cmd
}

// scopeOf reads the scope that a person wrote; empty stays empty.
func scopeOf(text string) (resource.ID, error) {
	if text != "" && !strings.HasPrefix(text, "/") {
		return resource.SubscriptionID(text), nil
	}
	return resource.ParseID(text)
}

// credentials are what a program needs to sign in, as SDKs name it.
type credentials struct {
	TenantID       string `json:"tenantId"`
	ClientID       string `json:"clientId"`
	ClientSecret   string `json:"clientSecret"`
	SubscriptionID string `json:"subscriptionId"`
	Authority      string `json:"authority"`
	Endpoint       string `json:"endpoint"`
	CAFile         string `json:"caFile"`
}

func newRoleCreateSP(inv *invocation) *cobra.Command {
	var role, scope string
	var days int
	cmd := &cobra.Command{
		Use:   "create-sp NAME",
		Short: "Make a program that can sign in, with a role",
		Long: `Makes a service principal: a program that signs in with an ID and a secret. The
secret is printed once, and only a hash of it is kept. A program of the same
name gets another secret; those that it has stay good until they expire.`,
		Example: `  diskvault role create-sp ci --role "Backup Contributor"
  diskvault role create-sp ci --role Owner --scope /subscriptions/00000000-0000-0000-0000-000000000001 -o json`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := scopeOf(scope)
			if err != nil {
				return err
			}
			return inv.createSP(cmd.Context(), service.ProgramRequest{Name: args[0], Role: role, Scope: at, Days: days})
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "name or ID of the role that it gets (default: none)")
	cmd.Flags().StringVar(&scope, "scope", "", "where it has the role: a subscription, resource group or resource (default: the home subscription)")
	cmd.Flags().IntVar(&days, "days", 365, "how long the secret is good")
	return cmd
}

func (inv *invocation) createSP(ctx context.Context, r service.ProgramRequest) error {
	c, err := inv.client()
	if err != nil {
		return err
	}
	ca, err := signin.OpenCA(filepath.Join(c.Folder.Path(), "tls"))
	if err != nil {
		return err
	}
	made, err := c.CreateProgram(ctx, r)
	if err != nil {
		return err
	}
	endpoint := made.Endpoint
	if endpoint == "" {
		endpoint = "https://" + defaultTLS
	}
	out := credentials{made.TenantID, made.ClientID, made.ClientSecret, made.SubscriptionID, endpoint + "/", endpoint, ca.File()}
	return inv.print(out, func() {
		inv.printf("The program %q can sign in until %s. This secret is shown only now:\n\n", r.Name, moment(made.Expires))
		inv.table([]string{"SETTING", "VALUE"}, [][]string{
			{"tenant ID", out.TenantID}, {"client ID", out.ClientID}, {"client secret", out.ClientSecret}, {"subscription", out.SubscriptionID},
			{"authority", out.Authority}, {"endpoint", out.Endpoint}, {"CA file", out.CAFile},
		})
	})
}

func newRoleAssign(inv *invocation) *cobra.Command {
	var r service.AssignRequest
	var scope string
	cmd := &cobra.Command{
		Use:     "assign",
		Short:   "Give a principal a role",
		Long:    "Gives a program, a person, a group or the identity of a vault a role at a scope and all below it.",
		Example: "  diskvault role assign --assignee ci --role \"Backup Reader\" --scope /subscriptions/…/resourceGroups/prod",
		Args:    atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if r.Assignee == "" || r.Role == "" {
				return usageError(cmd, "--assignee and --role are needed.")
			}
			if r.Scope, err = scopeOf(scope); err != nil {
				return err
			}
			c, err := inv.client()
			if err != nil {
				return err
			}
			made, err := c.AssignRole(cmd.Context(), r)
			if err != nil {
				return err
			}
			return inv.print(made, func() { inv.printf("%s has the role %s at %s.\n", r.Assignee, r.Role, made.Scope) })
		},
	}
	cmd.Flags().StringVar(&r.Assignee, "assignee", "", "name, object ID or client ID of who gets the role")
	cmd.Flags().StringVar(&r.Role, "role", "", "name or ID of the role")
	cmd.Flags().StringVar(&scope, "scope", "", "where (default: the home subscription)")
	return cmd
}

func newRoleList(inv *invocation) *cobra.Command {
	var scope string
	var definitions bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List role assignments, or the roles there are",
		Example: "  diskvault role list\n  diskvault role list --definitions",
		Args:    atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := scopeOf(scope)
			if err != nil {
				return err
			}
			c, err := inv.client()
			if err != nil {
				return err
			}
			if definitions {
				return inv.listDefinitions(cmd.Context(), c, at)
			}
			found, err := c.Roles(cmd.Context(), at)
			if err != nil {
				return err
			}
			return inv.print(found, func() {
				var rows [][]string
				for _, r := range found {
					who := r.PrincipalName
					if who == "" {
						who = r.Principal
					}
					rows = append(rows, []string{who, r.RoleName, string(r.Scope)})
				}
				inv.table([]string{"PRINCIPAL", "ROLE", "SCOPE"}, rows)
			})
		},
	}
	cmd.Flags().StringVar(&scope, "scope", "", "only what holds there, above it or below it (default: all)")
	cmd.Flags().BoolVar(&definitions, "definitions", false, "list the roles that can be assigned")
	return cmd
}

func (inv *invocation) listDefinitions(ctx context.Context, c service.Client, at resource.ID) error {
	found, err := c.RoleDefinitions(ctx, at)
	if err != nil {
		return err
	}
	return inv.print(found, func() {
		var rows [][]string
		for _, r := range found {
			rows = append(rows, []string{r.RoleName, r.ID.Name(), r.Type})
		}
		inv.table([]string{"ROLE", "ID", "TYPE"}, rows)
	})
}

func newRoleMissing(inv *invocation) *cobra.Command {
	var r service.MissingRequest
	var at string
	cmd := &cobra.Command{
		Use:   "missing [INSTANCE]",
		Short: "Say which roles the identity of a vault lacks, and assign them",
		Long: `Checks for a backup instance, or for all of them, whether the identity of its
vault has the rights that a backup needs: on the disk and on the snapshot
resource group. With --fix the roles that are missing are assigned.`,
		Example: "  diskvault role missing\n  diskvault role missing web --fix",
		Args:    atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				r.Instance = args[0]
			}
			levels := map[string]access.Level{"resource": access.AtResource, "group": access.AtGroup, "subscription": access.AtSubscription}
			level, ok := levels[at]
			if !ok {
				return usageError(cmd, "--at is resource, group or subscription.")
			}
			r.At = level
			return inv.missingRoles(cmd.Context(), r)
		},
	}
	cmd.Flags().BoolVar(&r.Fix, "fix", false, "assign the roles that are missing")
	cmd.Flags().StringVar(&at, "at", "resource", "where they are assigned: resource, group or subscription")
	return cmd
}

func (inv *invocation) missingRoles(ctx context.Context, r service.MissingRequest) error {
	c, err := inv.client()
	if err != nil {
		return err
	}
	found, err := c.MissingRoles(ctx, r)
	if err != nil {
		return err
	}
	lacking := 0
	for _, m := range found {
		if len(m.Roles) > len(m.Assigned) || len(m.Problems) > 0 && len(m.Assigned) == 0 {
			lacking++
		}
	}
	if err := inv.print(found, func() {
		for _, m := range found {
			switch {
			case len(m.Assigned) > 0:
				inv.printf("%s: assigned %s.\n", m.Instance.Name(), plural(len(m.Assigned), "role"))
			case len(m.Problems) == 0:
				inv.printf("%s: nothing is missing.\n", m.Instance.Name())
			default:
				for _, p := range m.Problems {
					inv.printf("%s: %s\n", m.Instance.Name(), p)
				}
			}
			for _, g := range m.Roles {
				inv.printf("  %s at %s\n", g.Role, g.Scope)
			}
		}
		if len(found) == 0 {
			inv.printf("No protected disk needs a role: those that only have a path are the owner's of the data folder.\n")
		}
	}); err != nil {
		return err
	}
	if lacking > 0 {
		return problem.New(problem.RightsMissing, "The identities of vaults lack roles for %s.", plural(lacking, "disk")).Do("Assign them: diskvault role missing --fix")
	}
	return nil
}
