package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/engine/diagnose"
)

type explanation struct {
	Code              string   `json:"code"`
	Kind              string   `json:"kind"`
	Meaning           string   `json:"meaning"`
	RecommendedAction []string `json:"recommendedAction"`
	ExitStatus        int      `json:"exitStatus"`
}

func explain(e problem.Entry) explanation {
	return explanation{string(e.Code), string(e.Kind), e.Meaning, e.Actions, exitOf(e.Kind)}
}

func newExplain(inv *invocation) *cobra.Command {
	var codes []string
	for _, e := range problem.All() {
		codes = append(codes, string(e.Code))
	}
	for _, c := range diagnose.All() {
		codes = append(codes, c.Code)
	}
	return &cobra.Command{
		Use:               "explain [CODE]",
		Short:             "Say what an error code means and what to do",
		Long:              "Says what the code of an error, or of a cause that `diskvault diagnose` names,\nmeans and what to do. Without a code, lists all errors.",
		Example:           "  diskvault explain SourceInUse\n  diskvault explain TARGET_DISK_SLOW\n  diskvault explain -o json",
		Args:              atMost(1),
		ValidArgsFunction: cobra.FixedCompletions(codes, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return inv.explainAll()
			}
			return inv.explainOne(args[0])
		},
	}
}

func (inv *invocation) explainAll() error {
	var all []explanation
	var rows [][]string
	for _, e := range problem.All() {
		all = append(all, explain(e))
		rows = append(rows, []string{string(e.Code), e.Meaning})
	}
	return inv.print(all, func() { inv.table([]string{"CODE", "MEANING"}, rows) })
}

func (inv *invocation) explainOne(text string) error {
	all := problem.All()
	at := slices.IndexFunc(all, func(e problem.Entry) bool { return strings.EqualFold(string(e.Code), text) })
	if at < 0 {
		if c, ok := causeOf(text); ok {
			return inv.explainCause(c)
		}
		p := problem.New(problem.CodeNotFound, "No error has the code %q.", text)
		var near []string
		for _, e := range all {
			if strings.Contains(strings.ToLower(string(e.Code)), strings.ToLower(text)) {
				near = append(near, string(e.Code))
			}
		}
		for _, c := range diagnose.All() {
			if strings.Contains(strings.ToLower(c.Code), strings.ToLower(text)) {
				near = append(near, c.Code)
			}
		}
		if len(near) > 0 {
			return p.Do("Perhaps one of these: " + strings.Join(near, ", ") + ".")
		}
		return p
	}
	e := explain(all[at])
	return inv.print(e, func() {
		inv.printf("%s (%s, exit status %d)\n\n%s\n\nWhat to do:\n", e.Code, e.Kind, e.ExitStatus, e.Meaning)
		for _, a := range e.RecommendedAction {
			inv.printf("  - %s\n", a)
		}
	})
}

// cause is what makes a backup slow, as explain shows it.
type cause struct {
	Code              string   `json:"code"`
	Title             string   `json:"title"`
	Meaning           string   `json:"meaning"`
	Signals           []string `json:"signals"`
	Lookalikes        []string `json:"lookalikes"`
	RecommendedAction []string `json:"recommendedAction"`
	NotJudged         string   `json:"notJudged,omitempty"` // why diagnose never names it
}

func causeOf(code string) (cause, bool) {
	for _, e := range diagnose.All() {
		if !strings.EqualFold(e.Code, code) {
			continue
		}
		c := cause{e.Code, e.Title, e.Meaning, e.Signals, e.Lookalikes, nil, ""}
		for _, a := range e.Actions {
			c.RecommendedAction = append(c.RecommendedAction, a.Text)
		}
		if e.Needs != "" {
			c.NotJudged = "diskvault has no " + e.Needs
		}
		return c, true
	}
	return cause{}, false
}

func (inv *invocation) explainCause(c cause) error {
	return inv.print(c, func() {
		inv.printf("%s (a cause of slow backups): %s.\n\n%s\n", c.Code, c.Title, c.Meaning)
		if c.NotJudged != "" {
			inv.printf("\nIt is not looked for: %s.\n", c.NotJudged)
			return
		}
		inv.printf("\nKnown by: %s\nNot to be taken for: %s\n\nWhat to do:\n", strings.Join(c.Signals, ", "), strings.Join(c.Lookalikes, ", "))
		for _, a := range c.RecommendedAction {
			inv.printf("  - %s\n", a)
		}
	})
}
