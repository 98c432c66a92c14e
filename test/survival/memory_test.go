package survival

import (
	"testing"

	"github.com/diskvault/diskvault/disk/disktest"
)

// A backup of a large disk takes no more memory than one of a small disk.
func TestMemoryOfALargeDisk(t *testing.T) {
	m := newMachine(t)
	const size = 4 * tib
	disk := &image{t: t, path: disktest.Sparse(t, m.path("disk.img"), size), size: size, r: chance(t)}
	piece := make([]byte, 2*mib)
	for n := range int64(128) { // 256 MiB
		disk.noise(piece)
		disk.write(piece, n*(size/128)/(64*kib)*(64*kib))
	}
	const most = 256 * mib
	for _, args := range [][]string{{"backup", "disk.img"}, {"backup", "disk.img"}, {"verify", "--read-data"}, {"restore", "disk", "--to", "new.img"}} {
		o := m.must(args...)
		t.Logf("%v: %d MiB resident at most, %v", args, o.memory/mib, o.took)
		if o.memory > most {
			t.Errorf("%v: %d bytes were resident, %d are allowed", args, o.memory, most)
		}
	}
	for n := range int64(128) {
		disk.same(m.path("new.img"), n*(size/128)/(64*kib)*(64*kib), int64(len(piece)))
	}
}
