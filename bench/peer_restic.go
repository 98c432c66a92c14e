package main

import (
	"bytes"
	"context"
	"path/filepath"
)

// restic with its defaults: repository version 2, compression auto, AES-256.
type restic struct {
	program string
	env     []string
	home    string
	source  source
}

func resticContestant() contestant {
	return contestant{
		name: resticDefault, tool: "restic", peer: true,
		settings: "defaults: repository version 2, `--compression auto`; `--force` reads everything again",
		version: func(ctx context.Context) (string, error) {
			return versionOf(ctx, "restic", "version")
		},
		open: func(home string, s source) (archive, error) {
			program, err := find("restic")
			if err != nil {
				return nil, err
			}
			env, err := cleanEnvironment(home,
				"RESTIC_PASSWORD=benchmark",
				"RESTIC_REPOSITORY="+filepath.Join(home, "store"),
				"RESTIC_CACHE_DIR="+filepath.Join(home, "cache"))
			return &restic{program, env, home, s}, err
		},
	}
}

func (r *restic) command(args ...string) command {
	return command{args: append([]string{r.program}, args...), env: r.env}
}

func (r *restic) create(ctx context.Context) error {
	_, err := output(ctx, r.command("init", "--quiet"))
	return err
}

func (r *restic) backup(ctx context.Context) (measurement, error) {
	m, _, err := timed(ctx, r.command("backup", "--quiet", "--force", r.source.folder))
	return m, err
}

// restore puts the source's absolute path below the target.
func (r *restic) restore(ctx context.Context, into string) (string, measurement, error) {
	m, _, err := timed(ctx, r.command("restore", "latest", "--quiet", "--target", into))
	return filepath.Join(into, r.source.image), m, err
}

func (r *restic) store() string { return filepath.Join(r.home, "store") }

// versionOf is the first line that a program prints about itself.
func versionOf(ctx context.Context, program string, args ...string) (string, error) {
	path, err := find(program)
	if err != nil {
		return "", err
	}
	out, err := output(ctx, command{args: append([]string{path}, args...), env: []string{"PATH=/usr/bin:/bin", "HOME=/nonexistent"}})
	line, _, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
	return string(line), err
}
