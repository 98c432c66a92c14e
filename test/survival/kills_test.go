package survival

import (
	"path/filepath"
	"testing"

	"github.com/diskvault/diskvault/store/bucket/s3bucket/s3test"
)

func TestKills(t *testing.T) {
	t.Parallel()
	s := besiege(t, newMachine(t))
	s.begin()
	s.second = "file:" + s.path("second")
	s.must("store", "create", s.second)
	for n := number(t, "DISKVAULT_KILLS", 40); s.killed() < n; {
		s.round()
	}
	s.end()
	s.rebuild()
}

func TestKillsOverS3(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	m := newMachine(t)
	m.env = append(m.env, server.Environ()...)
	s := besiege(t, m)
	place := server.NewBucket(t)
	place.Prefix = "diskvault"
	s.url = place.URL()
	s.must("store", "create", s.url)
	s.begin()
	other := server.NewBucket(t)
	other.Prefix = "second"
	s.second = other.URL()
	s.must("store", "create", s.second)
	for n := number(t, "DISKVAULT_KILLS_S3", 12); s.killed() < n; {
		s.round()
	}
	s.end()
	s.rebuild()
}

// The first backup makes data folder, store, keys, vault and policy. Wherever
// it is killed, the next one goes on, and the recovery key that is shown last
// opens the store.
func TestKilledFirstUse(t *testing.T) {
	t.Parallel()
	r := chance(t)
	for n := range number(t, "DISKVAULT_KILLS_FIRST", 8) {
		m := newMachine(t)
		s := &siege{machine: m, r: r, disk: newImage(t, m.path("disk.img"), 2*mib, r), was: map[string]string{}, kills: map[string]int{}, upkeep: upkeep{ever: map[string]string{}}}
		shown := s.firstUse(n)
		if shown == "" {
			t.Fatal("no recovery key was shown by any run")
		}
		s.note()
		s.restores("disk", s.randomPoint(), s.disk.sum())
		other := newMachine(t)
		other.env = append(other.env, "DISKVAULT_KEY="+shown)
		url := "file:" + filepath.Join(m.home, "store")
		other.restores("disk", "latest", s.disk.sum(), "--store", url)
		s.settled()
	}
}
