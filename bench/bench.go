package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Rows of the report. A row is one kind of work, done by every contestant.
const (
	rowBaseline  = "baseline"
	rowFull      = "full"
	rowUnchanged = "unchanged"
	rowRestore   = "restore"
	rowChanged   = "changed"
	rowDatabase  = "database"
	rowAlone     = "sparse: 1 GiB alone"
	rowSpread    = "sparse: 1 GiB in 4 TiB"
	rowTracked   = "tracked"
	rowTenfold   = "tracked: 60 GiB disk"
)

// A bench does rows of work, tool by tool in turn, and keeps every figure.
type bench struct {
	folder      string // for sources, stores and restored images; emptied as the work goes
	contestants []contestant
	rounds      int
	results     *results
}

// systemRows does the rows of the system disk. The order within a round is
// full, unchanged, restore, copy, changed; a row that others need is done even if it
// was not asked for. Within each step every tool has its turn before the next
// step begins, so that a slow minute of the machine falls on all of them.
func (b *bench) systemRows(ctx context.Context, d dataset, wanted map[string]bool) error {
	for round := range b.rounds {
		err := b.inFolder(func(folder string) error {
			return b.systemRound(ctx, folder, d, wanted)
		})
		if err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
	}
	return nil
}

func (b *bench) systemRound(ctx context.Context, folder string, d dataset, wanted map[string]bool) error {
	s, err := newSource(folder, "disk.img")
	if err != nil {
		return err
	}
	if err := place(ctx, d.image(0), s.image); err != nil {
		return err
	}
	if wanted[rowFull] {
		for _, base := range baselines {
			if err := warm(ctx, s.image); err != nil {
				return err
			}
			m, err := base.run(ctx, s.image, folder)
			if err != nil {
				return err
			}
			b.results.add(rowBaseline, base.name, m)
		}
	}
	archives, err := b.open(ctx, folder, s)
	if err != nil {
		return err
	}
	if err := b.backups(ctx, rowFull, s, archives); err != nil {
		return err
	}
	if wanted[rowUnchanged] {
		if err := b.backups(ctx, rowUnchanged, s, archives); err != nil {
			return err
		}
	}
	if wanted[rowRestore] {
		if err := b.restores(ctx, folder, s, archives); err != nil {
			return err
		}
	}
	if wanted[rowCopy] {
		if err := b.copies(ctx, folder, archives); err != nil {
			return err
		}
	}
	if wanted[rowChanged] {
		if err := place(ctx, d.image(1), s.image); err != nil {
			return err
		}
		return b.backups(ctx, rowChanged, s, archives)
	}
	return nil
}

// databaseRow backs the database disk up before and after its updates. What
// counts is the bytes stored, which do not vary, so one round is enough.
func (b *bench) databaseRow(ctx context.Context, d dataset) error {
	return b.inFolder(func(folder string) error {
		s, err := newSource(folder, "database.img")
		if err != nil {
			return err
		}
		if err := place(ctx, d.image(0), s.image); err != nil {
			return err
		}
		archives, err := b.open(ctx, folder, s)
		if err != nil {
			return err
		}
		if err := b.backups(ctx, rowDatabase+": first", s, archives); err != nil {
			return err
		}
		if err := place(ctx, d.image(1), s.image); err != nil {
			return err
		}
		return b.backups(ctx, rowDatabase, s, archives)
	})
}

// sparseRows compares diskvault with itself: the peers would read terabytes of
// zeros, for hours.
func (b *bench) sparseRows(ctx context.Context, d dataset) error {
	own := *b
	own.contestants = nil
	for _, c := range b.contestants {
		if !c.peer {
			own.contestants = append(own.contestants, c)
		}
	}
	if len(own.contestants) == 0 {
		say("the sparse rows are diskvault's alone; skipped")
		return nil
	}
	for range own.rounds {
		for i, row := range []string{rowAlone, rowSpread} {
			err := own.inFolder(func(folder string) error {
				s, err := newSource(folder, "sparse.img")
				if err != nil {
					return err
				}
				// A link, since to copy 4 TiB takes minutes, holes or not.
				if err := os.Link(d.image(i), s.image); err != nil {
					return err
				}
				archives, err := own.open(ctx, folder, s)
				if err != nil {
					return err
				}
				return own.backups(ctx, row, s, archives)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// An opened archive goes with the name of its contestant.
type opened struct {
	name string
	archive
}

func (b *bench) open(ctx context.Context, folder string, s source) ([]opened, error) {
	var out []opened
	for _, c := range b.contestants {
		home := filepath.Join(folder, slug(c.name))
		if err := os.Mkdir(home, 0o700); err != nil {
			return nil, err
		}
		a, err := c.open(home, s)
		if err != nil {
			return nil, err
		}
		if err := a.create(ctx); err != nil {
			return nil, err
		}
		out = append(out, opened{c.name, a})
	}
	return out, nil
}

// backups lets each tool back the source up once, and records time, memory and
// by how much its store grew.
func (b *bench) backups(ctx context.Context, row string, s source, archives []opened) error {
	for _, a := range archives {
		before, err := storeBytes(a)
		if err != nil {
			return err
		}
		if err := warm(ctx, s.image); err != nil {
			return err
		}
		m, err := a.backup(ctx)
		if err != nil {
			return err
		}
		after, err := treeBytes(a.store())
		if err != nil {
			return err
		}
		m.StoredBytes = after - before
		b.results.add(row, a.name, m)
	}
	return nil
}

// restores lets each tool bring the source back from its warm store. Every
// byte is compared, after the clock has stopped.
func (b *bench) restores(ctx context.Context, folder string, s source, archives []opened) error {
	for _, a := range archives {
		into := filepath.Join(folder, "restored")
		if err := os.Mkdir(into, 0o755); err != nil {
			return err
		}
		if err := warm(ctx, a.store()); err != nil {
			return err
		}
		restored, m, err := a.restore(ctx, into)
		if err != nil {
			return err
		}
		if m, err = withFsync(m, restored); err != nil {
			return err
		}
		difference, err := compare(ctx, s.image, restored, 4<<10)
		if err != nil {
			return err
		}
		if difference.differing > 0 {
			return fmt.Errorf("%s restored an image that differs in %d bytes of 4 KiB pages", a.name, difference.differing)
		}
		b.results.add(rowRestore, a.name, m)
		if err := os.RemoveAll(into); err != nil {
			return err
		}
	}
	return nil
}

// withFsync puts the file on stable storage and adds the time that it took.
func withFsync(m measurement, path string) (measurement, error) {
	if m.DurableSeconds == 0 {
		m.DurableSeconds = m.Seconds
	}
	start := time.Now()
	err := fsyncFile(path)
	m.DurableSeconds += time.Since(start).Seconds()
	return m, err
}

// storeBytes is the size of a store, which may not be there yet.
func storeBytes(a archive) (int64, error) {
	if _, err := os.Stat(a.store()); os.IsNotExist(err) {
		return 0, nil
	}
	return treeBytes(a.store())
}

func newSource(folder, image string) (source, error) {
	s := source{folder: filepath.Join(folder, "source")}
	s.image = filepath.Join(s.folder, image)
	return s, os.Mkdir(s.folder, 0o755)
}

// inFolder runs a step in a new folder and removes it afterwards.
func (b *bench) inFolder(step func(folder string) error) error {
	folder, err := os.MkdirTemp(b.folder, "")
	if err != nil {
		return err
	}
	return errors.Join(step(folder), os.RemoveAll(folder))
}
