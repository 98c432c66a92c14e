package main

import (
	"context"
	"os"
	"path/filepath"
)

// A baseline is a plain program on the same warm image: a bound that a backup
// cannot pass while it does that work too.
type baseline struct {
	name string
	run  func(ctx context.Context, image, scratch string) (measurement, error)
}

var baselines = []baseline{
	{"read", func(ctx context.Context, image, _ string) (measurement, error) {
		return discarding(ctx, command{args: []string{"cat", image}, env: os.Environ()})
	}},
	{"cp --sparse", func(ctx context.Context, image, scratch string) (measurement, error) {
		target := filepath.Join(scratch, "copy.img")
		defer os.Remove(target)
		m, _, err := timed(ctx, command{args: []string{"cp", "--sparse=always", "--reflink=never", image, target}, env: os.Environ()})
		if err != nil {
			return m, err
		}
		return withFsync(m, target)
	}},
	{"zstd -1 -T2", func(ctx context.Context, image, _ string) (measurement, error) {
		return discarding(ctx, command{args: []string{"zstd", "-q", "-1", "-T2", "-c", image}, env: os.Environ()})
	}},
}
