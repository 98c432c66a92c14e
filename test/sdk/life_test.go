package sdk

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/dataprotection/armdataprotection/v3"
)

// life stops, resumes, deletes and undeletes a protection.
func life(t *testing.T, s *story) {
	ctx := t.Context()
	state := func(want armdataprotection.CurrentProtectionState) {
		t.Helper()
		i := must[armdataprotection.BackupInstancesClientGetResponse](t)(s.instances.Get(ctx, vaultRG, vaultName, instance, nil))
		if *i.Properties.CurrentProtectionState != want {
			t.Errorf("it is %s, want %s", *i.Properties.CurrentProtectionState, want)
		}
	}
	for range 2 { // the second time there is nothing to do
		ends[armdataprotection.BackupInstancesClientStopProtectionResponse](t)(s.instances.BeginStopProtection(ctx, vaultRG, vaultName, instance, nil))
	}
	state(armdataprotection.CurrentProtectionStateProtectionStopped)
	_, err := s.instances.BeginAdhocBackup(ctx, vaultRG, vaultName, instance, armdataprotection.TriggerBackupRequest{BackupRuleOptions: &armdataprotection.AdHocBackupRuleOptions{RuleName: to.Ptr("BackupHourly"), TriggerOption: &armdataprotection.AdhocBackupTriggerOption{}}}, nil)
	wants(t, err, "ProtectionStateConflict", 400)
	ends[armdataprotection.BackupInstancesClientResumeProtectionResponse](t)(s.instances.BeginResumeProtection(ctx, vaultRG, vaultName, instance, nil))
	state(armdataprotection.CurrentProtectionStateProtectionConfigured)
	ends[armdataprotection.BackupInstancesClientSuspendBackupsResponse](t)(s.instances.BeginSuspendBackups(ctx, vaultRG, vaultName, instance, nil))
	state(armdataprotection.CurrentProtectionStateBackupSchedulesSuspended)
	ends[armdataprotection.BackupInstancesClientResumeBackupsResponse](t)(s.instances.BeginResumeBackups(ctx, vaultRG, vaultName, instance, nil))
	ends[armdataprotection.BackupInstancesClientSyncBackupInstanceResponse](t)(s.instances.BeginSyncBackupInstance(ctx, vaultRG, vaultName, instance, armdataprotection.SyncBackupInstanceRequest{SyncType: to.Ptr(armdataprotection.SyncTypeDefault)}, nil))

	// An instance that is put again is changed, by an operation.
	again := ends[armdataprotection.BackupInstancesClientCreateOrUpdateResponse](t)(s.instances.BeginCreateOrUpdate(ctx, vaultRG, vaultName, instance, armdataprotection.BackupInstanceResource{Properties: s.instance(), Tags: map[string]*string{"owner": to.Ptr("dev")}}, nil))
	if *again.Tags["owner"] != "dev" {
		t.Errorf("%v", again.Tags)
	}
	_, err = s.instances.BeginCreateOrUpdate(ctx, vaultRG, vaultName, "another", armdataprotection.BackupInstanceResource{Properties: s.instance()}, nil)
	wants(t, err, "UserErrorDppDatasourceAlreadyProtected", 400)
	_, err = s.policies.Delete(ctx, vaultRG, vaultName, "disk-4h", nil)
	wants(t, err, "UserErrorDppPolicyObjectInUse", 400)

	ends[armdataprotection.BackupInstancesClientDeleteResponse](t)(s.instances.BeginDelete(ctx, vaultRG, vaultName, instance, nil))
	_, err = s.instances.Get(ctx, vaultRG, vaultName, instance, nil)
	wants(t, err, "UserErrorGenericResourceNotFound", 404)
	ends[armdataprotection.BackupInstancesClientDeleteResponse](t)(s.instances.BeginDelete(ctx, vaultRG, vaultName, instance, nil))
	d := must[armdataprotection.DeletedBackupInstancesClientGetResponse](t)(s.deleted.Get(ctx, vaultRG, vaultName, instance, nil))
	if *d.Properties.CurrentProtectionState != armdataprotection.CurrentProtectionStateSoftDeleted || *d.Properties.DeletionInfo.ScheduledPurgeTime == "" || !strings.Contains(*d.ID, "/deletedBackupInstances/") {
		t.Errorf("%+v", d.Properties)
	}
	all := must[armdataprotection.DeletedBackupInstancesClientListResponse](t)(s.deleted.NewListPager(vaultRG, vaultName, nil).NextPage(ctx))
	if len(all.Value) != 1 {
		t.Errorf("%d deleted instances", len(all.Value))
	}
	ends[armdataprotection.DeletedBackupInstancesClientUndeleteResponse](t)(s.deleted.BeginUndelete(ctx, vaultRG, vaultName, instance, nil))
	state(armdataprotection.CurrentProtectionStateProtectionStopped)
	ends[armdataprotection.BackupInstancesClientResumeProtectionResponse](t)(s.instances.BeginResumeProtection(ctx, vaultRG, vaultName, instance, nil))
}

// lists read page by page, and choose.
func lists(t *testing.T, s *story) {
	ctx := t.Context()
	s.backUp()
	points := s.points.NewListPager(vaultRG, vaultName, instance, nil)
	first := must[armdataprotection.RecoveryPointsClientListResponse](t)(points.NextPage(ctx))
	newest := first.Value[0].Properties.(*armdataprotection.AzureBackupDiscreteRecoveryPoint)
	older := first.Value[1].Properties.(*armdataprotection.AzureBackupDiscreteRecoveryPoint)
	if newest.ExpiryTime != nil || older.ExpiryTime == nil || !newest.RecoveryPointTime.After(*older.RecoveryPointTime) {
		t.Errorf("newest %+v, older %+v", newest, older)
	}
	filtered := must[armdataprotection.RecoveryPointsClientListResponse](t)(s.points.NewListPager(vaultRG, vaultName, instance, &armdataprotection.RecoveryPointsClientListOptions{
		Filter: to.Ptr("endDate eq '" + older.RecoveryPointTime.Format("2006-01-02T15:04:05.9999999Z") + "'"),
	}).NextPage(ctx))
	if len(filtered.Value) != 1 || *filtered.Value[0].Name != *older.RecoveryPointID {
		t.Errorf("%d points until %s", len(filtered.Value), older.RecoveryPointTime)
	}
	count := 0
	for pager := s.jobs.NewListPager(vaultRG, vaultName, nil); pager.More(); {
		page := must[armdataprotection.JobsClientListResponse](t)(pager.NextPage(ctx))
		for _, j := range page.Value {
			count++
			if j.Properties.ExtendedInfo != nil || *j.Properties.Status != "Completed" {
				t.Errorf("%s: %s, %+v", *j.Name, *j.Properties.Status, j.Properties.ExtendedInfo)
			}
		}
	}
	if count != 3 {
		t.Errorf("%d jobs, want two backups and a restore", count)
	}
	for _, name := range []string{"vault-b", "vault-c"} {
		ends[armdataprotection.BackupVaultsClientCreateOrUpdateResponse](t)(s.vaults.BeginCreateOrUpdate(ctx, vaultRG, name, armdataprotection.BackupVaultResource{Location: to.Ptr("eastus"), Properties: &armdataprotection.BackupVault{StorageSettings: []*armdataprotection.StorageSetting{}}}, nil))
	}
	var names []string
	for pager := s.vaults.NewGetInSubscriptionPager(nil); pager.More(); {
		for _, v := range must[armdataprotection.BackupVaultsClientGetInSubscriptionResponse](t)(pager.NextPage(ctx)).Value {
			names = append(names, *v.Name)
		}
	}
	if strings.Join(names, " ") != "vault-b vault-c vault-eus-01" {
		t.Errorf("vaults %v", names)
	}
	token := s.p.token()
	seen := 0
	for path := subID + "/providers/Microsoft.DataProtection/backupVaults?api-version=2023-11-01&$top=2"; path != ""; seen++ {
		answer, body := s.p.raw(token, "GET", path, "")
		if answer.StatusCode != 200 {
			t.Fatalf("%d: %s", answer.StatusCode, body)
		}
		path = ""
		if _, link, ok := strings.Cut(string(body), `"nextLink":"`); ok {
			link, _, _ = strings.Cut(link, `"`)
			path = strings.ReplaceAll(strings.TrimPrefix(link, s.p.Endpoint), `\u0026`, "&")
		}
	}
	if seen != 2 {
		t.Errorf("three vaults by two make %d pages", seen)
	}
	for _, name := range []string{"vault-b", "vault-c"} {
		ends[armdataprotection.BackupVaultsClientDeleteResponse](t)(s.vaults.BeginDelete(ctx, vaultRG, name, nil))
		ends[armdataprotection.BackupVaultsClientDeleteResponse](t)(s.vaults.BeginDelete(ctx, vaultRG, name, nil))
	}
}

// moreDisks makes empty disks and copies of snapshots, and deletes resources.
func moreDisks(t *testing.T, s *story) {
	ctx := t.Context()
	disk := func(d *armcompute.CreationData, gib int32) armcompute.Disk {
		b := armcompute.Disk{Location: to.Ptr("eastus"), Properties: &armcompute.DiskProperties{CreationData: d}}
		if gib > 0 {
			b.Properties.DiskSizeGB = &gib
		}
		return b
	}
	empty := ends[armcompute.DisksClientCreateOrUpdateResponse](t)(s.disks.BeginCreateOrUpdate(ctx, appRG, "empty", disk(&armcompute.CreationData{CreateOption: to.Ptr(armcompute.DiskCreateOptionEmpty)}, 2), nil))
	if *empty.Properties.DiskSizeBytes != 2<<30 || *empty.Properties.CreationData.CreateOption != armcompute.DiskCreateOptionEmpty {
		t.Errorf("%+v", empty.Properties)
	}
	cred, o := s.p.sdk()
	snapshots := must[*armcompute.SnapshotsClient](t)(armcompute.NewSnapshotsClient(subscription, cred, o))
	n := ends[armcompute.SnapshotsClientCreateOrUpdateResponse](t)(snapshots.BeginCreateOrUpdate(ctx, snapRG, "snap-0001", armcompute.Snapshot{
		Location: to.Ptr("eastus"), Properties: &armcompute.SnapshotProperties{Incremental: to.Ptr(true), CreationData: &armcompute.CreationData{CreateOption: to.Ptr(armcompute.DiskCreateOptionCopy), SourceResourceID: &s.diskID}},
	}, nil))
	if *n.Properties.CompletionPercent != 100 || *n.Properties.CreationData.SourceResourceID != s.diskID {
		t.Errorf("%+v", n.Properties)
	}
	_, err := s.disks.BeginCreateOrUpdate(ctx, appRG, "odd", disk(&armcompute.CreationData{CreateOption: to.Ptr(armcompute.DiskCreateOptionFromImage)}, 1), nil)
	wants(t, err, "DiskOptionNotSupported", 400)
	ends[armcompute.DisksClientCreateOrUpdateResponse](t)(s.disks.BeginCreateOrUpdate(ctx, appRG, "copy", disk(&armcompute.CreationData{CreateOption: to.Ptr(armcompute.DiskCreateOptionCopy), SourceResourceID: n.ID}, 0), nil))
	files, err := os.ReadDir(s.home + "/disks")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "copy-") {
			is, err := os.ReadFile(s.home + "/disks/" + f.Name())
			found = err == nil && bytes.Equal(is, s.content)
		}
	}
	if !found {
		t.Errorf("none of %v is a copy of the disk", files)
	}
	// The resource goes, the file that was registered in place never does.
	ends[armcompute.DisksClientDeleteResponse](t)(s.disks.BeginDelete(ctx, appRG, "copy", nil))
	ends[armcompute.DisksClientDeleteResponse](t)(s.disks.BeginDelete(ctx, appRG, "copy", nil))
	tagged := ends[armcompute.DisksClientCreateOrUpdateResponse](t)(s.disks.BeginCreateOrUpdate(ctx, appRG, "tagged", armcompute.Disk{Location: to.Ptr("eastus"), Tags: map[string]*string{"diskvault-source": to.Ptr("file://" + s.source)},
		Properties: &armcompute.DiskProperties{CreationData: &armcompute.CreationData{CreateOption: to.Ptr(armcompute.DiskCreateOptionEmpty)}, DiskSizeGB: to.Ptr[int32](1)}}, nil))
	if *tagged.Properties.DiskSizeBytes != 8<<20 {
		t.Errorf("%+v", tagged.Properties)
	}
	ends[armcompute.DisksClientDeleteResponse](t)(s.disks.BeginDelete(ctx, appRG, "tagged", nil))
	if is, err := os.ReadFile(s.source); err != nil || !bytes.Equal(is, s.content) {
		t.Errorf("the file of a disk that was registered in place is gone: %v", err)
	}
}

// end deletes the vault while it holds something, which is refused.
func end(t *testing.T, s *story) {
	_, err := s.vaults.BeginDelete(t.Context(), vaultRG, vaultName, nil)
	wants(t, err, "VaultInUse", 400)
	_, err = s.groups.BeginDelete(t.Context(), vaultRG, nil)
	wants(t, err, "ResourceGroupInUse", 409)
}
