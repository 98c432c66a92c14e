package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
)

// kopia with its defaults (AES-256-GCM, content-defined chunks of about 4 MiB)
// and one compressor chosen, since its own default is to compress nothing.
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
		settings: "defaults, global policy `--compression=" + compression + "` (its own default compresses nothing); " +
			"`--force-hash=100` reads everything again; restore with `--write-sparse-files`",
		version: func(ctx context.Context) (string, error) {
			line, err := versionOf(ctx, "kopia", "--version")
			return "kopia " + line, err
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
	if _, err := output(ctx, k.command("repository", "create", "filesystem", "--path="+k.store())); err != nil {
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
