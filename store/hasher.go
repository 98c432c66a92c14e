package store

import "github.com/diskvault/diskvault/store/internal/block"

// The domains of identity, docs/format.md section 5.
const (
	blockDomain = "block"
	nodeDomain  = "node"
	rootDomain  = "root"
)

// hasher makes a hasher of the realm, for one goroutine.
func (s *Store) hasher(domain string) *block.Hasher { return block.NewHasher(s.identity, domain) }
