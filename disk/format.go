package disk

import (
	"bytes"
	"encoding/binary"
)

// Format is the container format that the first bytes of a source show.
type Format string

// Of an image file in a container the disk inside is read; see Source.Inside.
// Everything else is read as it is, byte for byte: what a device or an NBD
// export holds was written by whoever uses that disk.
const (
	FormatRaw   Format = "raw"
	FormatQCOW2 Format = "qcow2" // and its first version, qcow
	FormatQED   Format = "qed"
	FormatVMDK  Format = "vmdk"
	FormatVHDX  Format = "vhdx"
	FormatVHD   Format = "vhd" // dynamic or differencing; a fixed VHD begins with the disk itself
	FormatVDI   Format = "vdi"
	FormatLUKS  Format = "luks"
)

// formatOf recognises a container by the first bytes of a source.
func formatOf(head []byte) Format {
	switch {
	case bytes.HasPrefix(head, []byte("QFI\xfb")):
		return FormatQCOW2
	case bytes.HasPrefix(head, []byte("QED\x00")):
		return FormatQED
	case bytes.HasPrefix(head, []byte("KDMV")), bytes.HasPrefix(head, []byte("COWD")),
		bytes.HasPrefix(head, []byte("# Disk DescriptorFile")):
		return FormatVMDK
	case bytes.HasPrefix(head, []byte("vhdxfile")):
		return FormatVHDX
	case bytes.HasPrefix(head, []byte("conectix")):
		return FormatVHD
	case len(head) >= 68 && binary.LittleEndian.Uint32(head[64:]) == 0xBEDA107F:
		return FormatVDI
	case bytes.HasPrefix(head, []byte("LUKS\xba\xbe")):
		return FormatLUKS
	}
	return FormatRaw
}

// Container tells whether the disk lies inside another format, so that the bytes
// as they are make the container rather than the disk. An encrypted disk is not one:
// it is the disk.
func (f Format) Container() bool { return f != FormatRaw && f != FormatLUKS }
