package support

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/retention"
	"github.com/diskvault/diskvault/disk"
)

// skus are the types of disks. The slow ones copy their snapshots in the
// background, so that Azure backs them up every 12 hours at the most often.
var (
	skus = []string{"Standard_LRS", "StandardSSD_LRS", "StandardSSD_ZRS", "Premium_LRS", "Premium_ZRS"}
	slow = []string{"PremiumV2_LRS", "UltraSSD_LRS"}
)

// Matrix is the support matrix, in the order in which people read it.
var Matrix = []Row{
	{Area: "Sources", Configuration: "image file, raw (also fixed VHD)", Answer: Yes, Text: "Holes are not read."},
	{Area: "Sources", Configuration: "block device: disk, partition, LVM volume, RAID, loop", Answer: Yes, Text: "It is read as it is, by its size."},
	{Area: "Sources", Configuration: "image file: qcow2, VMDK, VHD, VHDX, VDI, QED", Answer: Note, applies: func(c *Case) bool { return c.Source != nil && c.Source.Inside() },
		Text: "The disk inside is read, as its guest would see it; changes are not tracked, so all that is allocated is read each time.", Remedy: "Back up the running machine instead, with qemu+unix."},
	{Area: "Sources", Configuration: "encrypted image file (qcow2 with a key)", Answer: No, Code: problem.SourceNotSupported,
		Text: "The disk inside cannot be read without its key.", Remedy: "Back up the running machine, or encrypt inside the disk (LUKS)."},
	{Area: "Sources", Configuration: "NBD export, read-only", Answer: Yes, Text: "nbd, nbds and nbd+unix; what the server says is a hole is not read."},
	{Area: "Sources", Configuration: "NBD export that can be written", Answer: No, Code: problem.SourceInUse,
		Text: "Nobody can prove that it does not change while it is read.", Remedy: "Export it for reading only, or accept an inconsistent copy with --allow-inconsistent."},
	{Area: "Sources", Configuration: "disk of a running QEMU machine", Answer: Yes, Text: "By qemu+unix, several disks at the same moment; a dirty bitmap, and only what changed is read. QEMU 7.2 or newer."},
	{Area: "Sources", Configuration: "disk of a running machine with an I/O thread, before QEMU 9", Answer: No, Code: problem.SourceNotSupported,
		Text: "Such a QEMU ends, and its guest with it, when the disk has been read.", Remedy: "Use QEMU 9 or newer, leave iothread= away, or back up its image on XFS or btrfs."},
	{Area: "Sources", Configuration: "machine managed by libvirt", Answer: No, Code: problem.MachineManaged,
		Text: "libvirt does not take part when another program changes the disks of its machines.", Remedy: "Shut the machine down for the backup, or back up its image on XFS or btrfs."},
	{Area: "Sources", Configuration: "LVM thin volume by snapshot (lvm:)", Answer: Yes, Unproven: true, Text: "The pool's metadata say what has changed since the last snapshot."},
	{Area: "Sources", Configuration: "Ceph RBD image (rbd:)", Answer: Yes, Text: "By a snapshot; Ceph says what has changed since the last one."},
	{Area: "Sources", Configuration: "folder, socket, pipe, character device", Answer: No, Code: problem.SourceNotSupported,
		Text: "It is no disk.", Remedy: "Give the image file in the folder, or the device that it is mounted from."},

	{Area: "Size", Configuration: "up to 32 TiB", Answer: Yes, Text: "Any size in bytes; a last block that is not full is filled with zeros."},
	{Area: "Size", Configuration: "more than 32 TiB", Answer: No, Code: problem.SourceTooLarge, applies: func(c *Case) bool {
		return c.Source != nil && c.Source.Size > disk.MaxSize || c.Disk.Size > disk.MaxSize
	}, Text: "The disk is larger than 32 TiB.", Remedy: "Protect a disk of at most 32 TiB."},
	{Area: "Size", Configuration: "empty image file", Answer: Yes, Text: "It comes back empty."},
	{Area: "Size", Configuration: "device without a medium", Answer: No, Code: problem.SourceNotSupported,
		applies: func(c *Case) bool { return c.Source != nil && c.Source.Kind == disk.Block && c.Source.Size == 0 },
		Text:    "The device has no medium, so there is nothing to protect.", Remedy: "Insert the medium first."},
	{Area: "Size", Configuration: "4096-byte sectors", Answer: Note, applies: func(c *Case) bool { return c.Source != nil && c.Source.SectorSize > 512 },
		Text: "A partition table for sectors of 4096 bytes is of use only on a disk that has them.", Remedy: "Restore to a device with sectors of the same size, or attach the point over NBD."},

	{Area: "Point in time", Configuration: "XFS and btrfs, in use", Answer: Yes, Text: "By a clone of the file; its writers wait for at most the stall budget. Only what changed is read."},
	{Area: "Point in time", Configuration: "ext4, f2fs, bcachefs, JFS, quiet", Answer: Yes, Text: "A lease proves that nobody writes while it is read."},
	{Area: "Point in time", Configuration: "file system of a network, of memory or of FUSE", Answer: No, Code: problem.SourceInUse,
		applies: func(c *Case) bool {
			return onFile(c) && !c.Source.FileSystem.Local && !c.AllowInconsistent
		},
		Text: "The file system does not tell this host of every writer, so no point in time can be proven.", Remedy: "Run the backup on the host that serves the files, or accept an inconsistent copy with --allow-inconsistent."},
	{Area: "Point in time", Configuration: "DAX (file system mapped straight onto memory)", Answer: No, Code: problem.SourceInUse,
		applies: func(c *Case) bool { return onFile(c) && c.Source.FileSystem.DAX && !c.AllowInconsistent },
		Text:    "A writer through memory leaves no trace, so no point in time can be proven.", Remedy: "Mount it without DAX for the backup, or accept an inconsistent copy with --allow-inconsistent."},
	{Area: "Point in time", Configuration: "block device that is mounted for writing", Answer: Note,
		applies: func(c *Case) bool {
			return c.Source != nil && c.Source.Kind == disk.Block && len(c.Source.MountedForWriting()) > 0
		},
		Text: "It is refused if anything is written to it while it is read.", Remedy: "Freeze it with fsfreeze, mount it read-only, or use an image on XFS or btrfs."},
	{Area: "Point in time", Configuration: "device shared by hosts, or without counters (iostats=0)", Answer: No, Code: problem.SourceInUse,
		Text: "This host does not see every write to it.", Remedy: "Switch the counters on, or accept an inconsistent copy with --allow-inconsistent."},
	{Area: "Point in time", Configuration: "several disks of one QEMU machine at one moment", Answer: Yes, Text: "A consistency group, by backup --group; Azure has none."},
	{Area: "Point in time", Configuration: "several disks of different machines, or files, at one moment", Answer: None, Text: "Each is protected by itself."},
	{Area: "Point in time", Configuration: "application-consistent", Answer: None, Text: "Points are crash-consistent; a guest agent may freeze the file systems of a QEMU machine."},

	{Area: "Encryption", Configuration: "LUKS and other encryption inside the disk", Answer: Note, applies: func(c *Case) bool { return c.Source != nil && c.Source.Format == disk.FormatLUKS },
		Text: "The encrypted content is protected as it is: whoever restores needs its key, and it cannot be compressed."},
	{Area: "Encryption", Configuration: "of the store", Answer: Yes, Text: "Always on; without a key nobody can read a point."},
	{Area: "Encryption", Configuration: "disk encryption set (customer's key)", Answer: Yes, Text: "The identity of the vault needs Reader on the set."},
	{Area: "Encryption", Configuration: "disk encryption set whose key is off, at a restore", Answer: No, Code: problem.EncryptionKeyOff,
		applies: restoring(func(c *Case, r *RestoreCase) bool { return c.EncryptionSet != "" && r.KeyOff }),
		Text:    "The key of the disk encryption set is switched off.", Remedy: "Switch the key on again."},

	{Area: "Disks", Configuration: "Standard HDD, Standard SSD, Premium SSD", Answer: Yes, Text: "Attached or not, of the system or of data, shared or not; the type is a name here and changes nothing."},
	{Area: "Disks", Configuration: "Premium SSD v2, Ultra", Answer: Note, applies: func(c *Case) bool { return slices.Contains(slow, c.Disk.SKU) },
		Text: "Schedules of 12 hours and daily ones only."},
	{Area: "Disks", Configuration: "Premium SSD v2, Ultra, more often than every 12 hours", Answer: No, Code: problem.PolicyScheduleInvalid,
		applies: protecting(func(c *Case) bool {
			return slices.Contains(slow, c.Disk.SKU) && c.Every > 0 && c.Every < 12*time.Hour
		}),
		Text: "Disks of this type are backed up every 12 hours or daily.", Remedy: "Choose a policy of PT12H or P1D, or another disk type."},
	{Area: "Disks", Configuration: "other types", Answer: No, Code: problem.DiskTypeUnsupported,
		applies: func(c *Case) bool {
			return c.Disk.SKU != "" && !slices.Contains(skus, c.Disk.SKU) && !slices.Contains(slow, c.Disk.SKU)
		},
		Text: "The type of the disk is not one that is supported.", Remedy: "Change the type of the disk to one of the support matrix."},
	{Area: "Disks", Configuration: "unmanaged disk, or something else than a disk", Answer: No, Code: problem.DiskTypeUnsupported,
		applies: func(c *Case) bool {
			return c.Disk.ID != "" && !strings.EqualFold(c.Disk.ID.Type(), resource.TypeDisk)
		},
		Text: "The resource is no managed disk.", Remedy: "Register the source as a disk of the type Microsoft.Compute/disks, and protect that."},
	{Area: "Disks", Configuration: "disk without a source", Answer: No, Code: problem.SourceNotFound,
		applies: protecting(func(c *Case) bool {
			return strings.EqualFold(c.Disk.ID.Type(), resource.TypeDisk) && c.Disk.Source == ""
		}),
		Text: "The disk does not say where its bytes are.", Remedy: "Set creationData.sourceUri, or the tag diskvault-source, of the disk."},
	{Area: "Disks", Configuration: "Write Accelerator", Answer: None, Text: "A restored disk is a normal one."},

	{Area: "Places", Configuration: "vault and disk in one location", Answer: Yes, Text: "A location is a site: a named set of hosts."},
	{Area: "Places", Configuration: "vault and disk in different locations", Answer: No, Code: problem.LocationMismatch,
		applies: protecting(func(c *Case) bool {
			return c.Vault.Location != "" && c.Disk.Location != "" && !resource.SameLocation(c.Vault.Location, c.Disk.Location)
		}),
		Text: "The disk is in another location than the vault.", Remedy: "Use a vault of the location of the disk."},
	{Area: "Places", Configuration: "location without hosts", Answer: No, Code: problem.LocationUnsupported,
		applies: func(c *Case) bool {
			return c.Sites != nil && c.Vault.Location != "" && !slices.ContainsFunc(c.Sites, func(s string) bool { return resource.SameLocation(s, c.Vault.Location) })
		},
		Text: "No host works for the location of the vault.", Remedy: "Start `diskvault worker --location` there, or use a vault of another location."},
	{Area: "Places", Configuration: "vault and disk in different subscriptions", Answer: Yes, Text: "The snapshot resource group lies in that of the disk."},
	{Area: "Places", Configuration: "subscription without Microsoft.Compute", Answer: No, Code: problem.ProviderMissing,
		applies: func(c *Case) bool {
			return c.Provider != nil && !slices.ContainsFunc(c.Provider, func(p string) bool { return strings.EqualFold(p, "Microsoft.Compute") })
		},
		Text: "The subscription of the disk is not registered for Microsoft.Compute.", Remedy: "Register the provider Microsoft.Compute in the subscription."},
	{Area: "Places", Configuration: "no snapshot resource group", Answer: No, Code: problem.SnapshotGroupMissing,
		applies: protecting(func(c *Case) bool { return c.Disk.ID != "" && !c.HasSnapshotGroup }),
		Text:    "The request names no snapshot resource group.", Remedy: "Send dataStoreParametersList with an OperationalStore and its resourceGroupId."},
	{Area: "Places", Configuration: "snapshot resource group that is none", Answer: No, Code: problem.SnapshotGroupInvalid,
		applies: protecting(func(c *Case) bool { return c.HasSnapshotGroup && group(c) == "" }),
		Text:    "The snapshot resource group is not the ID of a resource group.", Remedy: "Give the whole ID, such as /subscriptions/…/resourceGroups/… of the group."},
	{Area: "Places", Configuration: "snapshot resource group in another subscription than the disk", Answer: No, Code: problem.SnapshotGroupElsewhere,
		applies: protecting(func(c *Case) bool {
			return group(c) != "" && c.Disk.ID != "" && group(c).Subscription() != c.Disk.ID.Subscription()
		}),
		Text: "The snapshot resource group and the disk are in different subscriptions.", Remedy: "Choose a resource group of the subscription of the disk."},
	{Area: "Places", Configuration: "another snapshot resource group for an instance that has one", Answer: No, Code: problem.PropertyFixed,
		applies: protecting(func(c *Case) bool { return c.WasGroup != "" && group(c) != "" && !group(c).Same(c.WasGroup) }),
		Text:    "The snapshot resource group cannot be changed after protection was configured.", Remedy: "Keep the group, or delete the instance and protect the disk anew."},
	{Area: "Places", Configuration: "snapshot resource group of the disk itself", Answer: Note,
		applies: protecting(func(c *Case) bool { return group(c) != "" && c.Disk.ID != "" && group(c).Same(c.Disk.ID.GroupID()) }),
		Text:    "A group of its own for snapshots outlives the deletion of the group of the disk.", Remedy: "Choose another resource group."},
	{Area: "Places", Configuration: "another tenant", Answer: None, Text: "A deployment has one tenant."},

	{Area: "Restore", Configuration: "to a new disk, in the same or another resource group", Answer: Yes, Text: "It has a uniqueId of its own."},
	{Area: "Restore", Configuration: "to a disk that exists, the source included", Answer: No, Code: problem.SameNameDisk,
		applies: restoring(func(_ *Case, r *RestoreCase) bool { return r.TargetExists }),
		Text:    "The target resource group has a disk of this name already.", Remedy: "Choose another name; the command line can overwrite a disk with --overwrite."},
	{Area: "Restore", Configuration: "recovery options besides FailIfExists", Answer: No, Code: problem.InvalidArgument,
		applies: restoring(func(_ *Case, r *RestoreCase) bool {
			return r.RecoveryOption != "" && !strings.EqualFold(r.RecoveryOption, "FailIfExists")
		}),
		Text: "Disks are restored with the option FailIfExists only.", Remedy: "Send recoveryOption FailIfExists."},
	{Area: "Restore", Configuration: "to another subscription", Answer: Yes, Text: "If the vault allows it."},
	{Area: "Restore", Configuration: "to another subscription, switched off in the vault", Answer: No, Code: problem.CrossRestoreOff,
		applies: restoring(func(c *Case, r *RestoreCase) bool {
			return elsewhere(c, r) && c.Vault.CrossSubscriptionRestore != "" && c.Vault.CrossSubscriptionRestore != "Enabled"
		}),
		Text: "The vault does not allow restores to another subscription.", Remedy: "Restore to the subscription of the disk, or let the vault allow it if that was not ruled out for good."},
	{Area: "Restore", Configuration: "to another subscription, with a disk encryption set", Answer: No, Code: problem.EncryptedElsewhere,
		applies: restoring(func(c *Case, r *RestoreCase) bool { return elsewhere(c, r) && c.EncryptionSet != "" }),
		Text:    "A disk with a customer's key is restored within its subscription only.", Remedy: "Restore to the subscription of the disk."},
	{Area: "Restore", Configuration: "to another location", Answer: No, Code: problem.LocationMismatch,
		applies: restoring(func(c *Case, r *RestoreCase) bool {
			return r.Location != "" && c.Vault.Location != "" && !resource.SameLocation(r.Location, c.Vault.Location)
		}),
		Text: "The target is in another location than the vault.", Remedy: "Restore within the location of the vault."},
	{Area: "Restore", Configuration: "snapshot that was removed by hand", Answer: No, Code: problem.SnapshotGone,
		applies: restoring(func(_ *Case, r *RestoreCase) bool { return r.SnapshotGone }),
		Text:    "The snapshot of the recovery point was deleted or moved out of the snapshot resource group.", Remedy: "Use another recovery point, or the copy of this one in the vault tier."},
	{Area: "Restore", Configuration: "recovery point without its record", Answer: No, Code: problem.SnapshotRecordGone,
		applies: restoring(func(_ *Case, r *RestoreCase) bool { return r.RecordGone }),
		Text:    "What is kept about the snapshot of the recovery point is gone.", Remedy: "Use another recovery point, or rebuild the catalog from the store."},
	{Area: "Restore", Configuration: "subscription with as many disks as it may have", Answer: No, Code: problem.DiskQuotaReached,
		applies: restoring(func(_ *Case, r *RestoreCase) bool { return r.MaxDisks > 0 && r.Disks >= r.MaxDisks }),
		Text:    "The subscription has as many disks as its quota allows.", Remedy: "Delete disks that nobody needs, or raise the quota."},
	{Area: "Restore", Configuration: "single files, mounting, NBD", Answer: Yes, Text: "By the command line; Azure restores whole disks only."},

	{Area: "Limits", Configuration: "recovery points of a disk in the operational tier", Answer: Note, Text: fmt.Sprintf("%d, of which the rules of a policy may hold %d, for at most a year. The vault tier keeps any number for up to 99 years.", retention.MaxPoints, retention.MaxScheduled)},
	{Area: "Limits", Configuration: "backups on demand and restores", Answer: Note, Text: fmt.Sprintf("%d backups and %d restores a day and instance through the API; no limit on the command line.", OnDemandPerDay, RestoresPerDay)},
	{Area: "Limits", Configuration: "instances and policies of a vault", Answer: Note, Text: fmt.Sprintf("%d instances and %d policies.", InstancesPerVault, PoliciesPerVault)},
	{Area: "Limits", Configuration: "volumes of Kubernetes", Answer: None, Text: "They are disks like others; their cluster is not asked."},
}

func onFile(c *Case) bool { return c.Source != nil && c.Source.Kind == disk.File && !c.Source.Inside() }

// protecting limits a row to protection, restoring to restores.
func protecting(f func(*Case) bool) func(*Case) bool {
	return func(c *Case) bool { return c.Restore == nil && f(c) }
}

func restoring(f func(*Case, *RestoreCase) bool) func(*Case) bool {
	return func(c *Case) bool { return c.Restore != nil && f(c, c.Restore) }
}

func elsewhere(c *Case, r *RestoreCase) bool {
	return r.Target != "" && c.Disk.ID != "" && r.Target.Subscription() != c.Disk.ID.Subscription()
}

// group is the snapshot resource group; empty if what was given is none.
func group(c *Case) resource.ID {
	id, err := resource.ParseID(c.SnapshotGroup)
	if err != nil || id.Type() != resource.TypeGroup {
		return ""
	}
	return id
}
