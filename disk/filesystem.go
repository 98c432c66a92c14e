package disk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// knownFileSystems is by the magic number that statfs(2) gives. Local are only
// those on which a lease is sure to be broken by every way to write to a file:
// file systems that belong to one kernel and keep their data on its devices.
// What is not here is not local.
var knownFileSystems = map[uint32]FileSystem{
	0xEF53:     {Name: "ext4", Local: true}, // ext2 and ext3 have the same number
	0x58465342: {Name: "xfs", Local: true},
	0x9123683E: {Name: "btrfs", Local: true},
	0xF2F52010: {Name: "f2fs", Local: true},
	0xCA451A4E: {Name: "bcachefs", Local: true},
	0x3153464A: {Name: "jfs", Local: true},

	0x2FC12FC1: {Name: "zfs"},
	0x01021994: {Name: "tmpfs"},
	0x858458F6: {Name: "ramfs"},
	0x958458F6: {Name: "hugetlbfs"},
	0x65735546: {Name: "fuse"},
	0x6969:     {Name: "nfs"},
	0xFF534D42: {Name: "cifs"},
	0xFE534D42: {Name: "smb2"},
	0x517B:     {Name: "smb"},
	0x00C36400: {Name: "ceph"},
	0x01021997: {Name: "9p"},
	0x794C7630: {Name: "overlay"},
	0x01161970: {Name: "gfs2"},
	0x7461636F: {Name: "ocfs2"},
	0x0BD00BD0: {Name: "lustre"},
	0x5346414F: {Name: "afs"},
	0x47504653: {Name: "gpfs"},
	0x786F4256: {Name: "vboxsf"},
	0x4D44:     {Name: "vfat"},
	0x2011BAB0: {Name: "exfat"},
	0x7366746E: {Name: "ntfs3"},
	0x73717368: {Name: "squashfs"},
	0x9660:     {Name: "iso9660"},
	0x3434:     {Name: "nilfs2"},
	0x52654973: {Name: "reiserfs"},
	0xE0F5E1E2: {Name: "erofs"},
	0x6A656A63: {Name: "devtmpfs"},
	0x9FA0:     {Name: "proc"},
	0x62656572: {Name: "sysfs"},
}

// fileSystemOf tells on what file system an open file lies.
func fileSystemOf(fd int) (FileSystem, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return FileSystem{}, err
	}
	fs, known := knownFileSystems[uint32(st.Type)]
	if !known {
		fs.Name = fmt.Sprintf("%#x", uint32(st.Type))
	}
	var stx unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &stx)
	fs.DAX = err == nil && stx.Attributes&unix.STATX_ATTR_DAX != 0
	return fs, nil
}
