package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A report is everything that one run of this program found out.
type report struct {
	Environment environment       `json:"environment"`
	Again       string            `json:"command"`              // the command that repeats it
	Incomplete  string            `json:"incomplete,omitempty"` // why the run ended before its last row
	Scale       float64           `json:"scale"`
	Rounds      int               `json:"rounds"`
	Datasets    []dataset         `json:"datasets"`
	Settings    map[string]string `json:"settings"`
	Results     []result          `json:"results"`
	Verdicts    []verdict         `json:"verdicts"`
}

// write puts the report into a file whose name ends in .md or .json.
func (r report) write(path string) error {
	switch filepath.Ext(path) {
	case ".md":
		return os.WriteFile(path, []byte(r.markdown()), 0o644)
	case ".json":
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		return os.WriteFile(path, append(text, '\n'), 0o644)
	}
	return fmt.Errorf("--out %s: the name must end in .md or .json", path)
}

// markdown is the report for people, ready for docs/benchmarks.md. The column
// of limiting factors is left to be filled in by who profiled.
func (r report) markdown() string {
	var b strings.Builder
	e := r.Environment
	fmt.Fprintf(&b, "| | |\n|---|---|\n")
	fmt.Fprintf(&b, "| measured | %s, best of %d |\n", e.Time.Format("2006-01-02 15:04 MST"), r.Rounds)
	fmt.Fprintf(&b, "| machine | %d cores, %s, %d GiB memory |\n", e.Cores, e.CPU, (e.Memory+1<<29)>>30)
	fmt.Fprintf(&b, "| system | %s, kernel %s, data and stores on %s |\n", e.System, e.Kernel, e.FileSystem)
	fmt.Fprintf(&b, "| load before | %s (1, 5, 15 minutes) |\n", e.Load)
	fmt.Fprintf(&b, "| programs | %s |\n", strings.Join(e.Versions, "; "))
	for _, d := range r.Datasets {
		fmt.Fprintf(&b, "| data: %s | %s |\n", d.Name, d.About)
	}
	if r.Scale != 1 {
		fmt.Fprintf(&b, "| **not the real size** | all data at %g of the size that the bounds are meant for |\n", r.Scale)
	}
	if r.Incomplete != "" {
		fmt.Fprintf(&b, "| **not complete** | %s |\n", strings.ReplaceAll(r.Incomplete, "\n", " "))
	}
	fmt.Fprintf(&b, "| again | `%s` |\n", r.Again)

	if len(r.Verdicts) > 0 {
		b.WriteString("\n### Ratios\n\n| row | what | diskvault | reference | ratio | at most | met | limiting factor |\n|---|---|---|---|---|---|---|---|\n")
		for _, v := range r.Verdicts {
			reference, ratio, atMost := "", "", fmt.Sprintf("%g %s", v.AtMost, v.Unit)
			if v.Against != "" {
				reference = fmt.Sprintf("%s: %s", v.Against, quantity(v.Reference, v.Unit))
				ratio, atMost = fmt.Sprintf("%.2f", v.Ratio), fmt.Sprintf("%.2f", v.AtMost)
			}
			met := "yes"
			if !v.Met {
				met = "**no**"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | |\n", v.Row, v.What, quantity(v.Figure, v.Unit), reference, ratio, atMost, met)
		}
	}

	b.WriteString("\n### Figures\n\n| row | tool | seconds | all runs | with fsync | CPU seconds | peak MiB | stored MiB |\n|---|---|---|---|---|---|---|---|\n")
	for _, one := range r.Results {
		best := one.best()
		var all []string
		for _, m := range one.Runs {
			all = append(all, fmt.Sprintf("%.2f", m.Seconds))
		}
		fmt.Fprintf(&b, "| %s | %s | %.2f | %s | %s | %.2f | %s | %s |\n", one.Row, one.Contestant, best.Seconds, strings.Join(all, ", "),
			unlessZero("%.2f", one.durable()), best.UserSeconds+best.SystemSeconds, unlessZero("%.0f", peakMiB(one)), unlessZero("%.1f", storedMiB(one)))
	}
	fmt.Fprintf(&b, "\nPeak is `ru_maxrss`; the measuring program's own, below which nothing can be seen, is %s.\n", mib(e.OwnPeak))

	b.WriteString("\n### Command lines\n\n")
	for _, one := range r.Results {
		fmt.Fprintf(&b, "- %s, %s: `%s`\n", one.Row, one.Contestant, shortCommand(one.Runs[0].Command))
	}
	b.WriteString("\nSettings:\n")
	var tools []string
	for name := range r.Settings {
		tools = append(tools, name)
	}
	slices.Sort(tools)
	for _, name := range tools {
		fmt.Fprintf(&b, "- %s: %s\n", name, r.Settings[name])
	}
	return b.String()
}

func quantity(x float64, unit string) string {
	if unit == seconds {
		return fmt.Sprintf("%.2f s", x)
	}
	return fmt.Sprintf("%.1f %s", x, unit)
}

func unlessZero(format string, x float64) string {
	if x == 0 {
		return ""
	}
	return fmt.Sprintf(format, x)
}

var (
	runFolder     = regexp.MustCompile(`[^ =]*/run/[0-9]+/`)
	programFolder = regexp.MustCompile(`^[^ ]*/`)
	snapshotID    = regexp.MustCompile(`\b[0-9a-f]{32}\b`)
)

// shortCommand leaves out of a command line what differs from run to run.
func shortCommand(c string) string {
	return snapshotID.ReplaceAllString(programFolder.ReplaceAllString(runFolder.ReplaceAllString(c, ""), ""), "ID")
}
