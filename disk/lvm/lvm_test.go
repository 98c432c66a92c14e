package lvm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk/disktest"
)

// Metadata of a pool with blocks of 64 KiB: volume 1 is what it is now, volume 2
// a snapshot that shares some of its blocks.
const metadata = `<superblock uuid="" time="2" transaction="3" flags="0" version="2" data_block_size="128" nr_data_blocks="1024">
  <device dev_id="1" mapped_blocks="8" transaction="0" creation_time="0" snap_time="2">
    <range_mapping origin_begin="0" data_begin="0" length="4" time="0"/>
    <single_mapping origin_block="4" data_block="20" time="1"/>
    <range_mapping origin_begin="10" data_begin="30" length="3" time="2"/>
  </device>
  <device dev_id="2" mapped_blocks="9" transaction="1" creation_time="1" snap_time="1">
    <range_mapping origin_begin="0" data_begin="0" length="5" time="0"/>
    <range_mapping origin_begin="7" data_begin="7" length="2" time="0"/>
    <range_mapping origin_begin="10" data_begin="30" length="1" time="2"/>
    <single_mapping origin_block="11" data_block="40" time="1"/>
  </device>
</superblock>`

// What thin_delta 0.9.0 printed for it.
const delta = `<superblock uuid="" time="2" transaction="3" data_block_size="128" nr_data_blocks="1024">
  <diff left="2" right="1">
    <same begin="0" length="4"/>
    <different begin="4" length="1"/>
    <left_only begin="7" length="2"/>
    <same begin="10" length="1"/>
    <different begin="11" length="1"/>
    <right_only begin="12" length="1"/>
  </diff>
</superblock>`

const block = 64 << 10

var changed = extent.Set{{Off: 4 * block, Len: block}, {Off: 7 * block, Len: 2 * block}, {Off: 11 * block, Len: 2 * block}}

func TestDelta(t *testing.T) {
	got, err := parseDelta([]byte(delta), 2, 1, 1<<20)
	if err != nil || !got.Equal(changed) {
		t.Errorf("%v %v", got, err)
	}
	if got, err := parseDelta([]byte(delta), 2, 1, 8*block-100); err != nil || got.Total() != 2*block-100 {
		t.Errorf("cut at the size: %v %v", got, err)
	}
	if got, err := parseDelta([]byte(strings.Replace(delta, `<same begin="0" length="4"/>`, `<novel begin="0" length="4"/>`, 1)), 2, 1, 1<<20); err != nil || !got.Contains(0) {
		t.Errorf("what is not known must count: %v %v", got, err)
	}
	for name, bad := range map[string]string{
		"empty":          "",
		"cut off":        delta[:len(delta)/2],
		"other volumes":  strings.Replace(delta, `left="2"`, `left="3"`, 1),
		"no block size":  strings.Replace(delta, `data_block_size="128"`, "", 1),
		"zero":           strings.Replace(delta, `data_block_size="128"`, `data_block_size="0"`, 1),
		"no length":      strings.Replace(delta, `begin="4" length="1"`, `begin="4"`, 1),
		"negative":       strings.Replace(delta, `begin="4"`, `begin="-4"`, 1),
		"nothing inside": `<superblock data_block_size="128"></superblock>`,
	} {
		if got, err := parseDelta([]byte(bad), 2, 1, 1<<20); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzDelta(f *testing.F) {
	f.Add([]byte(delta))
	f.Add([]byte(strings.Replace(delta, `begin="4"`, `begin="9223372036854775807"`, 1)))
	f.Fuzz(func(t *testing.T, out []byte) {
		set, err := parseDelta(out, 2, 1, 1<<20)
		if err == nil && set.Subtract(extent.Set{{Len: 1 << 20}}) != nil {
			t.Errorf("%v lies beyond the volume", set)
		}
	})
}

// What lvs 2.03 prints with --reportformat json: of the shape that its manual
// gives, and with the texts that published reports of thin pools have.
const report = `  {
      "report": [
          {
              "lv": [
                  {"lv_name":"[lvol0_pmspare]", "lv_size":"4194304", "pool_lv":"", "thin_id":""},
                  {"lv_name":"pool", "lv_size":"104857600", "pool_lv":"", "thin_id":""},
                  {"lv_name":"vm-1", "lv_size":"1048576", "pool_lv":"pool", "thin_id":"1"},
                  {"lv_name":"plain", "lv_size":"1048576", "pool_lv":"", "thin_id":""}
              ]
          }
      ]
  }
`

func TestReport(t *testing.T) {
	all, err := parseReport([]byte(report), "vg-0")
	if err != nil || len(all) != 4 || all[2] != (Volume{Group: "vg-0", Name: "vm-1", Size: 1 << 20, Pool: "pool", thinID: 1}) {
		t.Errorf("%+v %v", all, err)
	}
	for _, bad := range []string{"", "nonsense", strings.Replace(report, `"104857600"`, `"100m"`, 1), strings.Replace(report, `"thin_id":"1"`, `"thin_id":""`, 1)} {
		if all, err := parseReport([]byte(bad), "vg"); err == nil {
			t.Errorf("%q: %+v", bad, all)
		}
	}
	if got := mapper("vg-0", "the-pool"); got != "vg--0-the--pool" {
		t.Error(got)
	}
}

// fakeLVM puts programs into the place of LVM's that note how they are called;
// thin_delta is the real one, upon real metadata.
func fakeLVM(t *testing.T) (calls func() []string) {
	t.Helper()
	disktest.Need(t, "thin_delta", "thin_restore")
	real, err := exec.LookPath("thin_delta")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	log, lvs, meta := filepath.Join(dir, "log"), filepath.Join(dir, "report"), filepath.Join(dir, "meta")
	for path, text := range map[string]string{lvs: report, filepath.Join(dir, "xml"): metadata, log: ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(meta, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	disktest.Run(t, "thin_restore", "-i", filepath.Join(dir, "xml"), "-o", meta)
	note := "#!/bin/sh\necho \"${0##*/} $*\" >> " + log + "\n"
	for program, script := range map[string]string{
		"lvs":      note + "[ \"$8\" = vg-0 ] || { echo '  Volume group \"none\" not found' >&2; exit 5; }\ncat " + lvs,
		"lvremove": note,
		"dmsetup":  note,
		// The snapshot appears in the report, as volume 2.
		"lvcreate": note + `sed -i "s|{\"lv_name\":\"plain\"|{\"lv_name\":\"${9}\", \"lv_size\":\"1048576\", \"pool_lv\":\"pool\", \"thin_id\":\"2\"},\n&|" ` + lvs,
		// Files have no metadata snapshot.
		"thin_delta": note + "shift; exec " + real + " \"$1\" \"$2\" \"$3\" \"$4\" " + meta,
	} {
		if err := os.WriteFile(filepath.Join(dir, program), []byte(script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() []string {
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
}

func TestSequence(t *testing.T) {
	calls := fakeLVM(t)
	ctx := context.Background()
	for source, want := range map[string]problem.Code{
		"lvm:vg-0/plain": problem.SourceNotSupported,
		"lvm:vg-0/none":  problem.SourceNotFound,
		"lvm:none/vm-1":  problem.SourceNotFound,
		"lvm:vg-0":       problem.InvalidArgument,
		"lvm:vg-0/--x":   problem.InvalidArgument,
		"lvm:a/b/c":      problem.InvalidArgument,
	} {
		if v, err := Open(ctx, source); !problem.Is(err, want) {
			t.Errorf("%s: %+v %v", source, v, err)
		}
	}
	v, err := Open(ctx, "lvm:vg-0/vm-1")
	if err != nil || v.String() != "lvm:vg-0/vm-1" || v.Path() != "/dev/vg-0/vm-1" {
		t.Fatalf("%+v %v", v, err)
	}
	s, err := v.Snapshot(ctx, "owner")
	if err != nil || s.thinID != 2 || s.Size != 1<<20 {
		t.Fatalf("%+v %v", s, err)
	}
	if all, err := v.Snapshots(ctx, "owner"); err != nil || len(all) != 1 || all[0] != s {
		t.Errorf("%+v %v", all, err)
	}
	if all, err := v.Snapshots(ctx, "another"); err != nil || len(all) != 0 {
		t.Errorf("%+v %v", all, err)
	}
	got, err := v.Diff(ctx, s, v)
	if err != nil || !got.Equal(changed) {
		t.Errorf("%v %v", got, err)
	}
	if err := v.Remove(ctx, s.Name); err != nil {
		t.Error(err)
	}
	if err := v.Remove(ctx, "vm-1"); err == nil {
		t.Error("a volume that is not ours is removed")
	}
	var want []string
	for _, line := range calls() {
		if !strings.HasPrefix(line, "lvs ") {
			want = append(want, strings.ReplaceAll(line, s.Name, "SNAP"))
		}
	}
	if got := strings.Join(want, "\n"); got != `lvcreate --snapshot --permission r --setactivationskip n --activate y --name SNAP vg-0/vm-1
dmsetup message vg--0-pool-tpool 0 reserve_metadata_snap
thin_delta --metadata-snap --snap1 2 --snap2 1 /dev/mapper/vg--0-pool_tmeta
dmsetup message vg--0-pool-tpool 0 release_metadata_snap
lvremove --yes vg-0/SNAP` {
		t.Errorf("called:\n%s", got)
	}
}
