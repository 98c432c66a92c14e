package resource

import (
	"cmp"
	"encoding/json"
	"net/url"
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

	State Protection `json:"state"`
	// Since is when the schedule began to hold: the disk was protected, its
	// protection resumed or its policy replaced. Earlier slots were not missed.
	Since        time.Time         `json:"since,omitzero"`
	Error        *Failure          `json:"error,omitempty"` // why it is in an error state
	FriendlyName string            `json:"friendlyName,omitempty"`
	Tags         map[string]string `json:"tags,omitempty"`
	DiskID       ID                `json:"diskId,omitempty"`        // empty for a disk that only has a path
	Snapshots    ID                `json:"snapshotGroup,omitempty"` // resource group of the operational tier
	ActsAs       ID                `json:"actsAs,omitempty"`        // user-assigned identity of the vault; empty: its own
	Deletion     *Deletion         `json:"deletion,omitempty"`
}

// Deletion is when an instance was deleted, and until when that can be undone.
type Deletion struct {
	Time     time.Time `json:"time"`
	Purge    time.Time `json:"purge"`
	Activity string    `json:"activity"` // of the request that deleted it
}

// Normal fills in what an instance does not say, as for one whose record was
// written before there was anything to say.
func (i Instance) Normal() Instance {
	if i.State == "" {
		i.State = ProtectionConfigured
	}
	if i.Since.IsZero() {
		i.Since = i.Created
	}
	if i.FriendlyName == "" {
		i.FriendlyName = i.Name
	}
	return i
}

// ResourceID is the ID of the instance.
func (i Instance) ResourceID() ID { return VaultID(i.Vault).Child("backupInstances", i.Name) }

// PolicyID is the ID of its policy.
func (i Instance) PolicyID() ID { return PolicyID(i.Vault, i.Policy) }

// imageSuffixes are dropped when a name is made from the path of an image.
var imageSuffixes = []string{".img", ".raw", ".qcow2", ".vmdk", ".vhd", ".vhdx", ".iso", ".dd", ".bin"}

// NameOf makes names for the disk at a path or URL, the best first: vms/web.img
// gives web, then vms-web; /dev/vg/root gives vg-root; a disk of a running machine
// is called as the machine calls it. Each is a legal name.
func NameOf(path string) []string {
	if u, err := url.Parse(path); err == nil && u.Scheme != "" && !filepath.IsAbs(path) {
		return namesOfURL(u)
	}
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

// namesOfURL makes names for what no path leads to. What a machine is called says
// the name of its socket, or of the folder of that.
func namesOfURL(u *url.URL) []string {
	last := func(path string) string {
		if path = filepath.Base(path); path == "." || path == "/" {
			return ""
		}
		return path
	}
	q := u.Query()
	device := last(q.Get("device"))
	if u.Opaque != "" && !q.Has("device") { // rbd:pool/image, lvm:vg/lv
		return []string{legal(last(u.Opaque)), legal(strings.ReplaceAll(u.Opaque, "/", "-"))}
	}
	owner := last(u.Path)
	if u.Opaque != "" {
		owner = last(u.Opaque)
	}
	if owner == "" {
		owner = cmp.Or(u.Hostname(), last(q.Get("socket")))
	}
	owner = strings.TrimSuffix(strings.TrimSuffix(owner, ".sock"), ".socket")
	switch owner {
	case "qmp", "monitor", "mon":
		owner = cmp.Or(last(filepath.Dir(u.Path)), owner)
	}
	if device == "" {
		return []string{legal(owner)}
	}
	return []string{legal(device), legal(owner + "-" + device)}
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
