// Package support is the support matrix: what diskvault protects and restores,
// and what it refuses before any work starts, with a code, a reason and what to
// do instead. One table says it to people (docs/support-matrix.md is made from
// it) and to the program (Check).
package support

import (
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/disk"
)

// Answer is what the matrix says of a configuration.
type Answer string

const (
	Yes  Answer = "yes"
	Note Answer = "yes, with limits" // it works, and a person should know what is different
	No   Answer = "no"               // refused with the code of the row
	None Answer = "not offered"      // there is no request for it that could be refused
)

// Row is one configuration of the matrix.
type Row struct {
	Area          string
	Configuration string
	Answer        Answer
	Code          problem.Code // of a refusal
	Text          string       // why it is refused, or what is different: a sentence
	Remedy        string       // what to do instead: a sentence; empty where nothing is to be done
	Unproven      bool         // built, and not yet proven on real hardware

	applies func(*Case) bool // nil: of use to people only
}

// Limits of the service, as on the real one. The limits of points are those of
// control/retention.
const (
	OnDemandPerDay    = 10 // backups of an instance
	RestoresPerDay    = 10 // of an instance
	InstancesPerVault = 5000
	PoliciesPerVault  = 5000
)

// Case is a configuration to be judged. What is not known stays zero and is not
// judged.
type Case struct {
	// Source is the disk as this host finds it.
	Source *disk.Source
	// AllowInconsistent accepts copies that are not of one point in time.
	AllowInconsistent bool

	Vault resource.Vault
	Disk  resource.Disk // as a resource; without ID: not asked for
	// Provider tells which providers the disk's subscription is registered for;
	// nil: not asked for.
	Provider []string
	// Sites are the locations that have a host; nil: not asked for.
	Sites []string
	// Every is the interval of the policy.
	Every time.Duration
	// SnapshotGroup is the resource group of the operational tier as the request
	// gives it; HasSnapshotGroup tells that it gives one.
	SnapshotGroup    string
	HasSnapshotGroup bool
	// WasGroup is the snapshot resource group that the instance has already.
	WasGroup resource.ID
	// EncryptionSet is that of the disk; empty: none.
	EncryptionSet resource.ID

	Restore *RestoreCase // nil: protection is asked for
}

// RestoreCase is what a restore adds to a case. Case.Disk is the source.
type RestoreCase struct {
	Target          resource.ID // of the disk to be made
	Location        string      // of the target
	TargetExists    bool
	SnapshotGone    bool // the operational placement was removed by hand
	RecordGone      bool // the point's record is gone
	KeyOff          bool // the key of the encryption set is switched off
	Disks, MaxDisks int  // in the target's subscription; MaxDisks 0: no quota
	RecoveryOption  string
}

// Finding is a row that applies to a case.
type Finding struct {
	Row     Row
	Problem *problem.Error // nil unless it is refused
}

// Check gives all rows that refuse the case or say something of it, in the order
// of the matrix. The work may begin if no finding has a problem.
func Check(c Case) []Finding {
	var out []Finding
	for _, r := range Matrix {
		if r.applies == nil || !r.applies(&c) {
			continue
		}
		f := Finding{Row: r}
		if r.Answer == No {
			f.Problem = problem.New(r.Code, "%s", r.Text).With("configuration", r.Configuration)
			if r.Remedy != "" {
				f.Problem.Do(r.Remedy)
			}
		}
		out = append(out, f)
	}
	return out
}

// Refusals are the problems among findings, in their order.
func Refusals(fs []Finding) []*problem.Error {
	var out []*problem.Error
	for _, f := range fs {
		if f.Problem != nil {
			out = append(out, f.Problem)
		}
	}
	return out
}
