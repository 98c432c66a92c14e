package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

const (
	sparseSeed  = 4
	sparsePiece = 256 << 10
)

// sparse is 1 GiB of the system disk's data twice: alone and without a hole,
// and cut into pieces of 256 KiB that lie at random 4 KiB-aligned places, about
// one in each GiB, of a disk of 4 TiB that is otherwise a hole.
func (l library) sparse(ctx context.Context, system dataset) (dataset, error) {
	data := l.scaled(1 << 30)
	spreadOver := l.scaled(4 << 40)
	recipe := fmt.Sprintf("v1 %d bytes in pieces of %d over %d bytes, seed %d, of: %s", data, sparsePiece, spreadOver, sparseSeed, system.Recipe)
	return l.get(ctx, "sparse", recipe, []string{"alone.img", "spread.img"}, func(folder string) (string, error) {
		if err := spread(ctx, system.image(0), filepath.Join(folder, "alone.img"), filepath.Join(folder, "spread.img"), data, spreadOver); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s of the system disk's data in pieces of 256 KiB, spread over a sparse disk of %s, and the same bytes alone",
			size(data), size(spreadOver)), nil
	})
}

// spread copies data bytes of the allocated ranges of from, one piece after the
// other, to both images.
func spread(ctx context.Context, from, alone, spreadOut string, data, size int64) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	dense, err := os.Create(alone)
	if err != nil {
		return err
	}
	defer dense.Close()
	sparse, err := os.Create(spreadOut)
	if err != nil {
		return err
	}
	defer sparse.Close()
	if err := sparse.Truncate(size); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(sparseSeed, 0))
	pieces := data / sparsePiece
	stride := size / pieces
	buffer := make([]byte, sparsePiece)
	next := int64(0)
	for s, err := range dataSpans(in) {
		if err != nil {
			return err
		}
		for off := s.off; off+sparsePiece <= s.off+s.len && next < pieces; off += sparsePiece {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if _, err := io.ReadFull(io.NewSectionReader(in, off, sparsePiece), buffer); err != nil {
				return err
			}
			if _, err := dense.WriteAt(buffer, next*sparsePiece); err != nil {
				return err
			}
			at := next*stride + random.Int64N((stride-sparsePiece)>>12+1)<<12
			if _, err := sparse.WriteAt(buffer, at); err != nil {
				return err
			}
			next++
		}
	}
	if next < pieces {
		return fmt.Errorf("%s has only %s in whole pieces; %s are needed", from, mib(next*sparsePiece), mib(data))
	}
	if err := dense.Close(); err != nil {
		return err
	}
	return sparse.Close()
}
