package store

import (
	"time"

	"github.com/diskvault/diskvault/store/internal/block"
)

// Root identifies the content of a disk: the hash over its size, block size
// and Merkle tree. Equal roots mean equal bytes, in every store of a realm.
type Root = block.Hash

// Consistency says what is proven about the moment that a point shows.
type Consistency string

const (
	// CrashConsistent: the content is that of one point in time, as after a
	// power failure.
	CrashConsistent Consistency = "crashConsistent"
	// Inconsistent: a person asked for a copy although no one point in time
	// could be proven, or some ranges could not be read.
	Inconsistent Consistency = "inconsistent"
)

// Point is a recovery point: one disk at one time. It is sealed in the store
// as it stands here and holds all that is needed to rebuild the catalog's row.
type Point struct {
	ID   string    `json:"id"`   // 32 hex digits; also the ID of the session that wrote it
	Time time.Time `json:"time"` // the moment that the content shows
	// Created is when it was committed, by the writer's clock, but always
	// later than that of its parent: it gives the points of a disk their order
	// even if a clock is set back.
	Created time.Time `json:"created"`
	Root    Root      `json:"root"`
	Size    int64     `json:"size"` // of the disk, in bytes

	Instance string `json:"instance"` // ID of the backup instance
	Name     string `json:"name"`     // the instance's name at the time
	Disk     string `json:"disk"`     // the source, as a path or URL
	Vault    string `json:"vault"`
	Policy   string `json:"policy"`
	Trigger  string `json:"trigger"` // Scheduled or OnDemand

	RetentionTag string `json:"retentionTag"`
	Retention    string `json:"retention"` // ISO-8601 duration; empty: kept until deleted
	// VaultRetention is how long a copy in the vault tier is kept, from Created
	// on; empty: no rule asks for one.
	VaultRetention string `json:"vaultRetention,omitempty"`

	Consistency    Consistency `json:"consistency"`
	Reason         string      `json:"reason,omitempty"` // why it is inconsistent
	Unreadable     []Range     `json:"unreadable,omitempty"`
	CaptureMethod  string      `json:"captureMethod"`
	ChangeTracking string      `json:"changeTracking"`
	Identity       []byte      `json:"identity,omitempty"` // of the disk, as disk.Identity writes it

	// CaptureBase stands for a capture of just this content that is kept on the
	// source's own storage, for the next backup to ask what has changed since; or
	// for why none is kept. Its form is the matter of the capture method.
	CaptureBase []byte `json:"captureBase,omitempty"`
	// FullRead is when all of the disk was last read, be it for this point or for
	// one before it; since then only what change tracking named.
	FullRead time.Time `json:"fullRead,omitzero"`

	// Group is the ID of the consistency group, 32 hex digits, if disks of one
	// machine were captured at the same moment; GroupInstances are the IDs of the
	// instances of all its disks, this one among them. A disk of which there is no
	// point of the group is missing in it.
	Group          string   `json:"group,omitempty"`
	GroupInstances []string `json:"groupInstances,omitempty"`

	Parent string `json:"parent,omitempty"` // the point that it was compared with
	Bytes  Bytes  `json:"bytes"`

	Top Ref `json:"top"` // where the top node of the tree lies
}

// Range is a part of a disk, in bytes.
type Range struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// Bytes counts what a run did, by class of work.
type Bytes struct {
	Provisioned     int64 `json:"provisioned"`     // size of the disk
	Allocated       int64 `json:"allocated"`       // of it not a hole
	ReportedChanged int64 `json:"reportedChanged"` // by change tracking; without it, allocated
	Read            int64 `json:"read"`            // from the source
	Zero            int64 `json:"zero"`            // read, and all zeros
	Unchanged       int64 `json:"unchanged"`       // same as in the parent at the same place
	Known           int64 `json:"known"`           // in the store already, from elsewhere
	New             int64 `json:"new"`             // stored by this run, before compression
	Stored          int64 `json:"stored"`          // written to the store, all objects
}
