package ntfs

import (
	"errors"
	"strings"
	"time"

	"github.com/diskvault/diskvault/engine/attach/files/internal/node"
)

// Attributes of files, and tags of what is put in their place.
const (
	fileReadOnly = 0x1
	fileSystem   = 0x4
	fileReparse  = 0x400

	tagSymlink  = 0xa000000c
	tagMount    = 0xa0000003
	tagLXLink   = 0xa000001d
	tagLXSocket = 0x80000023
	tagLXPipe   = 0x80000024
	tagLXChar   = 0x80000025
	tagLXBlock  = 0x80000026
	tagAppExec  = 0x8000001b
)

// namespaceDOS is that of short names, which stand beside a long one.
const namespaceDOS = 2

// special is what a file is in truth that looks like a regular one.
type special struct {
	kind         node.Kind
	link         string
	major, minor uint32
}

// Attr implements node.System.
func (s *System) Attr(number uint64) (node.Attr, error) {
	r, err := s.file(number)
	if err != nil {
		return node.Attr{}, err
	}
	a := node.Attr{Ino: number, Kind: node.Regular, Mode: 0o644}
	standard, ok := r.own(typeStandard, "")
	v := standard.raw
	if ok {
		v = standard.value()
	}
	if len(v) < 36 {
		return a, node.Damagedf("file %d has no times", number)
	}
	a.Created, a.Modified, a.Changed, a.Accessed = when(v), when(v[8:]), when(v[16:]), when(v[24:])
	for _, p := range r.parts {
		if v := p.value(); p.kind() == typeFileName && len(v) >= 66 && v[65] != namespaceDOS {
			a.Links++
		}
	}
	x, err := s.special(r)
	if err != nil && !errors.Is(err, node.ErrUnsupported) {
		return a, err // what cannot be read is listed all the same
	}
	switch {
	case x.kind != node.Unknown:
		a.Kind, a.DeviceMajor, a.DeviceMinor, a.Size = x.kind, x.major, x.minor, int64(len(x.link))
		if x.kind == node.Symlink {
			a.Mode = 0o777
		}
	case r.folder():
		a.Kind, a.Mode = node.Directory, 0o755
	default:
		if a.Size, a.Allocated, err = s.size(r); err != nil {
			return a, err
		}
		if le.Uint32(v[32:])&fileReadOnly != 0 {
			a.Mode &^= 0o222
		}
	}
	return a, nil
}

// when reads a time: units of 100 ns since 1601.
func when(b []byte) time.Time {
	const toUnix = 11644473600
	n := int64(le.Uint64(b))
	return time.Unix(n/1e7-toUnix, n%1e7*100).UTC()
}

// size of the content, without looking where it lies.
func (s *System) size(r *record) (size, allocated int64, err error) {
	for _, a := range r.parts {
		if a.kind() != typeData || a.name() != "" {
			continue
		}
		if a.resident() {
			return int64(len(a.value())), 0, nil
		}
		if le.Uint64(a.raw[16:]) == 0 {
			size, allocated = int64(le.Uint64(a.raw[48:])), int64(le.Uint64(a.raw[40:]))
			if (a.flags()&flagCompressed != 0 || a.flags()&0x8000 != 0) && len(a.raw) >= 72 {
				allocated = int64(le.Uint64(a.raw[64:]))
			}
			if size < 0 || allocated < 0 {
				return 0, 0, node.Damagedf("file %d has an impossible size", r.number)
			}
			return size, allocated, nil
		}
	}
	return 0, 0, nil
}

// special looks for what stands in place of a file: links, devices. Content
// that is stored elsewhere or in a form of its own is not supported: what lies
// in the file are not its bytes.
func (s *System) special(r *record) (special, error) {
	standard, ok := r.own(typeStandard, "")
	if !ok || len(standard.value()) < 36 {
		return special{}, nil
	}
	flags := le.Uint32(standard.value()[32:])
	if flags&fileReparse != 0 {
		c, err := s.stream(r.parts, typeReparse, "")
		if errors.Is(err, errNoStream) {
			return special{}, nil
		}
		if err != nil {
			return special{}, err
		}
		b, err := node.All(c, node.MaxLink)
		if err != nil {
			return special{}, err
		}
		return reparse(b)
	}
	if flags&fileSystem != 0 && !r.folder() && r.number >= firstUser {
		return s.interix(r)
	}
	return special{}, nil
}

// reparse reads what stands in place of a file.
func reparse(b []byte) (special, error) {
	wrong := node.Damagedf("what stands in place of a file is damaged")
	if len(b) < 8 || int(le.Uint16(b[4:]))+8 > len(b) {
		return special{}, wrong
	}
	tag, b := le.Uint32(b), b[8:8+int(le.Uint16(b[4:]))]
	switch tag {
	case tagSymlink, tagMount:
		head := 12
		if tag == tagMount {
			head = 8
		}
		if len(b) < head {
			return special{}, wrong
		}
		at, n := int(le.Uint16(b)), int(le.Uint16(b[2:]))
		if head+at+n > len(b) {
			return special{}, wrong
		}
		target := strings.ReplaceAll(text(b[head+at:head+at+n]), `\`, "/")
		return special{kind: node.Symlink, link: strings.TrimPrefix(target, "/??/")}, nil
	case tagLXLink:
		if len(b) < 4 {
			return special{}, wrong
		}
		return special{kind: node.Symlink, link: string(b[4:])}, nil
	case tagLXSocket:
		return special{kind: node.Socket}, nil
	case tagLXPipe:
		return special{kind: node.Pipe}, nil
	case tagLXChar, tagLXBlock, tagAppExec:
		return special{}, node.Unsupportedf("a special file of Windows (%#x)", tag)
	}
	return special{}, node.Unsupportedf("its content is kept in a form of its own or elsewhere (%#x)", tag)
}

// interix reads files by which Unix under Windows stood for links and devices.
func (s *System) interix(r *record) (special, error) {
	size, _, err := s.size(r)
	if err != nil || size > 4096 {
		return special{}, err
	}
	c, err := s.stream(r.parts, typeData, "")
	if errors.Is(err, errNoStream) {
		return special{}, nil
	}
	if err != nil {
		return special{}, err
	}
	b, err := node.All(c, 4096)
	if err != nil {
		return special{}, err
	}
	switch {
	case len(b) > 8 && string(b[:8]) == "IntxLNK\x01":
		return special{kind: node.Symlink, link: text(b[8:])}, nil
	case len(b) == 24 && (string(b[:8]) == "IntxCHR\x00" || string(b[:8]) == "IntxBLK\x00"):
		x := special{kind: node.CharDevice, major: le.Uint32(b[8:]), minor: le.Uint32(b[16:])}
		if b[4] == 'B' {
			x.kind = node.BlockDevice
		}
		return x, nil
	case len(b) == 0:
		return special{kind: node.Pipe}, nil
	case len(b) == 1:
		return special{kind: node.Socket}, nil
	}
	return special{}, nil
}

// Content implements node.System.
func (s *System) Content(number uint64) (node.Content, error) {
	r, err := s.file(number)
	if err != nil {
		return nil, err
	}
	if r.folder() {
		return nil, node.Damagedf("file %d is a folder", number)
	}
	if _, err := s.special(r); err != nil {
		return nil, err
	}
	c, err := s.stream(r.parts, typeData, "")
	if errors.Is(err, errNoStream) {
		return node.Inline(nil), nil
	}
	return c, err
}

// Link implements node.System.
func (s *System) Link(number uint64) (string, error) {
	r, err := s.file(number)
	if err != nil {
		return "", err
	}
	x, err := s.special(r)
	if err == nil && x.kind != node.Symlink {
		err = node.Damagedf("file %d is no symbolic link", number)
	}
	return x.link, err
}

// Xattrs implements node.System: further streams of a file, if they are small
// enough for it.
func (s *System) Xattrs(number uint64) (map[string][]byte, error) {
	r, err := s.file(number)
	if err != nil || number < firstUser {
		return nil, err
	}
	all := map[string][]byte{}
	for _, a := range r.parts {
		name := a.name()
		if a.kind() != typeData || name == "" || all["user."+name] != nil {
			continue
		}
		c, err := s.stream(r.parts, typeData, name)
		if errors.Is(err, node.ErrUnsupported) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if c.Size() > node.MaxXattr {
			continue
		}
		if all["user."+name], err = node.All(c, node.MaxXattr); err != nil {
			return nil, err
		}
	}
	return all, nil
}
