package disk_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/disktest"
)

// BenchmarkRead is a read of a whole disk by four goroutines: raw, in a
// container, and from an NBD server.
func BenchmarkRead(b *testing.B) {
	disktest.Need(b, "qemu-img", "qemu-nbd")
	const size, piece = 512 << 20, 4 << 20
	dir := b.TempDir()
	raw, image := filepath.Join(dir, "d.raw"), filepath.Join(dir, "d.qcow2")
	disktest.Run(b, "sh", "-c", fmt.Sprintf("head -c %d /dev/urandom > %s", size, raw))
	disktest.Run(b, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
	for name, path := range map[string]string{
		"raw":   raw,
		"qcow2": image,
		"nbd":   "nbd+unix:///?socket=" + disktest.Serve(b, "qemu-nbd", "-r", "-t", "-e", "8", "-f", "raw", "-k", "%s", raw),
	} {
		b.Run(name, func(b *testing.B) {
			s, err := disk.Probe(ctx, path)
			if err != nil {
				b.Fatal(err)
			}
			r, err := s.Open(ctx, disk.ReadOptions{})
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			b.SetBytes(size)
			for b.Loop() {
				var next atomic.Int64
				var readers sync.WaitGroup
				for range 4 {
					readers.Go(func() {
						p := disk.AlignedBuffer(piece)
						for off := next.Add(piece) - piece; off < size; off = next.Add(piece) - piece {
							if err := r.Read(ctx, p, off); err != nil {
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
