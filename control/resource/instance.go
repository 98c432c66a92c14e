package resource

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"time"
)

// Instance is the protection of one disk: which disk, in which vault, by
// which policy, into which store.
type Instance struct {
	ID       string          `json:"id"` // a GUID; never reused
	Name     string          `json:"name"`
	Disk     string          `json:"disk"`               // canonical path of the source
	Kind     string          `json:"kind"`               // file or block
	Size     int64           `json:"sizeBytes"`          // when it was last backed up
	Identity json.RawMessage `json:"identity,omitempty"` // of the disk, as disk.Identity writes it
	Vault    string          `json:"vault"`
	Policy   string          `json:"policy"`
	Store    string          `json:"store"` // ID of the store
	Created  time.Time       `json:"created"`
}

// imageSuffixes are dropped when a name is made from the path of an image.
var imageSuffixes = []string{".img", ".raw", ".qcow2", ".vmdk", ".vhd", ".vhdx", ".iso", ".dd", ".bin"}

// NameOf makes names for the disk at a path, the best first: vms/web.img
// gives web, then vms-web; /dev/vg/root gives vg-root. Each is a legal name.
func NameOf(path string) []string {
	path = filepath.Clean(path)
	base := filepath.Base(path)
	for _, s := range imageSuffixes {
		if len(base) > len(s) && strings.HasSuffix(strings.ToLower(base), s) {
			base = base[:len(base)-len(s)]
			break
		}
	}
	parent := filepath.Base(filepath.Dir(path))
	long := legal(parent + "-" + base)
	if rest, ok := strings.CutPrefix(path, "/dev/"); ok {
		return []string{legal(strings.ReplaceAll(rest, "/", "-"))}
	}
	return []string{legal(base), long}
}

// legal replaces what a name may not hold.
func legal(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}, s)
	s = strings.TrimLeft(s, "-_.")
	if len(s) > 72 { // room for a number behind it
		s = s[:72]
	}
	s = strings.TrimRight(s, "-.")
	if s == "" {
		return "disk"
	}
	return s
}
