package resource

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/diskvault/diskvault/base/meter"
)

// Status is the state of a job.
type Status string

// A job begins Queued or InProgress and ends in one of the others, which are
// final:
//
//	Queued -> InProgress -> Completed | CompletedWithWarnings | Failed | Cancelled
//	Queued -> Cancelled
const (
	Queued                Status = "Queued"
	InProgress            Status = "InProgress"
	Completed             Status = "Completed"
	CompletedWithWarnings Status = "CompletedWithWarnings"
	Failed                Status = "Failed"
	Cancelled             Status = "Cancelled"
)

// Statuses lists all states in the order of a job's life.
var Statuses = []Status{Queued, InProgress, Completed, CompletedWithWarnings, Failed, Cancelled}

// Final tells whether a job in this state has ended.
func (s Status) Final() bool { return s != Queued && s != InProgress }

// The operations that run as jobs.
const (
	OperationBackup  = "Backup"
	OperationRestore = "Restore"
	OperationVerify  = "Verify"
	// OperationCopy copies recovery points to another store.
	OperationCopy = "Copy"
	// OperationRebuildIndex makes the local index of a store anew.
	OperationRebuildIndex = "RebuildIndex"
	// OperationAttach shows a recovery point as a folder or disk for a while.
	OperationAttach = "Attach"
	// OperationCopyFiles copies single files out of a recovery point.
	OperationCopyFiles = "CopyFiles"
	// OperationCollect removes from a store what nothing refers to.
	OperationCollect = "Collect"
	// OperationHeal mends what is damaged in a store.
	OperationHeal = "Heal"
)

// The triggers of a job.
const (
	OnDemand  = "OnDemand"
	Scheduled = "Scheduled"
)

// Job is one run of an operation.
type Job struct {
	ID         string          `json:"id"`
	InstanceID string          `json:"instanceId,omitempty"`
	Instance   string          `json:"instance"` // its name at the time
	Operation  string          `json:"operation"`
	Status     Status          `json:"status"`
	Trigger    string          `json:"trigger"`
	Created    time.Time       `json:"created"`
	Start      *time.Time      `json:"startTime"` // null while it waits
	End        *time.Time      `json:"endTime"`   // null until it ends
	Seconds    float64         `json:"durationSeconds"`
	Progress   Amount          `json:"progress"`
	ETA        *ETA            `json:"eta"`              // null when nothing can be said yet
	Detail     *Progress       `json:"detail,omitempty"` // while it runs
	Error      *Failure        `json:"error"`
	Record     *meter.Record   `json:"record,omitempty"` // where the time went
	Result     json.RawMessage `json:"result,omitempty"`

	Vault    string          `json:"vault,omitempty"`  // the vault whose job it is, as instances refer to it
	Policy   string          `json:"policy,omitempty"` // its name at the time
	DiskID   ID              `json:"diskId,omitempty"` // the disk's resource, if it has one
	Tag      string          `json:"tag,omitempty"`    // retention tag of the point
	Point    string          `json:"point,omitempty"`  // made by a backup, read by a restore
	PointAt  *time.Time      `json:"pointTime,omitempty"`
	Target   ID              `json:"target,omitempty"`    // of a restore
	Caller   string          `json:"caller,omitempty"`    // name of who asked
	Activity string          `json:"activity,omitempty"`  // ID of the request that asked
	Attempt  int             `json:"attempt,omitempty"`   // from 1
	Retry    *time.Time      `json:"retryTime,omitempty"` // when the next attempt begins, if one failed and waits
	Host     string          `json:"host,omitempty"`      // that runs it, or is to
	Site     string          `json:"site,omitempty"`      // location whose hosts can run it
	Slot     *time.Time      `json:"slot,omitempty"`      // of the schedule that it is for
	Reason   string          `json:"reason,omitempty"`    // why the schedule asked for it
	Request  json.RawMessage `json:"request,omitempty"`   // what a queued job is to do
	Cancel   bool            `json:"cancelRequested,omitempty"`
}

// ResourceID is the ID of the job.
func (j Job) ResourceID() ID { return VaultID(j.Vault).Child("backupJobs", j.ID) }

// SubTask is a part of a job as clients see it.
type SubTask struct {
	ID      int               `json:"taskId"` // from 1
	Name    string            `json:"taskName"`
	Status  Status            `json:"taskStatus"`
	Details map[string]string `json:"additionalDetails,omitempty"`
}

// SubTasks gives the parts of the job: one, as a backup or restore of a disk
// has.
func (j Job) SubTasks() []SubTask {
	t := SubTask{ID: 1, Name: "Trigger " + j.Operation, Status: j.Status}
	if j.Status == Completed || j.Status == CompletedWithWarnings {
		t.Details = map[string]string{"TaskId": j.Activity, "DatasourceType": TypeDisk}
		switch j.Operation {
		case OperationBackup:
			t.Details["OriginalDatasourceSizeInBytes"] = strconv.FormatInt(j.Progress.Total, 10)
		case OperationRestore:
			t.Details["DataTransferredInBytes"] = strconv.FormatInt(j.Progress.Done, 10)
		}
	}
	return []SubTask{t}
}

// Amount is how much of something is done, in bytes of the disk.
type Amount struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// ETA is how many seconds are left, as a range: with 10 %, 50 % and 90 %
// probability the job ends within them.
type ETA struct {
	P10 float64 `json:"p10"`
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
}

// Progress is what a running job can say about itself.
type Progress struct {
	JobID      string  `json:"jobId,omitempty"`
	Operation  string  `json:"operation,omitempty"`
	Instance   string  `json:"instance,omitempty"`
	Phase      string  `json:"phase"`
	Done       int64   `json:"done"`
	Total      int64   `json:"total"`
	Rate       float64 `json:"rate"`                 // bytes per second, lately
	Bottleneck string  `json:"bottleneck,omitempty"` // the stage that holds the others back
	Stored     int64   `json:"stored"`               // bytes written to the store or the target so far
	ETA        *ETA    `json:"eta"`
}
