package ext

import "github.com/diskvault/diskvault/engine/attach/files/internal/node"

// List implements node.System. Folders with an index are read as if they had
// none: the index looks like empty entries.
func (s *System) List(number uint64, each func(node.Entry) error) error {
	i, err := s.inode(number)
	if err != nil {
		return err
	}
	if i.kind() != node.Directory {
		return node.Damagedf("inode %d is no folder", number)
	}
	if i.flags()&flagInline != 0 {
		if err := s.entries(i.raw[0x28+4:0x64], each); err != nil {
			return err
		}
		rest, err := s.systemData(i)
		if err != nil {
			return err
		}
		return s.entries(rest, each)
	}
	c, err := s.content(i)
	if err != nil {
		return err
	}
	if c.Size() > node.MaxDirectory {
		return node.Damagedf("the folder %d is too large", number)
	}
	b := make([]byte, s.blockSize)
	for off := int64(0); off < c.Size(); off += s.blockSize {
		if start, _ := c.NextData(off); start >= off+s.blockSize {
			off = start/s.blockSize*s.blockSize - s.blockSize
			continue
		}
		if n, err := c.ReadAt(b, off); n < len(b) {
			if err == nil || c.Size()-off < s.blockSize {
				err = node.Damagedf("the folder %d ends within a block", number)
			}
			return err
		}
		if err := s.entries(b, each); err != nil {
			return err
		}
	}
	return nil
}

// entries reads the entries of one block.
func (s *System) entries(b []byte, each func(node.Entry) error) error {
	for len(b) >= 8 {
		length := int(le.Uint16(b[4:]))
		if length == 0xffff || length == 0 && len(b) == 1<<16 {
			length = len(b) // a block of 64 KiB
		}
		nameLen, kind := int(b[6]), node.Unknown
		if s.incompat&fileType != 0 {
			kind = kindOf(b[7])
		} else {
			nameLen |= int(b[7]) << 8
		}
		if length < 8 || length > len(b) || length%4 != 0 {
			return node.Damagedf("an entry of a folder has a wrong length")
		}
		if ino := le.Uint32(b); ino != 0 {
			if 8+nameLen > length || nameLen == 0 || nameLen > 255 {
				return node.Damagedf("an entry of a folder has a wrong name")
			}
			if name := string(b[8 : 8+nameLen]); name != "." && name != ".." {
				if err := each(node.Entry{Name: name, Ino: uint64(ino), Kind: kind}); err != nil {
					return err
				}
			}
		}
		b = b[length:]
	}
	return nil
}

func kindOf(b byte) node.Kind {
	kinds := [...]node.Kind{node.Unknown, node.Regular, node.Directory, node.CharDevice, node.BlockDevice, node.Pipe, node.Socket, node.Symlink}
	if int(b) < len(kinds) {
		return kinds[b]
	}
	return node.Unknown
}
