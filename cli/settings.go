package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/diskvault/diskvault/base/problem"
)

// settings are what may stand in the environment and in config.yaml: for each
// the flag of the same name, if it has one, and what it is for.
var settings = map[string]string{
	"output":        "how results are printed: table, json or yaml",
	"quiet":         "print results, warnings and errors only",
	"no-color":      "print without colors",
	"store":         "URL of the store for disks that are protected from now on",
	"compression":   "auto, fast, default, max or none",
	"limit-rate":    "bytes read per second at most, as 50M",
	"retention-tag": "retention tag of new points",
	"key-file":      "file with a key or passphrase of the store",
	"jobs":          "how many jobs run at a time",

	"listen":            "address of the server for checks of health",
	"tls-listen":        "address of the server's ARM API",
	"public-url":        "URL by which clients reach the ARM API",
	"database":          "URL of a PostgreSQL database that several hosts share",
	"location":          "locations whose disks the server reaches",
	"issuer":            "outside OpenID issuer that is trusted instead of the own one",
	"audience":          "audience that tokens of the issuer must be for",
	"request-rate":      "requests a second that a caller may send to the server",
	"on-demand-per-day": "backups, and restores, on demand that an instance may have in a day",

	"stall-budget":         "how long a capture may hold up the writers of a disk, as 1s",
	"diagnosis-min-excess": "by how much a backup must be late to be called slower, as 5m",

	"full-read-days": "after how many days all of a disk is read although its changes are tracked",
}

// notForCommand names settings whose flag means something else in a command.
// A store set for backups does not redirect a restore to another source.
func settingApplies(cmd *cobra.Command, name string) bool {
	return name != "store" || cmd.Name() == "backup"
}

// applySettings gives each flag that was not set the value of the
// environment, or else of config.yaml.
func (inv *invocation) applySettings(cmd *cobra.Command) error {
	file, err := inv.config()
	if err != nil {
		return err
	}
	var failed error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if _, ok := settings[f.Name]; !ok || f.Changed || failed != nil || !settingApplies(cmd, f.Name) {
			return
		}
		name := envName(f.Name)
		value, from := inv.env[name], "the environment variable "+name
		if value == "" {
			value, from = file[f.Name], filepath.Join(inv.homePath(), "config.yaml")
		}
		if value == "" {
			return
		}
		if err := f.Value.Set(value); err != nil {
			failed = problem.Wrap(err, problem.InvalidArgument, "The setting %s in %s cannot be %q.", f.Name, from, value)
		}
	})
	return failed
}

func envName(setting string) string {
	return "DISKVAULT_" + strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
}

// config reads config.yaml of the data folder, which need not exist. A
// setting that nobody knows is refused: it is most likely a typing error.
func (inv *invocation) config() (map[string]string, error) {
	path := filepath.Join(inv.homePath(), "config.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			return nil, nil // a folder that cannot be used is reported when it is
		}
		return nil, nil
	}
	raw := map[string]any{}
	if err := yaml.Unmarshal(data, &raw); err != nil {
		return nil, problem.Wrap(err, problem.InvalidArgument, "The settings file %s cannot be read.", path)
	}
	out := map[string]string{}
	for name, value := range raw {
		if _, ok := settings[name]; !ok {
			return nil, problem.New(problem.InvalidArgument, "The settings file %s has a setting %q, which does not exist.", path, name)
		}
		switch value.(type) {
		case string, bool, int, float64:
			out[name] = fmt.Sprint(value)
		default:
			return nil, problem.New(problem.InvalidArgument, "The setting %s in %s must be one value.", name, path)
		}
	}
	return out, nil
}

// jobsAtATime is a setting without a flag: it concerns the data folder, not a
// single call.
func (inv *invocation) jobsAtATime() (int, error) {
	value := inv.env[envName("jobs")]
	if value == "" {
		file, err := inv.config()
		if err != nil {
			return 0, err
		}
		value = file["jobs"]
	}
	if value == "" {
		return 1, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > 64 {
		return 0, problem.New(problem.InvalidArgument, "The setting jobs must be a number from 1 to 64, not %q.", value)
	}
	return n, nil
}

// keyFlag is --key-file, with the environment behind it.
type keyFlag struct{ file string }

func (k *keyFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&k.file, "key-file", "", "file with the recovery key or passphrase of the store (default: the key of this machine, or $DISKVAULT_KEY)")
}

// text gives the key; empty for that of this machine.
func (k *keyFlag) text(inv *invocation) (string, error) {
	if k.file == "" {
		return inv.env["DISKVAULT_KEY"], nil
	}
	data, err := os.ReadFile(k.file)
	if err != nil {
		return "", problem.Wrap(err, problem.KeyMissing, "The key file %s cannot be read.", k.file)
	}
	if len(data) > 64<<10 || strings.TrimSpace(string(data)) == "" {
		return "", problem.New(problem.KeyMissing, "The key file %s holds no key.", k.file)
	}
	return string(data), nil
}

// parseSize reads an amount of bytes: 512, 64K, 1.5GiB. Units are binary.
func parseSize(text string) (int64, error) {
	t := strings.TrimSpace(text)
	t = strings.TrimSuffix(t, "/s")
	t = strings.TrimSuffix(strings.TrimSuffix(t, "B"), "i")
	shift := 0
	if t != "" {
		if i := strings.IndexByte("KMGTP", t[len(t)-1]&^0x20); i >= 0 {
			shift, t = 10*(i+1), t[:len(t)-1]
		}
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(t), 64)
	if err != nil || !(f >= 0) || f*float64(int64(1)<<shift) >= 1<<62 {
		return 0, fmt.Errorf("%q is no amount of bytes such as 64K, 50M or 1.5G", text)
	}
	return int64(f * float64(int64(1)<<shift)), nil
}

// sizeFlag is a flag whose value is an amount of bytes.
type sizeFlag struct{ bytes int64 }

func (f *sizeFlag) String() string {
	if f.bytes == 0 {
		return ""
	}
	return size(f.bytes)
}
func (f *sizeFlag) Type() string { return "SIZE" }
func (f *sizeFlag) Set(text string) (err error) {
	f.bytes, err = parseSize(text)
	return err
}

// parseSince reads how far to look back: 36h, 7d, or a time.
func parseSince(text string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither a span such as 36h or 7d nor a time such as 2006-01-02", text)
}
