package blockdev

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Mount is a file system in the mount table of this process.
type Mount struct {
	Source     string `json:"source"`     // what is mounted, as given to mount(2)
	Dir        string `json:"dir"`        // where
	FileSystem string `json:"fileSystem"` // its kind, such as "ext4"
	ReadOnly   bool   `json:"readOnly"`   // the file system as a whole writes nothing
	id         string // number of the mount
	number     string // major:minor of its files
}

// Mounts reads the mount table.
func (k Kernel) Mounts() ([]Mount, error) {
	text, err := os.ReadFile(k.proc("self/mountinfo"))
	if err != nil {
		return nil, err
	}
	return parseMounts(string(text))
}

// parseMounts reads lines such as
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//
// where the fields before the dash vary in number.
func parseMounts(text string) ([]Mount, error) {
	var mounts []Mount
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 2 {
			return nil, fmt.Errorf("the mount table has a line of an unknown form: %q", line)
		}
		m := Mount{Source: unescape(g[1]), Dir: unescape(f[4]), FileSystem: g[0], id: f[0], number: f[2]}
		if len(g) > 2 {
			m.ReadOnly = hasOption(g[2], "ro")
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

func hasOption(list, option string) bool {
	for o := range strings.SplitSeq(list, ",") {
		if o == option {
			return true
		}
	}
	return false
}

// unescape turns \040 and its like back into the characters that the kernel
// writes so.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }

// Mounts are the file systems on this device or on one above it.
func (d Device) Mounts() ([]Mount, error) {
	all, err := d.kernel.Mounts()
	if err != nil {
		return nil, err
	}
	names, numbers := map[string]bool{}, map[string]bool{}
	for _, at := range append([]Device{d}, d.Above()...) {
		names[at.Name] = true
		numbers[at.Attribute("dev")] = true
		for _, s := range d.kernel.btrfsSiblings(at) {
			// The mount table names one member of a btrfs only.
			names[s.Name] = true
		}
	}
	var out []Mount
	for _, m := range all {
		on := numbers[m.number]
		if !on && strings.HasPrefix(m.Source, "/") {
			if source, err := d.kernel.ByPath(m.Source); err == nil {
				on = names[source.Name]
			}
		}
		if on {
			out = append(out, m)
		}
	}
	return out, nil
}

// Swaps are the paths of devices and files that the kernel swaps to.
func (k Kernel) Swaps() ([]string, error) {
	text, err := os.ReadFile(k.proc("swaps"))
	if err != nil {
		return nil, err
	}
	var out []string
	first := true
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); !first && len(f) > 0 {
			out = append(out, unescape(f[0]))
		}
		first = false // the heading
	}
	return out, nil
}

// Swap tells whether the kernel swaps to this device or to one above it.
func (d Device) Swap() bool {
	swaps, err := d.kernel.Swaps()
	if err != nil {
		return false
	}
	mine := map[string]bool{}
	for _, at := range append([]Device{d}, d.Above()...) {
		mine[at.Name] = true
	}
	for _, path := range swaps {
		if on, err := d.kernel.ByPath(path); err == nil && mine[on.Name] {
			return true
		}
	}
	return false
}

// SwapFile tells whether the kernel swaps to the file at path.
func (k Kernel) SwapFile(path string) bool {
	swaps, _ := k.Swaps()
	want, err := os.Stat(path)
	if err != nil {
		return false
	}
	for _, s := range swaps {
		if have, err := os.Stat(s); err == nil && os.SameFile(want, have) {
			return true
		}
	}
	return filepath.IsAbs(path) && contains(swaps, path)
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}
