package node

import "encoding/binary"

// ACLEntry is an entry of a POSIX access control list.
type ACLEntry struct {
	Tag, Perm uint16
	ID        uint32
}

// NoID is the ID of entries that are for nobody in particular.
const NoID = ^uint32(0)

// ACL gives the list in the form in which Linux takes it as an extended
// attribute.
func ACL(entries []ACLEntry) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, e.Tag)
		b = binary.LittleEndian.AppendUint16(b, e.Perm)
		b = binary.LittleEndian.AppendUint32(b, e.ID)
	}
	return b
}
