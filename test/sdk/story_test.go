package sdk

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/dataprotection/armdataprotection/v3"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
	"github.com/google/uuid"
)

const (
	subscription = "11111111-2222-3333-4444-555555555555"
	subID        = "/subscriptions/" + subscription
	appRG        = "rg-app"
	snapRG       = "rg-snapshots"
	vaultRG      = "rg-backup"
	vaultName    = "vault-eus-01"
	vaultID      = subID + "/resourceGroups/" + vaultRG + "/providers/Microsoft.DataProtection/backupVaults/" + vaultName
	instance     = "datadisk01-datadisk01-0f6f1f2e-7a5b-4f0e-9a51-3c1f6a0c2d11"
	readerRole   = "3e5e47e6-65f7-47ef-90b5-e5dd4d455f24"
)

// story is a deployment with a disk, a vault and a policy, and its clients.
type story struct {
	*server
	t           *testing.T
	p           program
	source      string
	content     []byte
	diskID      string
	principal   string
	groups      *armresources.ResourceGroupsClient
	disks       *armcompute.DisksClient
	vaults      *armdataprotection.BackupVaultsClient
	policies    *armdataprotection.BackupPoliciesClient
	instances   *armdataprotection.BackupInstancesClient
	deleted     *armdataprotection.DeletedBackupInstancesClient
	points      *armdataprotection.RecoveryPointsClient
	jobs        *armdataprotection.JobsClient
	assignments *armauthorization.RoleAssignmentsClient
	roles       *armauthorization.RoleDefinitionsClient
}

func begin(t *testing.T) *story {
	t.Helper()
	s := &story{server: start(t), t: t}
	s.p = s.createSP("sdk", "Owner", subID)
	cred, o := s.p.sdk()
	s.groups = must[*armresources.ResourceGroupsClient](t)(armresources.NewResourceGroupsClient(subscription, cred, o))
	s.disks = must[*armcompute.DisksClient](t)(armcompute.NewDisksClient(subscription, cred, o))
	s.vaults = must[*armdataprotection.BackupVaultsClient](t)(armdataprotection.NewBackupVaultsClient(subscription, cred, o))
	s.policies = must[*armdataprotection.BackupPoliciesClient](t)(armdataprotection.NewBackupPoliciesClient(subscription, cred, o))
	s.instances = must[*armdataprotection.BackupInstancesClient](t)(armdataprotection.NewBackupInstancesClient(subscription, cred, o))
	s.deleted = must[*armdataprotection.DeletedBackupInstancesClient](t)(armdataprotection.NewDeletedBackupInstancesClient(subscription, cred, o))
	s.points = must[*armdataprotection.RecoveryPointsClient](t)(armdataprotection.NewRecoveryPointsClient(subscription, cred, o))
	s.jobs = must[*armdataprotection.JobsClient](t)(armdataprotection.NewJobsClient(subscription, cred, o))
	s.assignments = must[*armauthorization.RoleAssignmentsClient](t)(armauthorization.NewRoleAssignmentsClient(subscription, cred, o))
	s.roles = must[*armauthorization.RoleDefinitionsClient](t)(armauthorization.NewRoleDefinitionsClient(cred, o))
	s.build()
	return s
}

// build makes groups, vault, policy and disk.
func (s *story) build() {
	t, ctx := s.t, s.t.Context()
	for _, g := range []string{appRG, snapRG, vaultRG} {
		must[armresources.ResourceGroupsClientCreateOrUpdateResponse](t)(s.groups.CreateOrUpdate(ctx, g, armresources.ResourceGroup{Location: to.Ptr("East US")}, nil))
	}
	v := ends[armdataprotection.BackupVaultsClientCreateOrUpdateResponse](t)(s.vaults.BeginCreateOrUpdate(ctx, vaultRG, vaultName, armdataprotection.BackupVaultResource{
		Location: to.Ptr("eastus"), Identity: &armdataprotection.DppIdentityDetails{Type: to.Ptr("SystemAssigned")}, Tags: map[string]*string{"env": to.Ptr("prod")},
		Properties: &armdataprotection.BackupVault{StorageSettings: []*armdataprotection.StorageSetting{{DatastoreType: to.Ptr(armdataprotection.StorageSettingStoreTypesVaultStore), Type: to.Ptr(armdataprotection.StorageSettingTypesLocallyRedundant)}}},
	}, nil))
	if *v.ID != vaultID || *v.Properties.ProvisioningState != armdataprotection.ProvisioningStateSucceeded || *v.Identity.PrincipalID == "" || *v.Properties.SecuritySettings.SoftDeleteSettings.State != armdataprotection.SoftDeleteStateOn {
		t.Fatalf("%+v", v)
	}
	s.principal = *v.Identity.PrincipalID
	p := must[armdataprotection.BackupPoliciesClientCreateOrUpdateResponse](t)(s.policies.CreateOrUpdate(ctx, vaultRG, vaultName, "disk-4h", fourHourly(), nil))
	if rules := p.Properties.(*armdataprotection.BackupPolicy).PolicyRules; len(rules) != 3 {
		t.Fatalf("%d rules", len(rules))
	}
	s.source = filepath.Join(t.TempDir(), "data.img")
	s.content = make([]byte, 8<<20)
	rand.Read(s.content[:1<<20])
	rand.Read(s.content[5<<20 : 6<<20])
	if err := os.WriteFile(s.source, s.content, 0o600); err != nil {
		t.Fatal(err)
	}
	d := ends[armcompute.DisksClientCreateOrUpdateResponse](t)(s.disks.BeginCreateOrUpdate(ctx, appRG, "datadisk01", armcompute.Disk{
		Location: to.Ptr("eastus"), SKU: &armcompute.DiskSKU{Name: to.Ptr(armcompute.DiskStorageAccountTypesPremiumLRS)},
		Properties: &armcompute.DiskProperties{CreationData: &armcompute.CreationData{CreateOption: to.Ptr(armcompute.DiskCreateOptionImport), SourceURI: to.Ptr("file://" + s.source)}},
	}, nil))
	s.diskID = *d.ID
	if *d.Properties.DiskSizeBytes != 8<<20 || *d.Properties.DiskSizeGB != 1 || *d.Properties.ProvisioningState != "Succeeded" || *d.SKU.Name != "Premium_LRS" || *d.Properties.UniqueID == "" || d.Properties.TimeCreated == nil {
		t.Fatalf("%+v", d.Properties)
	}
}

func fourHourly() armdataprotection.BaseBackupPolicyResource {
	store := func() *armdataprotection.DataStoreInfoBase {
		return &armdataprotection.DataStoreInfoBase{DataStoreType: to.Ptr(armdataprotection.DataStoreTypesOperationalStore), ObjectType: to.Ptr("DataStoreInfoBase")}
	}
	keep := func(name string, isDefault bool, duration string) *armdataprotection.AzureRetentionRule {
		return &armdataprotection.AzureRetentionRule{Name: &name, ObjectType: to.Ptr("AzureRetentionRule"), IsDefault: &isDefault, Lifecycles: []*armdataprotection.SourceLifeCycle{{
			DeleteAfter: &armdataprotection.AbsoluteDeleteOption{Duration: &duration, ObjectType: to.Ptr("AbsoluteDeleteOption")}, SourceDataStore: store(),
		}}}
	}
	return armdataprotection.BaseBackupPolicyResource{Properties: &armdataprotection.BackupPolicy{
		ObjectType: to.Ptr("BackupPolicy"), DatasourceTypes: []*string{to.Ptr("Microsoft.Compute/disks")},
		PolicyRules: []armdataprotection.BasePolicyRuleClassification{
			&armdataprotection.AzureBackupRule{
				Name: to.Ptr("BackupHourly"), ObjectType: to.Ptr("AzureBackupRule"), DataStore: store(),
				BackupParameters: &armdataprotection.AzureBackupParams{BackupType: to.Ptr("Incremental"), ObjectType: to.Ptr("AzureBackupParams")},
				Trigger: &armdataprotection.ScheduleBasedTriggerContext{
					ObjectType: to.Ptr("ScheduleBasedTriggerContext"),
					Schedule:   &armdataprotection.BackupSchedule{RepeatingTimeIntervals: []*string{to.Ptr("R/2025-01-06T02:00:00+00:00/PT4H")}, TimeZone: to.Ptr("UTC")},
					TaggingCriteria: []*armdataprotection.TaggingCriteria{
						{IsDefault: to.Ptr(true), TaggingPriority: to.Ptr[int64](99), TagInfo: &armdataprotection.RetentionTag{TagName: to.Ptr("Default"), ID: to.Ptr("Default_")}},
						{IsDefault: to.Ptr(false), TaggingPriority: to.Ptr[int64](25), TagInfo: &armdataprotection.RetentionTag{TagName: to.Ptr("Daily"), ID: to.Ptr("Daily_")},
							Criteria: []armdataprotection.BackupCriteriaClassification{&armdataprotection.ScheduleBasedBackupCriteria{ObjectType: to.Ptr("ScheduleBasedBackupCriteria"), AbsoluteCriteria: []*armdataprotection.AbsoluteMarker{to.Ptr(armdataprotection.AbsoluteMarkerFirstOfDay)}}}},
					},
				},
			},
			keep("Default", true, "P7D"), keep("Daily", false, "P14D"),
		},
	}}
}

func (s *story) instance() *armdataprotection.BackupInstance {
	return &armdataprotection.BackupInstance{
		FriendlyName: to.Ptr("datadisk01"), ObjectType: to.Ptr("BackupInstance"),
		DataSourceInfo: &armdataprotection.Datasource{ObjectType: to.Ptr("Datasource"), DatasourceType: to.Ptr("Microsoft.Compute/disks"), ResourceID: &s.diskID, ResourceName: to.Ptr("datadisk01"), ResourceType: to.Ptr("Microsoft.Compute/disks"), ResourceLocation: to.Ptr("eastus"), ResourceURI: to.Ptr("")},
		PolicyInfo: &armdataprotection.PolicyInfo{PolicyID: to.Ptr(vaultID + "/backupPolicies/disk-4h"), PolicyParameters: &armdataprotection.PolicyParameters{
			DataStoreParametersList: []armdataprotection.DataStoreParametersClassification{&armdataprotection.AzureOperationalStoreParameters{
				ObjectType: to.Ptr("AzureOperationalStoreParameters"), DataStoreType: to.Ptr(armdataprotection.DataStoreTypesOperationalStore), ResourceGroupID: to.Ptr(subID + "/resourceGroups/" + snapRG),
			}},
		}},
	}
}

// assign gives the vault's identity a role, by its name.
func (s *story) assign(scope, role string) {
	s.t.Helper()
	pager := s.roles.NewListPager(scope, &armauthorization.RoleDefinitionsClientListOptions{Filter: to.Ptr("roleName eq '" + role + "'")})
	page := must[armauthorization.RoleDefinitionsClientListResponse](s.t)(pager.NextPage(s.t.Context()))
	if len(page.Value) != 1 {
		s.t.Fatalf("%d roles are called %s", len(page.Value), role)
	}
	a := must[armauthorization.RoleAssignmentsClientCreateResponse](s.t)(s.assignments.Create(s.t.Context(), scope, uuid.NewString(), armauthorization.RoleAssignmentCreateParameters{
		Properties: &armauthorization.RoleAssignmentProperties{RoleDefinitionID: page.Value[0].ID, PrincipalID: &s.principal, PrincipalType: to.Ptr(armauthorization.PrincipalTypeServicePrincipal)},
	}, nil))
	if *a.Properties.Scope != scope || !strings.HasPrefix(*a.Properties.RoleDefinitionID, subID) {
		s.t.Errorf("%+v", a.Properties)
	}
}

func (s *story) protect() {
	s.t.Helper()
	s.assign(s.diskID, "Disk Backup Reader")
	s.assign(subID+"/resourceGroups/"+snapRG, "Disk Snapshot Contributor")
	ends[armdataprotection.BackupInstancesClientValidateForBackupResponse](s.t)(s.instances.BeginValidateForBackup(s.t.Context(), vaultRG, vaultName, armdataprotection.ValidateForBackupRequest{BackupInstance: s.instance()}, nil))
	i := ends[armdataprotection.BackupInstancesClientCreateOrUpdateResponse](s.t)(s.instances.BeginCreateOrUpdate(s.t.Context(), vaultRG, vaultName, instance, armdataprotection.BackupInstanceResource{Properties: s.instance(), Tags: map[string]*string{"owner": to.Ptr("ops")}}, nil))
	if *i.Properties.ProtectionStatus.Status != armdataprotection.StatusProtectionConfigured || *i.Properties.CurrentProtectionState != armdataprotection.CurrentProtectionStateProtectionConfigured || *i.Tags["owner"] != "ops" ||
		*i.Properties.DataSourceInfo.ResourceID != s.diskID || *i.Properties.PolicyInfo.PolicyParameters.DataStoreParametersList[0].(*armdataprotection.AzureOperationalStoreParameters).ResourceGroupID != subID+"/resourceGroups/"+snapRG {
		s.t.Fatalf("%+v", i.Properties)
	}
}

// job waits for the job that an operation began.
func (s *story) job(e armdataprotection.OperationJobExtendedInfo) armdataprotection.AzureBackupJob {
	s.t.Helper()
	if e.JobID == nil || !strings.HasPrefix(*e.JobID, vaultID+"/backupJobs/") {
		s.t.Fatalf("%+v", e)
	}
	name := (*e.JobID)[strings.LastIndex(*e.JobID, "/")+1:]
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		j := must[armdataprotection.JobsClientGetResponse](s.t)(s.jobs.Get(s.t.Context(), vaultRG, vaultName, name, nil))
		if *j.Properties.Status != "InProgress" {
			return *j.Properties
		}
		if *j.Properties.Duration != "PT0S" || j.Properties.EndTime != nil {
			s.t.Errorf("a running job has the duration %s and the end %v", *j.Properties.Duration, j.Properties.EndTime)
		}
	}
	s.t.Fatal("the job does not end")
	return armdataprotection.AzureBackupJob{}
}

func (s *story) backUp() armdataprotection.AzureBackupJob {
	s.t.Helper()
	r := ends[armdataprotection.BackupInstancesClientAdhocBackupResponse](s.t)(s.instances.BeginAdhocBackup(s.t.Context(), vaultRG, vaultName, instance, armdataprotection.TriggerBackupRequest{
		BackupRuleOptions: &armdataprotection.AdHocBackupRuleOptions{RuleName: to.Ptr("BackupHourly"), TriggerOption: &armdataprotection.AdhocBackupTriggerOption{RetentionTagOverride: to.Ptr("daily")}},
	}, nil))
	return s.job(r.OperationJobExtendedInfo)
}

func (s *story) restore(point, name string) *armdataprotection.AzureBackupRecoveryPointBasedRestoreRequest {
	target := subID + "/resourceGroups/" + appRG + "/providers/Microsoft.Compute/disks/" + name
	return &armdataprotection.AzureBackupRecoveryPointBasedRestoreRequest{
		ObjectType: to.Ptr("AzureBackupRecoveryPointBasedRestoreRequest"), RecoveryPointID: &point, SourceDataStoreType: to.Ptr(armdataprotection.SourceDataStoreTypeOperationalStore), SourceResourceID: &s.diskID,
		RestoreTargetInfo: &armdataprotection.RestoreTargetInfo{
			ObjectType: to.Ptr("RestoreTargetInfo"), RecoveryOption: to.Ptr(armdataprotection.RecoveryOptionFailIfExists), RestoreLocation: to.Ptr("eastus"),
			DatasourceInfo: &armdataprotection.Datasource{ObjectType: to.Ptr("Datasource"), DatasourceType: to.Ptr("Microsoft.Compute/disks"), ResourceID: &target, ResourceName: &name, ResourceType: to.Ptr("Microsoft.Compute/disks"), ResourceLocation: to.Ptr("eastus"), ResourceURI: &target},
		},
	}
}

func TestProtectBackUpRestore(t *testing.T) {
	s := begin(t)
	ctx := t.Context()

	// What the vault's identity lacks is named, and nothing is protected.
	p, err := s.instances.BeginValidateForBackup(ctx, vaultRG, vaultName, armdataprotection.ValidateForBackupRequest{BackupInstance: s.instance()}, nil)
	_, err = wait(t, p, err)
	wants(t, err, "UserErrorMissingRequiredPermissions", 200)
	s.protect()

	j := s.backUp()
	if *j.Status != "Completed" || *j.Operation != "Backup" || !*j.IsUserTriggered || *j.BackupInstanceID != vaultID+"/backupInstances/"+instance || *j.DataSourceID != s.diskID ||
		*j.DestinationDataStoreName != "OperationalTierStore" || j.ExtendedInfo.AdditionalDetails["RetentionTag"] == nil || *j.ExtendedInfo.AdditionalDetails["RetentionTag"] != "Daily" ||
		*j.ExtendedInfo.SubTasks[0].TaskName != "Trigger Backup" || !strings.HasPrefix(*j.Duration, "PT") {
		t.Fatalf("%+v", j)
	}
	page := must[armdataprotection.RecoveryPointsClientListResponse](t)(s.points.NewListPager(vaultRG, vaultName, instance, nil).NextPage(ctx))
	if len(page.Value) != 1 {
		t.Fatalf("%d points", len(page.Value))
	}
	point := page.Value[0].Properties.(*armdataprotection.AzureBackupDiscreteRecoveryPoint)
	if *point.RecoveryPointID != *j.ExtendedInfo.TargetRecoverPoint.RecoveryPointID || point.ExpiryTime != nil || *point.RetentionTagName != "Daily" || *point.RecoveryPointDataStoresDetails[0].State != "COMMITTED" {
		t.Errorf("%+v", point)
	}

	v, err := s.instances.BeginValidateForRestore(ctx, vaultRG, vaultName, instance, armdataprotection.ValidateRestoreRequestObject{RestoreRequestObject: s.restore(*point.RecoveryPointID, "restored")}, nil)
	_, err = wait(t, v, err)
	wants(t, err, "UserErrorMissingRequiredPermissions", 200)
	s.assign(subID+"/resourceGroups/"+appRG, "Disk Restore Operator")
	ends[armdataprotection.BackupInstancesClientValidateForRestoreResponse](t)(s.instances.BeginValidateForRestore(ctx, vaultRG, vaultName, instance, armdataprotection.ValidateRestoreRequestObject{RestoreRequestObject: s.restore(*point.RecoveryPointID, "restored")}, nil))
	r := ends[armdataprotection.BackupInstancesClientTriggerRestoreResponse](t)(s.instances.BeginTriggerRestore(ctx, vaultRG, vaultName, instance, s.restore(*point.RecoveryPointID, "restored"), nil))
	if j = s.job(r.OperationJobExtendedInfo); *j.Status != "Completed" || *j.ExtendedInfo.SourceRecoverPoint.RecoveryPointID != *point.RecoveryPointID {
		t.Fatalf("%+v", j)
	}
	d := must[armcompute.DisksClientGetResponse](t)(s.disks.Get(ctx, appRG, "restored", nil))
	is, err := os.ReadFile(strings.TrimPrefix(*d.Properties.CreationData.SourceURI, "file://"))
	if err != nil || !bytes.Equal(is, s.content) {
		t.Fatalf("%d bytes were restored, %v; they are not those of the disk", len(is), err)
	}
	t.Run("life", func(t *testing.T) { life(t, s) })
	t.Run("lists", func(t *testing.T) { lists(t, s) })
	t.Run("disks", func(t *testing.T) { moreDisks(t, s) })
	t.Run("end", func(t *testing.T) { end(t, s) })
}
