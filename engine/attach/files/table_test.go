package files

import (
	"os"
	"os/exec"
	"sort"
	"strconv"
	"strings"
	"testing"
)

// TestPartitions compares tables with what sfdisk says of them.
func TestPartitions(t *testing.T) {
	needs(t, false, "sfdisk", "mkfs.vfat", "mkswap")
	for name, script := range map[string]string{
		"gpt":         "label: gpt\nsize=10MiB, name=\"first part\"\nsize=20MiB, type=swap\nsize=5MiB\n",
		"mbr":         "label: dos\nsize=10MiB, type=c, bootable\nsize=20MiB, type=82\nsize=60MiB, type=5\nsize=5MiB\nsize=6MiB\nsize=7MiB\n",
		"gpt no head": "label: gpt\nsize=10MiB\nsize=20MiB\n",
	} {
		t.Run(name, func(t *testing.T) {
			image := blank(t, 128<<20)
			cmd := exec.Command("sfdisk", "-q", image)
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("sfdisk: %v\n%s", err, out)
			}
			tool(t, "mkfs.vfat", "--offset=2048", image, "10240")
			swap := blank(t, 1<<20)
			tool(t, "mkswap", swap)
			tool(t, "dd", "if="+swap, "of="+image, "bs=1M", "seek=11", "conv=notrunc", "status=none")
			f, err := os.OpenFile(image, os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			var want []string
			for _, line := range strings.Split(tool(t, "sfdisk", "-q", "-l", "-o", "Device,Start,Sectors,Type", "--bytes", image), "\n") {
				if w := strings.Fields(strings.ReplaceAll(line, "*", "")); len(w) > 3 && w[0] != "Device" && !strings.Contains(line, "Extended") {
					want = append(want, w[0][strings.LastIndex(w[0], "img")+3:]+" "+w[1]+" "+w[2])
				}
			}
			if name == "gpt no head" {
				_, err := f.WriteAt(make([]byte, 512), 512) // the copy at the end must do
				must(t, err)
			}
			all, err := Volumes(t.Context(), f, 128<<20)
			must(t, err)
			var got []string
			for _, v := range all {
				got = append(got, strings.TrimPrefix(v.Name, "p")+" "+strconv.FormatInt(v.Offset/512, 10)+" "+strconv.FormatInt(v.Size/512, 10))
			}
			sort.Strings(want)
			sort.Strings(got)
			if len(want) < 2 || strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if all[0].Kind != "vfat" || all[0].Note != "" || name == "gpt" && all[0].Title != "first part" {
				t.Errorf("first volume: %+v", all[0])
			}
			if all[1].Kind != "swap" || all[1].Note == "" {
				t.Errorf("second volume: %+v", all[1])
			}
		})
	}
}
