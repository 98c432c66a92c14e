package qemu

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/disktest"
	"github.com/diskvault/diskvault/disk/nbd"
	"github.com/diskvault/diskvault/disk/qemu/qemutest"
)

// rounds is how often a test with chance in it runs: n, or 100 in the long form.
func rounds(n int) int {
	if seeds, err := strconv.Atoi(os.Getenv("DISKVAULT_SEEDS")); err == nil {
		return seeds
	}
	if os.Getenv("DISKVAULT_LONG") != "" {
		return 100
	}
	return n
}

// small is a file system of so many bytes that is mounted until the test ends.
func small(t *testing.T, size string) string {
	t.Helper()
	disktest.NeedRoot(t)
	dir := t.TempDir()
	disktest.Run(t, "mount", "-t", "tmpfs", "-o", "size="+size, "none", dir)
	t.Cleanup(func() { disktest.Run(t, "umount", "-l", dir) })
	return dir
}

// A fleece that cannot take any more costs the backup, and not the guest.
func TestFullFleeceNeverFailsTheGuest(t *testing.T) {
	folder := qemutest.Folder(t)
	qemutest.Image(t, folder, "qcow2", 64<<20, 0)
	p := qemutest.Daemon(t, folder, "qcow2", true, 1)
	address := Address{Socket: p.QMP, Fleece: small(t, "8m")}
	m, err := Open(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	writer, err := nbd.Dial(ctx, nbd.Address{Network: "unix", Host: p.NBD, Export: "live0"}, nbd.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	fill := func(b byte) {
		t.Helper()
		for at := int64(0); at < 64<<20; at += 1 << 20 {
			if err := writer.Write(ctx, slices.Repeat([]byte{b}, 1<<20), at); err != nil {
				t.Fatalf("a write of the guest failed: %v", err)
			}
		}
	}
	fill(1)
	cut, err := m.Cut(ctx, CutOptions{}, mustDisk(t, m, "disk0"))
	if err != nil {
		t.Fatal(err)
	}
	s := cut.Slices[0]
	reader, err := nbd.Dial(ctx, nbd.Address{Network: "unix", Host: s.Socket, Export: s.Export}, nbd.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	fill(2)
	b := make([]byte, 1<<20)
	if err := reader.Read(ctx, b, 32<<20); err == nil {
		t.Error("the point in time is read although its old data is gone")
	}
	select {
	case <-cut.Broken():
	case <-time.After(5 * time.Second):
		t.Error("nobody noticed that the room ran out")
	}
	if doubt := cut.Doubt(ctx); !strings.Contains(doubt, "room") {
		t.Errorf("the doubt is %q", doubt)
	}
	if err := s.Settle(ctx, false); err != nil {
		t.Error(err)
	}
	clean(t, m, folder, 0)
	for at, want := range map[int64]byte{0: 2, 63 << 20: 2} {
		if err := writer.Read(ctx, b, at); err != nil || b[0] != want {
			t.Errorf("the disk holds %d at %d: %v", b[0], at, err)
		}
	}
}

// A disk whose writes cannot be let pass is taken only if all of it fits.
func TestJobNeedsRoomForAll(t *testing.T) {
	folder := qemutest.Folder(t)
	qemutest.Image(t, folder, "qcow2", 64<<20, 0)
	p := qemutest.Daemon(t, folder, "qcow2", false, 1)
	m, err := Open(ctx, Address{Socket: p.QMP, Fleece: small(t, "32m")})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	_, err = m.Cut(ctx, CutOptions{}, mustDisk(t, m, "disk0"))
	if !problem.Is(err, problem.CaptureNoRoom) {
		t.Errorf("the error is %v", err)
	}
	clean(t, m, folder, 0)
}

// Disks that fit one by one may not fit together.
func TestJobsNeedRoomTogether(t *testing.T) {
	folder := qemutest.Folder(t)
	for n := range 2 {
		qemutest.Image(t, folder, "qcow2", 20<<20, n)
	}
	p := qemutest.Daemon(t, folder, "qcow2", false, 2)
	m, err := Open(ctx, Address{Socket: p.QMP, Fleece: small(t, "32m")})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	one, other := mustDisk(t, m, "disk0"), mustDisk(t, m, "disk1")
	if _, err = m.Cut(ctx, CutOptions{}, one, other); !problem.Is(err, problem.CaptureNoRoom) {
		t.Errorf("both: %v", err)
	}
	cut, err := m.Cut(ctx, CutOptions{}, one)
	if err != nil {
		t.Fatalf("one: %v", err)
	}
	if err := cut.Slices[0].Settle(ctx, false); err != nil {
		t.Error(err)
	}
	clean(t, m, folder, 0)
}

// Cut off anywhere, the machine is left as the next run can use it: that one
// knows all that changed since the last good point, and clears away.
func TestKilledRunsLoseNothing(t *testing.T) {
	for name, top := range map[string]bool{"filter": true, "job": false} {
		t.Run(name, func(t *testing.T) {
			folder := qemutest.Folder(t)
			ring := qemutest.Ring{Size: 32 << 20, Slots: 512}
			qemutest.Image(t, folder, "qcow2", ring.Size, 0)
			p := qemutest.Daemon(t, folder, "qcow2", top, 1)
			w := ring.Write(t, p.NBD, "live0", 0)
			image, base := make([]byte, ring.Size), ""
			for round := range rounds(8) {
				// One that is killed, at any moment of its life.
				m := open(t, p)
				life := time.Duration(rand.Int64N(int64(40 * time.Millisecond)))
				time.AfterFunc(life, func() { m.monitor.conn.Close() })
				if d, err := m.Disk(ctx, "disk0"); err == nil {
					if cut, err := m.Cut(ctx, CutOptions{}, d); err == nil {
						<-m.monitor.done
						cut.guard.stop()
					}
				}
				<-m.monitor.done
				m.Close()

				m = open(t, p)
				before := w.Acknowledged()
				cut, err := m.Cut(ctx, CutOptions{}, mustDisk(t, m, "disk0"))
				if err != nil {
					t.Fatalf("round %d, after a life of %v: %v", round, life, err)
				}
				s := cut.Slices[0]
				if round > 0 && !s.Has(base) {
					t.Fatalf("round %d, after a life of %v: the record is lost", round, life)
				}
				pull(t, s, base, image)
				last, err := ring.Check(image)
				if err != nil || last < before {
					t.Fatalf("round %d, after a life of %v: number %d, at least %d: %v", round, life, last, before, err)
				}
				base = s.Base()
				if err := s.Settle(ctx, true); err != nil {
					t.Fatal(err)
				}
				clean(t, m, folder, 1)
				m.Close()
			}
			if err := w.Stop(); err != nil {
				t.Errorf("a write of the guest failed: %v", err)
			}
		})
	}
}

// A machine that was killed has not stored its record: that is known, and
// everything is read. One that ended well has it still.
func TestRecordsAcrossRestarts(t *testing.T) {
	const size = 32 << 20
	for name, c := range map[string]struct {
		format string
		end    func(*qemutest.Process)
		has    bool
		lost   int
	}{
		"qcow2, quit": {"qcow2", (*qemutest.Process).Quit, true, 0},
		// A record is first stored when the machine ends well; from then on it is
		// known as stale after a crash, before that it is just not there.
		"qcow2, killed": {"qcow2", (*qemutest.Process).Kill, false, 0},
		"qcow2, quit, and killed": {"qcow2", func(p *qemutest.Process) {
			p.Quit()
			p.Start()
			scatter(t, p, size, 4)
			p.Kill()
		}, false, 1},
		"raw, quit": {"raw", (*qemutest.Process).Quit, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			folder := qemutest.Folder(t)
			qemutest.Image(t, folder, c.format, size, 0)
			p := qemutest.Daemon(t, folder, c.format, true, 1)
			image := make([]byte, size)
			scatter(t, p, size, 1)
			m := open(t, p)
			cut, err := m.Cut(ctx, CutOptions{}, mustDisk(t, m, "disk0"))
			if err != nil {
				t.Fatal(err)
			}
			pull(t, cut.Slices[0], "", image)
			base := cut.Slices[0].Base()
			if err := cut.Slices[0].Settle(ctx, true); err != nil {
				t.Fatal(err)
			}
			m.Close()
			scatter(t, p, size, 2)
			c.end(p)
			p.Start()
			scatter(t, p, size, 3)
			m = open(t, p)
			cut, err = m.Cut(ctx, CutOptions{}, mustDisk(t, m, "disk0"))
			if err != nil {
				t.Fatal(err)
			}
			s := cut.Slices[0]
			if s.Has(base) != c.has || s.Lost != c.lost {
				t.Errorf("the record is there: %v, lost: %d", s.Has(base), s.Lost)
			}
			read := pull(t, s, base, image)
			if !bytes.Equal(image, whole(t, p, size)) {
				t.Error("the copy is not what the disk holds")
			}
			if c.has && read > 160*granularity {
				t.Errorf("%d bytes were read", read)
			}
			if err := s.Settle(ctx, true); err != nil {
				t.Error(err)
			}
			clean(t, m, folder, 1)
		})
	}
}

// scatter writes forty blocks of random places.
func scatter(t testing.TB, p *qemutest.Process, size int64, seed byte) {
	t.Helper()
	c, err := nbd.Dial(ctx, nbd.Address{Network: "unix", Host: p.NBD, Export: "live0"}, nbd.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 40 {
		b := bytes.Repeat([]byte{seed}, 1+rand.IntN(8000))
		if err := c.Write(ctx, b, rand.Int64N(size-int64(len(b)))); err != nil {
			t.Fatal(err)
		}
	}
}

// The machine itself dies while a point in time is held and read.
func TestKilledMachines(t *testing.T) {
	folder := qemutest.Folder(t)
	ring := qemutest.Ring{Size: 32 << 20, Slots: 512}
	qemutest.Image(t, folder, "qcow2", ring.Size, 0)
	p := qemutest.Daemon(t, folder, "qcow2", true, 1)
	image := make([]byte, ring.Size)
	for round := range rounds(4) {
		w := ring.Write(t, p.NBD, "live0", 0)
		m := open(t, p)
		d := mustDisk(t, m, "disk0")
		life := time.Duration(rand.Int64N(int64(40 * time.Millisecond)))
		killed := make(chan struct{})
		time.AfterFunc(life, func() {
			p.Kill()
			close(killed)
		})
		if cut, err := m.Cut(ctx, CutOptions{}, d); err == nil {
			select {
			case <-cut.Broken():
			case <-time.After(5 * time.Second):
				t.Fatal("nobody noticed that the machine is gone")
			}
			if cut.Doubt(ctx) == "" {
				t.Error("a point in time of a dead machine is not doubted")
			}
			if err := cut.Slices[0].Settle(ctx, false); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		m.Close()
		<-killed
		_ = w.Stop() // its disk died under it
		p.Start()
		m = open(t, p)
		cut, err := m.Cut(ctx, CutOptions{}, mustDisk(t, m, "disk0"))
		if err != nil {
			t.Fatalf("round %d, after a life of %v: %v", round, life, err)
		}
		pull(t, cut.Slices[0], "", image)
		if !bytes.Equal(image, whole(t, p, ring.Size)) {
			t.Fatalf("round %d: the copy is not what the disk holds", round)
		}
		if err := cut.Slices[0].Settle(ctx, false); err != nil {
			t.Fatal(err)
		}
		clean(t, m, folder, 0)
		m.Close()
	}
}

// All disks of a cut are of one moment: the numbers go to them in turns.
func TestCutOfSeveralDisks(t *testing.T) {
	for name, top := range map[string]bool{"filter": true, "job": false} {
		t.Run(name, func(t *testing.T) {
			const disks = 3
			folder := qemutest.Folder(t)
			for n := range disks {
				qemutest.Image(t, folder, "qcow2", 16<<20, n)
			}
			p := qemutest.Daemon(t, folder, "qcow2", top, disks)
			m := open(t, p)
			var clients []*nbd.Client
			for n := range disks {
				c, err := nbd.Dial(ctx, nbd.Address{Network: "unix", Host: p.NBD, Export: "live" + strconv.Itoa(n)}, nbd.DialOptions{})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				clients = append(clients, c)
			}
			stop, ended := make(chan struct{}), make(chan error, 1)
			go func() {
				for number := uint64(1); ; number++ {
					select {
					case <-stop:
						ended <- nil
						return
					default:
					}
					if err := clients[number%disks].Write(ctx, qemutest.Block(number), 0); err != nil {
						ended <- err
						return
					}
				}
			}()
			for range 6 {
				time.Sleep(10 * time.Millisecond)
				var all []Disk
				for n := range disks {
					all = append(all, mustDisk(t, m, "disk"+strconv.Itoa(n)))
				}
				cut, err := m.Cut(ctx, CutOptions{}, all...)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Millisecond)
				var numbers []uint64
				for _, s := range cut.Slices {
					b := make([]byte, s.Size)
					pull(t, s, "", b)
					numbers = append(numbers, uint64(b[0])|uint64(b[1])<<8|uint64(b[2])<<16|uint64(b[3])<<24)
				}
				first, last := slices.Min(numbers), slices.Max(numbers)
				if last-first != disks-1 {
					t.Errorf("the disks hold %v, which they never held together", numbers)
				}
				for _, s := range cut.Slices {
					if err := s.Settle(ctx, true); err != nil {
						t.Error(err)
					}
				}
				clean(t, m, folder, disks)
			}
			close(stop)
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// Records of two owners do not touch each other.
func TestOwnersAreApart(t *testing.T) {
	folder := qemutest.Folder(t)
	qemutest.Image(t, folder, "qcow2", 16<<20, 0)
	p := qemutest.Daemon(t, folder, "qcow2", true, 1)
	m := open(t, p)
	w, err := nbd.Dial(ctx, nbd.Address{Network: "unix", Host: p.NBD, Export: "live0"}, nbd.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	base := map[string]string{}
	for round, owner := range []string{"a", "b", "a", "a", "b"} {
		if err := w.Write(ctx, qemutest.Block(uint64(round+1)), int64(round)<<20); err != nil {
			t.Fatal(err)
		}
		d := mustDisk(t, m, "disk0")
		d.Owner = owner
		cut, err := m.Cut(ctx, CutOptions{}, d)
		if err != nil {
			t.Fatal(err)
		}
		s := cut.Slices[0]
		if want := map[int]extent.Set{2: {{Off: 1 << 20, Len: granularity}, {Off: 2 << 20, Len: granularity}}, 3: {{Off: 3 << 20, Len: granularity}},
			4: {{Off: 2 << 20, Len: granularity}, {Off: 3 << 20, Len: granularity}, {Off: 4 << 20, Len: granularity}}}[round]; want != nil {
			if !s.Has(base[owner]) {
				t.Errorf("round %d: the record of %s is gone", round, owner)
			}
			if got := dirty(t, s); !got.Equal(want) {
				t.Errorf("round %d: changed for %s: %v, want %v", round, owner, got, want)
			}
		}
		base[owner] = s.Base()
		if err := s.Settle(ctx, true); err != nil {
			t.Fatal(err)
		}
	}
	clean(t, m, folder, 2)
}

func TestFleecesOfKilledRunsAreRemoved(t *testing.T) {
	folder := qemutest.Folder(t)
	qemutest.Image(t, folder, "qcow2", 16<<20, 0)
	p := qemutest.Daemon(t, folder, "qcow2", true, 1)
	m := open(t, p)
	left := filepath.Join(folder, strings.Replace(m.fleecePattern(), "*", "0123", 1))
	foreign := filepath.Join(folder, ".diskvault-00000000-0123.fleece")
	for _, path := range []string{left, foreign} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cut, err := m.Cut(ctx, CutOptions{}, mustDisk(t, m, "disk0"))
	if err != nil {
		t.Fatal(err)
	}
	if err := cut.Slices[0].Settle(ctx, true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("the fleece of a killed run is still there: %v", err)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("another machine's fleece was removed: %v", err)
	}
}
