package seal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

func TestFramesComeBackAsTheyWereEncoded(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	payloads := map[string][]byte{
		"nothing": {}, "a byte": {7}, "zeros": make([]byte, 1<<20), "noise": noise,
		"text": bytes.Repeat([]byte("the quick brown fox "), 50_000), "a hidden repetition": append(bytes.Clone(noise[:300_000]), noise[:300_000]...),
	}
	d := NewDecoder(1 << 20)
	defer d.Close()
	for _, choice := range []Compression{Auto, Fast, Default, Max, None} {
		e, err := NewEncoder(choice)
		if err != nil {
			t.Fatal(err)
		}
		for name, payload := range payloads {
			// The choice of Auto depends on the frame before.
			for range 2 {
				plain := e.Encode(payload, 9)
				if len(plain) > PrefixSize+len(payload) {
					t.Errorf("%s, %s: %d bytes became %d", choice, name, len(payload), len(plain))
				}
				got, pieces, err := d.Decode(make([]byte, 0, 1<<20), plain)
				if err != nil || pieces != 9 || !bytes.Equal(got, payload) {
					t.Errorf("%s, %s: came back as %d bytes, %d pieces, %v", choice, name, len(got), pieces, err)
				}
			}
		}
		e.Close()
	}
	if _, err := NewEncoder("lzma"); err == nil {
		t.Error("a compression that does not exist was accepted")
	}
}

// A sealed document opens only as what it is: same store, kind, name, epoch.
func TestADocumentOpensOnlyUnderItsOwnName(t *testing.T) {
	secret := func(epoch uint32) ([32]byte, error) { return [32]byte{byte(epoch)}, nil }
	h := NewHeader(Point, 2, [16]byte{5})
	object, err := SealDocument([32]byte{2}, [16]byte{1}, h, "content")
	if err != nil {
		t.Fatal(err)
	}
	var got string
	if err := OpenDocument(object, Point, [16]byte{5}, [16]byte{1}, secret, &got); err != nil || got != "content" {
		t.Fatalf("%q, %v", got, err)
	}
	change := func(at int, to byte) []byte {
		other := bytes.Clone(object)
		other[at] = to
		return other
	}
	for name, err := range map[string]error{
		"another store": OpenDocument(object, Point, [16]byte{5}, [16]byte{9}, secret, &got),
		"another kind":  OpenDocument(object, Session, [16]byte{5}, [16]byte{1}, secret, &got),
		"another name":  OpenDocument(object, Point, [16]byte{6}, [16]byte{1}, secret, &got),
		"a forged kind": OpenDocument(change(4, byte(Session)), Session, [16]byte{5}, [16]byte{1}, secret, &got),
		"a forged name": OpenDocument(change(12, 6), Point, idOf(6), [16]byte{1}, secret, &got),
		"another epoch": OpenDocument(change(8, 3), Point, [16]byte{5}, [16]byte{1}, secret, &got),
		"another salt":  OpenDocument(change(40, object[40]+1), Point, [16]byte{5}, [16]byte{1}, secret, &got),
	} {
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := OpenDocument(change(5, 2), Point, [16]byte{5}, [16]byte{1}, secret, &got); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a later version: %v", err)
	}
}

func idOf(first byte) (id [16]byte) {
	id[0] = first
	return id
}

// No two frames of an object share a nonce, and none opens at another offset.
func TestAFrameOpensOnlyAtItsOffset(t *testing.T) {
	key := ObjectKey([32]byte{1}, [16]byte{2}, NewHeader(DataPack, 1, [16]byte{3}))
	seen := map[string]bool{}
	for _, offset := range []int64{64, 65, 1 << 31, 1 << 32, 1<<32 + 64} {
		if n := string(nonce(offset)); seen[n] {
			t.Fatalf("the nonce of offset %d comes twice", offset)
		} else {
			seen[n] = true
		}
		sealed := key.Seal(nil, []byte("content"), offset)
		if _, err := key.Open(nil, sealed, offset); err != nil {
			t.Fatal(err)
		}
		if _, err := key.Open(nil, sealed, offset+1); !errors.Is(err, ErrDamaged) {
			t.Errorf("opens at offset %d: %v", offset+1, err)
		}
	}
}
