package access

import "strings"

// Operation is a request of the API and the action that its caller needs at the
// resource of its path.
type Operation struct {
	Name   string // as the clients of the Go SDK call it
	Method string
	Path   string // with the names in braces
	Action string
	// Linked are further actions, on resources that the body names, such as the
	// disk that a snapshot is made of.
	Linked []string
}

const (
	provider = "Microsoft.DataProtection/"
	vaults   = provider + "backupVaults"
	guards   = provider + "subscriptions/resourceGroups/providers/resourceGuards"
	sub      = "/subscriptions/{subscription}"
	rg       = sub + "/resourceGroups/{group}"
	inSub    = sub + "/providers/" + provider
	inGroup  = rg + "/providers/" + provider
	vault    = inGroup + "backupVaults/{vault}"
	instance = vault + "/backupInstances/{instance}"
	guard    = inGroup + "resourceGuards/{guard}"
	computes = rg + "/providers/Microsoft.Compute/"
	auth     = "/{scope}/providers/Microsoft.Authorization/"
)

// Operations is every request that is authorized. POST requests about an
// instance need the action of their last word, unless the table says otherwise.
var Operations = []Operation{
	{"BackupVaults.CreateOrUpdate", "PUT", vault, vaults + "/write", nil},
	{"BackupVaults.Update", "PATCH", vault, vaults + "/write", nil},
	{"BackupVaults.Delete", "DELETE", vault, vaults + "/delete", nil},
	{"BackupVaults.Get", "GET", vault, vaults + "/read", nil},
	{"BackupVaults.GetInResourceGroup", "GET", inGroup + "backupVaults", vaults + "/read", nil},
	{"BackupVaults.GetInSubscription", "GET", inSub + "backupVaults", vaults + "/read", nil},
	{"BackupVaults.CheckNameAvailability", "POST", inGroup + "locations/{location}/checkNameAvailability", provider + "locations/checkNameAvailability/action", nil},
	{"DataProtection.CheckFeatureSupport", "POST", inSub + "locations/{location}/checkFeatureSupport", provider + "locations/checkFeatureSupport/action", nil},
	{"BackupVaults.GetOperationStatus", "GET", vault + "/operationStatus/{operation}", vaults + "/operationStatus/read", nil},
	{"BackupVaults.GetOperationResult", "GET", vault + "/operationResults/{operation}", vaults + "/operationResults/read", nil},
	{"OperationStatus.Get", "GET", inSub + "locations/{location}/operationStatus/{operation}", provider + "locations/operationStatus/read", nil},
	{"OperationResult.Get", "GET", inSub + "locations/{location}/operationResults/{operation}", provider + "locations/operationResults/read", nil},
	{"OperationStatusResourceGroup.Get", "GET", inGroup + "operationStatus/{operation}", provider + "locations/operationStatus/read", nil},
	{"OperationStatusResourceGroupLocation.Get", "GET", inGroup + "locations/{location}/operationStatus/{operation}", provider + "locations/operationStatus/read", nil},

	{"BackupPolicies.CreateOrUpdate", "PUT", vault + "/backupPolicies/{policy}", vaults + "/backupPolicies/write", nil},
	{"BackupPolicies.Get", "GET", vault + "/backupPolicies/{policy}", vaults + "/backupPolicies/read", nil},
	{"BackupPolicies.List", "GET", vault + "/backupPolicies", vaults + "/backupPolicies/read", nil},
	{"BackupPolicies.Delete", "DELETE", vault + "/backupPolicies/{policy}", vaults + "/backupPolicies/delete", nil},

	{"BackupInstances.CreateOrUpdate", "PUT", instance, vaults + "/backupInstances/write", nil},
	{"BackupInstances.Get", "GET", instance, vaults + "/backupInstances/read", nil},
	{"BackupInstances.List", "GET", vault + "/backupInstances", vaults + "/backupInstances/read", nil},
	{"BackupInstances.Delete", "DELETE", instance, vaults + "/backupInstances/delete", nil},
	{"BackupInstances.ValidateForBackup", "POST", vault + "/validateForBackup", vaults + "/validateForBackup/action", nil},
	{"BackupInstances.ValidateForModifyBackup", "POST", instance + "/validateForModifyBackup", vaults + "/backupInstances/validateForModifyBackup/action", nil},
	{"BackupInstances.AdhocBackup", "POST", instance + "/backup", vaults + "/backupInstances/backup/action", nil},
	{"BackupInstances.ValidateForRestore", "POST", instance + "/validateRestore", vaults + "/backupInstances/validateRestore/action", nil},
	{"BackupInstances.TriggerRestore", "POST", instance + "/restore", vaults + "/backupInstances/restore/action", nil},
	{"BackupInstances.TriggerRehydrate", "POST", instance + "/rehydrate", vaults + "/backupInstances/restore/action", nil},
	{"BackupInstances.StopProtection", "POST", instance + "/stopProtection", vaults + "/backupInstances/stopProtection/action", nil},
	{"BackupInstances.SuspendBackups", "POST", instance + "/suspendBackups", vaults + "/backupInstances/suspendBackups/action", nil},
	{"BackupInstances.ResumeBackups", "POST", instance + "/resumeBackups", vaults + "/backupInstances/resumeBackups/action", nil},
	{"BackupInstances.ResumeProtection", "POST", instance + "/resumeProtection", vaults + "/backupInstances/resumeProtection/action", nil},
	{"BackupInstances.SyncBackupInstance", "POST", instance + "/sync", vaults + "/backupInstances/sync/action", nil},
	{"BackupInstances.GetBackupInstanceOperationResult", "GET", instance + "/operationResults/{operation}", vaults + "/backupInstances/operationResults/read", nil},
	{"RestorableTimeRanges.Find", "POST", instance + "/findRestorableTimeRanges", vaults + "/backupInstances/findRestorableTimeRanges/action", nil},
	{"RecoveryPoints.List", "GET", instance + "/recoveryPoints", vaults + "/backupInstances/recoveryPoints/read", nil},
	{"RecoveryPoints.Get", "GET", instance + "/recoveryPoints/{point}", vaults + "/backupInstances/recoveryPoints/read", nil},
	{"DeletedBackupInstances.List", "GET", vault + "/deletedBackupInstances", vaults + "/deletedBackupInstances/read", nil},
	{"DeletedBackupInstances.Get", "GET", vault + "/deletedBackupInstances/{instance}", vaults + "/deletedBackupInstances/read", nil},
	{"DeletedBackupInstances.Undelete", "POST", vault + "/deletedBackupInstances/{instance}/undelete", vaults + "/deletedBackupInstances/undelete/action", nil},

	{"Jobs.List", "GET", vault + "/backupJobs", vaults + "/backupJobs/read", nil},
	{"Jobs.Get", "GET", vault + "/backupJobs/{job}", vaults + "/backupJobs/read", nil},
	{"ExportJobs.Trigger", "POST", vault + "/exportBackupJobs", vaults + "/backupJobs/read", nil},
	{"ExportJobsOperationResult.Get", "GET", vault + "/backupJobs/operations/{operation}", vaults + "/backupJobs/read", nil},

	{"ResourceGuards.Put", "PUT", guard, guards + "/write", nil},
	{"ResourceGuards.Patch", "PATCH", guard, guards + "/write", nil},
	{"ResourceGuards.Get", "GET", guard, guards + "/read", nil},
	{"ResourceGuards.Delete", "DELETE", guard, guards + "/delete", nil},
	{"ResourceGuards.GetInResourceGroup", "GET", inGroup + "resourceGuards", guards + "/read", nil},
	{"ResourceGuards.GetInSubscription", "GET", inSub + "resourceGuards", provider + "subscriptions/providers/resourceGuards/read", nil},
	{"ResourceGuards.GetRequests", "GET", guard + "/{requests}", guards + "/{operationName}/read", nil},
	{"ResourceGuards.GetRequest", "GET", guard + "/{requests}/{request}", guards + "/{operationName}/read", nil},
	{"DppResourceGuardProxy.CreateOrUpdate", "PUT", vault + "/backupResourceGuardProxies/{proxy}", vaults + "/backupResourceGuardProxies/write", []string{guards + "/read"}},
	{"DppResourceGuardProxy.Get", "GET", vault + "/backupResourceGuardProxies/{proxy}", vaults + "/backupResourceGuardProxies/read", nil},
	{"DppResourceGuardProxy.List", "GET", vault + "/backupResourceGuardProxies", vaults + "/backupResourceGuardProxies/read", nil},
	{"DppResourceGuardProxy.Delete", "DELETE", vault + "/backupResourceGuardProxies/{proxy}", vaults + "/backupResourceGuardProxies/delete", nil},
	{"DppResourceGuardProxy.UnlockDelete", "POST", vault + "/backupResourceGuardProxies/{proxy}/unlockDelete", vaults + "/backupResourceGuardProxies/unlockDelete/action", nil},

	{"Disks.CreateOrUpdate", "PUT", computes + "disks/{disk}", "Microsoft.Compute/disks/write", nil},
	{"Disks.CreateFromSnapshot", "PUT", computes + "disks/{disk}", "Microsoft.Compute/disks/write", []string{"Microsoft.Compute/snapshots/beginGetAccess/action"}},
	{"Disks.Update", "PATCH", computes + "disks/{disk}", "Microsoft.Compute/disks/write", nil},
	{"Disks.Get", "GET", computes + "disks/{disk}", "Microsoft.Compute/disks/read", nil},
	{"Disks.Delete", "DELETE", computes + "disks/{disk}", "Microsoft.Compute/disks/delete", nil},
	{"Disks.ListByResourceGroup", "GET", computes + "disks", "Microsoft.Compute/disks/read", nil},
	{"Disks.List", "GET", sub + "/providers/Microsoft.Compute/disks", "Microsoft.Compute/disks/read", nil},
	{"Disks.GrantAccess", "POST", computes + "disks/{disk}/beginGetAccess", "Microsoft.Compute/disks/beginGetAccess/action", nil},
	{"Disks.RevokeAccess", "POST", computes + "disks/{disk}/endGetAccess", "Microsoft.Compute/disks/endGetAccess/action", nil},
	{"Snapshots.CreateOrUpdate", "PUT", computes + "snapshots/{snapshot}", "Microsoft.Compute/snapshots/write", []string{"Microsoft.Compute/disks/beginGetAccess/action"}},
	{"Snapshots.Update", "PATCH", computes + "snapshots/{snapshot}", "Microsoft.Compute/snapshots/write", nil},
	{"Snapshots.Get", "GET", computes + "snapshots/{snapshot}", "Microsoft.Compute/snapshots/read", nil},
	{"Snapshots.Delete", "DELETE", computes + "snapshots/{snapshot}", "Microsoft.Compute/snapshots/delete", nil},
	{"Snapshots.ListByResourceGroup", "GET", computes + "snapshots", "Microsoft.Compute/snapshots/read", nil},
	{"Snapshots.List", "GET", sub + "/providers/Microsoft.Compute/snapshots", "Microsoft.Compute/snapshots/read", nil},
	{"Snapshots.GrantAccess", "POST", computes + "snapshots/{snapshot}/beginGetAccess", "Microsoft.Compute/snapshots/beginGetAccess/action", nil},
	{"Snapshots.RevokeAccess", "POST", computes + "snapshots/{snapshot}/endGetAccess", "Microsoft.Compute/snapshots/endGetAccess/action", nil},

	{"RoleDefinitions.List", "GET", auth + "roleDefinitions", "Microsoft.Authorization/roleDefinitions/read", nil},
	{"RoleDefinitions.Get", "GET", auth + "roleDefinitions/{role}", "Microsoft.Authorization/roleDefinitions/read", nil},
	{"RoleDefinitions.CreateOrUpdate", "PUT", auth + "roleDefinitions/{role}", "Microsoft.Authorization/roleDefinitions/write", nil},
	{"RoleDefinitions.Delete", "DELETE", auth + "roleDefinitions/{role}", "Microsoft.Authorization/roleDefinitions/delete", nil},
	{"RoleAssignments.Create", "PUT", auth + "roleAssignments/{assignment}", "Microsoft.Authorization/roleAssignments/write", nil},
	{"RoleAssignments.Get", "GET", auth + "roleAssignments/{assignment}", "Microsoft.Authorization/roleAssignments/read", nil},
	{"RoleAssignments.Delete", "DELETE", auth + "roleAssignments/{assignment}", "Microsoft.Authorization/roleAssignments/delete", nil},
	{"RoleAssignments.ListForScope", "GET", auth + "roleAssignments", "Microsoft.Authorization/roleAssignments/read", nil},

	{"Subscriptions.Get", "GET", sub, "Microsoft.Resources/subscriptions/read", nil},
	{"ResourceGroups.CheckExistence", "HEAD", rg, seeGroup, nil},
	{"ResourceGroups.CreateOrUpdate", "PUT", rg, "Microsoft.Resources/subscriptions/resourceGroups/write", nil},
	{"ResourceGroups.Update", "PATCH", rg, "Microsoft.Resources/subscriptions/resourceGroups/write", nil},
	{"ResourceGroups.Get", "GET", rg, seeGroup, nil},
	{"ResourceGroups.Delete", "DELETE", rg, "Microsoft.Resources/subscriptions/resourceGroups/delete", nil},
	{"ResourceGroups.List", "GET", sub + "/resourceGroups", seeGroup, nil},
	{"Resources.ListByResourceGroup", "GET", rg + "/resources", "Microsoft.Resources/subscriptions/resourceGroups/resources/read", nil},
	{"Providers.List", "GET", sub + "/providers", "Microsoft.Resources/subscriptions/providers/read", nil},
	{"Providers.Get", "GET", sub + "/providers/{namespace}", "Microsoft.Resources/subscriptions/providers/read", nil},
	{"Providers.Register", "POST", sub + "/providers/{namespace}/register", "{namespace}/register/action", nil},
	{"Providers.Unregister", "POST", sub + "/providers/{namespace}/unregister", "{namespace}/unregister/action", nil},

	// What ARM has no word for, beside the resources of ARM.
	{"Native.Diagnose", "GET", vault + "/backupJobs/{job}/diagnosis", vaults + "/backupJobs/read", nil},
	{"Native.CancelJob", "POST", vault + "/backupJobs/{job}/cancel", vaults + "/backupInstances/write", nil},
	{"Native.Attach", "POST", instance + "/recoveryPoints/{point}/attach", vaults + "/backupInstances/restore/action", nil},
	{"Native.Verify", "POST", instance + "/verify", vaults + "/backupInstances/validateRestore/action", nil},
	{"Native.DeletePoint", "DELETE", instance + "/recoveryPoints/{point}", vaults + "/backupInstances/delete", nil},
	{"Native.Stores", "GET", sub + "/providers/Diskvault.Store/stores", "Diskvault.Store/stores/read", nil},
	{"Native.ChangeStores", "POST", sub + "/providers/Diskvault.Store/stores/{store}", "Diskvault.Store/stores/write", nil},
	{"Native.ConfirmRetention", "POST", sub + "/providers/Diskvault.Store/confirmRetention", "Diskvault.Store/confirmRetention/action", nil},
}

var operations = func() map[string]Operation {
	m := map[string]Operation{}
	for _, o := range Operations {
		m[o.Name] = o
	}
	return m
}()

// ActionOf gives the action that a request needs, by the operation's name. The
// namespace is that of the path, in requests that have one.
func ActionOf(operation, namespace string) (action string, known bool) {
	o, ok := operations[operation]
	return strings.ReplaceAll(o.Action, "{namespace}", namespace), ok
}
