package disk

import (
	"context"

	"github.com/diskvault/diskvault/disk/rbd"
)

// Ceph is the kind of a disk that is a Ceph RBD image. Its path is a URL of
// rbd.Scheme. It is read through a capture only.
const Ceph Kind = "rbd"

// probeImage asks Ceph about the image that a URL names.
func probeImage(ctx context.Context, source string) (*Source, error) {
	address, err := rbd.ParseAddress(source)
	if err != nil {
		return nil, err
	}
	i, err := rbd.Open(ctx, address)
	if err != nil {
		return nil, err
	}
	s := &Source{
		Given: source, Path: address.String(), Kind: Ceph, Size: i.Size, Allocated: i.Size,
		SectorSize: 512, PhysicalSectorSize: 4096, Format: FormatRaw,
	}
	return s, s.checkSize()
}
