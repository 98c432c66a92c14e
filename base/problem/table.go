package problem

import "sort"

// Code is the stable name of a problem; scripts and documents rely on it.
type Code string

// Entry is one row of the table.
type Entry struct {
	Code    Code
	Kind    Kind
	Meaning string   // what has happened, in general
	Actions []string // what to do next, most useful first
}

// The codes, grouped by where they arise.
const (
	InternalError        Code = "InternalError"
	InvalidArgument      Code = "InvalidArgument"
	OperationInterrupted Code = "OperationInterrupted"

	SourceNotFound         Code = "SourceNotFound"
	SourceNotSupported     Code = "SourceNotSupported"
	SourcePermissionDenied Code = "SourcePermissionDenied"
	SourceReadFailed       Code = "SourceReadFailed"
	SourceInUse            Code = "SourceInUse"
	SourceResized          Code = "SourceResized"
	SourceReplaced         Code = "SourceReplaced"
	SourceTooLarge         Code = "SourceTooLarge"

	MachineBusy    Code = "MachineBusy"
	MachineManaged Code = "MachineManaged"
	MachineFailed  Code = "MachineFailed"
	CaptureNoRoom  Code = "CaptureNoRoom"
	GroupRefused   Code = "ConsistencyGroupNotSupported"

	TargetExists      Code = "TargetExists"
	TargetTooSmall    Code = "TargetTooSmall"
	TargetInUse       Code = "TargetInUse"
	TargetNotWritable Code = "TargetNotWritable"
	TargetFull        Code = "TargetFull"
	TargetWriteFailed Code = "TargetWriteFailed"

	StoreNotFound           Code = "StoreNotFound"
	StoreExists             Code = "StoreExists"
	StoreContractMissing    Code = "StoreContractMissing"
	StoreUnreachable        Code = "StoreUnreachable"
	StorePermissionDenied   Code = "StorePermissionDenied"
	StoreFull               Code = "StoreFull"
	StoreFailed             Code = "StoreFailed"
	StoreDamaged            Code = "StoreDamaged"
	StoreVersionUnsupported Code = "StoreVersionUnsupported"
	StoreObjectMissing      Code = "StoreObjectMissing"
	SessionFenced           Code = "SessionFenced"
	CollectBlocked          Code = "CollectBlocked"
	StoreRealmDiffers       Code = "StoreRealmDiffers"
	CopyInProgress          Code = "CopyInProgress"

	KeyMissing Code = "KeyMissing"
	KeyWrong   Code = "KeyWrong"
	KeyLast    Code = "KeyLast"

	InstanceNotFound      Code = "InstanceNotFound"
	InstanceAmbiguous     Code = "InstanceAmbiguous"
	RecoveryPointNotFound Code = "RecoveryPointNotFound"
	LastPoint             Code = "LastPoint"
	VaultNotFound         Code = "VaultNotFound"
	PolicyNotFound        Code = "PolicyNotFound"
	RetentionTagNotFound  Code = "RetentionTagNotFound"
	JobNotFound           Code = "JobNotFound"
	CodeNotFound          Code = "CodeNotFound"

	VolumeNotFound         Code = "VolumeNotFound"
	FileNotFound           Code = "FileNotFound"
	FileSystemDamaged      Code = "FileSystemDamaged"
	FileSystemNotSupported Code = "FileSystemNotSupported"
	MountFailed            Code = "MountFailed"
	ExportFailed           Code = "ExportFailed"

	CatalogUnreachable     Code = "CatalogUnreachable"
	CallerNotAllowed       Code = "AuthorizationFailed"
	NoServer               Code = "NoServer"
	SignInFailed           Code = "SignInFailed"
	TokenInvalid           Code = "InvalidAuthenticationToken"
	RequestUnreadable      Code = "InvalidRequestContent"
	APIVersionMissing      Code = "MissingApiVersionParameter"
	APIVersionUnknown      Code = "NoRegisteredProviderFound"
	NamespaceUnknown       Code = "InvalidResourceNamespace"
	TypeUnknown            Code = "InvalidResourceType"
	MethodUnknown          Code = "MethodNotAllowed"
	ParameterInvalid       Code = "InvalidParameter"
	NotRegistered          Code = "MissingSubscriptionRegistration"
	TooManyRequests        Code = "TooManyRequests"
	DiskOptionUnsupported  Code = "DiskOptionNotSupported"
	ListenFailed           Code = "ListenFailed"
	SignInKeysDamaged      Code = "SignInKeysDamaged"
	NothingToConfirm       Code = "NothingToConfirm"
	SettingIrreversible    Code = "SettingIrreversible"
	SnapshotGroupMissing   Code = "UserErrorOperationalStoreParametersNotProvided"
	SnapshotGroupInvalid   Code = "UserErrorInvalidOperationalStoreResourceGroup"
	SnapshotGroupElsewhere Code = "UserErrorSnapshotRGSubscriptionMismatch"
	SameNameDisk           Code = "UserErrorSameNameDiskAlreadyExists"
	CrossRestoreOff        Code = "CrossSubscriptionRestoreDisabled"
	ResourceIDInvalid      Code = "LinkedInvalidPropertyId"
	ResourceNotFound       Code = "ResourceNotFound"
	GroupNotFound          Code = "ResourceGroupNotFound"
	ResourceChanged        Code = "PreconditionFailed"
	ResourceExists         Code = "Conflict"
	LocationConflict       Code = "InvalidResourceLocation"
	PropertyFixed          Code = "PropertyChangeNotAllowed"
	VaultInUse             Code = "VaultInUse"
	PolicyInUse            Code = "UserErrorDppPolicyObjectInUse"
	PolicyInSoftDeleted    Code = "UserErrorPolicyAssociatedWithSoftDeletedItems"
	GroupInUse             Code = "ResourceGroupInUse"
	DiskProtected          Code = "UserErrorDppDatasourceAlreadyProtected"
	BackupRuleUnknown      Code = "BMSUserErrorDPPAdhocBackupNotAllowedForBackupType"
	OneBackupAtATime       Code = "UserErrorMaxConcurrentOperationLimitReached"
	DailyLimitReached      Code = "DailyLimitReached"
	AssignmentFixed        Code = "RoleAssignmentUpdateNotPermitted"
	AssignmentExists       Code = "RoleAssignmentExists"
	RoleUnknown            Code = "RoleDefinitionDoesNotExist"
	PrincipalUnknown       Code = "PrincipalNotFound"

	PolicyScheduleInvalid   Code = "PolicyScheduleInvalid"
	PolicyRetentionInvalid  Code = "PolicyRetentionInvalid"
	PolicyLimitExceeded     Code = "PolicyLimitExceeded"
	SnapshotLimitReached    Code = "SnapshotLimitReached"
	ProtectionStateConflict Code = "ProtectionStateConflict"
	SoftDeleteMandatory     Code = "DppAlwaysOnSoftDeleteStateMandatory"

	RightsMissing          Code = "UserErrorMissingRequiredPermissions"
	LinkedNotAllowed       Code = "LinkedAuthorizationFailed"
	BackupRightsMissing    Code = "UserErrorDiskBackupAuthorizationFailed"
	IdentityOff            Code = "UserErrorSystemIdentityNotEnabledWithVault"
	IdentityGone           Code = "UserErrorUserIdentityNotFoundOrNotAssociatedWithVault"
	DiskUnseen             Code = "UserErrorDiskBackupDiskOrMSIPermissionsNotPresent"
	DiskGone               Code = "UserErrorManagedDiskNotFound"
	DiskRightsMissing      Code = "UserErrorNotEnoughPermissionOnDisk"
	SnapshotGroupUnseen    Code = "UserErrorDiskBackupSnapshotRGOrMSIPermissionsNotPresent"
	JobSnapshotGroupUnseen Code = "UserErrorSnapshotRGOrMSIPermissionsNotPresent"
	SnapshotGroupGone      Code = "UserErrorSnapshotRGNotFound"
	SnapshotRightsMissing  Code = "UserErrorNotEnoughPermissionOnSnapshotRG"
	TargetGroupUnseen      Code = "UserErrorDiskBackupRestoreRGOrMSIPermissionsNotPresent"
	TargetGroupGone        Code = "UserErrorRestoreTargetRGNotFound"
	TargetRightsMissing    Code = "UserErrorNotEnoughPermissionOnTargetRG"
	EncryptionSetUnseen    Code = "UserErrorMSIPermissionsNotPresentOnDES"
	EncryptionKeyGone      Code = "UserErrorDESKeyVaultKeyNotAvailable"

	EncryptionKeyOff    Code = "UserErrorDESKeyVaultKeyDisabled"
	EncryptedElsewhere  Code = "CustomerKeyRestoreRefused"
	DiskTypeUnsupported Code = "UserErrorDiskBackupDiskTypeNotSupported"
	LocationMismatch    Code = "LocationMismatch"
	LocationUnsupported Code = "BackupAgentPluginHostValidateProtectionError"
	ProviderMissing     Code = "UserErrorMissingSubscriptionRegistration"
	SnapshotGone        Code = "UserErrorDiskSnapshotNotFound"
	SnapshotRecordGone  Code = "UserErrorSnapshotMetadataNotFound"
	DiskQuotaReached    Code = "UserErrorSubscriptionDiskQuotaLimitReached"

	HomeNotUsable   Code = "HomeNotUsable"
	HomeFull        Code = "HomeFull"
	HomeBusy        Code = "HomeBusy"
	CatalogDamaged  Code = "CatalogDamaged"
	IndexDamaged    Code = "IndexDamaged"
	IndexBusy       Code = "IndexBusy"
	ToolMissing     Code = "ToolMissing"
	DataNotVerified Code = "DataNotVerified"
)

var table = []Entry{
	{InternalError, Failed, "diskvault met a condition that it does not know.",
		[]string{"Run the command again; if it fails again, report it with the text above."}},
	{InvalidArgument, Usage, "A value given on the command line or in a request cannot be used.",
		[]string{"Correct the value named in the message; `--help` lists what is allowed."}},
	{OperationInterrupted, Interrupted, "The operation was ended before it was done; what it had stored is kept and used by the next run.",
		[]string{"Run the same command again; it goes on from what is already stored."}},

	{SourceNotFound, NotFound, "The path or URL names no disk.",
		[]string{"Check the path; `diskvault status` lists the disks that are protected already."}},
	{SourceNotSupported, Refused, "The thing named is not a disk that diskvault can protect.",
		[]string{"Give an image file (raw, qcow2, vmdk, vhdx, vhd, vdi, qed), a block device, or the URL of an NBD export or of a machine's disk."}},
	{SourcePermissionDenied, Refused, "This user may not read the disk.",
		[]string{"Run as a user that may read it, for example with sudo, or grant read access."}},
	{SourceReadFailed, Failed, "The disk returned an error for some of its ranges; no recovery point was made.",
		[]string{"Look at the kernel log for the device and replace it if it fails.", "To keep what is readable, run again with --allow-unreadable: the ranges named are stored as zeros and the point is marked inconsistent."}},
	{SourceInUse, Refused, "The disk is written to, or its being quiet cannot be proven, so a copy would not be of one point in time.",
		[]string{"Stop whatever writes to it and run again.", "Or accept a copy that may not be of one moment with --allow-inconsistent; the point is then marked so."}},
	{SourceResized, Failed, "The disk changed its size while it was read.",
		[]string{"Run again when its size no longer changes."}},
	{SourceReplaced, Refused, "At this path there is now another disk than the one protected under this name.",
		[]string{"To protect it as a disk of its own, give it a name with --name.", "If it is the same disk, made anew on purpose, run again with --accept-replaced."}},
	{SourceTooLarge, Refused, "The disk is larger than diskvault supports.",
		[]string{"Protect a disk of at most 32 TiB."}},

	{MachineBusy, Busy, "The monitor of the running machine serves one program at a time, and another one is connected.",
		[]string{"Run again when the other program has ended.", "Or give the machine a second QMP socket for diskvault."}},
	{MachineManaged, Refused, "The running machine is managed by libvirt, which must itself take part in a backup of its disks.",
		[]string{"Shut the machine down and back up its image file.", "Or let the storage under the image give the point in time: XFS or btrfs, LVM thin, Ceph RBD."}},
	{MachineFailed, Failed, "The running machine refused a step of the backup, ended, or does not answer.",
		[]string{"Look at the reason given and run again; what the failed run left inside the machine is cleared away first."}},
	{CaptureNoRoom, Refused, "There is too little room for what changes on the disk while it is backed up.",
		[]string{"Free some room, or name a folder with more: &fleece=/FOLDER in the URL of a running machine's disk."}},
	{GroupRefused, Refused, "These disks cannot be captured at one moment in common.",
		[]string{"Put only disks of one running QEMU machine into a consistency group: qemu+unix:///PATH/qmp.sock?device=NAME.", "Or leave --group away: each disk gets a recovery point of its own moment."}},

	{TargetExists, Refused, "The target of the restore holds data already.",
		[]string{"Choose another target, or overwrite it with --overwrite."}},
	{TargetTooSmall, Refused, "The target is smaller than the disk to restore.",
		[]string{"Choose a target of at least the size named."}},
	{TargetInUse, Refused, "The target is mounted or used by something else.",
		[]string{"Unmount it, or choose another target."}},
	{TargetNotWritable, Refused, "The target cannot be written by this user.",
		[]string{"Choose another target, or run as a user that may write it."}},
	{TargetFull, Failed, "The target has no room for the disk.",
		[]string{"Free space there or choose another target; the same command goes on where it stopped."}},
	{TargetWriteFailed, Failed, "The target returned an error while it was written.",
		[]string{"Look at the kernel log for the device; choose another target."}},

	{StoreNotFound, NotFound, "There is no store at this place.",
		[]string{"Check the URL, or make a store there with `diskvault store create URL`."}},
	{StoreExists, Refused, "There is a store at this place already.",
		[]string{"Use it as it is, or choose an empty place."}},
	{StoreContractMissing, Refused, "The storage does not keep a promise that a store depends on.",
		[]string{"Use storage that supports conditional put (If-None-Match), read-after-write and complete listing."}},
	{StoreUnreachable, Busy, "The storage does not answer.",
		[]string{"Check the network and the address of the store, then run again."}},
	{StorePermissionDenied, Refused, "The storage refuses access.",
		[]string{"Check the credentials and what they allow: put, get, list and delete are needed."}},
	{StoreFull, Failed, "The storage has no room left; no recovery point was made, and those that exist are whole.",
		[]string{"Free space or extend the storage, then run again; what is stored already is used."}},
	{StoreFailed, Failed, "The storage reported an error of its own.",
		[]string{"Look at the log of the storage, or at the kernel log for its device, then run again; what is stored already is used."}},
	{StoreDamaged, Failed, "An object of the store does not hold what was written to it.",
		[]string{"Run `diskvault store check` to see what is affected.", "Run the backup again: damaged blocks that still exist on the disk are stored anew."}},
	{StoreVersionUnsupported, Refused, "The store was written in a format that this version cannot read.",
		[]string{"Use a version of diskvault that knows the format."}},
	{StoreObjectMissing, Failed, "An object that the store needs is not there.",
		[]string{"Run `diskvault store check` to see what is affected."}},
	{SessionFenced, Failed, "The run was out of touch with the store for so long that its place was taken; it may not commit.",
		[]string{"Run again; what is stored already is used."}},

	{CollectBlocked, Failed, "Not all that is in use could be read, so nothing was removed.",
		[]string{"Run `diskvault store check` to see what is damaged, and `diskvault store heal` to mend it.",
			"Or delete the recovery points that are damaged, then collect again."}},
	{StoreRealmDiffers, Refused, "Two stores do not belong to the same realm, so that nothing can be copied between them.",
		[]string{"Make the destination from this data folder, which gives it the realm of the stores that are known: `diskvault store create URL`."}},
	{CopyInProgress, Busy, "Another process copies the same recovery point to the same store.",
		[]string{"Run the copy again when the other one has ended; what it has copied is skipped then."}},

	{KeyMissing, Refused, "No key is at hand that opens this store.",
		[]string{"Give the recovery key or the passphrase with --key-file, or in DISKVAULT_KEY."}},
	{KeyWrong, Refused, "The key or passphrase does not open this store.",
		[]string{"Check it; `diskvault store key list` names the keys of a store that is open."}},
	{KeyLast, Refused, "It is the last key that could open the store if this machine is lost.",
		[]string{"Add another key first: `diskvault store key add`."}},

	{InstanceNotFound, NotFound, "No protected disk has this name or path.",
		[]string{"`diskvault status` lists the protected disks.", "Protect it: `diskvault backup PATH`."}},
	{InstanceAmbiguous, Usage, "More than one protected disk fits the name.",
		[]string{"Name it by its path or its full name."}},
	{LastPoint, Refused, "It is the last good recovery point of the disk.",
		[]string{"Make another backup first, or delete it all the same with --last."}},
	{RecoveryPointNotFound, NotFound, "The disk has no such recovery point.",
		[]string{"`diskvault points INSTANCE` lists them."}},
	{VaultNotFound, NotFound, "There is no vault of this name.",
		[]string{"Leave --vault away to use the default vault."}},
	{PolicyNotFound, NotFound, "There is no backup policy of this name.",
		[]string{"Leave --policy away to use the default policy."}},
	{RetentionTagNotFound, NotFound, "The policy has no such retention tag.",
		[]string{"Use a tag of the policy, for example Default."}},
	{JobNotFound, NotFound, "There is no such job.",
		[]string{"`diskvault jobs` lists them."}},
	{CodeNotFound, NotFound, "No error or finding has this code.",
		[]string{"`diskvault explain` lists all codes."}},

	{VolumeNotFound, NotFound, "The disk has no such partition or file system.",
		[]string{"`diskvault ls INSTANCE:/` lists the volumes of a disk."}},
	{FileNotFound, NotFound, "There is no such file in the recovery point.",
		[]string{"`diskvault ls` lists the folder above; another point may still have the file: `diskvault points INSTANCE`."}},
	{FileSystemDamaged, Failed, "The file system in the recovery point contradicts itself, as it did on the disk, so what it says is not believed.",
		[]string{"Other files of it can be read as usual.", "Restore the disk and check the file system with its own tools, or look into another point."}},
	{FileSystemNotSupported, Refused, "diskvault does not read files that are kept in this way.",
		[]string{"Restore the disk, or attach it, and read it with the system that made it."}},
	{MountFailed, Failed, "The system did not mount the recovery point.",
		[]string{"Check that /dev/fuse exists and that fusermount3 is installed, or run as root.", "`diskvault ls` and `diskvault cp` need no mount."}},
	{ExportFailed, Failed, "The recovery point could no longer be offered to NBD clients.",
		[]string{"Run the command again.", "Check that this process may have enough files open (`ulimit -n`) if there are many clients."}},

	{CatalogUnreachable, Busy, "The database of the catalog cannot be reached.",
		[]string{"Check that the database server runs and that its URL is right.", "Backups in the stores are not affected."}},
	{CallerNotAllowed, Refused, "The caller may not do this at this scope.",
		[]string{"Have a role assigned that holds the action named, at the scope named or above it."}},
	{NoServer, Refused, "No server runs, which jobs that nobody waits for need.",
		[]string{"Start one: `diskvault serve`", "Or do it at once from the command line: diskvault backup, diskvault restore."}},
	{SignInFailed, Refused, "The program is not known, or its secret is wrong or has expired.",
		[]string{"Check the client ID and the secret.", "Make a new secret: `diskvault role create-sp NAME`"}},
	{TokenInvalid, Refused, "The request has no token, or one that is not valid here.",
		[]string{"Sign in again, at the authority that `diskvault role create-sp` names, and send the token with the request."}},
	{RequestUnreadable, Usage, "The body of the request cannot be read.",
		[]string{"Correct the body; the message says where."}},
	{APIVersionMissing, Usage, "The request does not say which api-version it means.",
		[]string{"Add ?api-version= to the URL, for example 2023-11-01."}},
	{APIVersionUnknown, Usage, "The resource type is not offered in this api-version.",
		[]string{"Use one of the api-versions that the message names."}},
	{NamespaceUnknown, NotFound, "There is no resource provider of this name.",
		[]string{"Correct the path of the request."}},
	{TypeUnknown, NotFound, "The resource provider has no such type of resource or action.",
		[]string{"Correct the path of the request."}},
	{MethodUnknown, Usage, "This cannot be done with the resource.",
		[]string{"Use another method; the Allow header names them."}},
	{ParameterInvalid, Usage, "A parameter of the request has a value that cannot be used.",
		[]string{"Correct the value that the message names."}},
	{NotRegistered, Refused, "The subscription is not registered to use the resource provider.",
		[]string{"Register it: `POST /subscriptions/{id}/providers/{namespace}/register`"}},
	{TooManyRequests, Busy, "The caller sends more requests than it may.",
		[]string{"Wait as long as the Retry-After header says, then send it again."}},
	{DiskOptionUnsupported, Usage, "A disk or snapshot cannot be made in this way here.",
		[]string{"Use createOption Empty, Copy of a snapshot, or name a source by creationData.sourceUri or the tag diskvault-source."}},
	{ListenFailed, Failed, "The server cannot listen at the address.",
		[]string{"Check that no other server runs there, and that the address is one of this host."}},
	{SignInKeysDamaged, Failed, "The keys by which tokens are signed, or the certificate authority, cannot be read.",
		[]string{"Restore the folder named from a backup of the data folder, or remove it: new keys are made then, and clients sign in again."}},
	{NothingToConfirm, Refused, "Retention is not paused, so there is nothing to confirm.",
		[]string{"Nothing is to be done: points expire by their rules."}},
	{SettingIrreversible, Refused, "The setting was made for good and cannot be taken back.",
		[]string{"Leave it as it is, or use another vault."}},
	{SnapshotGroupMissing, Usage, "The request does not say in which resource group recovery points are to be kept.",
		[]string{"Name a snapshot resource group in the parameters of the operational store."}},
	{SnapshotGroupInvalid, Usage, "What is named as snapshot resource group is no resource group.",
		[]string{"Give the whole ID of a resource group."}},
	{SnapshotGroupElsewhere, Refused, "The snapshot resource group lies in another subscription than the disk.",
		[]string{"Choose a resource group of the disk's subscription."}},
	{SameNameDisk, Refused, "There is a disk of the name that the restored one is to have.",
		[]string{"Choose another name for the restored disk."}},
	{CrossRestoreOff, Refused, "The vault does not allow restores into another subscription.",
		[]string{"Restore into the disk's own subscription, or allow it in the vault's settings."}},
	{ResourceIDInvalid, Usage, "A value that must be a resource ID is none.",
		[]string{"Give the whole ID, such as /subscriptions/…/resourceGroups/…/providers/…/… of the resource."}},
	{ResourceNotFound, NotFound, "There is no such resource.",
		[]string{"Correct the ID, or make the resource first."}},
	{GroupNotFound, NotFound, "There is no such resource group.",
		[]string{"Make the resource group first, or correct its name."}},
	{ResourceChanged, Refused, "The resource was changed after it was read.",
		[]string{"Read it again, and apply the change to what it is now."}},
	{ResourceExists, Refused, "What exists already does not fit the request.",
		[]string{"Choose another name, or look at what exists under this one."}},
	{LocationConflict, Refused, "The resource exists in another location.",
		[]string{"Use the location that it has, or another name."}},
	{PropertyFixed, Refused, "A property cannot be changed once the resource exists.",
		[]string{"Leave the property as it is, or make the resource anew under another name."}},
	{VaultInUse, Refused, "The vault still holds backup instances or policies, so it is not deleted.",
		[]string{"Delete its backup instances and then its policies first."}},
	{PolicyInUse, Refused, "Backup instances still use the policy, so it is not deleted.",
		[]string{"Move the instances named to another policy, or delete them first."}},
	{PolicyInSoftDeleted, Refused, "Deleted backup instances that can still be had back use the policy, so it is not deleted.",
		[]string{"Wait until they are purged, or undelete them and choose another policy for them."}},
	{GroupInUse, Refused, "The resource group still holds resources, so it is not deleted.",
		[]string{"Delete the resources named first."}},
	{DiskProtected, Refused, "The disk is protected by another backup instance already.",
		[]string{"Delete the other backup instance first, or choose another disk."}},
	{BackupRuleUnknown, Usage, "The policy has no backup rule of this name.",
		[]string{"Give the name of the backup rule, which holds the schedule, and not that of a retention rule."}},
	{OneBackupAtATime, Refused, "An operation of this kind runs for the disk already; there is one at a time.",
		[]string{"Wait for it to end; `diskvault jobs` shows it."}},
	{DailyLimitReached, Refused, "The instance has had as many on-demand operations within a day as the limit allows.",
		[]string{"Wait; the limit counts the last 24 hours.", "The limit is a setting of the server."}},
	{AssignmentFixed, Refused, "A role assignment cannot be changed.",
		[]string{"Remove it and make another one, or use a new name."}},
	{AssignmentExists, Refused, "The principal has this role at this scope already.",
		[]string{"Use the assignment that exists."}},
	{RoleUnknown, Usage, "There is no such role definition.",
		[]string{"Use the ID of a role from the list of role definitions."}},
	{PrincipalUnknown, Usage, "There is no such principal.",
		[]string{"Make the principal first, or correct its object ID."}},

	{PolicyScheduleInvalid, Usage, "The schedule of a policy cannot be used.",
		[]string{"Write it as R/<date and time with offset>/<interval>, for example R/2026-01-01T22:00:00+00:00/PT4H; the interval is PT1H, PT2H, PT4H, PT6H, PT8H, PT12H or P1D."}},
	{PolicyRetentionInvalid, Usage, "The retention rules of a policy contradict each other or cannot be used.",
		[]string{"Correct the rules named in the message; a policy has one default rule, and each other rule its own tag, criterion and priority."}},
	{PolicyLimitExceeded, Refused, "The policy would keep more recovery points of a disk than there may be, or for too long.",
		[]string{"Shorten the durations or back up less often, as the message says.", "Points that must live longer belong into the vault tier, which has no limit of number and keeps up to 99 years."}},
	{SnapshotLimitReached, Refused, "The disk has as many recovery points in the operational tier as there may be, so no further one is made.",
		[]string{"Delete points that nobody needs, or wait until some expire.", "Shorten the retention of the policy if this comes again."}},
	{SoftDeleteMandatory, Refused, "This version of the API accepts no other setting of soft delete than AlwaysOn.",
		[]string{"Send AlwaysOn, or use an api-version before 2025-09-01."}},
	{ProtectionStateConflict, Refused, "The state of the backup instance does not allow this.",
		[]string{"Resume the protection first if it is stopped or suspended; undelete the instance if it is deleted."}},

	{RightsMissing, Refused, "The check before the work found that the identity of the vault lacks rights.",
		[]string{"Assign the roles named in the message to the identity of the vault, then check again: `diskvault role missing --fix`."}},
	{LinkedNotAllowed, Refused, "The caller may touch the resource itself, but not another one that the request names.",
		[]string{"Have a role assigned that holds the action named, on that other resource or above it."}},
	{BackupRightsMissing, Refused, "The identity of the vault lacks rights on the disk and on the snapshot resource group.",
		[]string{"Assign it Disk Backup Reader on the disk and Disk Snapshot Contributor on the snapshot resource group: `diskvault role missing --fix`."}},
	{IdentityOff, Refused, "The vault has no identity of its own, so it cannot act.",
		[]string{"Switch the system-assigned identity of the vault on and assign its roles again, since it is a new one each time.", "Or let the backup instances use a user-assigned identity."}},
	{IdentityGone, Refused, "The user-assigned identity that the backup instance names is not one of the vault.",
		[]string{"Add the identity to the vault again, or name another one in the backup instance."}},
	{DiskUnseen, Refused, "The disk is not there, or the identity of the vault may not see it; it cannot tell which.",
		[]string{"Check that the disk exists under its ID.", "Assign Disk Backup Reader on the disk to the identity of the vault."}},
	{DiskGone, NotFound, "The disk does not exist under its ID any more.",
		[]string{"If it was deleted by mistake, restore it from its last recovery point.", "If it was moved, protect it under its new ID."}},
	{DiskRightsMissing, Refused, "The identity of the vault may see the disk, but not open it for a backup.",
		[]string{"Assign Disk Backup Reader on the disk to the identity of the vault."}},
	{SnapshotGroupUnseen, Refused, "The snapshot resource group is not there, or the identity of the vault may not see it.",
		[]string{"Make the resource group if it is missing.", "Assign Disk Snapshot Contributor on it to the identity of the vault."}},
	{JobSnapshotGroupUnseen, Refused, "A job found the snapshot resource group missing, or may not do there what it must.",
		[]string{"Make the resource group again under the same name if it is missing.", "Assign Disk Snapshot Contributor on it to the identity of the vault."}},
	{SnapshotGroupGone, NotFound, "The resource group in which the recovery points of the operational tier lie does not exist.",
		[]string{"Make it again under the same name, and assign Disk Snapshot Contributor on it to the identity of the vault."}},
	{SnapshotRightsMissing, Refused, "The identity of the vault may see the snapshot resource group, but not manage recovery points in it.",
		[]string{"Assign Disk Snapshot Contributor on the resource group to the identity of the vault."}},
	{TargetGroupUnseen, Refused, "The resource group for the restored disk is not there, or the identity of the vault may not see it.",
		[]string{"Choose a resource group that exists.", "Assign Disk Restore Operator on it to the identity of the vault."}},
	{TargetGroupGone, NotFound, "The resource group for the restored disk does not exist.",
		[]string{"Choose a resource group that exists, or make it."}},
	{TargetRightsMissing, Refused, "The identity of the vault may not make disks in the resource group of the restore.",
		[]string{"Assign Disk Restore Operator on the resource group to the identity of the vault."}},
	{EncryptionSetUnseen, Refused, "The identity of the vault may not see the disk encryption set that holds the key of the disk.",
		[]string{"Assign Reader on the disk encryption set to the identity of the vault."}},
	{EncryptionKeyGone, Refused, "The key of the disk encryption set cannot be used: it is deleted or switched off.",
		[]string{"Recover the key, or switch it on again."}},

	{EncryptionKeyOff, Refused, "The key of the disk encryption set is switched off.",
		[]string{"Switch the key on again, then retry."}},
	{EncryptedElsewhere, Refused, "A disk whose key belongs to a customer is restored within its subscription only.",
		[]string{"Restore it to the subscription of the disk."}},
	{DiskTypeUnsupported, Refused, "The resource is no disk, or one of a type that cannot be protected.",
		[]string{"Use a disk of a type in docs/support-matrix.md."}},
	{LocationMismatch, Refused, "Two things that must be in one location are in different ones.",
		[]string{"Use a vault, and a target, of the location of the disk."}},
	{LocationUnsupported, Refused, "No host works for the location of the vault, so nothing there can be backed up.",
		[]string{"Start a worker with --location on a host of that site, or use a vault of another location."}},
	{ProviderMissing, Refused, "The subscription is not registered for a provider that the work needs.",
		[]string{"Register Microsoft.Compute and Microsoft.Storage in the subscription."}},
	{SnapshotGone, NotFound, "The snapshot of the recovery point is not in the snapshot resource group any more.",
		[]string{"Use another recovery point.", "Keep people and programs from deleting what lies in the snapshot resource group."}},
	{SnapshotRecordGone, NotFound, "What is kept about the snapshot of the recovery point is gone.",
		[]string{"Use another recovery point.", "If the store is whole, rebuild the catalog: `diskvault store rebuild-catalog`."}},
	{DiskQuotaReached, Refused, "The subscription has as many disks as it may have.",
		[]string{"Delete disks that nobody needs, or raise the quota, then retry."}},

	{HomeNotUsable, Refused, "The data folder cannot be used.",
		[]string{"Choose another with --home, or correct its permissions."}},
	{HomeFull, Failed, "The file system of the data folder has no room left; the stores and the recovery points in them are whole.",
		[]string{"Free space there, then run again; what is stored already is used.", "Or move the data folder to a larger file system and name it with --home."}},
	{HomeBusy, Busy, "Another process works in the data folder and did not answer.",
		[]string{"Wait for it to end, then run again."}},
	{CatalogDamaged, Failed, "The catalog of this data folder cannot be read; the store is not affected.",
		[]string{"Rebuild it from the store: `diskvault store rebuild-catalog`."}},
	{IndexDamaged, Failed, "The local index cannot be read; the store is not affected.",
		[]string{"Rebuild it: `diskvault store rebuild-index`."}},
	{IndexBusy, Busy, "The local index is in use by another process.",
		[]string{"Wait for it to end, then run again."}},
	{ToolMissing, Failed, "A program that this needs is not installed.",
		[]string{"Install it and run again."}},
	{DataNotVerified, Failed, "Some data of the recovery points could not be read back as it was written.",
		[]string{"Mend it: `diskvault store heal`, with --from if there is a copy of the store.", "Run the backup again: damaged blocks that still exist on the disk are stored anew.", "Restore other ranges and other points as usual; they are not affected."}},
}

var byCode = func() map[Code]Entry {
	m := make(map[Code]Entry, len(table))
	for _, e := range table {
		m[e.Code] = e
	}
	return m
}()

// Lookup gives the row of a code; a code that is not in the table gets that of
// InternalError.
func Lookup(code Code) Entry {
	if e, ok := byCode[code]; ok {
		return e
	}
	return byCode[InternalError]
}

// Known tells whether the table has the code.
func Known(code Code) bool { _, ok := byCode[code]; return ok }

// All gives the table in the order of the codes.
func All() []Entry {
	all := append([]Entry(nil), table...)
	sort.Slice(all, func(i, j int) bool { return all[i].Code < all[j].Code })
	return all
}
