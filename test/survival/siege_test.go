package survival

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

// siege is a disk whose backups, restores and verifications are killed again
// and again.
type siege struct {
	*machine
	r     *rand.Rand
	disk  *image
	was   map[string]string        // checksum of the disk by the ID of the point of it
	takes map[string]time.Duration // within which a command is killed
	kills map[string]int           // by command
	whole int                      // commands that ended before they were killed
	made  int                      // points of backups that were killed
	again *restoration             // that was killed and is to be done again
	url   string                   // of the store; empty: the one in the data folder
	upkeep
}

// upkeep is what is done to the store beside its use.
type upkeep struct {
	second  string            // URL of the store that points are copied to; empty: none
	ever    map[string]string // checksums of all points that there were
	deleted int
}

// restoration is one restore, the same until it is done.
type restoration struct{ point, to string }

func besiege(t *testing.T, m *machine) *siege {
	t.Helper()
	r := chance(t)
	return &siege{
		machine: m, r: r, disk: newImage(t, m.path("disk.img"), 48*mib, r),
		was: map[string]string{}, takes: map[string]time.Duration{}, kills: map[string]int{},
		upkeep: upkeep{ever: map[string]string{}},
	}
}

// strike runs a command and kills it at a random moment; it tells whether the
// command ended first. The span from which the moment is drawn follows how busy
// the machine is: so that about one command in three ends first, and the kills
// are spread over all that a command does.
func (s *siege) strike(args ...string) bool {
	s.t.Helper()
	name := args[0]
	if name == "store" || name == "recovery-point" {
		name = args[1]
	}
	usual, known := s.takes[name]
	if !known {
		usual = 500 * time.Millisecond
	}
	p := s.start(args...)
	kill := time.AfterFunc(time.Duration(s.r.Int64N(int64(usual)+1)), func() { p.cmd.Process.Kill() })
	o := s.finish(p)
	kill.Stop()
	if o.status < 0 {
		s.kills[name]++
		s.takes[name] = usual + usual/20
		return false
	}
	if o.status != done {
		s.t.Fatalf("after %v kills: %v", s.kills, o)
	}
	s.takes[name] = usual - usual/10
	s.whole++
	return true
}

func (s *siege) killed() (n int) {
	for _, k := range s.kills {
		n += k
	}
	return n
}

// note learns of new points: nothing but backups that have ended, or were
// killed, since the disk changed last can have made them, so they are of the
// disk as it is.
func (s *siege) note() (news int) {
	s.t.Helper()
	listed := s.points("disk")
	if len(listed) < len(s.was) {
		s.t.Fatalf("%d points are listed, there were %d", len(listed), len(s.was))
	}
	now := ""
	for _, p := range listed {
		if _, ok := s.was[p.ID]; !ok {
			if now == "" {
				now = s.disk.sum()
			}
			s.was[p.ID], s.ever[p.ID] = now, now
			news++
		}
	}
	return news
}

func (s *siege) randomPoint() string {
	ids := make([]string, 0, len(s.was))
	for id := range s.was {
		ids = append(ids, id)
	}
	slices.Sort(ids) // by ID, so that the seed decides and not the map
	return ids[s.r.IntN(len(ids))]
}

// begin makes disk, store and first point in spite of kills; each may leave
// anything half made.
func (s *siege) begin() {
	s.t.Helper()
	args := []string{"backup", "disk.img"}
	if s.url != "" {
		args = append(args, "--store", s.url)
	}
	for attempt := 0; ; attempt++ {
		if attempt == 6 {
			s.must(args...)
		} else if !s.strike(args...) {
			s.settled()
			continue
		}
		break
	}
	if s.note(); len(s.was) == 0 {
		s.t.Fatal("a backup was done, yet there is no point")
	}
}

// round strikes one command of a random kind and looks after it.
func (s *siege) round() {
	s.t.Helper()
	switch n := s.r.IntN(20); {
	case n < 7:
		s.strikeBackup()
	case n < 10:
		s.strikeRestore()
	case n < 14:
		s.strikeCollect()
	case n < 16:
		s.strikeDelete()
	case n < 18 && s.second != "":
		s.strike(append([]string{"store", "copy"}, append(s.where(), s.second)...)...)
	default:
		how := [][]string{{}, {"--read-data"}, {"--sample", "30"}}[s.r.IntN(3)]
		s.strike(append([]string{"verify"}, how...)...)
	}
	s.settled()
	if s.r.IntN(8) == 0 {
		id := s.randomPoint()
		s.restores("disk", id, s.was[id])
	}
}

func (s *siege) strikeBackup() {
	s.t.Helper()
	if s.r.IntN(4) > 0 { // else the next backup is of the same disk as one that was killed
		s.disk.change(1 + s.r.IntN(12))
	}
	ended := s.strike("backup", "disk.img")
	switch news := s.note(); {
	case ended && news != 1:
		s.t.Fatalf("a backup that was done made %d points", news)
	case news > 1:
		s.t.Fatalf("a backup that was killed made %d points", news)
	case !ended:
		s.made += news
	}
}

// strikeCollect collects, most often all that can be removed at once.
func (s *siege) strikeCollect() {
	s.t.Helper()
	how := [][]string{{"--grace", "0s"}, {"--grace", "0s", "--max-unused", "0"}, {"--grace", "1s"}, {"--grace", "0s", "--compact=false"}}[s.r.IntN(4)]
	s.strike(append(append([]string{"store", "collect"}, s.where()...), how...)...)
}

// strikeDelete deletes a point; killed, it may be gone or not.
func (s *siege) strikeDelete() {
	s.t.Helper()
	if len(s.was) < 4 {
		return
	}
	id := s.randomPoint()
	if s.again != nil && s.again.point == id {
		return // somebody is about to restore it
	}
	s.strike("recovery-point", "delete", "disk", "--point", id)
	if !slices.ContainsFunc(s.points("disk"), func(p resource.RecoveryPoint) bool { return p.ID == id }) {
		delete(s.was, id)
		s.deleted++
	}
}

// copied proves that the second store is as good: after a copy that nobody
// kills, it has all points, and those that it has restore from it.
func (s *siege) copied() {
	s.t.Helper()
	if s.second == "" {
		return
	}
	s.must(append([]string{"store", "copy"}, append(s.where(), s.second)...)...)
	s.must("store", "check", s.second, "--read-data")
	there := map[string]bool{}
	for n, p := range s.points("disk", "--store", s.second) {
		there[p.ID] = true
		if want, ok := s.ever[p.ID]; !ok {
			s.t.Fatalf("the copy has a point %s that there never was", p.ID)
		} else if long() || n%5 == 0 {
			s.restores("disk", p.ID, want, "--store", s.second)
		}
	}
	for id := range s.was {
		if !there[id] {
			s.t.Errorf("the point %s was not copied", id)
		}
	}
}

// strikeRestore restores to a new file or onto an older image; killed, it is
// done again, the same command, until it is done.
func (s *siege) strikeRestore() {
	s.t.Helper()
	if s.again == nil {
		s.again = &restoration{s.randomPoint(), s.path("restored.img")}
		if s.r.IntN(2) == 0 {
			s.again.to = s.path("overwritten.img")
		}
	}
	args := []string{"restore", "disk", "--point", s.again.point, "--to", s.again.to}
	overwrite := filepath.Base(s.again.to) == "overwritten.img"
	if overwrite {
		args = append(args, "--overwrite")
	}
	if !s.strike(args...) {
		if _, err := os.Lstat(s.again.to); err == nil && !overwrite {
			s.restored() // killed after the file had got its name: then it is whole
		}
		return
	}
	s.restored()
}

// restored wants the target to be what the point is of.
func (s *siege) restored() {
	s.t.Helper()
	if got, want := sum(s.t, s.again.to), s.was[s.again.point]; got != want {
		s.t.Fatalf("the point %s was restored as %s after kills; the disk was %s", s.again.point, got, want)
	}
	if filepath.Base(s.again.to) == "restored.img" {
		if err := os.Remove(s.again.to); err != nil {
			s.t.Fatal(err)
		}
	}
	s.again = nil
}

// end proves that all is there: read back by the program, restored and
// compared by the test.
func (s *siege) end() {
	s.t.Helper()
	s.must(append(append([]string{"store", "collect"}, s.where()...), "--grace", "0s")...)
	v := read[service.VerifyResult](s.machine, append(append([]string{"store", "check"}, s.where()...), "--read-data")...)
	if !v.Verified || v.Points != len(s.was) {
		s.t.Fatalf("verified %d of %d points: %+v", v.Points, len(s.was), v)
	}
	s.restoresAll(true)
	s.copied()
	s.t.Logf("%d kills (%v), %d commands were faster; %d points, %d of them of killed backups; %d were deleted", s.killed(), s.kills, s.whole, len(s.was), s.made, s.deleted)
}

// restoresAll restores all points, or three.
func (s *siege) restoresAll(all bool) {
	s.t.Helper()
	listed := s.points("disk")
	if len(listed) != len(s.was) {
		s.t.Fatalf("%d points are listed, there were %d", len(listed), len(s.was))
	}
	for n, p := range listed {
		want, ok := s.was[p.ID]
		if !ok {
			s.t.Fatalf("the point %s is listed, which there was not", p.ID)
		}
		if all || n == 0 || n == len(listed)-1 || n == len(listed)/2 {
			s.restores("disk", p.ID, want)
		}
	}
}

// rebuild deletes all that is not in the store but the key, and makes it anew.
func (s *siege) rebuild() {
	s.t.Helper()
	last := s.backup("disk.img")
	s.note()
	catalogs, err := filepath.Glob(filepath.Join(s.home, "catalog.db*"))
	if err != nil || len(catalogs) == 0 {
		s.t.Fatalf("no catalog to delete (%v)", err)
	}
	for _, path := range append(catalogs, filepath.Join(s.home, "cache")) {
		if err := os.RemoveAll(path); err != nil {
			s.t.Fatal(err)
		}
	}
	s.must(append([]string{"store", "rebuild-catalog"}, s.where()...)...)
	s.must("store", "rebuild-index")
	s.restoresAll(long())
	after := s.backup("disk.img", "--full-scan")
	if after.Bytes.New != 0 || after.Bytes.Stored != 0 {
		s.t.Errorf("the backup of an unchanged disk stored %d bytes of %d new ones after the index was rebuilt", after.Bytes.Stored, after.Bytes.New)
	}
	if after.RecoveryPoint.Root != last.RecoveryPoint.Root {
		s.t.Errorf("the root of an unchanged disk is %s, it was %s", after.RecoveryPoint.Root, last.RecoveryPoint.Root)
	}
	s.note()
	s.settled()
}

// where names the store where the machine cannot know it, its catalog being
// gone.
func (s *siege) where() []string {
	if s.url != "" {
		return []string{s.url}
	}
	return nil
}

// firstUse kills first backups ever later into their work, until one is done,
// and gives the recovery key that was shown last.
func (s *siege) firstUse(n int) (key string) {
	s.t.Helper()
	for attempt := range 8 {
		p := s.start("backup", "disk.img")
		within := time.Duration(1+attempt) * 40 * time.Millisecond
		kill := time.AfterFunc(time.Duration(s.r.Int64N(int64(within))), func() { p.cmd.Process.Kill() })
		o := s.finish(p)
		kill.Stop()
		if k := recoveryKey.FindString(o.stderr); k != "" {
			key = k
		}
		if o.status == done {
			return key
		}
		if o.status > 0 {
			s.t.Fatalf("round %d, after %d kills: %v", n, attempt, o)
		}
	}
	o := s.must("backup", "disk.img")
	if k := recoveryKey.FindString(o.stderr); k != "" {
		key = k
	}
	return key
}
