package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/diskvault/diskvault/base/durable"
)

// readOwner gives the ID of the folder that holds the local index, and makes it
// if there is none. Only one process at a time has the index open, so a session
// that was begun with the same index, and is not of this process, is dead: it
// need not be waited for. A folder that was copied to another machine has the
// same ID, so the host must be the same as well.
func readOwner(dir string) (ID, error) {
	path := filepath.Join(dir, "owner")
	text, err := os.ReadFile(path)
	if err == nil {
		if id, err := ParseID(strings.TrimSpace(string(text))); err == nil {
			return id, nil
		}
		err = os.Remove(path) // it was cut off by a crash
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ID{}, err
	}
	id := newSessionID()
	root, err := durable.Open(dir)
	if err != nil {
		return ID{}, err
	}
	defer root.Close()
	return id, durable.WriteFile(root, "owner", 0o600, [][]byte{[]byte(id.String() + "\n")})
}

// dead tells whether the session is of an earlier process of this data folder.
func (s *Store) dead(o *sessionObject) bool {
	return o.damage == nil && s.owner != (ID{}) && o.Owner == s.owner && o.Host == s.host && !s.live.has(o.ID)
}
