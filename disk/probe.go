package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/blockdev"
	"github.com/diskvault/diskvault/disk/lvm"
	"github.com/diskvault/diskvault/disk/nbd"
	"github.com/diskvault/diskvault/disk/qemu"
	"github.com/diskvault/diskvault/disk/rbd"
)

// Probe looks at the disk that a path or URL names and says what it is. It reads
// its first 128 KiB, changes nothing, and does not judge whether a copy of it
// would be of one point in time. Errors are problems: SourceNotFound,
// SourceNotSupported, SourcePermissionDenied, SourceTooLarge, SourceReadFailed,
// SourceInUse and ToolMissing for images in containers, InvalidArgument for an
// empty path or a URL that cannot be read.
func Probe(ctx context.Context, path string) (*Source, error) {
	if err := ctx.Err(); err != nil {
		return nil, problem.From(err)
	}
	switch kind := urlScheme(path); {
	case kind == qemu.Scheme:
		return probeMachine(ctx, path)
	case kind == lvm.Scheme:
		return probeVolume(ctx, path)
	case kind == rbd.Scheme:
		return probeImage(ctx, path)
	case slices.Contains(nbd.Schemes, kind):
		return probeExport(ctx, path)
	}
	real, err := locate(path)
	if err != nil {
		return nil, err
	}
	f, err := openSource(path, real)
	if err != nil {
		return nil, err
	}
	defer f.Close()

	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, readFailed(err, path)
	}
	s := &Source{inode: inodeOf(&st), Given: path, Path: real, Format: FormatRaw, SectorSize: 512, PhysicalSectorSize: 512}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		err = s.probeDevice(f, st.Rdev)
	} else {
		err = s.probeFile(f, &st)
	}
	if err != nil {
		return nil, err
	}
	head, err := readHead(f)
	if err != nil {
		// The disk is there, and a backup may still save the rest of it; it is
		// then not known by its labels.
		head = nil
	}
	s.Format = formatOf(head)
	if s.Kind == File && strings.EqualFold(filepath.Ext(s.Path), ".raw") {
		s.Format = formatOf(nil) // a raw disk, whatever its guest wrote there
	}
	if s.Inside() {
		if head, err = s.probeInside(ctx, head); err != nil {
			return nil, err
		}
	}
	if err := s.checkSize(); err != nil {
		return nil, err
	}
	if !s.Format.Container() || s.Inside() {
		s.Identity = append(identityOf(head), s.Identity...)
	}
	return s, nil
}

func (s *Source) checkSize() error {
	if s.Size > MaxSize {
		return problem.New(problem.SourceTooLarge, "%s has %s; diskvault protects disks of at most %s.",
			capital(s.String()), sizeText(s.Size), sizeText(MaxSize)).With("size", s.Size).With("maximum", MaxSize)
	}
	return nil
}

// scheme matches the beginning of a source URL, such as "nbd+unix:" or "rbd:".
var scheme = regexp.MustCompile(`^([a-z][a-z0-9+.-]+):`)

// urlScheme is that of a URL; "" if the text is no URL, or a path that exists.
func urlScheme(text string) string {
	m := scheme.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	if _, err := os.Lstat(text); !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return m[1]
}

// locate turns what a user wrote into an absolute path free of links. A path
// that exists wins over a URL of the same spelling.
func locate(path string) (string, error) {
	if path == "" {
		return "", problem.New(problem.InvalidArgument, "The path of the disk is empty.")
	}
	if kind := urlScheme(path); kind != "" {
		if kind != "file" {
			return "", problem.New(problem.SourceNotSupported, "%s names a source of the kind %q, which this version cannot read.", path, kind).
				Do("Give the path of an image file or of a block device, or the URL of an NBD export.")
		}
		path = strings.TrimPrefix(strings.TrimPrefix(path, "file:"), "//")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", problem.Wrap(err, problem.SourceNotFound, "The path %s cannot be made absolute.", path)
	}
	// Stat first: its errors say more than those of EvalSymlinks.
	if _, err := os.Stat(abs); err != nil {
		return "", sourceProblem(err, path)
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", sourceProblem(err, path)
	}
	return real, nil
}

// openSource opens a disk for reading. Whatever is not a disk is refused before
// it is opened: opening a FIFO would wait, opening a character device may act.
func openSource(given, real string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err != nil {
		return nil, sourceProblem(err, given)
	}
	if err := refuseKind(st.Mode, given); err != nil {
		return nil, err
	}
	// O_NONBLOCK, in case something else has come to this path since.
	fd, err := unix.Open(real, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err == unix.EWOULDBLOCK {
		// Somebody holds a write lease, and gives it up when we wait for it.
		fd, err = unix.Open(real, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, sourceProblem(err, given)
	}
	if err = unix.Fstat(fd, &st); err != nil {
		err = readFailed(err, given)
	} else if err = refuseKind(st.Mode, given); err == nil {
		if err = unix.SetNonblock(fd, false); err != nil {
			err = readFailed(err, given)
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), real), nil
}

func refuseKind(mode uint32, given string) error {
	what := map[uint32]string{
		unix.S_IFDIR: "a folder", unix.S_IFIFO: "a named pipe", unix.S_IFSOCK: "a socket",
		unix.S_IFCHR: "a character device", unix.S_IFLNK: "a symbolic link",
	}[mode&unix.S_IFMT]
	switch mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFBLK:
		return nil
	case unix.S_IFDIR:
		return problem.New(problem.SourceNotSupported, "%s is a folder; diskvault protects whole disks.", given).
			Do("Give the image file in it, or the block device that it is mounted from.")
	}
	return problem.New(problem.SourceNotSupported, "%s is %s, not an image file or a block device.", given, what)
}

// sourceProblem classifies a failure to reach a source.
func sourceProblem(err error, path string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return problem.Wrap(err, problem.SourceNotFound, "There is no disk at %s.", path)
	case errors.Is(err, fs.ErrPermission):
		return problem.Wrap(err, problem.SourcePermissionDenied, "This user (%d) may not read %s.", os.Geteuid(), path)
	case errors.Is(err, unix.ENOMEDIUM):
		return problem.Wrap(err, problem.SourceNotSupported, "There is no medium in the device %s.", path)
	case errors.Is(err, unix.ELOOP):
		return problem.Wrap(err, problem.SourceNotFound, "The symbolic links of %s lead in a circle.", path)
	case errors.Is(err, unix.ENAMETOOLONG):
		return problem.Wrap(err, problem.SourceNotFound, "The path given is longer than any path can be.")
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return problem.Wrap(err, problem.SourceNotFound, "No device stands behind %s.", path)
	}
	return readFailed(err, path)
}

func readFailed(err error, path string) error {
	return problem.Wrap(err, problem.SourceReadFailed, "%s cannot be read.", path)
}

func (s *Source) probeFile(f *os.File, st *unix.Stat_t) error {
	s.Kind, s.Size, s.Allocated = File, st.Size, st.Blocks*512
	var err error
	if s.FileSystem, err = fileSystemOf(int(f.Fd())); err != nil {
		return readFailed(err, s.Path)
	}
	var vfs unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &vfs) == nil {
		s.ReadOnly = vfs.Flags&unix.ST_RDONLY != 0
	}
	k := blockdev.Kernel{}
	for _, on := range k.Holding(s.Path) {
		s.ground(on)
		s.SectorSize = max(s.SectorSize, on.LogicalSector())
		s.PhysicalSectorSize = max(s.PhysicalSectorSize, on.PhysicalSector())
	}
	for _, l := range k.LoopsOn(s.Path) {
		s.Loops = append(s.Loops, l.Name)
		mounts, err := l.Mounts()
		if err != nil {
			return readFailed(err, s.Path)
		}
		s.Mounts = append(s.Mounts, mounts...)
		s.Swap = s.Swap || l.Swap()
	}
	s.Swap = s.Swap || k.SwapFile(s.Path)
	return nil
}

func (s *Source) probeDevice(f *os.File, number uint64) error {
	d, err := blockdev.Kernel{}.ByNumber(number)
	if err != nil {
		return problem.Wrap(err, problem.SourceNotFound, "The kernel knows no device behind %s.", s.Path)
	}
	if s.Size, err = deviceSize(int(f.Fd())); err != nil {
		return readFailed(err, s.Path)
	}
	if s.Size == 0 {
		return problem.New(problem.SourceNotSupported, "The device %s has no medium: its size is zero.", s.Path)
	}
	s.Kind, s.Allocated, s.Device = Block, s.Size, d.Name
	s.SectorSize, s.PhysicalSectorSize = d.LogicalSector(), d.PhysicalSector()
	s.ReadOnly, s.Model, s.Backing, s.Swap = d.ReadOnly(), d.Model(), d.BackingFile(), d.Swap()
	partitions := map[string]bool{}
	for _, p := range d.Partitions() {
		s.Partitions = append(s.Partitions, p.Name)
		partitions[p.Name] = true
	}
	for _, h := range d.Above() {
		if !partitions[h.Name] {
			s.Holders = append(s.Holders, h.Name)
		}
	}
	if s.Mounts, err = d.Mounts(); err != nil {
		return readFailed(err, s.Path)
	}
	s.ground(d)
	s.Identity = hardwareIdentity(d)
	return nil
}

// ground notes the disks under a device.
func (s *Source) ground(d blockdev.Device) {
	for _, g := range d.Disks() {
		s.Disks = append(s.Disks, g.Name)
		s.Rotational = s.Rotational || g.Rotational()
	}
}

// deviceSize is the size in bytes of an open block device.
func deviceSize(fd int) (int64, error) {
	return unix.Seek(fd, 0, unix.SEEK_END)
}

// readHead reads the beginning of a source, less where it is smaller.
func readHead(f *os.File) ([]byte, error) {
	head := make([]byte, headSize)
	n, err := preadFull(int(f.Fd()), head, 0)
	if err != nil {
		return nil, err
	}
	return head[:n], nil
}

// preadFull reads until p is full, the file ends or an error comes, and gives
// the number of bytes that it read in any case.
func preadFull(fd int, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		m, err := unix.Pread(fd, p[n:], off+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}

// sizeText is a number of bytes for a message: exact, and rounded if large.
func sizeText(n int64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	v, unit := float64(n), ""
	for _, u := range units {
		if v < 1024 {
			break
		}
		v, unit = v/1024, u
	}
	return fmt.Sprintf("%d bytes (%.1f %s)", n, v, unit)
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
