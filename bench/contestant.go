package main

import (
	"context"
	"fmt"
	"strings"
)

// An archive is one tool at work on one store of its own. Its methods are
// called one after the other, never at the same time.
type archive interface {
	// create makes the empty store, outside the timed part.
	create(ctx context.Context) error
	// backup protects the source and reads all of it, changed or not.
	backup(ctx context.Context) (measurement, error)
	// restore brings the newest backup back below the folder into, which
	// exists and is empty, and returns the path of the restored image.
	restore(ctx context.Context, into string) (string, measurement, error)
	// store is the folder that holds what was stored, and nothing else: no
	// cache and no local index that could be rebuilt from it.
	store() string
}

// A source is one image at one path. Its content changes between backups; its
// path does not. The folder holds nothing else, for tools that back up folders.
type source struct {
	folder string
	image  string
}

// A contestant is a tool with one choice of settings.
type contestant struct {
	name string // unique; a column of the report
	tool string
	peer bool // not diskvault
	// settings says in words what was chosen and why.
	settings string
	version  func(ctx context.Context) (string, error)
	open     func(home string, s source) (archive, error)
}

// Names that comparisons refer to.
const (
	diskvaultDefault = "diskvault"
	diskvaultFast    = "diskvault fast"
	kopiaZstd        = "kopia zstd-fastest"
	kopiaS2          = "kopia s2"
	resticDefault    = "restic"
	borgZstd         = "borg"
)

// choose filters contestants by a list of names, tool names, or the word
// "peers". An empty list means all.
func choose(all []contestant, only string) ([]contestant, error) {
	if only == "" {
		return all, nil
	}
	chosen := map[string]bool{}
	for _, word := range strings.Split(only, ",") {
		word = strings.TrimSpace(word)
		found := false
		for _, c := range all {
			if c.name == word || c.tool == word || (word == "peers" && c.peer) {
				chosen[c.name] = true
				found = true
			}
		}
		if !found {
			return nil, fmt.Errorf("--only %s: there is no tool %q; known are peers, %s", only, word, strings.Join(names(all), ", "))
		}
	}
	var out []contestant
	for _, c := range all {
		if chosen[c.name] {
			out = append(out, c)
		}
	}
	return out, nil
}

func names(all []contestant) []string {
	var out []string
	for _, c := range all {
		out = append(out, c.name)
	}
	return out
}

// slug is a contestant's name as a folder name.
func slug(name string) string { return strings.ReplaceAll(name, " ", "-") }
