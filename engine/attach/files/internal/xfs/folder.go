package xfs

import "github.com/diskvault/diskvault/engine/attach/files/internal/node"

// leafOffset is where the index of a folder begins: only what is before it
// holds entries.
const leafOffset = 32 << 30

// List implements node.System.
func (s *System) List(number uint64, each func(node.Entry) error) error {
	i, err := s.inode(number)
	if err != nil {
		return err
	}
	if i.kind() != node.Directory {
		return node.Damagedf("inode %d is no folder", number)
	}
	if f := i.data(); f.form == formLocal {
		return s.short(f, each)
	}
	m, err := s.mapped(i.data(), leafOffset)
	if err != nil {
		return err
	}
	read := int64(0)
	b := make([]byte, s.dirSize)
	for off := int64(0); ; off += s.dirSize {
		start, _ := m.NextData(off)
		if start >= leafOffset {
			return nil
		}
		off = start / s.dirSize * s.dirSize
		if read += s.dirSize; read > node.MaxDirectory {
			return node.Damagedf("the folder %d is too large", number)
		}
		if _, err := m.ReadAt(b, off); err != nil {
			return err
		}
		if err := s.block(number, b, each); err != nil {
			return err
		}
	}
}

// short reads a folder that lies within its inode.
func (s *System) short(f fork, each func(node.Entry) error) error {
	wrong := node.Damagedf("the folder %d is damaged", f.inode.number)
	size := f.inode.size()
	if size < 6 || size > int64(len(f.raw)) {
		return wrong
	}
	b := f.raw[:size]
	n, width := int(b[0]), 4
	if b[1] != 0 { // some numbers need 8 bytes, so all have them
		n, width = int(b[0]), 8
	}
	tail := width
	if s.types {
		tail++
	}
	b = b[2:]
	if len(b) < width {
		return wrong
	}
	for b = b[width:]; n > 0; n-- {
		if len(b) < 3 || b[0] == 0 || len(b) < 3+int(b[0])+tail {
			return wrong
		}
		name, rest := string(b[3:3+int(b[0])]), b[3+int(b[0]):]
		e := node.Entry{Name: name}
		if s.types {
			e.Kind, rest = kindOf(rest[0]), rest[1:]
		}
		if width == 8 {
			e.Ino = be.Uint64(rest)
		} else {
			e.Ino = uint64(be.Uint32(rest))
		}
		if err := each(e); err != nil {
			return err
		}
		b = rest[width:]
	}
	return nil
}

// block reads the entries of one block of a folder.
func (s *System) block(number uint64, b []byte, each func(node.Entry) error) error {
	wrong := node.Damagedf("the folder %d is damaged", number)
	head := 16
	switch magic := string(b[:4]); {
	case s.v5 && (magic == "XDB3" || magic == "XDD3"):
		head = 64
		if !summed(b, 4) || be.Uint64(b[40:]) != number {
			return node.Damagedf("the checksum of the folder %d is wrong", number)
		}
	case !s.v5 && (magic == "XD2B" || magic == "XD2D"):
	default:
		return wrong
	}
	if b[3] == 'B' || b[2] == 'B' { // the only block: its index is at its end
		n := uint64(be.Uint32(b[len(b)-8:]))
		if n > uint64(len(b)-head-8)/8 {
			return wrong
		}
		b = b[:len(b)-8-int(n)*8]
	}
	for b = b[head:]; len(b) >= 8; {
		if be.Uint16(b) == 0xffff {
			length := int(be.Uint16(b[2:]))
			if length < 8 || length > len(b) || length%8 != 0 {
				return wrong
			}
			b = b[length:]
			continue
		}
		if len(b) < 12 || b[8] == 0 {
			return wrong
		}
		name := int(b[8])
		length := 9 + name + 2
		if s.types {
			length++
		}
		if length = (length + 7) &^ 7; length > len(b) {
			return wrong
		}
		e := node.Entry{Name: string(b[9 : 9+name]), Ino: be.Uint64(b)}
		if s.types {
			e.Kind = kindOf(b[9+name])
		}
		if e.Name != "." && e.Name != ".." {
			if err := each(e); err != nil {
				return err
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
