package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the build: -ldflags "-X github.com/diskvault/diskvault/cli.version=v1.2.3".
var version string

type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readVersion() versionInfo {
	v := versionInfo{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if b, ok := debug.ReadBuildInfo(); ok {
		if v.Version == "" {
			v.Version = b.Main.Version
		}
		for _, s := range b.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Commit = s.Value
			case "vcs.time":
				v.Time = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	return v
}

func newVersion(inv *invocation) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  diskvault version -o json",
		Args:    atMost(0),
		RunE: func(*cobra.Command, []string) error {
			v := readVersion()
			return inv.print(v, func() {
				inv.printf("diskvault %s (%s, %s)\n", v.Version, v.Go, v.Platform)
				if v.Commit != "" {
					modified := ""
					if v.Modified {
						modified = ", with changes"
					}
					inv.printf("commit %s of %s%s\n", v.Commit, v.Time, modified)
				}
			})
		},
	}
}
