package service

import (
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/engine/diagnose"
	"github.com/diskvault/diskvault/store"
)

// StoreRequest names a store. Its zero value is the default store with the
// local key.
type StoreRequest struct {
	URL string `json:"url,omitempty"`
	Key string `json:"key,omitempty"` // text of a recovery key or a passphrase; empty: the local key
}

// BackupRequest asks for a recovery point of a disk.
type BackupRequest struct {
	StoreRequest
	Disk              string `json:"disk"` // as a person wrote it: a path, or the name of an instance
	Path              string `json:"path"` // the same as an absolute path
	Name              string `json:"name,omitempty"`
	Vault             string `json:"vault,omitempty"`
	Policy            string `json:"policy,omitempty"`
	RetentionTag      string `json:"retentionTag,omitempty"`
	Compression       string `json:"compression,omitempty"`
	FullScan          bool   `json:"fullScan,omitempty"`
	AllowInconsistent bool   `json:"allowInconsistent,omitempty"`
	AllowUnreadable   bool   `json:"allowUnreadable,omitempty"`
	AcceptReplaced    bool   `json:"acceptReplaced,omitempty"`
	Instance          string `json:"instance,omitempty"`  // ID of the instance, where that is known already
	Trigger           string `json:"trigger,omitempty"`   // empty: OnDemand
	LimitRate         int64  `json:"limitRate,omitempty"` // bytes per second; 0: none
	// StallBudget is how long the writers of the disk may be held up by its
	// capture, in nanoseconds; 0: a second.
	StallBudget time.Duration `json:"stallBudget,omitempty"`
	// FullReadDays is after how many days all of a disk is read again although its
	// changes are tracked; 0: 30.
	FullReadDays int `json:"fullReadDays,omitempty"`
	// MinExcess is by how much a backup must be late to be called slower; 0: 5 min.
	MinExcess time.Duration `json:"minExcess,omitempty"`
}

func (r BackupRequest) trigger() string {
	if r.Trigger == "" {
		return resource.OnDemand
	}
	return r.Trigger
}

// BackupResult tells what a backup did.
type BackupResult struct {
	JobID           string                 `json:"jobId"`
	Instance        string                 `json:"instance"`
	InstanceID      string                 `json:"instanceId"`
	Disk            string                 `json:"disk"`
	Status          resource.Status        `json:"status"`
	RecoveryPoint   resource.RecoveryPoint `json:"recoveryPoint"`
	Capture         Capture                `json:"capture"`
	ChangeTracking  ChangeTracking         `json:"changeTracking"`
	Bytes           store.Bytes            `json:"bytes"`
	DurationSeconds float64                `json:"durationSeconds"`
	Phases          []meter.PhaseRecord    `json:"phases"`
	Stages          []meter.StageRecord    `json:"stages"`
	Verdict         diagnose.Report        `json:"verdict"`
	SourceKind      string                 `json:"sourceKind"`
	StoreID         string                 `json:"storeId"` // of the operational store
	Compression     string                 `json:"compression"`
	LimitRate       int64                  `json:"limitRate,omitempty"` // bytes per second
	Created         *Created               `json:"created,omitempty"`   // by this first backup
	First           bool                   `json:"first"`               // it is the first point of the disk
	ResumedBytes    int64                  `json:"resumedBytes"`        // dealt with by an interrupted run
	Attempts        int                    `json:"attempts"`            // how often the source was read
	Warnings        []string               `json:"warnings,omitempty"`
}

// BackupGroupRequest asks for recovery points of disks of one machine that show
// the same moment. What it says besides the disks holds for each of them.
type BackupGroupRequest struct {
	BackupRequest
	Disks []GroupDisk `json:"disks"`
}

// GroupDisk is a disk of a group, as in a BackupRequest.
type GroupDisk struct {
	Disk string `json:"disk"`
	Path string `json:"path"`
}

// GroupMember tells what became of one disk of a group. If there is an Error,
// there is no recovery point.
type GroupMember struct {
	BackupResult
	Error   *resource.Failure `json:"error,omitempty"`
	Notices []resource.Notice `json:"notices,omitempty"`
}

// Capture tells how one point in time was had.
type Capture struct {
	Method  string  `json:"method"`
	Seconds float64 `json:"seconds"`
}

// ChangeTracking tells how changes were found.
type ChangeTracking struct {
	Method  string `json:"method"`
	Reason  string `json:"reason"`
	Planned bool   `json:"planned,omitempty"` // all was read because that was asked for or due
	// Dropped is why the next backup will have to read everything.
	Dropped string `json:"dropped,omitempty"`
	// Missed are changes that tracking had not named, found by a full read.
	Missed []store.Range `json:"missed,omitempty"`
}

// Created names what a first backup made; empty fields were there before.
type Created struct {
	Store    string `json:"store,omitempty"`
	Vault    string `json:"vault,omitempty"`
	Policy   string `json:"policy,omitempty"`
	Instance string `json:"instance,omitempty"`
}

// RestoreRequest asks for the content of a point.
type RestoreRequest struct {
	PointsRequest
	Point     string `json:"point,omitempty"` // ID, its beginning, a time, or latest
	To        string `json:"to"`              // absolute path
	Overwrite bool   `json:"overwrite,omitempty"`
	Sparse    string `json:"sparse,omitempty"` // auto: holes for zeros; never
	// AllowDamaged leaves zeros where the store is damaged.
	AllowDamaged bool `json:"allowDamaged,omitempty"`
}

// RestoreResult tells what a restore did.
type RestoreResult struct {
	JobID           string        `json:"jobId"`
	Instance        string        `json:"instance"`
	Point           string        `json:"point"`
	PointTime       time.Time     `json:"pointTime"`
	Target          string        `json:"target"`
	Bytes           RestoreBytes  `json:"bytes"`
	Store           string        `json:"store"` // URL of the one that it was read from
	Verified        bool          `json:"verified"`
	Resumed         bool          `json:"resumed"`        // it went on with an interrupted one
	Lost            []store.Range `json:"lost,omitempty"` // zeros where the store is damaged
	Warnings        []string      `json:"warnings,omitempty"`
	DurationSeconds float64       `json:"durationSeconds"`

	Phases []meter.PhaseRecord `json:"phases"`
}

// RestoreBytes counts by class of work.
type RestoreBytes struct {
	Written int64 `json:"written"`
	Zero    int64 `json:"zero"`
	Skipped int64 `json:"skipped"` // the target held them already
}

// PointsRequest names an instance. With a store URL the store itself is asked
// instead of the catalog.
type PointsRequest struct {
	StoreRequest
	Instance string `json:"instance"`       // name, ID or path, as a person wrote it
	Path     string `json:"path,omitempty"` // the same as an absolute path
}

// VerifyRequest asks for proof that points can be restored.
type VerifyRequest struct {
	PointsRequest
	Point    string  `json:"point,omitempty"` // empty: all
	ReadData bool    `json:"readData,omitempty"`
	Sample   float64 `json:"sample,omitempty"` // 0 to 1: share of the data that is read
}

// CheckStoreRequest asks for a check of all of a store.
type CheckStoreRequest struct {
	StoreRequest
	ReadData bool    `json:"readData,omitempty"`
	Sample   float64 `json:"sample,omitempty"`
}

// VerifyResult tells what was checked and found whole.
type VerifyResult struct {
	JobID           string  `json:"jobId"`
	Points          int     `json:"points"`
	Nodes           int64   `json:"nodes"`
	Packs           int64   `json:"packs"`     // whose directory was verified
	PacksRead       int64   `json:"packsRead"` // whose every block was verified
	BytesRead       int64   `json:"bytesRead"`
	Method          string  `json:"method"` // structure, sample or data
	Verified        bool    `json:"verified"`
	DurationSeconds float64 `json:"durationSeconds"`
}

// JobsRequest chooses jobs; its zero value chooses all.
type JobsRequest struct {
	ID       string          `json:"id,omitempty"`
	Instance string          `json:"instance,omitempty"`
	Path     string          `json:"path,omitempty"`
	Status   resource.Status `json:"status,omitempty"`
	Since    time.Time       `json:"since,omitzero"`
	Limit    int             `json:"limit,omitempty"`
}

// StatusResult is the state of a data folder.
type StatusResult struct {
	Home      string            `json:"home"`
	Instances []InstanceStatus  `json:"instances"`
	Running   []resource.Job    `json:"running"`
	Stores    []resource.Store  `json:"stores"`
	Notices   []resource.Notice `json:"notices"`
}

// InstanceStatus is the state of one protected disk.
type InstanceStatus struct {
	resource.Instance
	State     string                  `json:"state"` // Protected, Running, Failed, Inconsistent or NoPoint
	Points    int                     `json:"points"`
	LastPoint *resource.RecoveryPoint `json:"lastPoint"`
	LastJob   *resource.Job           `json:"lastJob"`
}

// CreateStoreRequest asks for a new store.
type CreateStoreRequest struct {
	URL        string `json:"url,omitempty"`       // empty: in the data folder
	BlockSize  int    `json:"blockSize,omitempty"` // bytes; 0: 64 KiB, or that of the realm
	Passphrase string `json:"passphrase,omitempty"`
	Default    bool   `json:"default,omitempty"` // new disks go there from now on
	Vault      string `json:"vault,omitempty"`   // name or ID of the vault of whose vault tier it is to be
	// VaultRetention is how long copies there are kept, by the rules of the vault's
	// policies that say nothing of it; empty: those copy nothing.
	VaultRetention resource.Duration `json:"vaultRetention,omitempty"`
}

// StoreResult tells what a store is.
type StoreResult struct {
	resource.Store
	BlockSize  int               `json:"blockSize"`
	Version    int               `json:"version"`
	Statistics *store.Statistics `json:"statistics,omitempty"`
}

// RebuildIndexResult tells that an index was made.
type RebuildIndexResult struct {
	JobID           string  `json:"jobId"`
	Store           string  `json:"store"`
	Packs           int64   `json:"packs"`
	DamagedPacks    int64   `json:"damagedPacks"` // left out
	DurationSeconds float64 `json:"durationSeconds"`
}

// RebuildCatalogResult tells what the store knew.
type RebuildCatalogResult struct {
	Store     string   `json:"store"`
	Vaults    int      `json:"vaults"`
	Policies  int      `json:"policies"`
	Instances int      `json:"instances"`
	Points    int      `json:"points"`
	SetAside  string   `json:"setAside,omitempty"` // where the damaged catalog lies now
	Warnings  []string `json:"warnings,omitempty"`
}

// AddKeyRequest asks that a passphrase opens the store.
type AddKeyRequest struct {
	StoreRequest
	Passphrase string `json:"passphrase"`
}

// RemoveKeyRequest asks that a key no longer opens the store.
type RemoveKeyRequest struct {
	StoreRequest
	ID string `json:"id"`
}

// KeyResult is a key of a store.
type KeyResult struct {
	store.KeySlot
	Store  string `json:"store"`
	Secret string `json:"secret,omitempty"` // only in the answer to its making
}
