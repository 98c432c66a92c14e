// Command guest is the only program of an emulated machine in tests: it writes
// numbered blocks to all disks in turns, each past the cache and after the one
// before it was acknowledged, and tells the console how far it is.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The ring is that of qemutest.Ring, which the host checks: Slots and spread.
const (
	slots    = 1024
	slotSize = 4096
	tellEach = 50
)

func main() {
	err := write()
	fmt.Println("guest ended:", err)
	for {
		time.Sleep(time.Hour) // the kernel panics if its first process ends
	}
}

func write() error {
	for dir, kind := range map[string]string{"/dev": "devtmpfs", "/sys": "sysfs"} {
		if err := unix.Mount(kind, dir, kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	order, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(order)) {
		f, err := os.Open("/modules/" + name)
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
		f.Close()
	}
	var disks []*os.File
	for _, name := range []string{"vda", "vdb"} {
		f, err := open("/dev/" + name)
		if err != nil {
			return err
		}
		disks = append(disks, f)
	}
	size, err := disks[0].Seek(0, 2)
	if err != nil {
		return err
	}
	block, err := unix.Mmap(-1, 0, slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	var longest time.Duration
	for number := uint64(1); ; number++ {
		for at := 0; at < slotSize; at += 8 {
			binary.LittleEndian.PutUint64(block[at:], number)
		}
		spread := int64(number%slots) * 2654435761 % slots
		for _, d := range disks {
			began := time.Now()
			if _, err := d.WriteAt(block, spread*(size/slots)/slotSize*slotSize); err != nil {
				return err
			}
			longest = max(longest, time.Since(began))
		}
		if number%tellEach == 0 {
			fmt.Printf("number %d, longest write %d us\n", number, longest.Microseconds())
			longest = 0
		}
	}
}

// open waits for a disk to appear.
func open(path string) (f *os.File, err error) {
	for range 500 {
		if f, err = os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0); err == nil {
			return f, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, err
}
