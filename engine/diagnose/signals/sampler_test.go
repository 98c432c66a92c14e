package signals

import (
	"context"
	"crypto/rand"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/meter"
)

// tree writes files below a folder.
func tree(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// What a kernel told at one moment, and ten seconds later.
var before = map[string]string{
	"proc/diskstats": "   8       0 sda 1000 0 80000 4000 500 0 40000 9000 0 7000 13000 0 0 0 0 10 200\n   8      16 sdb 1 0 8 1 1 0 8 1 0 1 2 0 0 0 0 0 0\n",
	"proc/self/io":   "rchar: 1\nread_bytes: 1000000\nwrite_bytes: 0\n",
	"proc/stat":      "cpu  1000 0 500 8000 100 0 0 50 0 0\ncpu0 1 2 3 4\n",
	"proc/self/stat": "17 (disk (x) vault) S 1 17 17 0 -1 4194304 0 0 0 0 700 300 0 0 20 0 1 0 100 1000 10",
	"proc/vmstat":    "pswpin 10\nworkingset_refault_file 1000\noom_kill 3\nnr_free_pages 5\n",
	"proc/cpuinfo":   "processor\t: 0\nflags\t\t: fpu aes pclmulqdq avx2 hypervisor\n",

	"proc/pressure/cpu":    "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
	"proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=2000000\n",
	// no pressure/io: an older kernel

	"proc/self/cgroup":                        "0::/job.slice\n",
	"sys/fs/cgroup/job.slice/cpu.stat":        "usage_usec 5\nnr_periods 100\nnr_throttled 10\nthrottled_usec 1000000\n",
	"sys/block/sda/queue/rotational":          "1\n",
	"sys/block/sda/slaves/md0/x":              "",
	"sys/block/md0/md/sync_action":            "resync\n",
	"sys/block/md0/md/degraded":               "1\n",
	"proc/net/route":                          "Iface\tDestination\tGateway\neth9\t000200C0\t0\neth0\t00000000\t010200C0\n",
	"sys/class/net/eth0/speed":                "1000\n",
	"sys/class/net/eth0/duplex":               "full\n",
	"sys/class/net/eth0/carrier_changes":      "2\n",
	"sys/class/net/eth0/statistics/tx_bytes":  "0\n",
	"sys/class/net/eth0/statistics/tx_errors": "5\n",
	"sys/class/net/eth0/statistics/rx_errors": "0\n",
}

var after = map[string]string{
	// 400 reads of 256 KiB in 4 s of waiting; 100 writes; 20 flushes of 30 ms.
	"proc/diskstats":                          "   8       0 sda 1400 0 284800 8000 600 0 60480 10000 0 12000 23000 0 0 0 0 30 800\n   8      16 sdb 1 0 8 1 1 0 8 1 0 1 2 0 0 0 0 0 0\n",
	"proc/self/io":                            "rchar: 1\nread_bytes: 53428800\nwrite_bytes: 0\n",
	"proc/stat":                               "cpu  1400 0 700 8300 100 0 0 150 0 0\ncpu0 1 2 3 4\n",
	"proc/self/stat":                          "17 (disk (x) vault) S 1 17 17 0 -1 4194304 0 0 0 0 900 400 0 0 20 0 1 0 100 1000 10",
	"proc/vmstat":                             "pswpin 2570\nworkingset_refault_file 500\noom_kill 4\n",
	"proc/pressure/cpu":                       "some avg10=0.00 avg60=0.00 avg300=0.00 total=5000000\n",
	"proc/pressure/memory":                    "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\n",
	"sys/fs/cgroup/job.slice/cpu.stat":        "usage_usec 5\nnr_periods 200\nnr_throttled 60\nthrottled_usec 3500000\n",
	"sys/class/net/eth0/carrier_changes":      "3\n",
	"sys/class/net/eth0/statistics/tx_bytes":  "1125000000\n",
	"sys/class/net/eth0/statistics/tx_errors": "9\n",
}

func recorded(t *testing.T) (map[string]float64, map[string]string) {
	root := t.TempDir()
	tree(t, root, before)
	s := New(Options{Root: root, Source: "sda", Store: "sdc", Remote: true})
	now := time.Now()
	s.Sample(now)
	tree(t, root, after)
	s.Sample(now.Add(10 * time.Second))
	return s.Signals()
}

func TestRecordedTexts(t *testing.T) {
	have, absent := recorded(t)
	for name, want := range map[string]float64{
		"D.src.rAwaitMs": 10, "D.src.rSizeBytes": 262144, "D.src.depth": 1, "D.src.busy": 0.5, "D.src.rotational": 1,
		"D.src.bytesPerSecond": (104857600 + 10485760) / 10.0, "D.src.othersShare": 1 - 52428800.0/(104857600+10485760),
		"H.cpu.busy": 0.7, "H.cpu.steal": 0.1, "H.cpu.throttled": 0.25, "H.cpu.pressure": 0.4,
		"H.cpu.aes": 1, "H.cpu.vector": 1, "H.cpu.virtual": 1,
		"H.mem.pressureFull": 0.05, "H.mem.swapInBytes": 2560 * float64(os.Getpagesize()) / 10, "H.mem.refaultBytes": 0, "H.mem.oomKills": 1,
		"X.md.active": 1, "X.md.degraded": 1,
		"N.if.speed": 125e6, "N.if.txShare": 0.9, "N.if.halfDuplex": 0, "N.if.errors": 4, "N.if.carrierChanges": 1,
	} {
		got, ok := have[name]
		if !ok || math.Abs(got-want) > 1e-6*math.Max(1, want) {
			t.Errorf("%s: %v (%v), want %v", name, got, absent[name], want)
		}
	}
	if own := have["H.cpu.own"] * have["H.cpu.cores"]; math.Abs(own-0.3) > 1e-6 {
		t.Errorf("our processor time: %v", own)
	}
	for name, why := range map[string]string{
		"D.dst.wAwaitMs": "the device sdc is not in /proc/diskstats", "H.psi.ioSome": "this kernel or container does not tell",
		"R.freeShare": "the store is not a folder of this host", "H.cpu.frequency": "this machine does not tell",
	} {
		if absent[name] != why {
			t.Errorf("%s is absent because %q", name, absent[name])
		}
	}
	for name := range have {
		if _, ok := absent[name]; ok {
			t.Errorf("%s is there and absent", name)
		}
	}
}

func TestMaintenance(t *testing.T) {
	root := t.TempDir()
	tree(t, root, before)
	n := 0
	s := New(Options{Root: root, Store: "sda", Maintenance: func() Maintenance {
		n++
		return Maintenance{Running: n > 1, Verify: n == 2, Rate: float64(n-1) * 1e6}
	}})
	now := time.Now()
	s.Sample(now)
	s.Sample(now.Add(5 * time.Second))
	tree(t, root, after)
	s.Sample(now.Add(10 * time.Second))
	have, _ := s.Signals()
	disk := (104857600 + 10485760) / 10.0
	for name, want := range map[string]float64{"R.maintenance.timeShare": 2.0 / 3, "R.maintenance.bytes": 1e6, "R.maintenance.ioShare": 1e6 / disk, "R.maintenance.verify": 1} {
		if math.Abs(have[name]-want) > 1e-6*want {
			t.Errorf("%s: %v, want %v", name, have[name], want)
		}
	}
}

// A device that was made anew starts from zero: no time runs backwards.
func TestCountersThatGoBack(t *testing.T) {
	root := t.TempDir()
	tree(t, root, after)
	s := New(Options{Root: root, Source: "sda"})
	now := time.Now()
	s.Sample(now)
	tree(t, root, before)
	s.Sample(now.Add(10 * time.Second))
	signals, _ := s.Signals()
	for name, v := range signals {
		if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
			t.Errorf("%s: %v", name, v)
		}
	}
	if signals["D.src.bytesPerSecond"] != 0 {
		t.Errorf("%v", signals["D.src.bytesPerSecond"])
	}
}

// Whatever is in the files, the sampler lives, also without any of them.
func TestBrokenAndMissingFiles(t *testing.T) {
	for _, text := range []string{"", "\n", "cpu", "cpu  -1 x y", "a b c d e f g h i j k l m n o p", "0::/\n:::", ")", "some total="} {
		root := t.TempDir()
		files := map[string]string{}
		for name := range before {
			if text != "" {
				files[name] = text
			}
		}
		tree(t, root, files)
		s := New(Options{Root: root, Source: "sda", Store: "sda", Remote: true})
		for i := range 3 {
			s.Sample(time.Unix(int64(i), 0))
		}
		signals, _ := s.Signals()
		for name, v := range signals {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				t.Errorf("%q: %s is %v", text, name, v)
			}
		}
	}
}

// On this machine: real writes and a real connection show.
func TestThisMachine(t *testing.T) {
	dir := t.TempDir()
	device := Device(dir)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				buffer := make([]byte, 1<<20)
				for {
					if _, err := c.Read(buffer); err != nil {
						return
					}
				}
			}()
		}
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	s := New(Options{Source: device, Store: device, Folder: dir, Remote: true})
	data := make([]byte, 4<<20)
	rand.Read(data)
	for i := range 4 {
		if _, err := conn.Write(data); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(filepath.Join(dir, "file"+string(rune('a'+i))))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		f.Close()
		s.Sample(time.Now())
		time.Sleep(50 * time.Millisecond)
	}
	signals, absent := s.Signals()
	for _, name := range []string{"H.cpu.busy", "H.cpu.own", "H.cpu.cores", "R.freeShare", "N.tcp.rttMs", "N.tcp.retransShare", "H.mem.swapInBytes"} {
		if _, ok := signals[name]; !ok {
			t.Errorf("%s: %s", name, absent[name])
		}
	}
	if v := signals["R.freeShare"]; v <= 0 || v > 1 {
		t.Errorf("free: %v", v)
	}
	if device != "" {
		if v := signals["D.dst.bytesPerSecond"]; v < 1<<20 {
			t.Errorf("16 MB were flushed to %s, yet %v B/s: %s", device, v, absent["D.dst.bytesPerSecond"])
		}
	}
	for name, v := range signals {
		if strings.HasSuffix(name, "hare") && (v < 0 || v > 1) {
			t.Errorf("%s: %v", name, v)
		}
	}
}

func TestDevice(t *testing.T) {
	if d := Device("/proc/self"); d != "" {
		t.Errorf("proc lies on %s", d)
	}
	if d := Device("/does/not/exist"); d != "" {
		t.Errorf("nothing lies on %s", d)
	}
}

func TestWatchWritesIntoTheRecord(t *testing.T) {
	m := meter.New("transfer")
	stop := Watch(context.Background(), Options{Folder: t.TempDir()}, m)
	time.Sleep(100 * time.Millisecond)
	stop()
	r := m.Record()
	if _, ok := r.Signals["H.cpu.busy"]; !ok || r.Absent["D.src.rAwaitMs"] == "" {
		t.Errorf("%v %v", r.Signals, r.Absent)
	}
}

// What a look costs; there is one each second.
func BenchmarkSample(b *testing.B) {
	s := New(Options{Source: Device("/"), Store: Device("/"), Folder: "/", Remote: true})
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		s.Sample(now)
	}
}
