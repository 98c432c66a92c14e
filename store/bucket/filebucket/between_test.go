package filebucket_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/diskvault/diskvault/base/durable/powerloss"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/filebucket"
)

const session = "sessions/0123456789abcdef0123456789abcdef/"

// stopped is a disk as one process sees it that stops before an operation; what
// follows in it happens in the meantime, and then the power goes.
type stopped struct {
	*powerloss.Disk
	before    string // the operation: "sync x", or "made x" for after a mkdir
	meanwhile func()
}

func (s *stopped) at(operation string) {
	if operation == s.before && !s.Lost() {
		s.before = ""
		s.meanwhile()
		s.Cut()
	}
}

func (s *stopped) SyncFolder(name string) error {
	s.at("sync " + name)
	return s.Disk.SyncFolder(name)
}

func (s *stopped) Mkdir(name string, perm fs.FileMode) error {
	err := s.Disk.Mkdir(name, perm)
	s.at("made " + name)
	return err
}

// What one process was told about an object of another must survive, although
// the other had no time to sync.
func TestPowerLossBetweenTwoProcesses(t *testing.T) {
	put := func(t *testing.T, b bucket.Bucket, key string) {
		if err := b.Put(t.Context(), key, [][]byte{[]byte("data")}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		first  string // what the first process puts
		before string // where it stops
		second func(*testing.T, bucket.Bucket) (key string)
	}{
		{"refused as taken", "packs/ab/x", "sync packs/ab", func(t *testing.T, b bucket.Bucket) string {
			if err := b.Put(t.Context(), "packs/ab/x", nil); !errors.Is(err, bucket.ErrExists) {
				t.Fatalf("put gives %v", err)
			}
			return "packs/ab/x"
		}},
		{"listed", "packs/ab/x", "sync packs/ab", func(t *testing.T, b bucket.Bucket) (listed string) {
			for o, err := range b.List(t.Context(), "packs/", "") {
				if err != nil {
					t.Fatal(err)
				}
				listed = o.Key
			}
			return listed
		}},
		{"stored in a folder that the first one made", "packs/ab/x", "made packs/ab", func(t *testing.T, b bucket.Bucket) string {
			put(t, b, "packs/ab/y")
			return "packs/ab/y"
		}},
		{"stored in a folder that the first one made anew", session + "1", "made " + session[:len(session)-1], func(t *testing.T, b bucket.Bucket) string {
			put(t, b, session+"2")
			return session + "2"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(60) {
				disk := powerloss.New(seed)
				second := filebucket.On(disk, "file:/memory")
				// The second process has used the folder of the session before,
				// and another one has removed it.
				put(t, second, session+"0")
				if err := filebucket.On(disk, "file:/memory").Delete(t.Context(), session+"0"); err != nil {
					t.Fatal(err)
				}
				key, reached := "", false
				s := &stopped{Disk: disk, before: c.before}
				s.meanwhile = func() {
					reached = true
					key = c.second(t, second)
				}
				first := filebucket.On(s, "file:/memory")
				if err := first.Put(t.Context(), c.first, [][]byte{[]byte("data")}); !errors.Is(err, powerloss.ErrPowerLost) || !reached {
					t.Fatalf("seed %d: the first process ends with %v, the second has run: %v", seed, err, reached)
				}
				data, err := bucket.ReadAll(t.Context(), filebucket.On(disk.Restart(), "file:/memory"), key, 100)
				if err != nil || string(data) != "data" {
					t.Fatalf("seed %d: after the loss of power, %s holds %q, %v", seed, key, data, err)
				}
			}
		})
	}
}
