package signals

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
)

// ticks a second in which /proc counts processor time: fixed for user space.
const ticks = 100

func (s *Sampler) processors(c map[string]float64) {
	if text, ok := s.read("proc/stat", "H.cpu.busy", "H.cpu.steal"); ok {
		f := strings.Fields(strings.SplitN(text, "\n", 2)[0])
		var sum float64
		for i := 1; i < len(f) && i <= 8; i++ { // guests are counted in user already
			sum += number(f[i])
		}
		if len(f) > 8 {
			c["cpu.all"], c["cpu.idle"], c["cpu.steal"] = sum, number(f[4])+number(f[5]), number(f[8])
		}
	}
	if text, ok := s.read("proc/self/stat", "H.cpu.own"); ok {
		// The name of the process may contain anything but ends with the last ")".
		f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(f) > 12 {
			c["cpu.own"] = number(f[11]) + number(f[12])
		}
	}
	s.quota(c)
	s.clocks(c)
}

// quota is what the control group allows and took away.
func (s *Sampler) quota(c map[string]float64) {
	s.now["H.cpu.cores"] = float64(runtime.GOMAXPROCS(0))
	path, ok := s.group("cpu")
	if !ok {
		s.missing("no control group of processors is visible", "H.cpu.throttled")
		return
	}
	text, ok := s.read(filepath.Join(path, "cpu.stat"), "H.cpu.throttled")
	if !ok {
		return
	}
	found := false
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[0] == "throttled_usec":
			c["cpu.throttled"], found = number(f[1])/1e6, true
		case len(f) == 2 && f[0] == "throttled_time": // version 1
			c["cpu.throttled"], found = number(f[1])/1e9, true
		}
	}
	if !found {
		s.missing("the control group has no quota", "H.cpu.throttled")
	}
}

// group gives the folder of our control group of a controller: of version 2, or
// of version 1.
func (s *Sampler) group(controller string) (string, bool) {
	text, err := os.ReadFile(s.path("proc/self/cgroup"))
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		var folders []string
		switch {
		case f[1] == "":
			folders = []string{filepath.Join("sys/fs/cgroup", f[2]), "sys/fs/cgroup"}
		case strings.Contains(","+f[1]+",", ","+controller+","):
			folders = []string{filepath.Join("sys/fs/cgroup", f[1], f[2]), filepath.Join("sys/fs/cgroup", controller, f[2]), filepath.Join("sys/fs/cgroup", controller)}
		}
		for _, folder := range folders { // in a container its own group is the root
			if _, err := os.Stat(s.path(folder, controller+".stat")); err == nil {
				return folder, true
			}
		}
	}
	return "", false
}

// clocks are the frequency of the processors, and how often heat lowered it.
func (s *Sampler) clocks(c map[string]float64) {
	folders, _ := filepath.Glob(s.path("sys/devices/system/cpu/cpu[0-9]*"))
	var part, n, hot float64
	throttles := false
	for _, f := range folders {
		now, err1 := os.ReadFile(filepath.Join(f, "cpufreq/scaling_cur_freq"))
		top, err2 := os.ReadFile(filepath.Join(f, "cpufreq/cpuinfo_max_freq"))
		if err1 == nil && err2 == nil && number(string(top)) > 0 {
			part, n = part+number(string(now))/number(string(top)), n+1
		}
		if v, err := os.ReadFile(filepath.Join(f, "thermal_throttle/core_throttle_count")); err == nil {
			hot, throttles = hot+number(string(v)), true
		}
	}
	if n > 0 {
		s.mean("H.cpu.frequency", part/n)
	} else {
		s.missing("this machine does not tell", "H.cpu.frequency")
	}
	if throttles {
		c["cpu.hot"] = hot
	} else {
		s.missing("this machine does not tell", "H.cpu.overheated")
	}
}

// features are what the processor can do.
func (s *Sampler) features() {
	text, ok := s.read("proc/cpuinfo", "H.cpu.aes", "H.cpu.vector", "H.cpu.virtual")
	if !ok {
		return
	}
	flags := map[string]bool{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		if n := strings.TrimSpace(name); n == "flags" || n == "Features" {
			for _, f := range strings.Fields(value) {
				flags[f] = true
			}
			break
		}
	}
	if len(flags) == 0 {
		s.missing("this machine does not tell", "H.cpu.aes", "H.cpu.vector", "H.cpu.virtual")
		return
	}
	is := func(name string, v bool) {
		s.now[name] = 0
		if v {
			s.now[name] = 1
		}
	}
	is("H.cpu.aes", flags["aes"] && (flags["pclmulqdq"] || flags["pmull"]))
	is("H.cpu.vector", flags["avx2"] || flags["sse4_1"] || flags["asimd"])
	is("H.cpu.virtual", flags["hypervisor"])
}

// runtimeNames are what the program's own memory management tells.
var runtimeNames = []string{"/cpu/classes/gc/total:cpu-seconds", "/cpu/classes/total:cpu-seconds", "/cpu/classes/idle:cpu-seconds", "/memory/classes/heap/objects:bytes"}

func (s *Sampler) memory(c map[string]float64) {
	names := []string{"H.mem.swapInBytes", "H.mem.refaultBytes", "H.mem.oomKills"}
	if text, ok := s.read("proc/vmstat", names...); ok {
		page := float64(os.Getpagesize())
		for line := range strings.Lines(text) {
			name, v, _ := strings.Cut(line, " ")
			switch name {
			case "pswpin":
				c["mem.swapIn"] = page * number(v)
			case "workingset_refault_file":
				c["mem.refault"] = page * number(v)
			case "oom_kill":
				c["mem.oom"] = number(v)
			}
		}
	}
	samples := make([]metrics.Sample, len(runtimeNames))
	for i, n := range runtimeNames {
		samples[i].Name = n
	}
	metrics.Read(samples)
	if samples[0].Value.Kind() == metrics.KindFloat64 {
		c["gc.time"] = samples[0].Value.Float64()
		c["gc.all"] = samples[1].Value.Float64() - samples[2].Value.Float64()
	}
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 && samples[3].Value.Kind() == metrics.KindUint64 {
		s.now["H.mem.heapShare"] = float64(samples[3].Value.Uint64()) / float64(limit)
	} else {
		s.missing("the heap has no limit", "H.mem.heapShare")
	}
}

// pressure reads the kernel's totals of time in which work stood still.
func (s *Sampler) pressure(c map[string]float64) {
	for _, p := range []struct{ file, line, counter, signal string }{
		{"cpu", "some", "psi.cpu", "H.cpu.pressure"},
		{"io", "some", "psi.io", "H.psi.ioSome"},
		{"memory", "full", "psi.memory", "H.mem.pressureFull"},
	} {
		text, ok := s.read("proc/pressure/"+p.file, p.signal)
		if !ok {
			continue
		}
		for line := range strings.Lines(text) {
			if kind, rest, _ := strings.Cut(line, " "); kind == p.line {
				if _, v, ok := strings.Cut(rest, "total="); ok {
					us, _ := strconv.ParseFloat(strings.TrimSpace(v), 64)
					c[p.counter] = us / 1e6
				}
			}
		}
	}
}

func (s *Sampler) hostSignals(out map[string]float64) {
	known := func(counter string) bool { _, ok := s.before[counter]; return ok }
	g := s.grown
	if all := g["cpu.all"]; all > 0 {
		out["H.cpu.busy"], out["H.cpu.steal"] = share(all-g["cpu.idle"], all), share(g["cpu.steal"], all)
		if known("cpu.own") {
			out["H.cpu.own"] = share(g["cpu.own"]/ticks, s.wall*max(1, s.now["H.cpu.cores"]))
		}
	}
	for counter, name := range map[string]string{"cpu.throttled": "H.cpu.throttled", "psi.cpu": "H.cpu.pressure", "psi.io": "H.psi.ioSome", "psi.memory": "H.mem.pressureFull"} {
		if known(counter) {
			out[name] = share(g[counter], s.wall)
		}
	}
	for counter, name := range map[string]string{"mem.swapIn": "H.mem.swapInBytes", "mem.refault": "H.mem.refaultBytes"} {
		if known(counter) {
			out[name] = g[counter] / s.wall
		}
	}
	for counter, name := range map[string]string{"mem.oom": "H.mem.oomKills", "cpu.hot": "H.cpu.overheated"} {
		if known(counter) {
			out[name] = g[counter]
		}
	}
	if g["gc.all"] > 0 {
		out["H.mem.gcShare"] = share(g["gc.time"], g["gc.all"])
	} else {
		s.missing("no garbage was collected meanwhile", "H.mem.gcShare")
	}
}
