package capture

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/disktest"
	"github.com/diskvault/diskvault/disk/rbd/cephtest"
)

// On a real Ceph: random writes, discards and a resize; by what Ceph says has
// changed, each copy becomes what the image held at its snapshot, and runs that
// ended early leave no snapshot behind.
func TestCephImages(t *testing.T) {
	if os.Getenv("DISKVAULT_LONG") == "" {
		t.Skip("left out: it starts a Ceph; DISKVAULT_LONG=1 runs it")
	}
	disktest.Need(t, "qemu-io", "qemu-nbd")
	ctx := context.Background()
	c := cephtest.Start(t)
	c.RBD("create", "--size", "64M", "rbd/vm")
	write := func(commands ...string) {
		t.Helper()
		args := []string{"--image-opts", "driver=rbd,pool=rbd,image=vm,conf=" + c.Conf}
		for _, one := range commands {
			args = append(args, "-c", one)
		}
		if out, err := exec.Command("qemu-io", args...).CombinedOutput(); err != nil || strings.Contains(string(out), "failed") {
			t.Fatalf("qemu-io: %v: %s", err, out)
		}
	}
	source := func() *disk.Source {
		t.Helper()
		src, err := disk.Probe(ctx, "rbd:rbd/vm?conf="+c.Conf)
		if err != nil {
			t.Fatal(err)
		}
		return src
	}
	if _, err := disk.Probe(ctx, "rbd:rbd/none?conf="+c.Conf); !problem.Is(err, problem.SourceNotFound) {
		t.Errorf("an image that is not there: %v", err)
	}
	chain := Options{Owner: "disk-1"}
	image, token := []byte{}, []byte(nil)
	for round := range 8 {
		write("write -P 1 0 1M", "discard 8M 4M")
		for range 10 {
			at, n := rand.IntN(60<<20)/512*512, 512*(1+rand.IntN(64))
			write("write -P " + string(rune('1'+rand.IntN(8))) + " " + strconv.Itoa(at) + " " + strconv.Itoa(n))
		}
		if round == 4 {
			c.RBD("resize", "--no-progress", "--size", "80M", "rbd/vm")
			write("write -P 7 70M 64k")
		}
		src := source()
		view, err := chain.Capture(ctx, src)
		if err != nil {
			t.Fatal(err)
		}
		v := view.(*snapshotView)
		exported := filepath.Join(t.TempDir(), "export")
		c.RBD("export", "--no-progress", "rbd/vm", exported) // nobody writes now
		write("write -P 9 0 2M")                             // and the view does not see it
		want, err := os.ReadFile(exported)
		if err != nil {
			t.Fatal(err)
		}
		changes, err := v.Changed(ctx, token)
		if err != nil || changes.Known != (round > 0) {
			t.Fatalf("round %d: %+v %v", round, changes, err)
		}
		grown := make([]byte, v.Size())
		copy(grown, image)
		var read extent.Set
		if changes.Known {
			read = changes.Ranges
		} else {
			read = extent.Set{{Len: v.Size()}}
		}
		for r := range read.Windows(1 << 20) {
			if err := v.Read(ctx, grown[r.Off:r.End()], r.Off); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(grown, want) {
			t.Errorf("round %d: the copy is not what the image held", round)
		}
		if proof, err := v.Prove(ctx); err != nil || !proof.Proven {
			t.Errorf("round %d: %+v %v", round, proof, err)
		}
		t.Logf("round %d: %d bytes named as changed", round, read.Total())
		if round%3 == 2 { // fails
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		} else {
			kept, err := v.Keep(ctx, "p")
			if err != nil {
				t.Fatal(err)
			}
			if round%3 == 1 { // a killed run's snapshot
				if _, err := v.origin.(imageSnapshots).image.Snapshot(ctx, v.owner); err != nil {
					t.Fatal(err)
				}
			}
			if err := v.Settle(ctx); err != nil {
				t.Fatal(err)
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
			image, token = grown, kept.Token
		}
		if all, err := v.origin.names(ctx); err != nil || len(all) != 1 {
			t.Errorf("round %d: the snapshots are %v: %v", round, all, err)
		}
	}
	for want, stored := range map[string]string{
		"is gone":     `{"method":"rbd-snapshot","snapshot":"diskvault-none","size":1}`,
		"another way": `{"method":"reflink"}`,
	} {
		view, err := chain.Capture(ctx, source())
		if err != nil {
			t.Fatal(err)
		}
		v := view.(*snapshotView)
		if changes, err := v.Changed(ctx, []byte(stored)); err != nil || changes.Known || !strings.Contains(changes.Reason, want) {
			t.Errorf("%s: %+v %v", stored, changes, err)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
}
