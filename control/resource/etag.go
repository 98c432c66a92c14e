package resource

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// ETag is a short name of what a resource says: it changes with any change of
// it, and with nothing else.
func ETag(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return "" // the nouns of this package can all be written
	}
	sum := sha256.Sum256(data)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}
