package files

import (
	"github.com/diskvault/diskvault/engine/attach/files/internal/ext"
	"github.com/diskvault/diskvault/engine/attach/files/internal/fat"
	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
	"github.com/diskvault/diskvault/engine/attach/files/internal/ntfs"
	"github.com/diskvault/diskvault/engine/attach/files/internal/xfs"
)

// signature is how a kind of content is known.
type signature struct {
	at    int64
	magic string
	kind  string
	note  string // why it is not read; empty: it is
}

const onlyKernel = "diskvault does not read this file system: attach the disk with `diskvault nbd` or mount disk.img"

// signatures are looked for in this order. The kinds are named as by blkid.
var signatures = []signature{
	{0, "LUKS\xba\xbe", "crypto_LUKS", "it is encrypted: open disk.img with cryptsetup"},
	{3, "-FVE-FS-", "BitLocker", "it is encrypted by BitLocker"},
	{0, xfs.Magic, "xfs", ""},
	{ntfs.MagicAt, ntfs.Magic, "ntfs", ""},
	{3, "EXFAT   ", "exfat", onlyKernel},
	{3, "ReFS\x00", "ReFS", onlyKernel},
	{ext.MagicAt, ext.Magic, "ext4", ""},
	{0x10040, "_BHRfS_M", "btrfs", onlyKernel},
	{512, "LABELONE", "LVM2_member", "it is a part of a volume group of LVM: attach disk.img with losetup"},
	{0, "LABELONE", "LVM2_member", "it is a part of a volume group of LVM: attach disk.img with losetup"},
	{4096, "\xfc\x4e\x2b\xa9", "linux_raid_member", "it is a part of a software RAID: attach disk.img with losetup"},
	{4086, "SWAPSPACE2", "swap", "it holds no files"},
	{1024, "\x10\x20\xf5\xf2", "f2fs", onlyKernel},
	{0, "hsqs", "squashfs", onlyKernel},
	{0x8001, "CD001", "iso9660", onlyKernel},
	{32, "NXSB", "apfs", onlyKernel},
	{1024, "H+\x00\x04", "hfsplus", onlyKernel},
	{0x8000, "JFS1", "jfs", onlyKernel},
	{0x10034, "ReIsEr", "reiserfs", onlyKernel},
}

// identify finds what a part of a disk holds.
func identify(d node.Device) (signature, error) {
	head, err := d.Bytes(0, min(d.Size, 0x10080))
	if err != nil {
		return signature{}, err
	}
	for _, s := range signatures {
		if end := s.at + int64(len(s.magic)); end <= int64(len(head)) && string(head[s.at:end]) == s.magic {
			return s, nil
		}
	}
	if fat.Probe(head) {
		return signature{kind: "vfat"}, nil
	}
	return signature{}, nil
}

// open makes the reader of a kind.
func open(kind string, d node.Device) (node.System, node.Facts, error) {
	switch kind {
	case "xfs":
		return opened(xfs.Open(d))
	case "ntfs":
		return opened(ntfs.Open(d))
	case "ext4":
		return opened(ext.Open(d))
	case "vfat":
		return opened(fat.Open(d))
	}
	return nil, node.Facts{}, node.Unsupportedf("the file system %q", kind)
}

func opened[S node.System](s S, f node.Facts, err error) (node.System, node.Facts, error) {
	if err != nil {
		return nil, f, err
	}
	return s, f, nil
}
