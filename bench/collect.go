package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	rowCollect       = "collect"
	rowCollectBeside = "collect: backup beside"
	rowCollectAlone  = "collect: backup alone"
	rowCollectSpace  = "collect: space"
	rowCollectLive   = "collect: live bytes"

	collectPoints = 450
	collectBytes  = 4 << 30
	collectPieces = 16 // of 256 KiB, overwritten between two points
)

// collector is an archive that can give back the space of deleted points.
type collector interface {
	// thin deletes every second of the points.
	thin(ctx context.Context) error
	// collect gives back their space.
	collect(ctx context.Context) (measurement, error)
}

// collectRow gives every tool the same history of a disk, deletes every second
// of its points, and times what gives the space back. The deletion itself is not
// timed: two of the peers do it apart, too.
func (b *bench) collectRow(ctx context.Context, scale float64) error {
	points := max(20, int(collectPoints*scale))
	bytes := library{scale: scale}.scaled(collectBytes)
	for range b.rounds {
		if err := b.inFolder(func(folder string) error { return b.collectRound(ctx, folder, points, bytes) }); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) collectRound(ctx context.Context, folder string, points int, bytes int64) error {
	s, err := newSource(folder, "disk.img")
	if err != nil {
		return err
	}
	if err := writeDatabase(ctx, s.image, int(bytes/pageBytes)); err != nil {
		return err
	}
	own := *b
	own.contestants = nil
	for _, c := range b.contestants {
		if c.name == diskvaultDefault || c.name == kopiaZstd || c.name == resticDefault {
			own.contestants = append(own.contestants, c)
		}
	}
	archives, err := own.open(ctx, folder, s)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(databaseSeed, 77))
	for n := range points {
		if n > 0 {
			if err := sprinkle(s.image, bytes, random); err != nil {
				return err
			}
		}
		for _, a := range archives {
			if _, err := a.backup(ctx); err != nil {
				return err
			}
		}
		if n%10 == 9 {
			say("collect: %d of %d points", n+1, points)
		}
	}
	for _, a := range archives {
		c, ok := a.archive.(collector)
		if !ok {
			continue
		}
		if err := c.thin(ctx); err != nil {
			return err
		}
		if d, ok := a.archive.(*diskvault); ok {
			if err := b.beside(ctx, folder, d, bytes); err != nil {
				return err
			}
		}
		if err := warm(ctx, a.store()); err != nil {
			return err
		}
		m, err := c.collect(ctx)
		if err != nil {
			return err
		}
		b.results.add(rowCollect, a.name, m)
		if d, ok := a.archive.(*diskvault); ok {
			if err := b.space(ctx, folder, a.name, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// sprinkle overwrites some pieces of a disk.
func sprinkle(path string, bytes int64, random *rand.Rand) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	piece := make([]byte, 256<<10)
	for range collectPieces {
		for i := range piece {
			piece[i] = byte(random.Uint32()) & 0x3f // compresses to three quarters
		}
		if _, err := f.WriteAt(piece, random.Int64N(bytes/4096-64)*4096); err != nil {
			return err
		}
	}
	return f.Close()
}

// beside times a backup of another disk into a copy of the data folder, once
// alone and once beside a collection.
func (b *bench) beside(ctx context.Context, folder string, d *diskvault, bytes int64) error {
	for _, row := range []string{rowCollectAlone, rowCollectBeside} {
		err := b.inFolder(func(within string) error {
			other := &diskvault{program: d.program, env: d.env, home: filepath.Join(within, "home"), source: source{folder: within, image: filepath.Join(within, "other.img")}}
			if err := os.CopyFS(other.folder(), os.DirFS(d.folder())); err != nil {
				return err
			}
			if err := writeNoise(other.source.image, bytes); err != nil {
				return err
			}
			if err := warm(ctx, other.source.image); err != nil {
				return err
			}
			store := "file:" + other.store()
			var beside *exec.Cmd
			if row == rowCollectBeside {
				c := other.command("store", "collect", store, "--grace", "0s", "--max-unused", "0")
				beside = exec.CommandContext(ctx, c.args[0], c.args[1:]...)
				beside.Env = c.env
				if err := beside.Start(); err != nil {
					return err
				}
			}
			m, out, err := timed(ctx, other.command("backup", other.source.image, "--store", store, "-o", "json"))
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			b.results.add(row, diskvaultDefault, m)
			if beside != nil {
				return beside.Wait()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func writeNoise(path string, bytes int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	random := rand.NewChaCha8([32]byte{1})
	piece := make([]byte, 1<<20)
	for off := int64(0); off < bytes; off += int64(len(piece)) {
		if _, err := random.Read(piece); err != nil {
			return err
		}
		for i := range piece {
			piece[i] &= 0x3f
		}
		if _, err := f.Write(piece); err != nil {
			return err
		}
	}
	return f.Close()
}

// space compares what the store takes after the collection with what the points
// that are left take in a store of their own.
func (b *bench) space(ctx context.Context, folder, name string, d *diskvault) error {
	taken, err := treeBytes(d.store())
	if err != nil {
		return err
	}
	into := filepath.Join(folder, "live")
	if err := d.secondStore(ctx, into); err != nil {
		return err
	}
	if _, err := d.copy(ctx, into); err != nil {
		return err
	}
	live, err := treeBytes(into)
	if err != nil {
		return err
	}
	b.results.add(rowCollectSpace, name, measurement{StoredBytes: taken})
	b.results.add(rowCollectLive, name, measurement{StoredBytes: live})
	return nil
}

func (d *diskvault) thin(ctx context.Context) error {
	out, err := output(ctx, d.command("points", d.instance, "-o", "json"))
	if err != nil {
		return err
	}
	var points []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(out, &points); err != nil {
		return err
	}
	args := []string{"recovery-point", "delete", d.instance}
	for i, p := range points {
		if i%2 == 1 {
			args = append(args, "--point", p.ID)
		}
	}
	_, err = output(ctx, d.command(args...))
	return err
}

func (d *diskvault) collect(ctx context.Context) (measurement, error) {
	m, out, err := timed(ctx, d.command("store", "collect", "--grace", "0s", "-o", "json"))
	if err != nil {
		return m, err
	}
	var report struct {
		Removed struct {
			Packs int64 `json:"packs"`
		} `json:"removed"`
		WaitingFor string `json:"waitingFor"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return m, fmt.Errorf("diskvault store collect printed %q: %w", out, err)
	}
	if report.Removed.Packs == 0 || report.WaitingFor != "" {
		return m, fmt.Errorf("diskvault store collect did not remove anything: %s", out)
	}
	return m, nil
}

func (r *restic) thin(ctx context.Context) error {
	out, err := output(ctx, r.command("snapshots", "--json"))
	if err != nil {
		return err
	}
	var all []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(out, &all); err != nil {
		return err
	}
	args := []string{"forget", "--quiet"}
	for i, s := range all {
		if i%2 == 1 {
			args = append(args, s.ID)
		}
	}
	_, err = output(ctx, r.command(args...))
	return err
}

func (r *restic) collect(ctx context.Context) (measurement, error) {
	m, _, err := timed(ctx, r.command("prune", "--quiet"))
	return m, err
}

func (k *kopia) thin(ctx context.Context) error {
	out, err := output(ctx, k.command("snapshot", "list", "--all", "--json"))
	if err != nil {
		return err
	}
	var all []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(out, &all); err != nil {
		return err
	}
	args := []string{"snapshot", "delete", "--delete"}
	for i, s := range all {
		if i%2 == 1 {
			args = append(args, s.ID)
		}
	}
	_, err = output(ctx, k.command(args...))
	return err
}

// collect gives up the safety margins, as one who knows that nobody else uses
// the repository may: with them kopia would free nothing for hours.
func (k *kopia) collect(ctx context.Context) (measurement, error) {
	m, out, err := timed(ctx, k.command("maintenance", "run", "--full", "--safety=none"))
	if err != nil && strings.Contains(string(out), "owner") {
		return m, fmt.Errorf("kopia maintenance: %s", out)
	}
	return m, err
}
