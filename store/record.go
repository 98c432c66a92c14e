package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// Record is one version of a configuration record: a decision that retention,
// or the rebuilding of the catalog, depends on.
type Record struct {
	Kind    string          `json:"kind"`
	Name    string          `json:"name"`
	Version int             `json:"version"` // from 1
	Time    time.Time       `json:"time"`
	Body    json.RawMessage `json:"body"` // null: removed
}

const (
	recordPrefix  = "records/"
	maxRecordSize = 4 << 20
)

// recordID hides kind and name from the storage.
func (s *Store) recordID(kind, name string) (id ID) {
	sum := s.hasher(rootDomain).Sum([]byte("record"), []byte(kind), []byte{0}, []byte(name))
	copy(id[:], sum[:])
	return id
}

func recordKey(id ID, version int) string { return fmt.Sprintf("%s%s/%08d", recordPrefix, id, version) }

// PutRecord writes the next version of the record, unless the newest says the
// same already. A nil body removes it.
func (s *Store) PutRecord(ctx context.Context, kind, name string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	id := s.recordID(kind, name)
	for {
		version := 0
		for o, err := range s.bucket.List(ctx, recordPrefix+id.String()+"/", "") {
			if err != nil {
				return err
			}
			if n, err := recordVersion(o.Key); err == nil {
				version = n
			}
		}
		if version > 0 {
			newest, err := s.record(ctx, id, version)
			if err != nil && !isDamage(err) {
				return err
			}
			if err == nil && bytes.Equal(newest.Body, text) {
				return nil
			}
		}
		r := Record{kind, name, version + 1, time.Now().UTC(), text}
		_, err := s.putDocument(ctx, recordKey(id, r.Version), seal.Record, id, r)
		if !errors.Is(err, bucket.ErrExists) {
			return err
		}
		// Somebody else wrote that version meanwhile; look again.
	}
}

func recordVersion(key string) (version int, err error) {
	_, err = fmt.Sscanf(key[strings.LastIndexByte(key, '/')+1:], "%d", &version)
	return version, err
}

func (s *Store) record(ctx context.Context, id ID, version int) (r Record, err error) {
	key := recordKey(id, version)
	if err := s.readDocument(ctx, key, seal.Record, id, maxRecordSize, &r); err != nil {
		return r, err
	}
	if s.recordID(r.Kind, r.Name) != id || r.Version != version {
		return r, s.damaged(key, errors.New("it is another record than its name says"))
	}
	return r, nil
}

// Records yields the newest version of every record that is not removed. One
// that cannot be read is yielded with an error, and the iteration goes on.
func (s *Store) Records(ctx context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		var id ID
		version := 0
		// emit yields the newest version seen of the record before.
		emit := func() bool {
			if version == 0 {
				return true
			}
			r, err := s.record(ctx, id, version)
			if errors.Is(err, bucket.ErrNotFound) || err == nil && string(r.Body) == "null" {
				return true
			}
			return yield(r, err)
		}
		for o, err := range s.bucket.List(ctx, recordPrefix, "") {
			if err != nil {
				yield(Record{}, err)
				return
			}
			text, _, _ := strings.Cut(strings.TrimPrefix(o.Key, recordPrefix), "/")
			next, err := ParseID(text)
			n, bad := recordVersion(o.Key)
			if err != nil || bad != nil {
				continue // not ours
			}
			if next != id {
				if !emit() {
					return
				}
			}
			id, version = next, n
		}
		emit()
	}
}
