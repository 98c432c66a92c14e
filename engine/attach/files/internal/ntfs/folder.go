package ntfs

import (
	"errors"

	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

const indexName = "$I30"

// List implements node.System.
func (s *System) List(number uint64, each func(node.Entry) error) error {
	r, err := s.file(number)
	if err != nil {
		return err
	}
	if !r.folder() {
		return node.Damagedf("file %d is no folder", number)
	}
	root, err := s.whole(r, typeIndexRoot, 4096<<4)
	if err != nil {
		return err
	}
	if len(root) < 32 {
		return node.Damagedf("the folder %d has no index", number)
	}
	if err := s.entries(root[16:], each); err != nil {
		return err
	}
	return s.blocks(r, int64(le.Uint32(root[8:])), each)
}

func (s *System) whole(r *record, kind uint32, limit int64) ([]byte, error) {
	c, err := s.stream(r.parts, kind, indexName)
	if errors.Is(err, errNoStream) {
		return nil, node.Damagedf("the folder %d has no index", r.number)
	}
	if err != nil {
		return nil, err
	}
	return node.All(c, limit)
}

// blocks reads the blocks of the index that are in use.
func (s *System) blocks(r *record, size int64, each func(node.Entry) error) error {
	c, err := s.stream(r.parts, typeIndex, indexName)
	if errors.Is(err, errNoStream) {
		return nil
	}
	if err != nil {
		return err
	}
	bitmap, err := s.whole(r, typeBitmap, node.MaxDirectory/512/8)
	if err != nil {
		return err
	}
	if size < 512 || size > 64<<10 || size%512 != 0 || c.Size() > node.MaxDirectory {
		return node.Damagedf("the folder %d has a damaged index", r.number)
	}
	b := make([]byte, size)
	for n := int64(0); (n+1)*size <= c.Size(); n++ {
		if n/8 >= int64(len(bitmap)) || bitmap[n/8]>>(n%8)&1 == 0 {
			continue
		}
		if got, err := c.ReadAt(b, n*size); got < len(b) {
			return err
		}
		if string(b[:4]) != "INDX" {
			return node.Damagedf("the folder %d has a damaged index", r.number)
		}
		if err := mend(b); err != nil {
			return err
		}
		if err := s.entries(b[24:], each); err != nil {
			return err
		}
	}
	return nil
}

// entries reads the entries behind the head of an index.
func (s *System) entries(b []byte, each func(node.Entry) error) error {
	wrong := node.Damagedf("an index of a folder is damaged")
	first, end := int64(le.Uint32(b)), int64(le.Uint32(b[4:]))
	if first < 16 || first > end || end > int64(len(b)) {
		return wrong
	}
	const last, folder = 0x2, 0x10000000
	for b = b[first:end]; len(b) >= 16; {
		n, key := int(le.Uint16(b[8:])), int(le.Uint16(b[10:]))
		if le.Uint16(b[12:])&last != 0 {
			return nil
		}
		if n < 16 || n > len(b) || 16+key > n || key < 66 {
			return wrong
		}
		k := b[16 : 16+key]
		if 66+2*int(k[64]) > key {
			return wrong
		}
		e := node.Entry{Name: text(k[66 : 66+2*int(k[64])]), Ino: le.Uint64(b) & (1<<48 - 1)}
		if flags := le.Uint32(k[56:]); flags&folder != 0 && flags&fileReparse == 0 {
			e.Kind = node.Directory
		} else if flags&(fileReparse|fileSystem) == 0 {
			e.Kind = node.Regular
		}
		if k[65] != namespaceDOS && e.Ino >= firstUser && e.Name != "." {
			if err := each(e); err != nil {
				return err
			}
		}
		b = b[n:]
	}
	return wrong
}
