package disk

import (
	"context"
	"fmt"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/qemu"
)

// Machine is the kind of a disk of a running QEMU machine, reached through its
// monitor. Its path is a URL of qemu.Scheme. It is read through a capture only.
const Machine Kind = "qemu"

// probeMachine asks a running machine about the disk that a URL names.
func probeMachine(ctx context.Context, source string) (*Source, error) {
	address, err := qemu.ParseAddress(source)
	if err != nil {
		return nil, err
	}
	m, err := qemu.Open(ctx, address)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	d, err := m.Disk(ctx, address.Device)
	if err != nil {
		return nil, err
	}
	if d.Size > MaxSize {
		return nil, problem.New(problem.SourceTooLarge, "The disk %s has %s; diskvault protects disks of at most %s.",
			d.Name, sizeText(d.Size), sizeText(MaxSize)).With("size", d.Size).With("maximum", MaxSize)
	}
	return &Source{
		Given: source, Path: address.String(), Kind: Machine, Size: d.Size, Allocated: min(d.Size, d.Allocated),
		SectorSize: 512, PhysicalSectorSize: 512, Format: FormatRaw, Model: fmt.Sprintf("QEMU disk %s", d.Name),
	}, nil
}
