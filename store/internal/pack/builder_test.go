package pack

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"

	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/seal"
)

func TestTheDirectorySaysWhatThePackHolds(t *testing.T) {
	data, directory, frames := somePack(t)
	at := len(data) - TrailerSize - seal.Overhead - len(directory)
	got, err := ParseDirectory(directory, int64(at))
	if err != nil || !reflect.DeepEqual(got, frames) {
		t.Errorf("%v, %v; %v was reserved", got, err, frames)
	}
}

// Frames of random sizes are filled by many goroutines in any order; a full
// pack never outgrows its buffer, and each frame opens where its place says.
func TestAFullPackFitsItsBuffer(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 3))
		buf := make([]byte, 0, 2000+random.IntN(200_000))
		b := NewBuilder(buf, seal.DataPack, [32]byte{1}, 1, [16]byte{2})
		var fill sync.WaitGroup
		var places []Place
		var plain [][]byte
		for {
			frame := make([]byte, 1+random.IntN(9000))
			for i := range frame {
				frame[i] = byte(len(places))
			}
			size := b.Size()
			slot, ok := b.Reserve(len(frame), make([]block.Hash, random.IntN(9)))
			if !ok {
				if b.Size() != size {
					t.Fatalf("seed %d: a frame without room changed the pack", seed)
				}
				break
			}
			places, plain = append(places, slot.Place()), append(plain, frame)
			fill.Go(func() { slot.Fill(frame) })
		}
		size := b.Size()
		data := b.Finish()
		fill.Wait()
		if len(data) > cap(buf) || &data[0] != &buf[:1][0] || b.Size() < size {
			t.Fatalf("seed %d: %d bytes in a buffer of %d", seed, len(data), cap(buf))
		}
		if len(data) != size {
			t.Fatalf("seed %d: a pack of %d bytes said that it would have %d", seed, len(data), size)
		}
		for i, p := range places {
			got, err := b.key.Open(nil, data[p.Offset:p.Offset+p.Length], int64(p.Offset))
			if err != nil || !bytes.Equal(got, plain[i]) {
				t.Fatalf("seed %d, frame %d: %v", seed, i, err)
			}
		}
	}
}
