package ext

import (
	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

const xattrMagic = 0xea020000

// prefixes are the beginnings of names, by their number.
var prefixes = [...]string{"", "user.", "system.posix_acl_access", "system.posix_acl_default", "trusted.", "", "security.", "system.", "system.richacl"}

const (
	aclAccess, aclDefault = 2, 3
	systemIndex           = 7
)

// attribute is an extended attribute whose value may lie elsewhere.
type attribute struct {
	index byte
	name  string
	value []byte
	inode uint32 // that holds the value; 0: value
	size  uint32
}

// Xattrs implements node.System.
func (s *System) Xattrs(number uint64) (map[string][]byte, error) {
	i, err := s.inode(number)
	if err != nil {
		return nil, err
	}
	all, err := s.attributes(i)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, a := range all {
		if int(a.index) >= len(prefixes) || prefixes[a.index] == "" || a.index == systemIndex && a.name == "data" {
			continue // of the file system itself
		}
		value := a.value
		if a.inode != 0 {
			if value, err = s.xattrInode(a); err != nil {
				return nil, err
			}
		}
		if a.index == aclAccess || a.index == aclDefault {
			if value, err = acl(value); err != nil {
				return nil, err
			}
		}
		out[prefixes[a.index]+a.name] = value
	}
	return out, nil
}

// xattrInode reads a value that has an inode of its own.
func (s *System) xattrInode(a attribute) ([]byte, error) {
	i, err := s.inode(uint64(a.inode))
	if err != nil {
		return nil, err
	}
	c, err := s.content(i)
	if err != nil {
		return nil, err
	}
	if c.Size() != int64(a.size) {
		return nil, node.Damagedf("the value of the attribute %s has a wrong size", a.name)
	}
	return node.All(c, node.MaxXattr)
}

// systemData is the rest of what lies inline.
func (s *System) systemData(i inode) ([]byte, error) {
	all, err := s.attributes(i)
	for _, a := range all {
		if a.index == systemIndex && a.name == "data" && a.inode == 0 {
			return a.value, nil
		}
	}
	return nil, err
}

// attributes reads those in the inode and those in its block of attributes.
func (s *System) attributes(i inode) ([]attribute, error) {
	var all []attribute
	if at := 128 + i.extra(); at > 128 && at+4 <= len(i.raw) && i.u32(at) == xattrMagic {
		var err error
		if all, err = attributes(i.raw[at+4:], 0, all); err != nil {
			return nil, err
		}
	}
	n := uint64(i.u32(0x68))
	if s.incompat&wide != 0 {
		n |= uint64(i.u16(0x76)) << 32
	}
	if n == 0 {
		return all, nil
	}
	b, err := s.block(n)
	if err != nil {
		return nil, err
	}
	if le.Uint32(b) != xattrMagic {
		return nil, node.Damagedf("inode %d has a block of attributes that is none", i.number)
	}
	return attributes(b, 32, all)
}

// attributes reads entries from first on; values lie in b.
func attributes(b []byte, first int, all []attribute) ([]attribute, error) {
	for e := first; e+4 <= len(b) && le.Uint32(b[e:]) != 0; {
		if e+16 > len(b) || e+16+int(b[e]) > len(b) {
			return nil, node.Damagedf("an attribute has a wrong name")
		}
		n := int(b[e])
		a := attribute{index: b[e+1], inode: le.Uint32(b[e+4:]), size: le.Uint32(b[e+8:]), name: string(b[e+16 : e+16+n])}
		if off := int64(le.Uint16(b[e+2:])); a.inode == 0 {
			if off+int64(a.size) > int64(len(b)) {
				return nil, node.Damagedf("an attribute has a wrong value")
			}
			a.value = b[off : off+int64(a.size)]
		}
		all = append(all, a)
		e += (16 + n + 3) &^ 3
	}
	return all, nil
}

// acl changes a list from the form on the disk into that of Linux.
func acl(b []byte) ([]byte, error) {
	if len(b) < 4 || le.Uint32(b) != 1 {
		return nil, node.Damagedf("a list of permissions is none")
	}
	var entries []node.ACLEntry
	for b = b[4:]; len(b) >= 4; {
		e := node.ACLEntry{Tag: le.Uint16(b), Perm: le.Uint16(b[2:]), ID: node.NoID}
		b = b[4:]
		if e.Tag == 2 || e.Tag == 8 { // a user, a group
			if len(b) < 4 {
				return nil, node.Damagedf("a list of permissions ends too early")
			}
			e.ID, b = le.Uint32(b), b[4:]
		}
		entries = append(entries, e)
	}
	return node.ACL(entries), nil
}
