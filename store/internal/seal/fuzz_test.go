package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"runtime"
	"testing"

	"github.com/klauspost/compress/s2"
)

// classified tells whether an error says what is wrong with the bytes, so that
// callers can tell damage from everything else.
func classified(err error) bool { return errors.Is(err, ErrDamaged) || errors.Is(err, ErrUnsupported) }

// allocated counts the bytes that a call takes from the heap.
func allocated(call func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	call()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func FuzzParseHeader(f *testing.F) {
	f.Add(NewHeader(Point, 7, [16]byte{1, 2, 3}).AppendTo(nil))
	f.Add(NewHeader(DataPack, 1<<31, [16]byte{}).AppendTo([]byte{})[:63])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(b)
		if err != nil {
			if !classified(err) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		if again := h.AppendTo(nil); !bytes.Equal(again, b[:HeaderSize]) {
			t.Fatalf("%x reads as %+v, which is written %x", b[:HeaderSize], h, again)
		}
		if _, err := ParseHeader(b, h.Kind, h.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := ParseHeader(b, h.Kind+1, h.ID); !errors.Is(err, ErrDamaged) {
			t.Fatalf("taken for another kind: %v", err)
		}
		h.ID[3]++
		if _, err := ParseHeader(b, h.Kind, h.ID); !errors.Is(err, ErrDamaged) {
			t.Fatalf("taken for another object: %v", err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	text := bytes.Repeat([]byte("the quick brown fox "), 3000)
	for _, choice := range []Compression{Auto, Fast, Default, Max, None} {
		e, err := NewEncoder(choice)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Clone(e.Encode(text, 3)))
		f.Add(bytes.Clone(e.Encode(nil, 0)))
		e.Close()
	}
	bomb, err := newZstd(1, false)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bomb.EncodeAll(make([]byte, 50<<20), []byte{byte(Zstd), 1}))
	f.Add(append([]byte{byte(S2), 1}, s2.Encode(nil, make([]byte, 50<<20))...))
	const limit = 100_000
	d := NewDecoder(limit)
	dst := make([]byte, 5, 5+limit)
	f.Fuzz(func(t *testing.T, plain []byte) {
		var payload []byte
		var pieces int
		var err error
		took := allocated(func() { payload, pieces, err = d.Decode(dst, plain) })
		// The zstd decoder keeps tables and a window beside the output.
		if most := uint64(16<<20 + 8*len(plain)); took > most {
			t.Fatalf("%d bytes made the decoder allocate %d", len(plain), took)
		}
		if err != nil {
			if !classified(err) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		if len(payload) > cap(dst) || pieces > 255 || !bytes.Equal(payload[:5], dst) {
			t.Fatalf("%d bytes, %d pieces", len(payload), pieces)
		}
	})
}

// FuzzOpenDocument changes the stored bytes of a document: it is refused, or it
// is the document that was sealed.
func FuzzOpenDocument(f *testing.F) {
	secret, storeID := [32]byte{1}, [16]byte{2}
	body := map[string]string{"a": "b"}
	// The salt is fixed, since every process of a fuzzing run must have the same.
	good, err := SealDocument(secret, storeID, Header{Record, Version, 1, [16]byte{3}, [32]byte{4}}, body)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(good[:HeaderSize])
	f.Add([]byte{})
	secretOf := func(uint32) ([32]byte, error) { return secret, nil }
	f.Fuzz(func(t *testing.T, object []byte) {
		var got map[string]string
		err := OpenDocument(object, Record, [16]byte{3}, storeID, secretOf, &got)
		if err == nil && !bytes.Equal(object, good) {
			t.Fatalf("%x opens although it was never sealed", object)
		}
		if err != nil && !classified(err) {
			t.Fatalf("an error of no class: %v", err)
		}
	})
}

// FuzzDocumentBody seals bytes that no writer would: even whoever has the key
// gets an error, and little memory.
func FuzzDocumentBody(f *testing.F) {
	f.Add([]byte{byte(Plain), 0, '{', '}'})
	f.Add([]byte{byte(Zstd), 0, 1, 2, 3})
	f.Add([]byte{9, 0})
	f.Add([]byte{})
	secret, storeID := [32]byte{1}, [16]byte{2}
	secretOf := func(uint32) ([32]byte, error) { return secret, nil }
	f.Fuzz(func(t *testing.T, plain []byte) {
		h := NewHeader(Record, 1, [16]byte{3})
		object := ObjectKey(secret, storeID, h).Seal(h.AppendTo(nil), plain, HeaderSize)
		var got json.RawMessage
		var err error
		took := allocated(func() { err = OpenDocument(object, Record, [16]byte{3}, storeID, secretOf, &got) })
		if took > 3*maxDocument {
			t.Fatalf("%d bytes made the reader allocate %d", len(plain), took)
		}
		if err != nil && !classified(err) {
			t.Fatalf("an error of no class: %v", err)
		}
	})
}

func TestABombOfADocumentIsRefusedWithinItsMemory(t *testing.T) {
	e, err := newZstd(1, false)
	if err != nil {
		t.Fatal(err)
	}
	plain := e.EncodeAll(make([]byte, maxDocument+1), []byte{byte(Zstd), 0})
	d := NewDecoder(maxDocument)
	defer d.Close()
	took := allocated(func() { _, err = decodeDocument(d, plain) })
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("%d bytes that decode to more than %d give %v", len(plain), maxDocument, err)
	}
	if took > 3*maxDocument {
		t.Errorf("%d bytes made the reader allocate %d", len(plain), took)
	}
}
