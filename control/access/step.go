package access

import "github.com/diskvault/diskvault/base/problem"

// Place is one of the resources that a vault's identity needs rights on.
type Place string

const (
	Disk          Place = "disk"                    // the source
	SnapshotGroup Place = "snapshot resource group" // the operational tier
	TargetGroup   Place = "target resource group"   // of a restore
	EncryptionSet Place = "disk encryption set"     // only of disks with a customer's key
)

// Work is what a vault's identity does.
type Work string

const (
	Validate        Work = "validate"        // validateForBackup, before protection is configured
	Backup          Work = "backup"          // scheduled or on demand
	Expire          Work = "expire"          // removal of recovery points
	ValidateRestore Work = "validateRestore" // before a restore
	Restore         Work = "restore"
)

// step is one check of the identity's rights: it must see the place and may do
// the actions there.
type step struct {
	place   Place
	see     string   // the action of reading the place; without it nobody can tell whether the place exists
	actions []string // further ones
	role    string   // that Azure's documentation names for it
	unseen  problem.Code
	gone    problem.Code
	lacking problem.Code
}

// steps are the checks of each work, in their order: after the identity itself
// come the disk, then the snapshot resource group, as Azure does it.
var steps = map[Work][]step{
	Validate:        {readDisk, keepSnapshots(problem.SnapshotGroupUnseen), readEncryptionSet},
	Backup:          {readDisk, keepSnapshots(problem.JobSnapshotGroupUnseen), readEncryptionSet},
	Expire:          {dropSnapshots},
	ValidateRestore: {openSnapshots, makeDisk, readEncryptionSet},
	Restore:         {openSnapshots, makeDisk, readEncryptionSet},
}

const seeGroup = "Microsoft.Resources/subscriptions/resourceGroups/read"

var (
	readDisk = step{
		place: Disk, see: "Microsoft.Compute/disks/read", role: DiskBackupReader,
		// Compute wants it of whoever makes a snapshot of the disk.
		actions: []string{"Microsoft.Compute/disks/beginGetAccess/action"},
		unseen:  problem.DiskUnseen, gone: problem.DiskGone, lacking: problem.DiskRightsMissing,
	}
	dropSnapshots = step{
		place: SnapshotGroup, see: seeGroup, role: DiskSnapshotContributor,
		actions: []string{"Microsoft.Compute/snapshots/read", "Microsoft.Compute/snapshots/delete"},
		unseen:  problem.JobSnapshotGroupUnseen, gone: problem.SnapshotGroupGone, lacking: problem.SnapshotRightsMissing,
	}
	openSnapshots = step{
		place: SnapshotGroup, see: seeGroup, role: DiskSnapshotContributor,
		// Compute wants beginGetAccess of whoever makes a disk from a snapshot.
		actions: []string{"Microsoft.Compute/snapshots/read", "Microsoft.Compute/snapshots/beginGetAccess/action", "Microsoft.Compute/snapshots/endGetAccess/action"},
		unseen:  problem.JobSnapshotGroupUnseen, gone: problem.JobSnapshotGroupUnseen, lacking: problem.JobSnapshotGroupUnseen,
	}
	makeDisk = step{
		place: TargetGroup, see: seeGroup, role: DiskRestoreOperator,
		actions: []string{"Microsoft.Compute/disks/read", "Microsoft.Compute/disks/write"},
		unseen:  problem.TargetGroupUnseen, gone: problem.TargetGroupGone, lacking: problem.TargetRightsMissing,
	}
	readEncryptionSet = step{
		place: EncryptionSet, see: "Microsoft.Compute/diskEncryptionSets/read", role: Reader,
		unseen: problem.EncryptionSetUnseen, gone: problem.EncryptionKeyGone, lacking: problem.EncryptionSetUnseen,
	}
)

func keepSnapshots(unseen problem.Code) step {
	return step{
		place: SnapshotGroup, see: seeGroup, role: DiskSnapshotContributor,
		actions: []string{"Microsoft.Compute/snapshots/read", "Microsoft.Compute/snapshots/write", "Microsoft.Compute/snapshots/delete"},
		unseen:  unseen, gone: problem.SnapshotGroupGone, lacking: problem.SnapshotRightsMissing,
	}
}
