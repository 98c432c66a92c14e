package arm

import (
	"net/http"
	"slices"
	"strings"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/access"
	"github.com/diskvault/diskvault/control/resource"
)

type handler func(*request) (reply, error)

// route is an operation with its handler.
type route struct {
	access.Operation
	segments []string
	handle   handler
	open     bool // the use case itself decides who may
}

// handlers are all requests that are answered, by the names of the table
// access.Operations, which has their methods, paths and actions.
func handlers() map[string]handler {
	return map[string]handler{
		"BackupVaults.CreateOrUpdate": putVault, "BackupVaults.Update": patchVault, "BackupVaults.Get": getVault, "BackupVaults.Delete": deleteVault,
		"BackupVaults.GetInResourceGroup": listVaults, "BackupVaults.GetInSubscription": listVaults,
		"BackupVaults.CheckNameAvailability": checkVaultName, "DataProtection.CheckFeatureSupport": checkFeature,

		"BackupPolicies.CreateOrUpdate": putPolicy, "BackupPolicies.Get": getPolicy, "BackupPolicies.List": listPolicies, "BackupPolicies.Delete": deletePolicy,

		"BackupInstances.CreateOrUpdate": putInstance, "BackupInstances.Get": getInstance, "BackupInstances.List": listInstances, "BackupInstances.Delete": deleteInstance,
		"BackupInstances.ValidateForBackup": validateBackup, "BackupInstances.ValidateForModifyBackup": validateModify, "BackupInstances.AdhocBackup": backup,
		"BackupInstances.ValidateForRestore": validateRestore, "BackupInstances.TriggerRestore": restore,
		"BackupInstances.StopProtection": stopProtection, "BackupInstances.SuspendBackups": suspendBackups,
		"BackupInstances.ResumeBackups": resumeBackups, "BackupInstances.ResumeProtection": resumeProtection, "BackupInstances.SyncBackupInstance": syncInstance,
		"DeletedBackupInstances.List": listDeleted, "DeletedBackupInstances.Get": getDeleted, "DeletedBackupInstances.Undelete": undelete,
		"RecoveryPoints.List": listPoints, "RecoveryPoints.Get": getPoint,
		"Jobs.List": listJobs, "Jobs.Get": getJob, "Native.CancelJob": cancelJob,

		"BackupVaults.GetOperationStatus": operationStatus, "OperationStatus.Get": operationStatus,
		"OperationStatusResourceGroup.Get": operationStatus, "OperationStatusResourceGroupLocation.Get": operationStatus,
		"BackupVaults.GetOperationResult": operationResult, "OperationResult.Get": operationResult, "BackupInstances.GetBackupInstanceOperationResult": operationResult,

		"ResourceGuards.Put": putGuard, "ResourceGuards.Patch": patchGuard, "ResourceGuards.Get": getGuard, "ResourceGuards.Delete": deleteGuard,
		"ResourceGuards.GetInResourceGroup": listGuards, "ResourceGuards.GetInSubscription": listGuards,
		"ResourceGuards.GetRequests": listGuardRequests, "ResourceGuards.GetRequest": getGuardRequest,
		"DppResourceGuardProxy.CreateOrUpdate": putProxy, "DppResourceGuardProxy.Get": getProxy, "DppResourceGuardProxy.List": listProxies,
		"DppResourceGuardProxy.Delete": deleteProxy, "DppResourceGuardProxy.UnlockDelete": unlockDelete,

		"Disks.CreateOrUpdate": putDisk, "Disks.Update": patchDisk, "Disks.Get": getDisk, "Disks.Delete": deleteDisk,
		"Disks.ListByResourceGroup": listDisks, "Disks.List": listDisks,
		"Snapshots.CreateOrUpdate": putSnapshot, "Snapshots.Update": patchSnapshot, "Snapshots.Get": getSnapshot, "Snapshots.Delete": deleteSnapshot,
		"Snapshots.ListByResourceGroup": listSnapshots, "Snapshots.List": listSnapshots,

		"RoleDefinitions.List": listRoles, "RoleDefinitions.Get": getRole, "RoleDefinitions.CreateOrUpdate": putRole, "RoleDefinitions.Delete": deleteRole,
		"RoleAssignments.Create": putAssignment, "RoleAssignments.Get": getAssignment, "RoleAssignments.Delete": deleteAssignment, "RoleAssignments.ListForScope": listAssignments,

		"Subscriptions.Get": getSubscription, "Subscriptions.List": listSubscriptions,
		"ResourceGroups.CheckExistence": checkGroup, "ResourceGroups.CreateOrUpdate": putGroup, "ResourceGroups.Update": patchGroup,
		"ResourceGroups.Get": getGroup, "ResourceGroups.Delete": deleteGroup, "ResourceGroups.List": listGroups, "Resources.ListByResourceGroup": listResources,
		"Providers.List": listProviders, "Providers.Get": getProvider, "Providers.Register": registerProvider, "Providers.Unregister": unregisterProvider,
		"Operations.List": listOperations, "DiskOperations.Get": diskOperation,
	}
}

// further are requests that need no right at the resource of their path: lists
// of what the caller may see, and operations, whose use case asks for the right
// at what they work on.
var further = []access.Operation{
	{Name: "Subscriptions.List", Method: "GET", Path: "/subscriptions"},
	{Name: "Operations.List", Method: "GET", Path: "/providers/Microsoft.DataProtection/operations"},
	{Name: "DiskOperations.Get", Method: "GET", Path: "/subscriptions/{subscription}/providers/Microsoft.Compute/locations/{location}/DiskOperations/{operation}"},
}

func routes() []route {
	var out []route
	all := handlers()
	for n, o := range append(slices.Clone(further), access.Operations...) {
		if h := all[o.Name]; h != nil {
			out = append(out, route{o, split(o.Path), h, n < len(further) || strings.Contains(o.Path, "/{operation}")})
		}
	}
	return out
}

func split(path string) []string { return strings.Split(strings.Trim(path, "/"), "/") }

// match tells whether a path is one of the route, and gives its names. A scope
// is any number of segments, none among them.
func (t route) match(path []string) (map[string]string, bool) {
	names := map[string]string{}
	pattern := t.segments
	if pattern[0] == "{scope}" {
		pattern = pattern[1:]
		if len(path) < len(pattern) {
			return nil, false
		}
		path = path[len(path)-len(pattern):]
	}
	if len(path) != len(pattern) {
		return nil, false
	}
	for n, p := range pattern {
		if strings.HasPrefix(p, "{") {
			names[strings.Trim(p, "{}")] = path[n]
		} else if !strings.EqualFold(p, path[n]) {
			return nil, false
		}
	}
	return names, true
}

// find finds the operation that is asked for, and the resource.
func (s *Server) find(q *request, h http.Header) (route, error) {
	path := split(q.URL.Path)
	if slices.Contains(path, "") {
		return route{}, problem.New(problem.TypeUnknown, "The path %q names no resource.", q.URL.Path)
	}
	var methods []string
	for _, t := range s.routes {
		names, ok := t.match(path)
		if !ok {
			continue
		}
		if t.Method != q.Method {
			methods = append(methods, t.Method)
			continue
		}
		q.operation, q.names, q.at = t.Operation, names, resourceOf(q.URL.Path)
		return t, nil
	}
	if len(methods) > 0 {
		h.Set("Allow", strings.Join(methods, ", "))
		return route{}, problem.New(problem.MethodUnknown, "The method %s is not possible for %s.", q.Method, q.URL.Path)
	}
	if ns := namespace(q.URL.Path); ns != "" && !knownNamespace(ns) {
		return route{}, problem.New(problem.NamespaceUnknown, "The resource namespace %q is invalid.", ns)
	}
	return route{}, problem.New(problem.TypeUnknown, "The resource type of %q could not be found.", q.URL.Path)
}

// resourceOf gives the resource of a path: of a list what it lies in, of an
// action what it acts on.
func resourceOf(path string) resource.ID {
	for path = strings.TrimRight(path, "/"); path != ""; path = path[:strings.LastIndexByte(path, '/')] {
		if id, err := resource.ParseID(path); err == nil {
			return id
		}
	}
	return ""
}

// namespace gives the last namespace of a path, in small letters.
func namespace(path string) string {
	segments := split(strings.ToLower(path))
	for n := len(segments) - 2; n >= 0; n-- {
		if segments[n] == "providers" {
			return segments[n+1]
		}
	}
	return ""
}
