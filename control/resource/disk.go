package resource

import (
	"encoding/json"
	"time"
)

// Disk is the protected thing as a resource: a name for a source.
type Disk struct {
	ID       ID                `json:"id"`
	Location string            `json:"location"`
	Tags     map[string]string `json:"tags,omitempty"`
	Zones    []string          `json:"zones,omitempty"`
	SKU      string            `json:"sku"`
	Source   string            `json:"source"`   // how the bytes are reached: an absolute path or a URL; empty: nothing to back up yet
	Size     int64             `json:"size"`     // bytes
	UniqueID string            `json:"uniqueId"` // a GUID; a disk made again under the same name has another
	Created  time.Time         `json:"created"`
	// Properties are those that diskvault keeps for clients and does not
	// judge, as JSON of the wire.
	Properties json.RawMessage `json:"properties,omitempty"`
}

// ResourceID is the ID of the disk.
func (d Disk) ResourceID() ID { return d.ID }

// Snapshot is a recovery point's operational placement as a resource, or a
// snapshot that a client made by itself.
type Snapshot struct {
	ID         ID                `json:"id"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	SKU        string            `json:"sku"`
	Disk       ID                `json:"disk"`          // that it shows
	DiskUnique string            `json:"diskUniqueId"`  // of that disk: its family
	Instance   string            `json:"instance"`      // ID of the backup instance
	Point      string            `json:"recoveryPoint"` // ID of the recovery point that holds its content
	Size       int64             `json:"size"`          // bytes
	UniqueID   string            `json:"uniqueId"`      // a GUID
	Created    time.Time         `json:"created"`
	Properties json.RawMessage   `json:"properties,omitempty"`
}

// ResourceID is the ID of the snapshot.
func (s Snapshot) ResourceID() ID { return s.ID }

// Link is the disk whose snapshots are looked for.
func (s Snapshot) Link() string { return s.Disk.Key() }
