package resource

import "time"

// RecoveryPoint is a recovery point as people and scripts see it.
type RecoveryPoint struct {
	ID           string            `json:"id"` // 32 hex digits
	Time         time.Time         `json:"time"`
	Root         string            `json:"root"`
	Group        *ConsistencyGroup `json:"group,omitempty"` // the consistency group that it belongs to
	Consistency  string            `json:"consistency"`
	Reason       string            `json:"reason,omitempty"` // why it is inconsistent
	RetentionTag string            `json:"retentionTag"`
	Expiry       *time.Time        `json:"expiry"` // of the placement that stays longest; null: no rule removes it at a known time
	Placements   []Placement       `json:"placements"`
	SizeBytes    int64             `json:"sizeBytes"`
	StoredBytes  int64             `json:"storedBytes"`           // added to the store by this point
	VerifiedAt   *time.Time        `json:"verifiedAt"`            // when all its data were last read back; null: not yet
	KeptBecause  []string          `json:"keptBecause,omitempty"` // in the first placement
}

// ConsistencyGroup is a group of points: of several disks of one machine, which
// show the same moment.
type ConsistencyGroup struct {
	ID       string   `json:"id"`                // 32 hex digits
	Disks    int      `json:"disks"`             // how many were captured
	Complete bool     `json:"complete"`          // each of them has a point of the group
	Missing  []string `json:"missing,omitempty"` // names of the instances that have none, or IDs of those that are gone
}

// The tiers of placements.
const (
	OperationalTier = "OperationalStore" // near the source
	VaultTier       = "VaultStore"       // the vault's own, elsewhere
)

// Placement is one copy of a recovery point.
type Placement struct {
	Store       string     `json:"store"`       // URL
	Tier        string     `json:"tier"`        // OperationalStore or VaultStore
	State       string     `json:"state"`       // Committed or Verified
	CommittedAt time.Time  `json:"committedAt"` // when it was made there
	VerifiedAt  *time.Time `json:"verifiedAt"`  // as that of the point
	Expiry      *time.Time `json:"expiry"`      // as that of the point
	KeptBecause []string   `json:"keptBecause,omitempty"`
}
