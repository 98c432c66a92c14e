package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// somePack is a finished pack with three frames, and its plain directory.
func somePack(t testing.TB) (data, directory []byte, frames []Frame) {
	t.Helper()
	b := NewBuilder(make([]byte, 0, 4096), seal.DataPack, [32]byte{1}, 1, [16]byte{2})
	for i := range 3 {
		slot, ok := b.Reserve(100+i, []block.Hash{{byte(i)}, {9, byte(i)}})
		if !ok {
			t.Fatal("no room")
		}
		slot.Fill(make([]byte, 100+i))
	}
	data = b.Finish()
	end, err := ParseTrailer(data[len(data)-TrailerSize:], int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	at := len(data) - TrailerSize - int(end.DirectoryLength)
	directory, err = b.key.Open(nil, data[at:len(data)-TrailerSize], int64(at))
	if err != nil {
		t.Fatal(err)
	}
	if end.Checksum != Checksum(0, data[:len(data)-TrailerSize]) {
		t.Fatal("the checksum is not that of the bytes")
	}
	return data, directory, b.Frames()
}

func FuzzParseTrailer(f *testing.F) {
	data, _, _ := somePack(f)
	f.Add(data[len(data)-TrailerSize:], int64(len(data)))
	f.Add(data[len(data)-TrailerSize:], int64(10))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		end, err := ParseTrailer(b, size)
		if err != nil {
			if !errors.Is(err, seal.ErrDamaged) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		again := binary.LittleEndian.AppendUint32(nil, end.DirectoryLength)
		again = append(binary.LittleEndian.AppendUint32(again, end.Checksum), trailerMagic...)
		if !bytes.Equal(again, b) {
			t.Fatalf("%x reads as %+v", b, end)
		}
		if at := size - TrailerSize - int64(end.DirectoryLength); at < seal.HeaderSize || at >= size {
			t.Fatalf("the directory of %d bytes would begin at %d of %d", end.DirectoryLength, at, size)
		}
	})
}

func FuzzParseDirectory(f *testing.F) {
	data, directory, _ := somePack(f)
	f.Add(directory, int64(len(data)-TrailerSize-seal.Overhead-len(directory)))
	f.Add(directory[:2], int64(seal.HeaderSize))
	f.Add(directory[:len(directory)-1], int64(500))
	f.Fuzz(func(t *testing.T, plain []byte, end int64) {
		frames, err := ParseDirectory(plain, end)
		if err != nil {
			if !errors.Is(err, seal.ErrDamaged) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		again := []byte{}
		next := int64(seal.HeaderSize)
		for _, fr := range frames {
			if int64(fr.Offset) != next || fr.Length <= seal.Overhead {
				t.Fatalf("frames overlap or leave a gap at %d", next)
			}
			next += int64(fr.Length)
			again = binary.LittleEndian.AppendUint32(again, fr.Offset)
			again = binary.LittleEndian.AppendUint32(again, fr.Length)
			again = append(again, byte(len(fr.Hashes)))
			for _, h := range fr.Hashes {
				again = append(again, h[:]...)
			}
		}
		if next != end || !bytes.Equal(again, plain[seal.PrefixSize:]) {
			t.Fatalf("%x reads as frames that are written %x and end at %d of %d", plain, again, next, end)
		}
	})
}

func FuzzPlace(f *testing.F) {
	for _, p := range []Place{{}, {Pack: ID{1}, Offset: 64, Length: 100, Slot: 3}, {Offset: 1<<32 - 1, Length: 1<<32 - 1, Slot: 255}} {
		text, err := p.MarshalText()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("00000000000000000000000000000000:+1: 2:3x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p := Place{Length: 9}
		if err := p.UnmarshalText(text); err != nil {
			if !p.IsZero() {
				t.Fatalf("%q was refused, and left %+v", text, p)
			}
			return
		}
		again, err := p.MarshalText()
		if err != nil || !bytes.Equal(again, text) {
			t.Fatalf("%q reads as %+v, which is written %q, %v", text, p, again, err)
		}
	})
}

func FuzzParseID(f *testing.F) {
	f.Add(ID{1, 2, 3}.String())
	f.Add(ID{1}.String() + ID{2}.String())
	f.Add("ABCDEF00000000000000000000000000")
	f.Fuzz(func(t *testing.T, text string) {
		if id, ok := ParseID(text); ok && id.String() != text {
			t.Fatalf("%q reads as %v", text, id)
		}
	})
}
