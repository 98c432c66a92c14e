package filebucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/diskvault/diskvault/base/durable/powerloss"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/buckettest"
	"github.com/diskvault/diskvault/store/bucket/filebucket"
)

func TestConformanceOnADiskInMemory(t *testing.T) {
	buckettest.Run(t, buckettest.Options{}, func(*testing.T) bucket.Bucket {
		return filebucket.On(powerloss.New(1), "file:/memory")
	})
}

// promises is what a bucket has said about its objects so far.
type promises struct {
	mu   sync.Mutex
	kept map[string]bool // a Put returned nil, or it was refused as taken, or listed; and no Delete was begun
	gone map[string]bool // a Delete returned nil, and no Put was begun
}

// whole is the content of every object with this key, whoever puts it.
func whole(key string) []byte {
	random := rand.New(rand.NewPCG(uint64(len(key)), uint64(key[len(key)-1])))
	return bytes.Repeat([]byte(key+"."), random.IntN(900))
}

// work uses the bucket until the power is lost, and notes what was promised.
func (p *promises) work(b bucket.Bucket, random *rand.Rand) {
	ctx := context.Background()
	for range 40 {
		key := fmt.Sprintf("packs/%x/%02d", random.IntN(3), random.IntN(10))
		if random.IntN(3) == 0 {
			key = fmt.Sprintf("sessions/0123456789abcdef-%d/%d", random.IntN(3), random.IntN(2))
		}
		var err error
		switch random.IntN(8) {
		case 0, 1:
			err = p.delete(ctx, b, key)
		case 2:
			err = p.list(ctx, b)
		default:
			err = p.put(ctx, b, key)
		}
		if errors.Is(err, powerloss.ErrPowerLost) {
			return
		}
	}
}

func (p *promises) put(ctx context.Context, b bucket.Bucket, key string) error {
	p.mu.Lock()
	delete(p.gone, key)
	p.mu.Unlock()
	data := whole(key)
	err := b.Put(ctx, key, [][]byte{data[:len(data)/2], data[len(data)/2:]})
	if err == nil || errors.Is(err, bucket.ErrExists) {
		p.mu.Lock()
		p.kept[key] = true
		p.mu.Unlock()
	}
	return err
}

func (p *promises) delete(ctx context.Context, b bucket.Bucket, key string) error {
	p.mu.Lock()
	delete(p.kept, key)
	p.mu.Unlock()
	err := b.Delete(ctx, key)
	if err == nil {
		p.mu.Lock()
		p.gone[key] = true
		p.mu.Unlock()
	}
	return err
}

func (p *promises) list(ctx context.Context, b bucket.Bucket) error {
	for o, err := range b.List(ctx, "", "") {
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.kept[o.Key] = true
		p.mu.Unlock()
	}
	return nil
}

// broken tells which promise a restart finds broken.
func (p *promises) broken(b bucket.Bucket) error {
	ctx := context.Background()
	for o, err := range b.List(ctx, "", "") {
		if err != nil {
			return err
		}
		data, err := bucket.ReadAll(ctx, b, o.Key, 1<<20)
		if err != nil || !bytes.Equal(data, whole(o.Key)) {
			return fmt.Errorf("%s is visible and torn: %d bytes, %v", o.Key, len(data), err)
		}
		if p.gone[o.Key] {
			return fmt.Errorf("%s was deleted and is back", o.Key)
		}
	}
	for key := range p.kept {
		if _, err := b.Stat(ctx, key); err != nil {
			return fmt.Errorf("%s was stored and is lost: %v", key, err)
		}
	}
	return nil
}

// run lets a bucket lose its power twice and returns the broken promise.
func run(seed uint64, lie bool) error {
	random := rand.New(rand.NewPCG(seed, 1))
	disk := powerloss.New(seed)
	p := promises{kept: map[string]bool{}, gone: map[string]bool{}}
	for range 2 {
		if lie {
			disk.Lie()
		}
		disk.CutAt(1 + random.IntN(350))
		p.work(filebucket.On(disk, "file:/memory"), random)
		disk = disk.Restart()
		if err := p.broken(filebucket.On(disk, "file:/memory")); err != nil {
			return err
		}
	}
	return nil
}

func seeds(t *testing.T, usual uint64) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(os.Getenv("DISKVAULT_SEEDS"), 10, 64)
	if err != nil {
		return usual
	}
	return n
}

func TestPowerLoss(t *testing.T) {
	for seed := range seeds(t, 1000) {
		if err := run(seed, false); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestPowerLossOnADiskThatLiesIsFoundOut(t *testing.T) {
	found := 0
	for seed := range uint64(100) {
		if run(seed, true) != nil {
			found++
		}
	}
	if found < 80 {
		t.Fatalf("only %d of 100 runs without any sync were found out", found)
	}
}

// Two processes with a bucket each share the folder; each relies on what it has
// seen of the other.
func TestPowerLossWithTwoProcesses(t *testing.T) {
	for seed := range seeds(t, 250) {
		disk := powerloss.New(seed)
		disk.CutAt(50 + int(seed*7%600))
		// Objects are only added, since with two processes nobody knows which
		// of a Put and a Delete came last.
		p := promises{kept: map[string]bool{}, gone: map[string]bool{}}
		var wait sync.WaitGroup
		for process := range uint64(2) {
			wait.Go(func() {
				b := filebucket.On(disk, "file:/memory")
				random := rand.New(rand.NewPCG(seed, process))
				for range 40 {
					err := p.put(t.Context(), b, fmt.Sprintf("packs/%x/%02d", random.IntN(3), random.IntN(10)))
					if random.IntN(5) == 0 && err == nil {
						err = p.list(t.Context(), b)
					}
					if errors.Is(err, powerloss.ErrPowerLost) {
						return
					}
				}
			})
		}
		wait.Wait()
		if err := p.broken(filebucket.On(disk.Restart(), "file:/memory")); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}
