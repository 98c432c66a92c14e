package retention

import (
	"fmt"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
)

// Removal is what the deletion of a backup instance does.
type Removal struct {
	Soft   bool      // the instance becomes soft-deleted; its points stay until Purge
	Purge  time.Time // State.Purge from then on; now if not soft
	Reason string
}

// Remove says what the deletion of an instance does under the vault's setting.
// The setting in force at this moment counts: a later change of it moves no
// purge. SecureByDefault is the rule of api-versions from 2025-09-01 on, under
// which a deletion is soft whatever the vault says.
func Remove(s resource.SoftDelete, secureByDefault bool, now time.Time) Removal {
	s = s.Effective()
	if s.State == resource.SoftDeleteOff && !secureByDefault {
		return Removal{Purge: now, Reason: "soft delete is off in the vault, so the points are removed at once"}
	}
	why := "soft delete is on in the vault"
	if s.State == resource.SoftDeleteOff {
		why, s.Days = "this version of the API always deletes softly", resource.MinSoftDeleteDays
	}
	purge := now.AddDate(0, 0, s.Days)
	return Removal{true, purge, fmt.Sprintf("%s: the points are kept for %d days and can be undeleted until %s", why, s.Days, clock(purge))}
}

// CheckSoftDelete tells whether a vault's setting may be changed so.
// AlwaysOn is for ever; with secureByDefault nothing else is accepted
// (DppAlwaysOnSoftDeleteStateMandatory).
func CheckSoftDelete(from, to resource.SoftDelete, secureByDefault bool) error {
	from, to = from.Effective(), to.Effective()
	switch to.State {
	case resource.SoftDeleteOff, resource.SoftDeleteOn, resource.SoftDeleteAlwaysOn:
	default:
		return problem.New(problem.InvalidArgument, "%q is no state of soft delete: it is Off, On or AlwaysOn.", to.State)
	}
	if secureByDefault && to.State != resource.SoftDeleteAlwaysOn {
		return problem.New(problem.SoftDeleteMandatory, "This version of the API wants soft delete to be AlwaysOn, not %s.", to.State)
	}
	if from.State == resource.SoftDeleteAlwaysOn && to.State != resource.SoftDeleteAlwaysOn {
		return problem.New(problem.SettingIrreversible, "Soft delete is AlwaysOn in this vault, and cannot be set to %s.", to.State)
	}
	if to.State != resource.SoftDeleteOff && (to.Days < resource.MinSoftDeleteDays || to.Days > resource.MaxSoftDeleteDays) {
		return problem.New(problem.InvalidArgument, "Soft delete keeps points for %d to %d days, not %d.", resource.MinSoftDeleteDays, resource.MaxSoftDeleteDays, to.Days)
	}
	return nil
}
