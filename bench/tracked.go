package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
)

const (
	// trackedPieces is how many pieces of one MiB are overwritten between two
	// backups. With what that makes of the disk it stays below 2,000 extents.
	trackedPieces = 256
	pieceBytes    = 1 << 20
	tenfold       = 10
)

// tracker is an archive that can rely on change tracking instead of reading
// everything again.
type tracker interface{ track() }

// trackedRows overwrites 256 MiB of a disk of 6 GiB, in pieces of 1 MiB at
// places of 4 KiB, and of one that is ten times as large and holds as much. The
// stores and the disks lie in the work folder, which must be on XFS or btrfs.
func (b *bench) trackedRows(ctx context.Context, scale float64) error {
	l := library{scale: scale}
	bytes := l.scaled(6 << 30)
	for round := range b.rounds {
		for _, larger := range []bool{false, true} {
			err := b.inFolder(func(folder string) error { return b.trackedRound(ctx, folder, bytes, larger, uint64(round)) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) trackedRound(ctx context.Context, folder string, bytes int64, larger bool, round uint64) error {
	own, row := *b, rowTracked
	if larger {
		// The peers would read all of its zeros.
		own.contestants, row = nil, rowTenfold
		for _, c := range b.contestants {
			if !c.peer {
				own.contestants = append(own.contestants, c)
			}
		}
	}
	s, err := newSource(folder, "disk.img")
	if err != nil {
		return err
	}
	if err := writeDatabase(ctx, s.image, int(bytes/pageBytes)); err != nil {
		return err
	}
	if larger {
		if err := os.Truncate(s.image, tenfold*bytes); err != nil {
			return err
		}
	}
	archives, err := own.open(ctx, folder, s)
	if err != nil {
		return err
	}
	if err := own.backups(ctx, row+": first", s, archives); err != nil {
		return err
	}
	for _, a := range archives {
		if t, ok := a.archive.(tracker); ok {
			t.track()
		}
	}
	if err := overwrite(s.image, bytes, round); err != nil {
		return err
	}
	return own.backups(ctx, row, s, archives)
}

// overwrite puts noise over pieces of the first bytes of an image that do not
// overlap.
func overwrite(path string, bytes int64, seed uint64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	random := rand.New(rand.NewPCG(databaseSeed, seed))
	piece := make([]byte, pieceBytes)
	windows := int(bytes / (2 * pieceBytes)) // a piece lies somewhere in each of two
	for _, w := range random.Perm(windows)[:min(trackedPieces, windows)] {
		for i := range piece {
			piece[i] = byte(random.Uint32())
		}
		at := int64(w)*2*pieceBytes + random.Int64N(pieceBytes/4096)*4096
		if _, err := f.WriteAt(piece, at); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("overwriting %s: %w", path, err)
	}
	return f.Close()
}
