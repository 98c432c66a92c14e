package store

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket/membucket"
	"github.com/diskvault/diskvault/store/internal/image"
	"github.com/diskvault/diskvault/store/internal/pack"
)

func FuzzIdentify(f *testing.F) {
	f.Add([]byte(`{"format":"diskvault store","version":1,"storeId":"000102030405060708090a0b0c0d0e0f","realmId":"ff0102030405060708090a0b0c0d0e0f","created":"2026-11-23T21:00:00Z"}`))
	f.Add([]byte(`{"format":"diskvault store","version":2}`))
	f.Add([]byte(`{"format":"another"}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, text []byte) {
		b := membucket.New()
		b.Replace(headerKey, text)
		h, err := Identify(t.Context(), b)
		if err != nil {
			if !problem.Is(err, problem.StoreDamaged) && !problem.Is(err, problem.StoreVersionUnsupported) || strings.Contains(err.Error(), "%!") {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		again, err := json.Marshal(h)
		if err != nil {
			t.Fatalf("%q reads as a header that cannot be written: %v", text, err)
		}
		b.Replace(headerKey, again)
		if other, err := Identify(t.Context(), b); err != nil || other.StoreID != h.StoreID || !other.Created.Equal(h.Created) {
			t.Fatalf("%q reads as %+v, written and read again as %+v, %v", text, h, other, err)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	_, secret, err := newIdentity()
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{secret, "# comment\n" + secret + "\n", "AGE-SECRET-KEY-1", "correct horse", "", "#", "a\nb", strings.ToLower(secret)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseKey(text)
		if err != nil {
			if !problem.Is(err, problem.KeyMissing) && !problem.Is(err, problem.KeyWrong) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		if (k.identity == nil) == (k.passphrase == "") {
			t.Fatalf("%q is neither or both", text)
		}
		if k.identity == nil && strings.HasPrefix(strings.ToUpper(k.passphrase), "AGE-SECRET-KEY-1") {
			t.Fatalf("the key %q is taken for a passphrase", text)
		}
	})
}

func FuzzUnwrap(f *testing.F) {
	k, err := ParseKey("AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX")
	if err != nil {
		f.Fatal(err)
	}
	good, err := k.wrap(wrapped{StoreID: ID{1}, RootSecret: make([]byte, 32)})
	if err != nil {
		f.Fatal(err)
	}
	short, err := k.wrap(wrapped{StoreID: ID{1}, RootSecret: make([]byte, 31)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(short)
	f.Add(good[:len(good)-1])
	f.Add([]byte("age-encryption.org/v1\n-> scrypt bBjlhJVYZeE4aqUdmtRHfw 32768\n"))
	f.Fuzz(func(t *testing.T, object []byte) {
		if w, err := k.unwrap(object); err == nil && len(w.RootSecret) != 32 {
			t.Fatalf("a root secret of %d bytes", len(w.RootSecret))
		}
	})
}

func TestAKeyObjectCannotAskForTooMuchWork(t *testing.T) {
	k, err := ParseKey("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	object, err := k.wrap(wrapped{RootSecret: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	// The work factor stands at the end of the first recipient's line.
	lines := bytes.SplitN(object, []byte("\n"), 3)
	if !bytes.HasSuffix(lines[1], []byte(" 10")) {
		t.Fatalf("another work factor than expected: %s", lines[1])
	}
	lines[1] = append(bytes.TrimSuffix(lines[1], []byte("10")), "30"...)
	if _, err := k.unwrap(bytes.Join(lines, []byte("\n"))); err == nil {
		t.Error("a key that asks for 2^30 of work was opened")
	}
}

// FuzzDocuments reads JSON as each document of the store, as a writer with the
// key but with bugs might have left it; images made of them are refused or harmless.
func FuzzDocuments(f *testing.F) {
	for _, v := range []any{
		pointDocument{Point: Point{ID: ID{1}.String(), Size: 1 << 40, Top: Ref{Hash: Root{1}, Place: pack.Place{Offset: 1, Length: 2, Slot: 3}}, Unreadable: []Range{{1, 2}}, Identity: []byte("x")}},
		pointDocument{Point: Point{Size: -1}, Fence: &fence{By: "x"}},
		pointDocument{Point: Point{Size: math.MaxInt64}},
		sessionDocument{Images: []stored{{Root: Root{1}}}, Checkpoint: &checkpoint{stored: stored{Size: 5}, Done: 7}}, movedDocument{To: []pack.ID{{1}}}, condemnedList{Number: 1},
		Record{Kind: "policy", Name: "a", Version: 1, Body: json.RawMessage(`{"a":[1]}`)},
		realmDocument{BlockSize: 1}, epochDocument{Epoch: 1}, damageNote{What: "x"}, wrapped{},
	} {
		text, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	s := &Store{bucket: membucket.New(), blockSize: 16 << 10, keys: newPackKeys(), frames: newFrameCache()}
	f.Fuzz(func(t *testing.T, text []byte) {
		var p pointDocument
		if again(t, text, &p) {
			if _, err := s.Image(p.Point); err != nil && !isDamage(err) {
				t.Fatalf("an error of no class: %v", err)
			}
			// With a root that fits, as if that had been made too.
			p.Top.Hash = Root{}
			shape := image.Shape{Size: p.Size, BlockSize: s.blockSize}
			p.Root = shape.Root(s.hasher(rootDomain), p.Top.Hash)
			img, err := s.Image(p.Point)
			if err != nil {
				t.Fatal(err)
			}
			r := img.NewReader()
			defer r.Close()
			if _, found, err := r.NextData(t.Context(), 0); found || err != nil {
				t.Fatalf("a disk of %d zeros: data %v, %v", p.Size, found, err)
			}
		}
		again(t, text, new(sessionDocument))
		again(t, text, new(Record))
		again(t, text, new(realmDocument))
		again(t, text, new(epochDocument))
		again(t, text, new(damageNote))
		again(t, text, new(wrapped))
	})
}

// again tells whether the text can be read, and fails if what was read is
// another after it was written.
func again[T any](t *testing.T, text []byte, v *T) bool {
	if json.Unmarshal(text, v) != nil {
		return false
	}
	written, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%q is read as %+v, which cannot be written: %v", text, v, err)
	}
	var other T
	if err := json.Unmarshal(written, &other); err != nil {
		t.Fatalf("%q is written %q, which cannot be read: %v", text, written, err)
	}
	rewritten, err := json.Marshal(&other)
	if err != nil || !bytes.Equal(rewritten, written) {
		t.Fatalf("%q is written %q and then %q, %v; %v", text, written, rewritten, err, reflect.TypeFor[T]())
	}
	return true
}
