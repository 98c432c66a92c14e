package disk

import (
	"context"

	"github.com/diskvault/diskvault/disk/lvm"
)

// Thin is the kind of a disk that is an LVM thin volume, named by lvm.Scheme. It
// is read through a capture only.
const Thin Kind = "lvm"

// probeVolume asks LVM about the thin volume of a name.
func probeVolume(ctx context.Context, source string) (*Source, error) {
	v, err := lvm.Open(ctx, source)
	if err != nil {
		return nil, err
	}
	s := &Source{
		Given: source, Path: v.String(), Kind: Thin, Size: v.Size, Allocated: v.Size,
		SectorSize: 512, PhysicalSectorSize: 4096, Format: FormatRaw,
	}
	return s, s.checkSize()
}
