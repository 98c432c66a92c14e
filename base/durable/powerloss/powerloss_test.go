package powerloss

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"github.com/diskvault/diskvault/base/durable"
)

// script does a little of everything and notes what was promised.
func script(d *Disk) (kept map[string][]byte, gone map[string]bool) {
	kept, gone = map[string][]byte{}, map[string]bool{}
	folders := map[string]bool{}
	for i := range 12 {
		folder := fmt.Sprintf("f%d/g", i%3)
		if !folders[folder] {
			if durable.MakeFolder(d, folder, 0o700) != nil {
				return kept, gone
			}
			folders[folder] = true
		}
		name := fmt.Sprintf("%s/%02d", folder, i)
		data := bytes.Repeat([]byte{byte(i + 1)}, i*1500)
		if durable.WriteFile(d, name, 0o600, [][]byte{data[:len(data)/2], data[len(data)/2:]}) != nil {
			return kept, gone
		}
		kept[name] = data
		if i%4 == 3 {
			delete(kept, name)
			if durable.RemoveFile(d, name) != nil {
				return kept, gone
			}
			gone[name] = true
		}
	}
	return kept, gone
}

// broken tells how the disk after a restart breaks what was promised.
func broken(d *Disk, kept map[string][]byte, gone map[string]bool) error {
	for name, want := range kept {
		got, err := read(d, name)
		if err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%s was stored and is lost or torn: %d of %d bytes, %v", name, len(got), len(want), err)
		}
	}
	for name := range gone {
		if _, err := d.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s was removed and is back", name)
		}
	}
	for i := range 12 {
		name := fmt.Sprintf("f%d/g/%02d", i%3, i)
		got, err := read(d, name)
		if err == nil && !bytes.Equal(got, bytes.Repeat([]byte{byte(i + 1)}, i*1500)) {
			return fmt.Errorf("%s is visible and torn", name)
		}
	}
	return nil
}

func read(d *Disk, name string) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	_, err = f.ReadAt(data, 0)
	return data, err
}

func steps() int {
	d := New(1)
	script(d)
	return d.Steps()
}

func TestPromisesHoldAtEveryStep(t *testing.T) {
	all := steps()
	if all < 60 {
		t.Fatalf("the script has only %d steps", all)
	}
	for step := 1; step <= all+1; step++ {
		for seed := range uint64(40) {
			d := New(seed)
			d.CutAt(step)
			kept, gone := script(d)
			if err := broken(d.Restart(), kept, gone); err != nil {
				t.Fatalf("seed %d, power lost at step %d: %v", seed, step, err)
			}
		}
	}
}

func TestADiskThatLiesIsFoundOut(t *testing.T) {
	found, all := 0, steps()
	for seed := range uint64(200) {
		d := New(seed)
		d.Lie()
		d.CutAt(1 + int(seed)%all)
		kept, gone := script(d)
		if broken(d.Restart(), kept, gone) != nil {
			found++
		}
	}
	if found < 100 {
		t.Fatalf("only %d of 200 losses of power were noticed without any sync", found)
	}
}

func TestTheSeedDecidesAll(t *testing.T) {
	describe := func(seed uint64) (out []string) {
		d := New(seed)
		d.Lie()
		d.CutAt(50)
		script(d)
		r := d.Restart()
		var walk func(folder string)
		walk = func(folder string) {
			entries, err := r.ReadFolder(folder)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				name := e.Name
				if folder != "" {
					name = folder + "/" + e.Name
				}
				if e.Folder {
					walk(name)
				}
				if durable.IsTemporary(name) {
					name = folder + "/temporary"
				}
				data, _ := read(r, folder+"/"+e.Name)
				out = append(out, fmt.Sprintf("%s %x", name, data))
			}
		}
		walk("")
		slices.Sort(out)
		return out
	}
	different := false
	for seed := range uint64(20) {
		if a, b := describe(seed), describe(seed); !slices.Equal(a, b) {
			t.Fatalf("seed %d gives two outcomes:\n%.300q\n%.300q", seed, a, b)
		}
		different = different || !slices.Equal(describe(seed), describe(seed+1))
	}
	if !different {
		t.Fatal("the seed changes nothing")
	}
}

func TestUnsyncedChangesMayGoEitherWay(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(300) {
		d := New(seed)
		f, err := d.Create("a", 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Write([][]byte{bytes.Repeat([]byte{1}, 3*page)}), f.Sync(), d.SyncFolder(""), d.Rename("a", "b")); err != nil {
			t.Fatal(err)
		}
		r := d.Restart()
		_, a := r.Stat("a")
		_, b := r.Stat("b")
		seen[fmt.Sprint(a == nil, b == nil)]++
	}
	if len(seen) != 4 {
		t.Fatalf("an unsynced rename ended only in these ways (old there, new there): %v", seen)
	}
}

func TestNothingWorksWithoutPower(t *testing.T) {
	d := New(1)
	f, err := d.Create("a", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	d.Cut()
	_, open := d.Open("a")
	_, stat := d.Stat("a")
	_, list := d.ReadFolder("")
	_, create := d.Create("b", 0o600)
	_, size := f.Size()
	_, readAt := f.ReadAt(make([]byte, 1), 0)
	for i, err := range []error{open, stat, list, create, size, readAt, f.Write([][]byte{{1}}), f.Sync(),
		d.Mkdir("c", 0o700), d.Rename("a", "b"), d.Remove("a"), d.SyncFolder(""), d.Rmdir("x")} {
		if !errors.Is(err, ErrPowerLost) {
			t.Errorf("operation %d gives %v", i, err)
		}
	}
}
