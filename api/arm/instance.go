package arm

import (
	"context"
	"net/http"
	"strings"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

type instanceBody struct {
	ID         string             `json:"id"`
	Name       string             `json:"name"`
	Type       string             `json:"type"`
	Tags       map[string]string  `json:"tags,omitempty"`
	Properties instanceProperties `json:"properties"`
}

type instanceProperties struct {
	FriendlyName      string            `json:"friendlyName"`
	ObjectType        string            `json:"objectType"`
	DataSource        *dataSource       `json:"dataSourceInfo"`
	Policy            *policyInfo       `json:"policyInfo"`
	ProtectionStatus  *protectionStatus `json:"protectionStatus,omitempty"`
	CurrentState      string            `json:"currentProtectionState,omitempty"`
	ProvisioningState string            `json:"provisioningState,omitempty"`
	ProtectionError   *userFacing       `json:"protectionErrorDetails,omitempty"`
	Identity          *identityDetails  `json:"identityDetails,omitempty"`
	Deletion          *deletionInfo     `json:"deletionInfo,omitempty"`
}

type dataSource struct {
	ObjectType       string `json:"objectType"`
	DatasourceType   string `json:"datasourceType"`
	ResourceID       string `json:"resourceID"`
	ResourceName     string `json:"resourceName"`
	ResourceType     string `json:"resourceType"`
	ResourceLocation string `json:"resourceLocation"`
	ResourceURI      string `json:"resourceUri"`
}

type policyInfo struct {
	PolicyID   string            `json:"policyId"`
	Parameters *policyParameters `json:"policyParameters,omitempty"`
}

type policyParameters struct {
	Stores []storeParameters `json:"dataStoreParametersList"`
}

type storeParameters struct {
	ObjectType    string `json:"objectType"`
	Tier          string `json:"dataStoreType"`
	ResourceGroup string `json:"resourceGroupId,omitempty"`
}

type protectionStatus struct {
	Status string      `json:"status"`
	Error  *userFacing `json:"errorDetails,omitempty"`
}

type identityDetails struct {
	System bool   `json:"useSystemAssignedIdentity"`
	User   string `json:"userAssignedIdentityArmUrl,omitempty"`
}

type deletionInfo struct {
	Time     string `json:"deletionTime"`
	Billing  string `json:"billingEndDate"`
	Purge    string `json:"scheduledPurgeTime"`
	Activity string `json:"deleteActivityID"`
}

// statusNames are the states of protectionStatus, which has fewer than there
// are: what is suspended or in error counts as configured.
var statusNames = map[resource.Protection]string{
	resource.ConfiguringProtection: "ConfiguringProtection", resource.ConfiguringProtectionFailed: "ConfiguringProtectionFailed",
	resource.ProtectionStopped: "ProtectionStopped", resource.SoftDeleted: "SoftDeleted", resource.SoftDeleting: "SoftDeleting",
}

// instanceOf writes a backup instance down.
func instanceOf(i resource.Instance) instanceBody {
	i = i.Normal()
	id := i.ResourceID()
	status := statusNames[i.State]
	if status == "" {
		status = "ProtectionConfigured"
	}
	provisioning := "Succeeded"
	switch i.State {
	case resource.ConfiguringProtection:
		provisioning = "Provisioning"
	case resource.UpdatingProtection:
		provisioning = "Updating"
	case resource.ConfiguringProtectionFailed:
		provisioning = "Failed"
	}
	failed := userFacingOf(i.Error, "")
	b := instanceBody{ID: string(id), Name: i.Name, Type: resource.TypeInstance, Tags: i.Tags, Properties: instanceProperties{
		FriendlyName: i.FriendlyName, ObjectType: "BackupInstance",
		DataSource: &dataSource{
			ObjectType: "Datasource", DatasourceType: resource.TypeDisk, ResourceID: string(i.DiskID), ResourceName: i.DiskID.Name(), ResourceType: resource.TypeDisk,
		},
		Policy:           &policyInfo{PolicyID: string(i.PolicyID()), Parameters: &policyParameters{[]storeParameters{{"AzureOperationalStoreParameters", operational, string(i.Snapshots)}}}},
		ProtectionStatus: &protectionStatus{status, failed}, CurrentState: string(i.State), ProvisioningState: provisioning, ProtectionError: failed,
		Identity: &identityDetails{System: i.ActsAs == "", User: string(i.ActsAs)},
	}}
	if d := i.Deletion; d != nil {
		b.ID, b.Type = string(id.Parent().Child("deletedBackupInstances", i.Name)), resource.TypeDeletedInstance
		b.Properties.ObjectType = "DeletedBackupInstance"
		b.Properties.Deletion = &deletionInfo{timeText(d.Time), timeText(d.Purge), timeText(d.Purge), d.Activity}
	}
	return b
}

// instance writes an instance down with the location of its disk, which is
// that of the vault.
func (q *request) instance(i resource.Instance) (instanceBody, error) {
	b := instanceOf(i)
	b.Properties.DataSource.ResourceLocation = q.location(i.ResourceID())
	return b, nil
}

// request reads what is asked for of an instance.
func (p instanceProperties) request(id resource.ID) (service.InstanceRequest, error) {
	r := service.InstanceRequest{ID: id, FriendlyName: p.FriendlyName}
	if p.DataSource == nil || p.DataSource.ResourceID == "" {
		return r, problem.New(problem.RequestUnreadable, "dataSourceInfo.resourceID is missing.")
	}
	if p.Policy == nil || p.Policy.PolicyID == "" {
		return r, problem.New(problem.RequestUnreadable, "policyInfo.policyId is missing.")
	}
	if t := p.DataSource.DatasourceType; t != "" && !strings.EqualFold(t, resource.TypeDisk) {
		return r, problem.New(problem.InvalidArgument, "diskvault backs up %s, and not %s.", resource.TypeDisk, t)
	}
	if !is(p.ObjectType, "BackupInstance") {
		return r, problem.New(problem.InvalidArgument, "%q is no type of backup instance.", p.ObjectType)
	}
	var err error
	if r.Disk, err = idIn(p.DataSource.ResourceID); err != nil {
		return r, err
	}
	if r.Policy, err = idIn(p.Policy.PolicyID); err != nil {
		return r, err
	}
	if p.Policy.Parameters != nil {
		for _, s := range p.Policy.Parameters.Stores {
			if !strings.EqualFold(s.Tier, operational) && s.Tier != "" {
				continue
			}
			if r.Snapshots, err = idIn(s.ResourceGroup); err != nil {
				return r, problem.New(problem.SnapshotGroupInvalid, "%q is no resource group.", s.ResourceGroup)
			}
		}
	}
	if p.Identity != nil && !p.Identity.System && p.Identity.User != "" {
		r.ActsAs, err = idIn(p.Identity.User)
	}
	return r, err
}

func putInstance(q *request) (reply, error) {
	var b instanceBody
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	r, err := b.Properties.request(q.at)
	if err != nil {
		return reply{}, err
	}
	r.Tags, r.Match = b.Tags, q.match()
	i, created, err := q.as.PutInstance(q.Context(), r)
	if err != nil {
		return reply{}, err
	}
	o, err := q.begin(i.ResourceID(), false, func(ctx context.Context) (string, error) { return "", q.as.Configure(ctx, i) })
	if err != nil {
		return reply{}, err
	}
	if !created {
		return reply{status: http.StatusAccepted, header: map[string]string{
			"Azure-AsyncOperation": q.statusURL(o), "Retry-After": "1",
			"Location": q.base() + string(i.ResourceID()) + "/operationResults/" + o.Name + "?api-version=" + q.version(),
		}}, nil
	}
	body, err := q.instance(i)
	return reply{http.StatusCreated, body, map[string]string{"Azure-AsyncOperation": q.statusURL(o), "Retry-After": "1"}}, err
}

func getInstance(q *request) (reply, error) {
	i, err := q.as.Instance(q.Context(), q.at)
	if err != nil {
		return reply{}, err
	}
	body, err := q.instance(i)
	return reply{status: http.StatusOK, body: body}, err
}

func listInstances(q *request) (reply, error) { return q.instances(q.as.Instances) }

func (q *request) instances(from func(context.Context, resource.ID, service.Page) ([]resource.Instance, error)) (reply, error) {
	location := q.location(q.at)
	return list(q, func(p service.Page) ([]resource.Instance, error) { return from(q.Context(), q.at, p) }, func(i resource.Instance) (instanceBody, error) {
		b := instanceOf(i)
		b.Properties.DataSource.ResourceLocation = location
		return b, nil
	})
}

func deleteInstance(q *request) (reply, error) {
	if _, err := q.as.Instance(q.Context(), q.at); err != nil {
		if problem.Is(err, problem.InstanceNotFound) {
			return done(false, nil)
		}
		return reply{}, err
	}
	o, err := q.begin(q.at, true, func(ctx context.Context) (string, error) {
		_, err := q.as.DeleteInstance(ctx, q.at, q.secure())
		return "", err
	})
	return q.accepted(o, 1), err
}

func validateBackup(q *request) (reply, error) {
	var b struct {
		Instance instanceProperties `json:"backupInstance"`
	}
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	// There is no name yet: that of the disk stands for it.
	id := q.at.Child("backupInstances", "new")
	if b.Instance.DataSource != nil {
		if d, err := idIn(b.Instance.DataSource.ResourceID); err == nil && d != "" {
			id = q.at.Child("backupInstances", d.Name())
		}
	}
	r, err := b.Instance.request(id)
	if err != nil {
		return reply{}, err
	}
	if err := q.as.DiskFree(q.Context(), r); err != nil {
		return reply{}, err
	}
	o, err := q.begin(q.at, false, func(ctx context.Context) (string, error) { return "", q.as.ValidateForBackup(ctx, r) })
	return q.accepted(o, 1), err
}

// validateModify checks an instance that exists with other settings.
func validateModify(q *request) (reply, error) {
	var b struct {
		Instance instanceProperties `json:"backupInstance"`
	}
	if err := q.read(&b); err != nil {
		return reply{}, err
	}
	r, err := b.Instance.request(q.at)
	if err != nil {
		return reply{}, err
	}
	if _, err := q.as.Instance(q.Context(), q.at); err != nil {
		return reply{}, err
	}
	o, err := q.begin(q.at, false, func(ctx context.Context) (string, error) { return "", q.as.ValidateForBackup(ctx, r) })
	return q.accepted(o, 1), err
}

// changed answers a change of state: 200 without headers if there was nothing
// to do.
func (q *request) changed(_ resource.Instance, moved bool, err error) (reply, error) {
	if err != nil || !moved {
		return reply{status: http.StatusOK}, err
	}
	o, err := q.finished(q.at, "")
	return q.accepted(o, 1), err
}

func stopProtection(q *request) (reply, error) {
	return q.changed(q.as.StopProtection(q.Context(), q.at))
}
func suspendBackups(q *request) (reply, error) {
	return q.changed(q.as.SuspendBackups(q.Context(), q.at))
}
func resumeBackups(q *request) (reply, error) {
	return q.changed(q.as.ResumeBackups(q.Context(), q.at))
}
func resumeProtection(q *request) (reply, error) {
	return q.changed(q.as.ResumeProtection(q.Context(), q.at))
}

func syncInstance(q *request) (reply, error) {
	o, err := q.begin(q.at, false, func(ctx context.Context) (string, error) { return "", q.as.Sync(ctx, q.at) })
	return q.accepted(o, 1), err
}

func listDeleted(q *request) (reply, error) { return q.instances(q.as.DeletedInstances) }

// wasAt is the ID that the deleted instance of the path had.
func (q *request) wasAt() resource.ID {
	return vaultOf(q.at).Child("backupInstances", q.names["instance"])
}

func getDeleted(q *request) (reply, error) {
	i, err := q.as.DeletedInstance(q.Context(), q.wasAt())
	if err != nil {
		return reply{}, err
	}
	body, err := q.instance(i)
	return reply{status: http.StatusOK, body: body}, err
}

func undelete(q *request) (reply, error) {
	if _, err := q.as.Undelete(q.Context(), q.wasAt()); err != nil {
		return reply{}, err
	}
	o, err := q.finished(q.wasAt(), "")
	return q.accepted(o, 1), err
}
