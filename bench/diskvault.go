package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// diskvault, known here only by its command line. Its first backup also makes
// the data folder and the store in it; that is counted.
type diskvault struct {
	program     string
	env         []string
	home        string
	source      source
	compression string // empty: the default
	instance    string // as its first backup named it
	tracked     bool   // rely on change tracking
}

// track implements tracker.
func (d *diskvault) track() { d.tracked = true }

// diskvaultContestant runs the program at path. The compression is that of
// `diskvault backup --compression`; empty leaves the flag out.
func diskvaultContestant(name, path, compression string) contestant {
	settings := "defaults; `--full-scan` reads everything again"
	if compression != "" {
		settings = "`--compression " + compression + "`; `--full-scan` reads everything again"
	}
	return contestant{
		name: name, tool: "diskvault", settings: settings,
		version: func(ctx context.Context) (string, error) {
			return versionOf(ctx, path, "version")
		},
		open: func(home string, s source) (archive, error) {
			env, err := cleanEnvironment(home)
			return &diskvault{program: path, env: env, home: home, source: s, compression: compression}, err
		},
	}
}

// buildDiskvault builds the program that people get: static, without cgo.
func buildDiskvault(ctx context.Context, into string) (string, error) {
	if _, err := os.Stat(filepath.Join("cmd", "diskvault")); err != nil {
		return "", fmt.Errorf("there is no ./cmd/diskvault to build here: run this from the root of the repository, "+
			"name a program with --diskvault, or compare the peers alone with --only peers: %w", err)
	}
	program := filepath.Join(into, "diskvault")
	_, err := output(ctx, command{
		args: []string{"go", "build", "-trimpath", "-o", program, "./cmd/diskvault"},
		env:  append(os.Environ(), "CGO_ENABLED=0"),
	})
	return program, err
}

func (d *diskvault) command(args ...string) command {
	return command{args: append([]string{d.program, "--home", d.folder()}, args...), env: d.env}
}

// folder is the data folder. It is not made here: the first backup does it.
func (d *diskvault) folder() string { return filepath.Join(d.home, "data") }

func (d *diskvault) create(context.Context) error { return nil }

func (d *diskvault) backup(ctx context.Context) (measurement, error) {
	args := []string{"backup", d.source.image}
	if !d.tracked {
		args = append(args, "--full-scan")
	}
	args = append(args, "-o", "json")
	if d.compression != "" {
		args = append(args, "--compression", d.compression)
	}
	m, out, err := timed(ctx, d.command(args...))
	if err != nil {
		return m, err
	}
	var result struct {
		Instance      string `json:"instance"`
		Status        string `json:"status"`
		RecoveryPoint struct {
			Consistency string `json:"consistency"`
		} `json:"recoveryPoint"`
		ChangeTracking struct {
			Method string `json:"method"`
			Reason string `json:"reason"`
		} `json:"changeTracking"`
		Bytes struct {
			Read int64 `json:"read"`
		} `json:"bytes"`
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return m, fmt.Errorf("diskvault backup printed %q: %w", out, err)
	}
	if result.Status != "Completed" || result.RecoveryPoint.Consistency != "crashConsistent" || result.Instance == "" {
		return m, fmt.Errorf("diskvault backup did not complete with a consistent point: %s", out)
	}
	if d.tracked && result.ChangeTracking.Method == "none" {
		return m, fmt.Errorf("diskvault backup tracked no changes (%s): the work folder must lie on XFS or btrfs", result.ChangeTracking.Reason)
	}
	d.instance, m.ReadBytes = result.Instance, result.Bytes.Read
	return m, nil
}

// restore also takes out the time that diskvault itself says it spent on
// putting the result on stable storage, since the peers spend none: Seconds
// goes without it, DurableSeconds has it, and the fsync that follows finds
// nothing left to do.
func (d *diskvault) restore(ctx context.Context, into string) (string, measurement, error) {
	target := filepath.Join(into, filepath.Base(d.source.image))
	m, out, err := timed(ctx, d.command("restore", d.instance, "--to", target, "-o", "json"))
	if err != nil {
		return target, m, err
	}
	var result struct {
		Verified bool `json:"verified"`
		Phases   []struct {
			Phase   string  `json:"phase"`
			Seconds float64 `json:"seconds"`
		} `json:"phases"`
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return target, m, fmt.Errorf("diskvault restore printed %q: %w", out, err)
	}
	if !result.Verified {
		return target, m, fmt.Errorf("diskvault restore did not verify what it wrote: %s", out)
	}
	m.DurableSeconds = m.Seconds
	for _, p := range result.Phases {
		if p.Phase == "commit" {
			m.Seconds -= p.Seconds
		}
	}
	return target, m, nil
}

func (d *diskvault) store() string { return filepath.Join(d.folder(), "store") }
