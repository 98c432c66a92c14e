package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

const (
	pageBytes    = 8 << 10
	pageHeader   = 24
	databaseSeed = 20261123
	// updatedShare is the share of the pages that are updated between the two backups.
	updatedShare = 0.01
)

// database is a disk of 8 KiB database-like pages, half rows of text and half
// random, and the same after one page in a hundred, at random places, had a
// row and its header rewritten. It is the same on every machine.
func (l library) database(ctx context.Context) (dataset, error) {
	bytes := l.scaled(2 << 30)
	recipe := fmt.Sprintf("v1 %d bytes, pages of %d, seed %d, updated %g", bytes, pageBytes, databaseSeed, updatedShare)
	return l.get(ctx, "database", recipe, []string{"before.img", "after.img"}, func(folder string) (string, error) {
		before, after := filepath.Join(folder, "before.img"), filepath.Join(folder, "after.img")
		pages := int(bytes / pageBytes)
		if err := writeDatabase(ctx, before, pages); err != nil {
			return "", err
		}
		if err := place(ctx, before, after); err != nil {
			return "", err
		}
		updated := int(float64(pages) * updatedShare)
		if err := updateDatabase(after, pages, updated); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s of 8 KiB pages, half rows of text, half random; then %d pages (%g %%, %s) updated in place at random",
			size(bytes), updated, 100*updatedShare, mib(int64(updated)*pageBytes)), nil
	})
}

func row(dst []byte, random *rand.Rand) []byte {
	return fmt.Appendf(dst, "INSERT customer name=%08d street=Long Road city=Springfield balance=%010d status=ok;",
		random.IntN(1e8), random.Int64N(1e10))
}

func header(dst []byte, page, version uint64) {
	binary.LittleEndian.PutUint64(dst[0:], page)
	binary.LittleEndian.PutUint64(dst[8:], databaseSeed)
	binary.LittleEndian.PutUint64(dst[16:], version)
}

func writeDatabase(ctx context.Context, path string, pages int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], databaseSeed)
	noise := rand.NewChaCha8(seed)
	random := rand.New(rand.NewPCG(databaseSeed, 1))
	page := make([]byte, 0, pageBytes)
	for p := range pages {
		if p%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		page = page[:pageHeader]
		header(page, uint64(p), 1)
		for len(page) < pageBytes/2 {
			page = row(page, random)
		}
		page = page[:pageBytes]
		if _, err := io.ReadFull(noise, page[pageBytes/2:]); err != nil {
			return err
		}
		if _, err := w.Write(page); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

func updateDatabase(path string, pages, updated int) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	random := rand.New(rand.NewPCG(databaseSeed, 2))
	var head [pageHeader]byte
	for _, p := range random.Perm(pages)[:updated] {
		at := int64(p) * pageBytes
		header(head[:], uint64(p), 2)
		if _, err := f.WriteAt(head[:], at); err != nil {
			return err
		}
		if _, err := f.WriteAt(row(nil, random), at+100+random.Int64N(3000)); err != nil {
			return err
		}
	}
	return f.Close()
}
