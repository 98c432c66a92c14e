package resource

import "github.com/diskvault/diskvault/base/problem"

// Protection is the state of a backup instance.
type Protection string

// The states, by their names on the wire. What each allows is in
// protectionRules; how they follow one another is in protectionMoves.
const (
	NotProtected                Protection = "NotProtected"
	ConfiguringProtection       Protection = "ConfiguringProtection"
	ConfiguringProtectionFailed Protection = "ConfiguringProtectionFailed"
	ProtectionConfigured        Protection = "ProtectionConfigured"
	UpdatingProtection          Protection = "UpdatingProtection"
	ProtectionError             Protection = "ProtectionError"
	ProtectionStopped           Protection = "ProtectionStopped"        // its points are kept for ever
	BackupSchedulesSuspended    Protection = "BackupSchedulesSuspended" // its points expire, but for the last one
	RetentionSchedulesSuspended Protection = "RetentionSchedulesSuspended"
	SoftDeleting                Protection = "SoftDeleting"
	SoftDeleted                 Protection = "SoftDeleted" // until it is purged or undeleted
)

// Protections lists all states.
var Protections = []Protection{
	NotProtected, ConfiguringProtection, ConfiguringProtectionFailed, ProtectionConfigured, UpdatingProtection, ProtectionError,
	ProtectionStopped, BackupSchedulesSuspended, RetentionSchedulesSuspended, SoftDeleting, SoftDeleted,
}

// protectionRules says what goes on in a state. A state without a row allows
// nothing.
var protectionRules = map[Protection]struct{ backsUp, expires bool }{
	ProtectionConfigured:        {backsUp: true, expires: true},
	UpdatingProtection:          {backsUp: true, expires: true},
	ProtectionError:             {backsUp: true, expires: true},
	BackupSchedulesSuspended:    {expires: true},
	RetentionSchedulesSuspended: {backsUp: true},
}

// BacksUp tells whether scheduled and on-demand backups run in this state.
func (p Protection) BacksUp() bool { return protectionRules[p].backsUp }

// Expires tells whether points expire by their rules in this state.
func (p Protection) Expires() bool { return protectionRules[p].expires }

// ProtectionChange is something that moves an instance to another state.
type ProtectionChange string

const (
	Configure        ProtectionChange = "configure"
	Configured       ProtectionChange = "configured"       // the work in the background succeeded
	ConfigureFailed  ProtectionChange = "configureFailed"  // it did not
	Update           ProtectionChange = "update"           // another policy or other settings
	BackupsFail      ProtectionChange = "backupsFail"      // an error that a person has to mend
	BackupsWork      ProtectionChange = "backupsWork"      // mended
	StopProtection   ProtectionChange = "stopProtection"   // retain for ever
	SuspendBackups   ProtectionChange = "suspendBackups"   // retain by policy
	ResumeProtection ProtectionChange = "resumeProtection" // after stopProtection
	ResumeBackups    ProtectionChange = "resumeBackups"    // after suspendBackups
	Delete           ProtectionChange = "delete"           // with soft delete
	Deleted          ProtectionChange = "deleted"          // soft-deleted now
	Undelete         ProtectionChange = "undelete"
)

// active are the states of an instance that is backed up and expires points.
var active = []Protection{ProtectionConfigured, ProtectionError, UpdatingProtection}

var resumable = []Protection{ProtectionStopped, BackupSchedulesSuspended, RetentionSchedulesSuspended}

// protectionMoves are all moves there are, besides those that change nothing.
var protectionMoves = map[ProtectionChange]struct {
	from []Protection
	to   Protection
}{
	Configure:       {[]Protection{NotProtected, ConfiguringProtectionFailed}, ConfiguringProtection},
	Configured:      {[]Protection{ConfiguringProtection, UpdatingProtection}, ProtectionConfigured},
	ConfigureFailed: {[]Protection{ConfiguringProtection}, ConfiguringProtectionFailed},
	Update:          {[]Protection{ProtectionConfigured, ProtectionError}, UpdatingProtection},
	BackupsFail:     {[]Protection{ProtectionConfigured, UpdatingProtection}, ProtectionError},
	BackupsWork:     {[]Protection{ProtectionError}, ProtectionConfigured},
	StopProtection:  {append([]Protection{BackupSchedulesSuspended, RetentionSchedulesSuspended}, active...), ProtectionStopped},
	SuspendBackups:  {append([]Protection{ProtectionStopped}, active...), BackupSchedulesSuspended},
	// Either resumes from either: who resumes wants backups, and an answer of
	// "nothing to do" would leave the disk without them.
	ResumeProtection: {resumable, ProtectionConfigured},
	ResumeBackups:    {resumable, ProtectionConfigured},
	Delete: {append([]Protection{ConfiguringProtection, ConfiguringProtectionFailed, ProtectionStopped, BackupSchedulesSuspended,
		RetentionSchedulesSuspended}, active...), SoftDeleting},
	Deleted:  {[]Protection{SoftDeleting}, SoftDeleted},
	Undelete: {[]Protection{SoftDeleted}, ProtectionStopped},
}

// After gives the state that a change leads to, and whether it is another one:
// stopping what is stopped and resuming what runs change nothing, as in Azure.
// A change that this state does not allow is a ProtectionStateConflict problem.
func (p Protection) After(c ProtectionChange) (to Protection, changed bool, err error) {
	move := protectionMoves[c]
	for _, from := range move.from {
		if p == from {
			return move.to, true, nil
		}
	}
	if p == move.to && move.to != "" || p.BacksUp() && move.to == ProtectionConfigured {
		return p, false, nil
	}
	return p, false, problem.New(problem.ProtectionStateConflict, "The change %s is not possible while the instance is in the state %s.", c, p).
		With("state", string(p)).With("change", string(c))
}
