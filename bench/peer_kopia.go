package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
)

// kopia set up for disk images as well as it can be: chunks of fixed size and
// its fastest hash (on two cores its defaults read an unchanged image three
// times slower), its default encryption, and a compressor, since its own
// default is to compress nothing.
type kopia struct {
	program     string
	env         []string
	home        string
	source      source
	compression string
	newest      string // manifest of the newest snapshot
}

func kopiaContestant(name, compression string) contestant {
	return contestant{
		name: name, tool: "kopia", peer: true,
		settings: "repository with `--object-splitter=FIXED-1M --block-hash=BLAKE3-256-128` (for images faster and, after scattered writes, " +
			"smaller than the defaults), default encryption, global policy `--compression=" + compression + "`; " +
			"`--force-hash=100` reads everything again",
		version: func(ctx context.Context) (string, error) {
			line, err := versionOf(ctx, "kopia", "--version")
			version, _, _ := strings.Cut(line, " ")
			return "kopia " + version, err
		},
		open: func(home string, s source) (archive, error) {
			program, err := find("kopia")
			if err != nil {
				return nil, err
			}
			env, err := cleanEnvironment(home,
				"KOPIA_PASSWORD=benchmark",
				"KOPIA_CONFIG_PATH="+filepath.Join(home, "kopia.config"),
				"KOPIA_CACHE_DIRECTORY="+filepath.Join(home, "cache"),
				"KOPIA_LOG_DIR="+filepath.Join(home, "log"),
				"KOPIA_CHECK_FOR_UPDATES=false",
				"KOPIA_USE_KEYRING=false",
				"KOPIA_PERSIST_CREDENTIALS_ON_CONNECT=false")
			return &kopia{program: program, env: env, home: home, source: s, compression: compression}, err
		},
	}
}

func (k *kopia) command(args ...string) command {
	return command{args: append([]string{k.program}, args...), env: k.env}
}

func (k *kopia) create(ctx context.Context) error {
	if _, err := output(ctx, k.command("repository", "create", "filesystem", "--path="+k.store(),
		"--object-splitter=FIXED-1M", "--block-hash=BLAKE3-256-128")); err != nil {
		return err
	}
	_, err := output(ctx, k.command("policy", "set", "--global", "--compression="+k.compression))
	return err
}

func (k *kopia) backup(ctx context.Context) (measurement, error) {
	m, out, err := timed(ctx, k.command("snapshot", "create", "--no-progress", "--json", "--force-hash=100", k.source.folder))
	if err != nil {
		return m, err
	}
	var snapshot struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(out, &snapshot); err != nil || snapshot.ID == "" {
		return m, fmt.Errorf("kopia snapshot create printed no snapshot ID: %q (%v)", out, err)
	}
	k.newest = snapshot.ID
	return m, nil
}

func (k *kopia) restore(ctx context.Context, into string) (string, measurement, error) {
	m, _, err := timed(ctx, k.command("restore", "--no-progress", "--write-sparse-files", k.newest, into))
	return filepath.Join(into, filepath.Base(k.source.image)), m, err
}

func (k *kopia) store() string { return filepath.Join(k.home, "store") }
