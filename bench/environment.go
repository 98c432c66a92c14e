package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// An environment is what figures depend on besides the programs' skill.
type environment struct {
	Time       time.Time `json:"time"`
	CPU        string    `json:"cpu"`
	Cores      int       `json:"cores"`
	Memory     int64     `json:"memory"` // bytes
	Kernel     string    `json:"kernel"`
	System     string    `json:"system"`
	FileSystem string    `json:"fileSystem"`
	Load       string    `json:"load"` // average over 1, 5 and 15 minutes, before the first row
	Versions   []string  `json:"versions"`
	// OwnPeak is this program's own peak memory in bytes: no figure for a
	// child's peak can be smaller. See measurement.PeakBytes.
	OwnPeak int64 `json:"ownPeak"`
}

func describe(ctx context.Context, work string, contestants []contestant) (environment, error) {
	e := environment{
		Time:       time.Now().UTC().Truncate(time.Second),
		CPU:        field("/proc/cpuinfo", "model name"),
		Cores:      runtime.NumCPU(),
		Kernel:     line("/proc/sys/kernel/osrelease"),
		System:     strings.Trim(field("/etc/os-release", "PRETTY_NAME"), `"`),
		FileSystem: fileSystem(work),
		Load:       line("/proc/loadavg"),
	}
	if fields := strings.Fields(e.Load); len(fields) > 3 {
		e.Load = strings.Join(fields[:3], " ")
	}
	fmt.Sscanf(field("/proc/meminfo", "MemTotal"), "%d", &e.Memory)
	e.Memory <<= 10
	seen := map[string]bool{}
	for _, c := range contestants {
		version, err := c.version(ctx)
		if err != nil {
			return e, err
		}
		if !seen[version] {
			e.Versions = append(e.Versions, version)
		}
		seen[version] = true
	}
	return e, nil
}

// field is the value of the first line "name: value" or "name=value" of a file.
func field(path, name string) string {
	text, _ := os.ReadFile(path)
	for l := range strings.Lines(string(text)) {
		if i := strings.IndexAny(l, ":="); i >= 0 && strings.TrimSpace(l[:i]) == name {
			return strings.TrimSpace(l[i+1:])
		}
	}
	return "unknown"
}

func line(path string) string {
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(string(text))
}

// fileSystem is the type of the file system that holds the folder.
func fileSystem(folder string) string {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return "unknown"
	}
	best, kind := "", "unknown"
	for l := range strings.Lines(line("/proc/self/mounts")) {
		f := strings.Fields(l)
		if len(f) < 3 {
			continue
		}
		point := strings.TrimSuffix(f[1], "/")
		if strings.HasPrefix(folder+"/", point+"/") && len(point) >= len(best) {
			best, kind = point, f[2]
		}
	}
	return kind
}

// ownPeak is the peak memory of this program until now, in bytes.
func ownPeak() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return usage.Maxrss << 10
}

// freeBytes is the space that an ordinary user may still fill.
func freeBytes(folder string) (int64, error) {
	var st syscall.Statfs_t
	err := syscall.Statfs(folder, &st)
	return int64(st.Bavail) * st.Bsize, err
}
