package buckettest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/diskvault/diskvault/store/bucket"
)

// Benchmark measures what a store does with a bucket: packs put by a few
// workers, and ranges read from them. The figures are bytes per second.
func Benchmark(b *testing.B, at bucket.Bucket, size int) {
	var part [64 << 10]byte
	rand.NewChaCha8([32]byte{1}).Read(part[:])
	parts := make([][]byte, size/len(part))
	for i := range parts {
		parts[i] = part[:]
	}
	stored := 0
	for _, workers := range []int{1, 4} {
		b.Run(fmt.Sprintf("put/%dMiB/%d", size>>20, workers), func(b *testing.B) {
			b.SetBytes(int64(size))
			each(b, workers, func() string {
				stored++
				return fmt.Sprintf("packs/%02x/%d", stored%256, stored)
			}, func(key string) error { return at.Put(context.Background(), key, parts) })
		})
	}
	b.Run("put/1KiB/1", func(b *testing.B) {
		each(b, 1, func() string {
			stored++
			return fmt.Sprintf("small/%d", stored)
		}, func(key string) error { return at.Put(context.Background(), key, [][]byte{part[:1024]}) })
	})
	if err := at.Put(context.Background(), "read", parts); err != nil {
		b.Fatal(err)
	}
	for _, length := range []int{64 << 10, 1 << 20, size} {
		b.Run(fmt.Sprintf("get/%dKiB", length>>10), func(b *testing.B) {
			b.SetBytes(int64(length))
			dst := make([]byte, length)
			for i := range b.N {
				if err := at.Get(context.Background(), "read", int64(i%(size/length)*length), dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// each calls do b.N times from some workers.
func each(b *testing.B, workers int, key func() string, do func(string) error) {
	keys := make(chan string)
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for k := range keys {
				if err := do(k); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		keys <- key()
	}
	close(keys)
	wait.Wait()
}
