package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// OpenCopy gives a Reader that reads f, a copy of the source as it was at one
// moment, in place of the source itself; messages name the source. f belongs to
// the Reader from now on. The error is the problem SourceResized if the copy has
// another size than Probe found, or SourceReadFailed.
func (s *Source) OpenCopy(f *os.File) (*Reader, error) {
	r := &Reader{path: s.Path, file: f, fd: int(f.Fd()), kind: File, sector: int64(max(s.SectorSize, 512))}
	var err error
	if r.size, err = r.CurrentSize(); err == nil && r.size != s.Size {
		err = resized(r.path, s.Size, r.size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	_ = unix.Fadvise(r.fd, 0, 0, unix.FADV_SEQUENTIAL) // a hint, as in Open
	r.cache = newCacheKeeper(r.fd, r.size)
	return r, nil
}
