package store

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/diskvault/diskvault/store/internal/index"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// packObject is a pack as the bucket lists it.
type packObject struct {
	kind   seal.Kind
	id     pack.ID
	size   int64
	stored time.Time // by the store's clock
}

// packs lists the packs of both kinds.
func (s *Store) packs(ctx context.Context, yield func(packObject) error) error {
	for _, k := range []struct {
		kind   seal.Kind
		prefix string
	}{{seal.DataPack, dataPrefix}, {seal.MetadataPack, metadataPrefix}} {
		for o, err := range s.bucket.List(ctx, k.prefix, "") {
			if err != nil {
				return err
			}
			id, ok := pack.ParseID(o.Key[strings.LastIndexByte(o.Key, '/')+1:])
			if !ok || packName(k.kind, id) != o.Key {
				continue // not ours
			}
			if err := yield(packObject{k.kind, id, o.Size, o.Stored}); err != nil {
				return err
			}
		}
	}
	return nil
}

// RebuildIndex fills the local index anew from the directories of the packs.
// Packs that are damaged are left out and counted. progress may be nil. Nothing
// else may use the store meanwhile.
func (s *Store) RebuildIndex(ctx context.Context, progress func(done, total int64)) (packs, skipped int64, err error) {
	damaged, err := s.damagedPacks(ctx)
	if err != nil {
		return 0, 0, err
	}
	total := int64(0)
	if progress != nil {
		if err := s.packs(ctx, func(packObject) error { total++; return nil }); err != nil {
			return 0, 0, err
		}
	}
	loader, err := s.emptyIndex()
	if err != nil {
		return 0, 0, err
	}
	defer loader.Close()
	var mu sync.Mutex // covers the loader and the counts
	var done, bad int64
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(rebuildWorkers)
	err = s.packs(groupCtx, func(p packObject) error {
		group.Go(func() error {
			var frames []pack.Frame
			var err error
			if !damaged[p.id] {
				frames, err = s.directory(groupCtx, p.kind, p.id, p.size)
			}
			mu.Lock()
			defer mu.Unlock()
			if damaged[p.id] || isDamage(err) {
				bad++
			} else if err != nil {
				return err
			} else if err := loader.Add(p.id, entries(frames)); err != nil {
				return err
			}
			done++
			if progress != nil {
				progress(done, max(done, total))
			}
			return nil
		})
		return groupCtx.Err()
	})
	if failed := group.Wait(); failed != nil {
		err = failed
	}
	if err == nil {
		err = loader.Commit(ctx)
	}
	return done - bad, bad, err
}

// emptyIndex removes the local index and begins to fill a new one.
func (s *Store) emptyIndex() (*index.Loader, error) {
	if s.index == nil {
		return nil, errors.New("the store was opened for reading only")
	}
	if err := s.index.Close(); err != nil {
		return nil, err
	}
	if err := index.Remove(s.indexDir); err != nil {
		return nil, err
	}
	if err := s.openIndex(s.indexDir); err != nil {
		return nil, err
	}
	return s.index.Load()
}

// rebuildWorkers is how many directories are read at a time: requests to an
// object store wait longer than they work.
const rebuildWorkers = 8

func entries(frames []pack.Frame) []index.Entry {
	var all []index.Entry
	for _, f := range frames {
		for slot, h := range f.Hashes {
			all = append(all, index.Entry{Hash: h, Offset: f.Offset, Length: f.Length, Slot: uint8(slot)})
		}
	}
	return all
}

// Statistics say what a store weighs.
type Statistics struct {
	Points        int64 `json:"points"`
	Objects       int64 `json:"objects"`
	Bytes         int64 `json:"bytes"` // stored, of all objects
	DataPacks     int64 `json:"dataPacks"`
	DataBytes     int64 `json:"dataBytes"`
	MetadataPacks int64 `json:"metadataPacks"`
	MetadataBytes int64 `json:"metadataBytes"`
}

// Statistics counts the objects of the store by listing them.
func (s *Store) Statistics(ctx context.Context) (Statistics, error) {
	var t Statistics
	for o, err := range s.bucket.List(ctx, "", "") {
		if err != nil {
			return t, err
		}
		t.Objects++
		t.Bytes += o.Size
		switch {
		case strings.HasPrefix(o.Key, pointPrefix):
			t.Points++
		case strings.HasPrefix(o.Key, dataPrefix):
			t.DataPacks++
			t.DataBytes += o.Size
		case strings.HasPrefix(o.Key, metadataPrefix):
			t.MetadataPacks++
			t.MetadataBytes += o.Size
		}
	}
	return t, nil
}
