// Package disk is where backups read and restores write: image files and block
// devices of this host. Probe looks at a path and says what it is and whether
// it can be protected; a Source gives Readers; a Target takes what a restore
// writes. Points in time are the matter of package capture.
package disk

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/disk/blockdev"
)

// MaxSize is the size in bytes of the largest disk that can be protected.
const MaxSize int64 = 32 << 40

// Kind is what sort of thing a source or target is.
type Kind string

const (
	File  Kind = "file"  // a regular file that holds the image of a disk
	Block Kind = "block" // a block device
)

// Source is a disk as Probe found it. It holds no resources, and may be copied
// and stored as JSON. Sizes are in bytes.
type Source struct {
	inode inode // what Probe had open; zero in a Source that came from JSON

	Given              string     `json:"given"` // the path as the user wrote it
	Path               string     `json:"path"`  // absolute, free of links
	Kind               Kind       `json:"kind"`
	Size               int64      `json:"size"`
	Allocated          int64      `json:"allocated"`          // what a file takes on its file system; for a device its size
	SectorSize         int        `json:"sectorSize"`         // logical: the unit of a direct read
	PhysicalSectorSize int        `json:"physicalSectorSize"` // the unit in which the storage writes
	Rotational         bool       `json:"rotational"`         // some disk under it spins; false if that is not known
	ReadOnly           bool       `json:"readOnly"`           // the device refuses writes, or the file's file system does
	Format             Format     `json:"format"`             // what the bytes themselves say they are; FormatRaw if nothing else
	FileSystem         FileSystem `json:"fileSystem,omitzero"`
	Identity           Identity   `json:"identity,omitempty"`

	Device     string           `json:"device,omitempty"`     // a device's name in the kernel
	Model      string           `json:"model,omitempty"`      // what a device's maker calls it
	Backing    string           `json:"backing,omitempty"`    // the file under a loop device
	Partitions []string         `json:"partitions,omitempty"` // names in the kernel of a device's partitions
	Holders    []string         `json:"holders,omitempty"`    // devices that store on it, directly or not, without partitions
	Loops      []string         `json:"loops,omitempty"`      // loop devices over a file
	Mounts     []blockdev.Mount `json:"mounts,omitempty"`     // file systems on it, its partitions or what stands on it
	Swap       bool             `json:"swap,omitempty"`       // the kernel swaps to it
	Files      []ImageFile      `json:"files,omitempty"`      // those of an image in a container, if the disk inside is read
	Export     *Export          `json:"export,omitempty"`     // what the user says of a disk on an NBD server
	Disks      []string         `json:"disks,omitempty"`      // whole disks at the ground of it, by name in the kernel
}

// FileSystem is the file system on which an image file lies.
type FileSystem struct {
	Name  string `json:"name"`  // such as "ext4" or "xfs"; a number in hexadecimal if its name is not known
	Local bool   `json:"local"` // only this host's kernel can change its files, and each writer opens them through it
	DAX   bool   `json:"dax,omitempty"`
}

// inode tells two things under one path apart.
type inode struct{ device, number, rdevice uint64 }

func inodeOf(st *unix.Stat_t) inode { return inode{st.Dev, st.Ino, st.Rdev} }

// MountedForWriting are those of the source's mounts that may write to it.
func (s *Source) MountedForWriting() []blockdev.Mount {
	var out []blockdev.Mount
	for _, m := range s.Mounts {
		if !m.ReadOnly {
			out = append(out, m)
		}
	}
	return out
}

// SharesDisk tells whether path (a file, folder or device) lies on a whole disk
// that the source lies on too, and names it. A path that does not exist yet, or
// storage that no local disk is known under, shares none.
func (s *Source) SharesDisk(path string) (name string, shared bool) {
	for _, on := range (blockdev.Kernel{}).Holding(path) {
		for _, ground := range on.Disks() {
			for _, mine := range s.Disks {
				if ground.Name == mine {
					return mine, true
				}
			}
		}
	}
	return "", false
}

// String names the source for a message.
func (s *Source) String() string {
	switch s.Kind {
	case Block:
		return fmt.Sprintf("the device %s", s.Path)
	case Network:
		return fmt.Sprintf("the NBD export %s", s.Path)
	case Machine:
		return fmt.Sprintf("the machine's disk %s", s.Path)
	case Thin:
		return fmt.Sprintf("the thin volume %s", s.Path)
	case Ceph:
		return fmt.Sprintf("the Ceph image %s", s.Path)
	}
	return fmt.Sprintf("the file %s", s.Path)
}
