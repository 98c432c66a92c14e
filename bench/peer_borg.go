package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// borg set up for disk images: chunks of fixed size, which its manual
// recommends for them, holes skipped, zstd as the others have it, and the
// encryption that is faster where the processor has SHA instructions.
type borg struct {
	program string
	env     []string
	home    string
	source  source
	backups int
}

func borgContestant() contestant {
	return contestant{
		name: borgZstd, tool: "borg", peer: true,
		settings: "`--encryption repokey`; `--chunker-params fixed,1048576 --sparse --compression zstd,1`; `--files-cache disabled` reads everything again",
		version: func(ctx context.Context) (string, error) {
			return versionOf(ctx, "borg", "--version")
		},
		open: func(home string, s source) (archive, error) {
			program, err := find("borg")
			if err != nil {
				return nil, err
			}
			env, err := cleanEnvironment(home,
				"BORG_PASSPHRASE=benchmark",
				"BORG_BASE_DIR="+filepath.Join(home, "base"))
			return &borg{program: program, env: env, home: home, source: s}, err
		},
	}
}

func (b *borg) command(dir string, args ...string) command {
	return command{args: append([]string{b.program}, args...), env: b.env, dir: dir}
}

func (b *borg) create(ctx context.Context) error {
	_, err := output(ctx, b.command("", "init", "--encryption", "repokey", b.store()))
	return err
}

func (b *borg) newest() string { return fmt.Sprintf("%s::backup-%d", b.store(), b.backups) }

func (b *borg) backup(ctx context.Context) (measurement, error) {
	b.backups++
	m, _, err := timed(ctx, b.command(b.source.folder,
		"create", "--chunker-params", "fixed,1048576", "--sparse", "--compression", "zstd,1", "--files-cache", "disabled", b.newest(), filepath.Base(b.source.image)))
	return m, err
}

func (b *borg) restore(ctx context.Context, into string) (string, measurement, error) {
	m, _, err := timed(ctx, b.command(into, "extract", "--sparse", b.newest()))
	return filepath.Join(into, filepath.Base(b.source.image)), m, err
}

func (b *borg) store() string { return filepath.Join(b.home, "store") }
