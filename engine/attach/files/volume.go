// Package files reads the files in an image of a disk: its partitions and the
// file systems in them. It needs no mount, no loop device and no privilege,
// changes nothing, and is safe on disks that were made to harm: what a reader
// does is bounded, and a panic of one is an error.
//
// Errors are problems: VolumeNotFound, FileNotFound, FileSystemDamaged,
// FileSystemNotSupported, and those of the disk that is read.
package files

import (
	"context"
	"errors"
	"io"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

// Volume is a part of a disk that can hold a file system.
type Volume struct {
	Name   string `json:"name"` // p1, p2… by partition; "whole" without a partition table
	Offset int64  `json:"offset"`
	Size   int64  `json:"size"`
	Title  string `json:"title,omitempty"` // name in the partition table
	Kind   string `json:"kind"`            // as blkid names it; empty: unknown
	Label  string `json:"label,omitempty"`
	UUID   string `json:"uuid,omitempty"`
	// Note says why its files cannot be read; empty: they can.
	Note string `json:"note,omitempty"`
	// Stale says what files may lack since the file system was in use.
	Stale string `json:"stale,omitempty"`
	// Replayed: its journal was replayed in memory, so nothing is missing.
	Replayed bool `json:"replayed,omitempty"`

	device node.Device
	system node.System
}

// Whole is the name of a volume that is all of a disk.
const Whole = "whole"

// Volumes finds what is on a disk of size bytes. r must be safe for concurrent
// use and is used as long as the volumes are. A volume that cannot be read
// tells why; the error is only for a disk that cannot be read at all.
func Volumes(ctx context.Context, r io.ReaderAt, size int64) ([]*Volume, error) {
	d := node.Device{ReaderAt: r, Size: size}
	whole, err := identify(d)
	if err != nil {
		return nil, explain(err)
	}
	// FAT and NTFS begin with a sector that looks like a partition table.
	if whole.kind != "vfat" && whole.kind != "ntfs" {
		table, parts, err := partitions(d)
		if err != nil {
			return nil, explain(err)
		}
		if table != "" {
			var all []*Volume
			for _, p := range parts {
				if err := ctx.Err(); err != nil {
					return nil, context.Cause(ctx)
				}
				v := &Volume{Name: p.title(), Offset: p.off, Size: p.size, Title: p.name}
				v.device = node.Device{ReaderAt: io.NewSectionReader(r, p.off, p.size), Size: p.size}
				if err := v.look(); err != nil {
					return nil, err
				}
				all = append(all, v)
			}
			return all, nil
		}
	}
	v := &Volume{Name: Whole, Size: size, device: d}
	return []*Volume{v}, v.look()
}

// look finds what the volume holds and makes its reader.
func (v *Volume) look() error {
	s, err := identify(v.device)
	if err != nil {
		return explain(err)
	}
	v.Kind, v.Note = s.kind, s.note
	switch {
	case s.kind == "":
		v.Note = "it holds nothing that is known"
		return nil
	case s.note != "":
		return nil
	}
	err = contain(func() error {
		system, facts, err := open(s.kind, v.device)
		v.system, v.Label, v.UUID, v.Stale, v.Replayed = system, facts.Label, facts.UUID, facts.Stale, facts.Replayed
		if facts.Kind != "" {
			v.Kind = facts.Kind
		}
		return err
	})
	if errIsDamage(err) || errors.Is(err, node.ErrUnsupported) {
		v.system, v.Note = nil, err.Error()
		return nil
	}
	return explain(err)
}

// Find gives the volume of a name.
func Find(all []*Volume, name string) (*Volume, error) {
	var names []string
	for _, v := range all {
		if v.Name == name {
			return v, nil
		}
		names = append(names, v.Name)
	}
	p := problem.New(problem.VolumeNotFound, "The disk has no volume %q.", name)
	if len(names) > 0 {
		p = p.Do("Choose one of " + list(names) + ".")
	}
	return nil, p
}

func list(words []string) string {
	out := ""
	for i, w := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			out += " and "
		default:
			out += ", "
		}
		out += w
	}
	return out
}

// Files gives access to the files of the volume.
func (v *Volume) Files() (*FS, error) {
	if v.system == nil {
		kind := v.Kind
		if kind == "" {
			kind = "nothing known"
		}
		return nil, problem.New(problem.FileSystemNotSupported, "The files of volume %s (%s) cannot be read: %s.", v.Name, kind, v.Note)
	}
	return &FS{volume: v, system: v.system}, nil
}

func errIsDamage(err error) bool { return errors.Is(err, node.ErrDamaged) }

// explain makes a problem of the error of a reader.
func explain(err error) error {
	var p *problem.Error
	switch {
	case err == nil || errors.As(err, &p):
		return err
	case errIsDamage(err):
		return problem.Wrap(err, problem.FileSystemDamaged, "The file system cannot be read here.")
	case errors.Is(err, node.ErrUnsupported):
		return problem.Wrap(err, problem.FileSystemNotSupported, "This cannot be read.")
	}
	return err
}

// contain runs a reader, whose panic is damage of what it read.
func contain(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = node.Damagedf("its reader failed (%v)", p)
		}
	}()
	return do()
}
