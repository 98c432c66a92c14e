package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
)

const (
	rowCopy      = "copy"
	rowCopyAgain = "copy: unchanged"
)

// copier is an archive that can copy its store to another one.
type copier interface {
	// secondStore makes the store that is copied to.
	secondStore(ctx context.Context, folder string) error
	// copy gives it all that it lacks.
	copy(ctx context.Context, folder string) (measurement, error)
}

// copies lets each tool that can copy its warm store to a second one, and then
// find out that nothing is left to do.
func (b *bench) copies(ctx context.Context, folder string, archives []opened) error {
	for _, a := range archives {
		c, ok := a.archive.(copier)
		if !ok {
			continue
		}
		into := filepath.Join(folder, "second-"+slug(a.name))
		if err := c.secondStore(ctx, into); err != nil {
			return err
		}
		if err := warm(ctx, a.store()); err != nil {
			return err
		}
		for _, row := range []string{rowCopy, rowCopyAgain} {
			before, err := treeBytes(into)
			if err != nil {
				return err
			}
			m, err := c.copy(ctx, into)
			if err != nil {
				return err
			}
			after, err := treeBytes(into)
			if err != nil {
				return err
			}
			m.StoredBytes = after - before
			b.results.add(row, a.name, m)
		}
	}
	return nil
}

func (d *diskvault) secondStore(ctx context.Context, folder string) error {
	_, err := output(ctx, d.command("store", "create", folder))
	return err
}

func (d *diskvault) copy(ctx context.Context, folder string) (measurement, error) {
	m, out, err := timed(ctx, d.command("store", "copy", folder, "-o", "json"))
	if err != nil {
		return m, err
	}
	var result struct {
		Status string `json:"status"`
		Bytes  struct {
			Read int64 `json:"read"`
		} `json:"bytes"`
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return m, fmt.Errorf("diskvault store copy printed %q: %w", out, err)
	}
	if result.Status != "Completed" {
		return m, fmt.Errorf("diskvault store copy did not copy all: %s", out)
	}
	m.ReadBytes = result.Bytes.Read
	return m, nil
}
