package files

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
)

// smallImages are file systems of each kind, made without privilege.
func smallImages(t testing.TB) map[string]string {
	needs(t, false, "mkfs.ext4", "mkfs.xfs", "mkfs.vfat", "mcopy", "mkfs.ntfs", "ntfscp")
	src := t.TempDir()
	for i := range 60 {
		must(t, os.WriteFile(filepath.Join(src, "a file with a name "+strconv.Itoa(i)), bytes.Repeat([]byte("data"), i*i*10), 0o644))
	}
	must(t, os.MkdirAll(filepath.Join(src, "folder/below/it"), 0o755))
	must(t, os.Symlink("folder/below", filepath.Join(src, "link")))
	ext4, fat, ntfs, xfs := blank(t, 8<<20), blank(t, 8<<20), blank(t, 8<<20), blank(t, 320<<20)
	tool(t, "mkfs.ext4", "-q", "-d", src, ext4)
	tool(t, "mkfs.vfat", fat)
	tool(t, "sh", "-c", "cd '"+src+"' && rm link && mcopy -s -i '"+fat+"' * ::/")
	tool(t, "mkfs.ntfs", "-Q", "-F", "-C", ntfs)
	for i := range 25 {
		tool(t, "ntfscp", "-f", "-q", ntfs, filepath.Join(src, "a file with a name "+strconv.Itoa(59-i)), "/a copy "+strconv.Itoa(i))
	}
	proto := "/stand\n0 0\nd--755 0 0\n"
	for i := range 60 {
		proto += "file" + strconv.Itoa(i) + " ---644 0 0 /etc/hostname\n"
	}
	must(t, os.WriteFile(filepath.Join(src, "proto"), []byte(proto+"link l--777 0 0 there\nfolder d--755 0 0\n$\n$\n"), 0o600))
	tool(t, "mkfs.xfs", "-q", "-p", filepath.Join(src, "proto"), xfs)
	return map[string]string{"ext4": ext4, "vfat": fat, "ntfs": ntfs, "xfs": xfs}
}

// memory is an image of which only what is not zeros is kept.
type memory struct {
	pages map[int64][]byte
	size  int64
}

func load(t testing.TB, path string) *memory {
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	st, err := f.Stat()
	must(t, err)
	m := &memory{map[int64][]byte{}, st.Size()}
	for off := int64(0); off < m.size; {
		start, end := dataOf(f, off, m.size)
		for at := start / 4096; at*4096 < end; at++ {
			b := make([]byte, 4096)
			_, err := f.ReadAt(b, at*4096)
			if err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			m.pages[at] = b
		}
		off = max(end, off+1)
		if start >= m.size {
			break
		}
	}
	return m
}

func (m *memory) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		if at >= m.size {
			return n, io.EOF
		}
		piece := p[n:min(int64(len(p)), int64(n)+m.size-at, int64(n)+4096-at%4096)]
		clear(piece)
		if b, ok := m.pages[at/4096]; ok {
			copy(piece, b[at%4096:])
		}
		n += len(piece)
	}
	return n, nil
}

// harm changes some bytes, most of them of metadata near to others.
func (m *memory) harm(r *rand.Rand) (undo func()) {
	var keys []int64
	for k := range m.pages {
		keys = append(keys, k)
	}
	saved := map[int64][]byte{}
	for range 1 + r.IntN(12) {
		k := keys[r.IntN(len(keys))]
		if saved[k] == nil {
			saved[k] = append([]byte(nil), m.pages[k]...)
		}
		at := r.IntN(4096)
		switch r.IntN(4) {
		case 0:
			m.pages[k][at] ^= 1 << r.IntN(8)
		case 1:
			m.pages[k][at] = 0xff
		case 2:
			for i := at; i < min(4096, at+8); i++ {
				m.pages[k][i] = byte(r.Uint32())
			}
		default:
			copy(m.pages[k][at:min(4096, at+64)], m.pages[keys[r.IntN(len(keys))]][r.IntN(4000):])
		}
	}
	return func() {
		for k, b := range saved {
			m.pages[k] = b
		}
	}
}

// explore reads all that it can of a disk, as mount, ls and cp would.
func explore(t testing.TB, r io.ReaderAt, size int64) {
	all, err := Volumes(context.Background(), r, size)
	if err != nil {
		checkProblem(t, err)
		return
	}
	for _, v := range all {
		fs, err := v.Files()
		if err != nil {
			continue
		}
		seen := map[uint64]bool{}
		var walk func(ino uint64, depth int)
		walk = func(ino uint64, depth int) {
			if seen[ino] || len(seen) > 500 {
				return
			}
			seen[ino] = true
			a, err := fs.Attr(ino)
			checkProblem(t, err)
			_, err = fs.Xattrs(ino)
			checkProblem(t, err)
			_, err = fs.Link(ino)
			checkProblem(t, err)
			if c, err := fs.Open(ino); err == nil {
				b := make([]byte, 20_000)
				for _, off := range []int64{0, 4095, a.Size - 5, c.Size() / 2} {
					_, err := c.ReadAt(b, max(off, 0))
					checkProblem(t, err)
					if start, end := c.NextData(max(off, 0)); start < off && start < c.Size() || end < start || end > c.Size() {
						t.Errorf("data from %d to %d, asked from %d", start, end, off)
					}
				}
			} else {
				checkProblem(t, err)
			}
			entries, _, err := fs.List(ino)
			checkProblem(t, err)
			for _, e := range entries {
				walk(e.Ino, depth+1)
			}
		}
		walk(fs.Root(), 0)
	}
}

// checkProblem holds that damage is told as such.
func checkProblem(t testing.TB, err error) {
	if err == nil || errors.Is(err, io.EOF) {
		return
	}
	var p *problem.Error
	if !errors.As(err, &p) {
		t.Errorf("no problem: %v", err)
	} else if bytes.Contains([]byte(p.Error()), []byte("its reader failed")) {
		t.Errorf("a reader panicked: %v", err)
	}
}

// TestHarmedFileSystems changes bytes by chance: no reader may panic, hang or
// take much memory.
func TestHarmedFileSystems(t *testing.T) {
	seeds := 400
	if n, err := strconv.Atoi(os.Getenv("DISKVAULT_SEEDS")); err == nil {
		seeds = n
	}
	for kind, path := range smallImages(t) {
		t.Run(kind, func(t *testing.T) {
			m := load(t, path)
			for seed := range seeds {
				undo := m.harm(rand.New(rand.NewPCG(uint64(seed), 7)))
				start := time.Now()
				explore(t, m, m.size)
				if d := time.Since(start); d > 5*time.Second {
					t.Errorf("seed %d took %s", seed, d)
				}
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
				undo()
			}
		})
	}
}

// TestTruncatedFileSystems ends the image anywhere.
func TestTruncatedFileSystems(t *testing.T) {
	for kind, path := range smallImages(t) {
		t.Run(kind, func(t *testing.T) {
			m := load(t, path)
			for i := range 300 {
				explore(t, section{m, m.size * int64(i) / 300}, m.size*int64(i)/300)
				explore(t, section{m, m.size * int64(i) / 300}, m.size) // it says that it is longer
			}
		})
	}
}

func FuzzImage(f *testing.F) {
	for _, path := range smallImages(f) {
		b, err := os.ReadFile(path)
		must(f, err)
		f.Add(b[:min(len(b), 1<<20)])
	}
	f.Fuzz(func(t *testing.T, b []byte) { explore(t, bytes.NewReader(b), int64(len(b))) })
}

// TestAnNTFSFolderWithoutItsIndex holds that damage which chance rarely makes
// is told as damage.
func TestAnNTFSFolderWithoutItsIndex(t *testing.T) {
	needs(t, false, "mkfs.ntfs")
	path := blank(t, 8<<20)
	tool(t, "mkfs.ntfs", "-Q", "-F", path)
	b, err := os.ReadFile(path)
	must(t, err)
	const root, indexRoot = 5, 0x90
	cluster := int(le.Uint16(b[11:])) * int(b[13])
	record := b[int(le.Uint64(b[48:]))*cluster+root*1024:][:1024]
	found := false
	for at := int(le.Uint16(record[20:])); le.Uint32(record[at:]) != 0xffffffff; at += int(le.Uint32(record[at+4:])) {
		if le.Uint32(record[at:]) == indexRoot {
			record[at], found = indexRoot+1, true
		}
	}
	must(t, os.WriteFile(path, b, 0o600))
	fs := lone(t, path)
	if _, _, err := fs.List(fs.Root()); !found || !problem.Is(err, problem.FileSystemDamaged) {
		t.Errorf("found %v: %v", found, err)
	}
}

// TestAFolderWithoutEnd lists an ext2 folder whose size and blocks pretend to
// be a thousand times what is there.
func TestAFolderWithoutEnd(t *testing.T) {
	needs(t, false, "mkfs.ext2", "debugfs")
	src := t.TempDir()
	for i := range 150 {
		must(t, os.WriteFile(filepath.Join(src, "n"+strconv.Itoa(i)), nil, 0o644))
	}
	path := blank(t, 64<<20)
	tool(t, "mkfs.ext2", "-q", "-b", "4096", "-d", src, path)
	// Every triple, double and single indirect block is one that names itself.
	b := make([]byte, 4096)
	for i := 0; i < len(b); i += 4 {
		le.PutUint32(b[i:], 9000)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(b, 9000*4096)
	must(t, err)
	must(t, f.Close())
	for _, field := range []string{"block[IND] 9000", "block[DIND] 9000", "block[TIND] 9000", "size 1000000000"} {
		tool(t, "debugfs", "-w", "-R", "set_inode_field / "+field, path)
	}
	fs := lone(t, path)
	start := time.Now()
	all, _, err := fs.List(fs.Root())
	if !problem.Is(err, problem.FileSystemDamaged) && !problem.Is(err, problem.FileSystemNotSupported) {
		t.Errorf("%d entries, %v", len(all), err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("took %s", d)
	}
}
