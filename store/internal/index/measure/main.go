// Command measure loads an index with random entries and says how fast it
// opens and answers, and in how much memory:
//
//	go run ./store/internal/index/measure -entries 10000000 -dir /tmp/index
//
// Each measurement runs in a process of its own, so that its peak memory is its
// own too. The folder is removed at the end unless -keep is given; a folder
// that was kept is used again.
package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/index"
	"github.com/diskvault/diskvault/store/internal/pack"
)

var (
	entries = flag.Uint64("entries", 10_000_000, "entries of the index")
	perPack = flag.Uint64("per-pack", 1000, "entries of a pack")
	dir     = flag.String("dir", "", "folder of the index; made if missing")
	keep    = flag.Bool("keep", false, "leave the folder")
	memory  = flag.Int64("memory", index.DefaultMemory, "memory budget of the index, in bytes")
	limit   = flag.Int64("limit", 0, "memory limit of the Go runtime, in bytes; 0 for none")
	seconds = flag.Float64("seconds", 5, "time of each measurement")
	phase   = flag.String("phase", "", "one measurement: load, filter, open, absent, present, add")
	threads = flag.Int("threads", 1, "parallel look-ups")
	cold    = flag.Bool("cold", false, "drop the index from the page cache first")
)

func main() {
	flag.Parse()
	if *dir == "" {
		fmt.Fprintln(os.Stderr, "measure: -dir is required")
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

func run() error {
	if *limit > 0 {
		debug.SetMemoryLimit(*limit)
	}
	switch *phase {
	case "":
		return all()
	case "load":
		return measured(load)
	case "filter":
		return measured(filter)
	case "open":
		return measured(open)
	case "absent":
		return measured(func() error { return lookUp(false) })
	case "present":
		return measured(func() error { return lookUp(true) })
	case "add":
		return measured(add)
	}
	return fmt.Errorf("no phase %q", *phase)
}

// all runs the measurements one after another.
func all() error {
	if _, err := os.Stat(*dir); err != nil {
		if err := again("-phase=load"); err != nil {
			return err
		}
	}
	if !*keep {
		defer os.RemoveAll(*dir)
	}
	for _, args := range [][]string{
		{"-phase=open", "-cold"},
		{"-phase=open"},
		{"-phase=absent", "-cold"},
		{"-phase=absent", "-cold", "-threads=2"},
		{"-phase=absent", "-cold", "-threads=8"},
		{"-phase=present", "-cold"},
		{"-phase=present", "-cold", "-threads=8"},
		{"-phase=absent"},
		{"-phase=absent", "-threads=2"},
		{"-phase=present"},
		{"-phase=present", "-threads=2"},
		{"-phase=add"},
		{"-phase=filter"},
	} {
		if err := again(args...); err != nil {
			return err
		}
	}
	return nil
}

func again(args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.Command(self, append(os.Args[1:len(os.Args):len(os.Args)], args...)...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	return c.Run()
}

// measured runs one measurement and adds the memory that it took.
func measured(f func() error) error {
	stop, peak := make(chan struct{}), make(chan int)
	go func() {
		most := 0
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			most = max(most, status("RssAnon:"))
			select {
			case <-stop:
				peak <- most
				return
			case <-tick.C:
			}
		}
	}()
	name := *phase
	if *cold {
		name += " cold"
		if err := dropCache(); err != nil {
			return err
		}
	}
	fmt.Printf("%-13s %d threads: ", name, *threads)
	if err := f(); err != nil {
		return err
	}
	close(stop)
	fmt.Printf("; peak memory %d MiB, %d MiB of it anonymous\n", status("VmHWM:")>>10, <-peak>>10)
	return nil
}

// status gives a number of KiB from /proc/self/status.
func status(field string) (n int) {
	text, _ := os.ReadFile("/proc/self/status")
	if _, rest, ok := strings.Cut(string(text), field); ok {
		fmt.Sscan(rest, &n)
	}
	return n
}

// hash gives the hash of entry n: random, and the same each time.
func hash(n uint64) (h block.Hash) {
	for i := 0; i < len(h); i += 8 {
		n += 0x9e3779b97f4a7c15
		z := n
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		binary.LittleEndian.PutUint64(h[i:], z)
		n ^= z << 7
	}
	return h
}

func packOf(n uint64) (id pack.ID) {
	h := hash(n | 1<<60)
	copy(id[:], h[:])
	return id
}

func entriesOf(p, per uint64, into []index.Entry) []index.Entry {
	into = into[:0]
	for n := p * per; n < (p+1)*per; n++ {
		slot := n % 16
		into = append(into, index.Entry{Hash: hash(n), Offset: uint32(n % per / 16 * 500_000), Length: 500_000, Slot: uint8(slot)})
	}
	return into
}

func openIndex() (*index.Index, error) {
	return index.Open(*dir, index.Options{Store: "measure", MemoryBytes: *memory})
}

func load() error {
	x, err := openIndex()
	if err != nil {
		return err
	}
	defer x.Close()
	begin := time.Now()
	l, err := x.Load()
	if err != nil {
		return err
	}
	defer l.Close()
	var some []index.Entry
	for p := range *entries / *perPack {
		some = entriesOf(p, *perPack, some)
		if err := l.Add(packOf(p), some); err != nil {
			return err
		}
	}
	sorted := time.Since(begin)
	if err := l.Commit(context.Background()); err != nil {
		return err
	}
	took := time.Since(begin)
	_, size, err := residency()
	fmt.Printf("%d entries in %.1f s (%.1f s of it sorting), %.2f M/s, %.1f bytes an entry on disk, Len says %d",
		*entries, took.Seconds(), sorted.Seconds(), float64(*entries)/1e6/took.Seconds(), float64(size)/float64(*entries), x.Len())
	return err
}

// filter measures how long it takes to make the filter anew from the entries.
func filter() error {
	path := filepath.Join(*dir, "filter")
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	x, err := openIndex()
	if err != nil {
		return err
	}
	begin := time.Now()
	for {
		if _, err := os.Stat(path); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Printf("made anew in %.1f s at the lowest priority", time.Since(begin).Seconds())
	return x.Close()
}

func open() error {
	begin := time.Now()
	x, err := openIndex()
	if err != nil {
		return err
	}
	opened := time.Since(begin)
	if _, _, err := x.Lookup(hash(1 << 50)); err != nil {
		return err
	}
	first := time.Since(begin)
	fmt.Printf("open %.1f ms, first answer after %.1f ms", opened.Seconds()*1e3, first.Seconds()*1e3)
	return x.Close()
}

func lookUp(present bool) error {
	x, err := openIndex()
	if err != nil {
		return err
	}
	defer x.Close()
	type outcome struct {
		count int
		slow  []time.Duration
		err   error
	}
	outcomes := make([]outcome, *threads)
	begin := time.Now()
	end := begin.Add(time.Duration(*seconds * float64(time.Second)))
	var all sync.WaitGroup
	for g := range outcomes {
		all.Go(func() {
			o := &outcomes[g]
			r := rand.New(rand.NewPCG(uint64(begin.UnixNano()), uint64(g)))
			for {
				n := r.Uint64N(*entries / *perPack * *perPack)
				if !present {
					n += 1 << 50
				}
				h := hash(n)
				t := time.Now()
				if t.After(end) {
					return
				}
				_, ok, err := x.Lookup(h)
				if err != nil || ok != present {
					o.err = fmt.Errorf("block %d: %v, %v", n, ok, err)
					return
				}
				if o.count%16 == 0 {
					o.slow = append(o.slow, time.Since(t))
				}
				o.count++
			}
		})
	}
	all.Wait()
	took := time.Since(begin)
	count, slow := 0, []time.Duration(nil)
	for _, o := range outcomes {
		if o.err != nil {
			return o.err
		}
		count += o.count
		slow = append(slow, o.slow...)
	}
	slices.Sort(slow)
	cached, size, err := residency()
	fmt.Printf("%d look-ups/s, p50 %v, p99 %v; %d %% of %d MiB in the page cache after it",
		int(float64(count)/took.Seconds()), slow[len(slow)/2], slow[len(slow)*99/100], cached*100/max(size, 1), size>>20)
	return err
}

// add measures the packs of new blocks that a backup adds, each after as many
// absent look-ups as it has blocks.
func add() error {
	x, err := openIndex()
	if err != nil {
		return err
	}
	defer x.Close()
	var use0, use1 unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &use0)
	var some []index.Entry
	begin := time.Now()
	count, longest := 0, time.Duration(0)
	base := uint64(1<<45) + uint64(begin.Unix())<<10
	for p := base; time.Since(begin).Seconds() < *seconds; p++ {
		some = entriesOf(p, *perPack, some)
		for i := range some {
			if _, ok, err := x.Lookup(some[i].Hash); err != nil || ok {
				return fmt.Errorf("a new block: %v, %v", ok, err)
			}
		}
		t := time.Now()
		if err := x.Add(packOf(p), some); err != nil {
			return err
		}
		longest = max(longest, time.Since(t))
		count += len(some)
	}
	took := time.Since(begin)
	unix.Getrusage(unix.RUSAGE_SELF, &use1)
	cpu := time.Duration(use1.Utime.Nano() + use1.Stime.Nano() - use0.Utime.Nano() - use0.Stime.Nano())
	fmt.Printf("%d new entries/s, looked up first; %.1f us of CPU each; longest Add %v",
		int(float64(count)/took.Seconds()), cpu.Seconds()*1e6/float64(count), longest.Round(time.Millisecond))
	return nil
}

// files calls f with each file of the index.
func files(f func(file *os.File, size int64) error) error {
	return filepath.WalkDir(*dir, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		return f(file, info.Size())
	})
}

func dropCache() error {
	return files(func(file *os.File, size int64) error {
		if err := file.Sync(); err != nil {
			return err
		}
		return unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}

// residency gives the bytes of the index in the page cache, and its size.
func residency() (cached, size int64, err error) {
	page := int64(os.Getpagesize())
	err = files(func(file *os.File, n int64) error {
		size += n
		if n == 0 {
			return nil
		}
		m, err := unix.Mmap(int(file.Fd()), 0, int(n), unix.PROT_NONE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		defer unix.Munmap(m)
		pages := make([]byte, (n+page-1)/page)
		if err := mincore(m, pages); err != nil {
			return err
		}
		for _, p := range pages {
			cached += int64(p&1) * page
		}
		return nil
	})
	return cached, size, err
}

func mincore(m, pages []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, addr(m), uintptr(len(m)), addr(pages))
	if errno != 0 {
		return errno
	}
	return nil
}
