package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A dataset is a set of image files in a folder, made once and kept.
type dataset struct {
	Name   string   `json:"name"`
	Recipe string   `json:"recipe"` // what it was made from; another recipe makes it anew
	About  string   `json:"about"`  // for the report: sizes as they came out
	Images []string `json:"images"` // file names in the folder
	folder string
}

func (d dataset) image(i int) string { return filepath.Join(d.folder, d.Images[i]) }

// whole tells whether all images are there.
func (d dataset) whole() bool {
	for i := range d.Images {
		if _, err := os.Stat(d.image(i)); err != nil {
			return false
		}
	}
	return true
}

// A library is the folder in which datasets are kept between runs.
type library struct {
	folder string
	scale  float64  // of all sizes; 1 is the real thing
	trees  []string // folders of this machine whose files fill the system disk
}

// scaled is n bytes at the library's scale, in whole MiB and at least one.
func (l library) scaled(n int64) int64 {
	return max(int64(float64(n)*l.scale)>>20, 1) << 20
}

// get returns the dataset of this name and recipe, and makes it first if it is
// not there. A dataset half made is never taken for a whole one: its
// description is written last.
func (l library) get(ctx context.Context, name, recipe string, images []string, build func(folder string) (about string, err error)) (dataset, error) {
	d := dataset{Name: name, Recipe: recipe, Images: images, folder: filepath.Join(l.folder, name)}
	description := filepath.Join(d.folder, "dataset.json")
	if kept, err := readDataset(description); err == nil && kept.Recipe == recipe && d.whole() {
		d.About = kept.About
		return d, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	if err := os.RemoveAll(d.folder); err != nil {
		return d, err
	}
	if err := os.MkdirAll(d.folder, 0o755); err != nil {
		return d, err
	}
	say("making the data set %q in %s", name, d.folder)
	about, err := build(d.folder)
	if err != nil {
		return d, errors.Join(fmt.Errorf("making the data set %q: %w", name, err), os.RemoveAll(d.folder))
	}
	d.About = about
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return d, err
	}
	return d, os.WriteFile(description, append(text, '\n'), 0o644)
}

func readDataset(description string) (dataset, error) {
	var d dataset
	text, err := os.ReadFile(description)
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(text, &d)
}

// mib prints a number of bytes in whole MiB.
func mib(n int64) string { return fmt.Sprintf("%d MiB", (n+1<<19)>>20) }

// size prints a number of bytes in the largest unit that leaves it whole.
func size(n int64) string {
	switch {
	case n > 0 && n%(1<<40) == 0:
		return fmt.Sprintf("%d TiB", n>>40)
	case n > 0 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	}
	return mib(n)
}
