package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/capture"
	"github.com/diskvault/diskvault/disk/disktest"
	"github.com/diskvault/diskvault/store"
	"github.com/diskvault/diskvault/store/bucket/filebucket"
)

// A test that needs a process to kill starts its own program again, with this
// variable saying when the process is to kill itself.
const whenVariable = "DISKVAULT_BACKUP_TEST_WHEN"

func TestMain(m *testing.M) {
	when, child := os.LookupEnv(whenVariable)
	if !child {
		os.Exit(m.Run())
	}
	if _, err := victim(context.Background(), os.Args[1], when); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// victim backs up disk.img in a folder to the store beside it.
func victim(ctx context.Context, dir, when string) (result Result, err error) {
	s, err := openIn(ctx, dir)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	src, err := disk.Probe(ctx, filepath.Join(dir, "disk.img"))
	if err != nil {
		return result, err
	}
	o := Options{
		Store: s, Source: src, Point: store.Point{Instance: "victim"}, Meter: meter.New("preflight"),
		Capturer: suicidal{capture.Options{Owner: "victim"}, when},
	}
	if o.Parent, err = newest(ctx, s); err != nil {
		return result, err
	}
	return New(o).Do(ctx)
}

func openIn(ctx context.Context, dir string) (*store.Store, error) {
	b, err := filebucket.Open(filepath.Join(dir, "store"), filebucket.Options{})
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		return nil, err
	}
	key, err := store.ParseKey(string(text))
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, b, key, store.OpenOptions{CacheDir: filepath.Join(dir, "cache")})
}

func newest(ctx context.Context, s *store.Store) (found *store.Point, err error) {
	for p, err := range s.Points(ctx) {
		if err != nil {
			return nil, err
		}
		if found == nil || p.Created.After(found.Created) {
			found = &p
		}
	}
	return found, nil
}

// suicidal makes views that end the process at some moment, as a kill does.
type suicidal struct {
	capture.Capturer
	when string
}

type suicidalView struct {
	tracker
	capture.View
	when string
}

func (s suicidal) Capture(ctx context.Context, src *disk.Source) (capture.View, error) {
	v, err := s.Capturer.Capture(ctx, src)
	if err != nil {
		return nil, err
	}
	t, ok := v.(tracker)
	if !ok {
		return nil, errors.New("the view does not track changes")
	}
	view := suicidalView{t, v, s.when}
	view.die("captured")
	return view, nil
}

func (v suicidalView) die(now string) {
	if v.when == now {
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
}

func (v suicidalView) Keep(ctx context.Context, point string) (capture.Kept, error) {
	v.die("read")
	k, err := v.tracker.Keep(ctx, point)
	v.die("kept")
	return k, err
}

func (v suicidalView) Settle(ctx context.Context) error {
	v.die("committed")
	err := v.tracker.Settle(ctx)
	v.die("settled")
	return err
}

func TestABackupIsKilledAtAnyTime(t *testing.T) {
	moments := []string{"captured", "read", "kept", "committed", "settled"}
	for _, kind := range []string{"xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			dir, _ := disktest.FileSystem(t, kind, 640<<20)
			b, err := filebucket.Open(filepath.Join(dir, "store"), filebucket.Options{Create: true})
			if err != nil {
				t.Fatal(err)
			}
			created, err := store.Create(t.Context(), b, store.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(b.Close(), os.WriteFile(filepath.Join(dir, "key"), []byte(created.LocalKey), 0o600)); err != nil {
				t.Fatal(err)
			}
			random := rand.New(rand.NewPCG(5, 6))
			v := newVandal(t, dir, random)
			usual := 300 * time.Millisecond
			killed := 0
			for round := range seeds(t, 8) {
				for range random.IntN(6) {
					v.act(t)
				}
				when := moments[(int(round)/2)%len(moments)]
				if round%2 == 1 {
					when = ""
				}
				c := exec.Command(os.Args[0], dir)
				c.Env = append(os.Environ(), whenVariable+"="+when)
				var said bytes.Buffer
				c.Stdout, c.Stderr = &said, &said
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				var timer *time.Timer
				if when == "" {
					timer = time.AfterFunc(time.Duration(random.Int64N(int64(usual))), func() { c.Process.Kill() })
				}
				err := c.Wait()
				if timer != nil {
					timer.Stop()
				}
				if err != nil && said.Len() > 0 {
					t.Fatalf("round %d: %v: %s", round, err, said.String())
				}
				if err != nil {
					killed++
				}
				for range random.IntN(3) {
					v.act(t)
				}
				v.verify(t, dir, round)
			}
			if killed == 0 {
				t.Error("no backup was killed")
			}
		})
	}
}

// verify makes a backup, and fails the test unless it is right and leaves just
// the capture of its point.
func (v *vandal) verify(t *testing.T, dir string, round uint64) {
	t.Helper()
	result, err := victim(t.Context(), dir, "")
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	want, err := os.ReadFile(v.path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := openIn(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !bytes.Equal(content(t, s, result.Point), want) {
		t.Fatalf("round %d: came back different (%+v)", round, result.ChangeTracking)
	}
	entries, err := os.ReadDir(filepath.Join(dir, ".diskvault-captures"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "victim."+result.Point.ID {
		t.Errorf("round %d: kept %v (%v), and the point is %s", round, entries, err, result.Point.ID)
	}
	if round > 0 && result.ChangeTracking.Method != "fiemap" {
		t.Errorf("round %d: %+v", round, result.ChangeTracking)
	}
}
