package store

import (
	"bytes"
	"testing"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
)

// A header that is missing or wrong comes back from any key, as it was but for
// its time; a store without one is never taken for an empty place.
func TestHeaderIsMended(t *testing.T) {
	c := newCollection(t)
	whole, err := bucket.ReadAll(t.Context(), c.bucket, headerKey, maxHeaderSize)
	if err != nil {
		t.Fatal(err)
	}
	other := newLab(t, CreateOptions{})
	foreign, err := bucket.ReadAll(t.Context(), other.bucket, headerKey, maxHeaderSize)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"gone": nil, "empty": {}, "cut": whole[:len(whole)/2], "garbage": []byte("\x00\x01"), "of another store": foreign,
	} {
		for _, secret := range []string{c.created.LocalKey, c.created.RecoveryKey} {
			b := c.bucket.Clone()
			if err := b.Delete(t.Context(), headerKey); err != nil {
				t.Fatal(err)
			}
			if text != nil {
				b.Replace(headerKey, text)
			}
			if _, err := Create(t.Context(), b, CreateOptions{}); err == nil || problem.Is(err, problem.StoreNotFound) {
				t.Fatalf("%s: making a store over it: %v", name, err)
			}
			k, err := ParseKey(other.created.RecoveryKey)
			if err != nil {
				t.Fatal(err)
			}
			if mended, err := MendHeader(t.Context(), b, k); mended || err == nil {
				t.Fatalf("%s: the key of another store: %v, %v", name, mended, err)
			}
			if k, err = ParseKey(secret); err != nil {
				t.Fatal(err)
			}
			if mended, err := MendHeader(t.Context(), b, k); !mended || err != nil {
				t.Fatalf("%s: %v, %v", name, mended, err)
			}
			h, err := Identify(t.Context(), b)
			if err != nil || h.StoreID != c.created.Header.StoreID || h.RealmID != c.created.Header.RealmID {
				t.Fatalf("%s: %+v, %v", name, h, err)
			}
			if mended, err := MendHeader(t.Context(), b, k); mended || err != nil {
				t.Fatalf("%s, once more: %v, %v", name, mended, err)
			}
			s, err := readOnly(t, b, secret)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if lost := lostBlocks(t, s, c.points[0], c.disks[c.points[0].ID]); len(lost) > 0 {
				t.Fatalf("%s: %d blocks are lost", name, len(lost))
			}
		}
	}
	if now, err := bucket.ReadAll(t.Context(), c.bucket, headerKey, maxHeaderSize); err != nil || !bytes.Equal(now, whole) {
		t.Fatalf("the original changed: %v", err)
	}
}

// A point that somebody relies on and that is gone is damage.
func TestCheckMissesPoints(t *testing.T) {
	c := newCollection(t)
	b := c.bucket.Clone()
	gone := c.points[1].ID
	if err := b.Delete(t.Context(), pointPrefix+gone); err != nil {
		t.Fatal(err)
	}
	s, err := readOnly(t, b, c.created.RecoveryKey)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, p := range c.points {
		all = append(all, p.ID)
	}
	for _, o := range []CheckOptions{{Expect: all}, {Points: all}} {
		report, err := s.Check(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if len(report.Damage) != 1 || report.Damage[0].Object != pointPrefix+gone || report.Points != int64(len(all)) || len(report.Damage[0].Losses) != 1 {
			t.Errorf("%+v", report)
		}
	}
	if report, err := s.Check(t.Context(), CheckOptions{}); err != nil || len(report.Damage) != 0 {
		t.Errorf("nobody relies on it, yet: %+v, %v", report, err)
	}
}
