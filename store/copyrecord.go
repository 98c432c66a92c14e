package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// recordVersions is what a listing tells of a record.
type recordVersions struct {
	newest int
	stored time.Time // by the store's clock
}

func (s *Store) recordVersions(ctx context.Context) (map[string]recordVersions, error) {
	all := map[string]recordVersions{}
	for o, err := range s.bucket.List(ctx, recordPrefix, "") {
		if err != nil {
			return nil, err
		}
		text, _, _ := strings.Cut(strings.TrimPrefix(o.Key, recordPrefix), "/")
		n, err := recordVersion(o.Key)
		if id, bad := ParseID(text); err != nil || bad != nil || recordKey(id, n) != o.Key {
			continue // not ours
		}
		if n > all[text].newest {
			all[text] = recordVersions{n, o.Stored}
		}
	}
	return all, nil
}

// records copies the configuration records, so that the catalog can be rebuilt
// from the destination alone. Of two that differ the newer one counts.
func (c *copier) records(ctx context.Context) error {
	here, err := c.src.recordVersions(ctx)
	if err != nil {
		return err
	}
	there, err := c.dst.recordVersions(ctx)
	if err != nil {
		return err
	}
	var differ []string
	for text, v := range here {
		// A record of the same version that was stored there later is a copy, or
		// newer.
		if w := there[text]; w.newest != v.newest || w.stored.Before(v.stored) {
			differ = append(differ, text)
		}
	}
	slices.Sort(differ)
	var mu sync.Mutex // covers the result
	return each(ctx, differ, func(ctx context.Context, text string) error {
		written, err := c.record(ctx, text, here[text].newest, there[text].newest)
		mu.Lock()
		defer mu.Unlock()
		if isDamage(err) {
			c.result.Notices = append(c.result.Notices, fmt.Sprintf("A configuration record was not copied: %v", err))
			return nil
		}
		if written {
			c.result.Records++
		}
		return err
	})
}

// record copies the newest version of a record, unless the destination has the
// same or a newer one.
func (c *copier) record(ctx context.Context, text string, newest, there int) (written bool, err error) {
	id, err := ParseID(text)
	if err != nil {
		return false, err
	}
	r, err := c.src.record(ctx, id, newest)
	if err != nil {
		return false, err
	}
	for ; ; there++ {
		if there > 0 {
			old, err := c.dst.record(ctx, id, there)
			if err != nil && !isDamage(err) {
				return false, err
			}
			if err == nil && (bytes.Equal(old.Body, r.Body) || !old.Time.Before(r.Time)) {
				return false, nil
			}
		} else if string(r.Body) == "null" {
			return false, nil // removed before it was ever copied
		}
		r.Version = max(newest, there+1)
		_, err := c.dst.putDocument(ctx, recordKey(id, r.Version), seal.Record, id, r)
		if !errors.Is(err, bucket.ErrExists) {
			return err == nil, err
		}
		// Somebody else wrote that version meanwhile; look at it.
		there = r.Version - 1
	}
}
