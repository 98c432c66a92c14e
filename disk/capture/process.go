package capture

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program that has a file open for writing.
type process struct {
	pid     int
	command string
}

func (p process) String() string { return fmt.Sprintf("the program %s (process %d)", p.command, p.pid) }

const (
	processesNamed = 3 // enough for a message
	searchTime     = 2 * time.Second
)

// writersOf finds processes that have path open or mapped for writing, this one
// aside. It names at most three and gives up after two seconds. That nobody was
// found means something only if all is true: every process could be looked at.
func writersOf(ctx context.Context, path string) (found []process, all bool) {
	var want unix.Stat_t
	if unix.Stat(path, &want) != nil {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	entries, err := os.ReadDir("/proc")
	all = err == nil && os.Geteuid() == 0
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if ctx.Err() != nil || len(found) == processesNamed {
			return found, false
		}
		dir := filepath.Join("/proc", e.Name())
		if opensForWriting(dir, &want) || mapsForWriting(dir, path, &want) {
			name, _ := os.ReadFile(filepath.Join(dir, "comm"))
			found = append(found, process{pid, strings.TrimSpace(string(name))})
		}
	}
	return found, all
}

// opensForWriting looks through the descriptors of a process. It compares inode
// numbers first, which the kernel keeps at hand: stat of a descriptor on a dead
// network file system may never return.
func opensForWriting(dir string, want *unix.Stat_t) bool {
	fds, _ := os.ReadDir(filepath.Join(dir, "fd"))
	for _, fd := range fds {
		info, err := os.ReadFile(filepath.Join(dir, "fdinfo", fd.Name()))
		if err != nil || !writable(string(info), want.Ino) {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, "fd", fd.Name()), &st) == nil && st.Dev == want.Dev && st.Ino == want.Ino {
			return true
		}
	}
	return false
}

// writable reads the kernel's description of a descriptor: whether it is of the
// inode and may write. Kernels before 5.14 do not tell the inode; there every
// descriptor that may write is looked at.
func writable(fdinfo string, inode uint64) bool {
	for line := range strings.Lines(fdinfo) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "flags":
			flags, err := strconv.ParseUint(value, 8, 64)
			if err != nil || flags&unix.O_ACCMODE == unix.O_RDONLY || flags&unix.O_PATH != 0 {
				return false
			}
		case "ino":
			if n, err := strconv.ParseUint(value, 10, 64); err == nil && n != inode {
				return false
			}
		}
	}
	return true
}

// mapsForWriting looks for a shared, writable mapping, which outlives the
// descriptor that it was made from.
func mapsForWriting(dir, path string, want *unix.Stat_t) bool {
	maps, err := os.ReadFile(filepath.Join(dir, "maps"))
	if err != nil {
		return false
	}
	device := fmt.Sprintf("%02x:%02x", unix.Major(want.Dev), unix.Minor(want.Dev))
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line) // address, permissions, offset, device, inode, path
		if len(f) < 6 || !strings.Contains(f[1], "w") || !strings.HasSuffix(f[1], "s") {
			continue
		}
		// btrfs gives other device numbers here than in stat, so the path counts
		// as well.
		if f[4] == strconv.FormatUint(want.Ino, 10) && (f[3] == device || f[5] == path) {
			return true
		}
	}
	return false
}
