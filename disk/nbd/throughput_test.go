package nbd

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/diskvault/diskvault/disk/disktest"
)

// full is a disk in memory without holes.
func full(size int) *memory {
	m := newMemory(size)
	_ = m.Write(ctx, noise(30, size), 0) // cannot fail
	return m
}

const benchSize = 512 << 20

// BenchmarkServerByNbdcopy is a read of the whole disk over a Unix socket by
// libnbd's copier. Beside it, what a server in C makes of the same.
func BenchmarkServerByNbdcopy(b *testing.B) {
	disktest.Need(b, "nbdcopy", "nbdkit")
	for name, socket := range map[string]string{
		"own":    start(b, &Server{Offers: []Offer{{Disk: bare{full(benchSize)}}}}),
		"nbdkit": nbdkit(b, "-r", "pattern", fmt.Sprint(benchSize)),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(benchSize)
			for b.Loop() {
				disktest.Run(b, "nbdcopy", at(socket, ""), "null:")
			}
		})
	}
}

// BenchmarkServerByQemu is what qemu-img bench reads, in requests of 64 KiB.
func BenchmarkServerByQemu(b *testing.B) {
	disktest.Need(b, "qemu-img")
	socket := start(b, &Server{Offers: []Offer{{Disk: full(benchSize)}}})
	b.SetBytes(benchSize)
	for b.Loop() {
		disktest.Run(b, "qemu-img", "bench", "-q", "-f", "raw", "-c", fmt.Sprint(benchSize>>16), "-d", "32", "-s", "65536", at(socket, ""))
	}
}

// BenchmarkClient is a read of the whole disk by several goroutines.
func BenchmarkClient(b *testing.B) {
	disktest.Need(b, "nbdkit")
	for name, socket := range map[string]string{
		"own":    start(b, &Server{Offers: []Offer{{Disk: full(benchSize)}}}),
		"nbdkit": nbdkit(b, "-r", "pattern", fmt.Sprint(benchSize)),
	} {
		for _, size := range []int64{64 << 10, 1 << 20, 4 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				c := dial(b, unixAddress(socket, ""))
				b.SetBytes(benchSize)
				for b.Loop() {
					var next atomic.Int64
					var readers sync.WaitGroup
					for range 4 {
						readers.Go(func() {
							p := make([]byte, size)
							for {
								off := next.Add(size) - size
								if off >= benchSize {
									return
								}
								if err := c.Read(ctx, p, off); err != nil {
									b.Error(err)
									return
								}
							}
						})
					}
					readers.Wait()
				}
			})
		}
	}
}
