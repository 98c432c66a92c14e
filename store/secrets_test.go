package store

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket/membucket"
)

// secretsOf gives all objects that are secrets, or copies of one.
func secretsOf(t *testing.T, b *membucket.Bucket) (all []string) {
	for _, prefix := range []string{realmKey, epochPrefix, secondPrefix} {
		all = append(all, keysOf(t, b, prefix)...)
	}
	return all
}

// Either copy of each secret is enough to open the store; opening it for
// writing makes the other anew, and says so.
func TestEachSecretHasTwoCopies(t *testing.T) {
	c := newCollection(t)
	whole := secretsOf(t, c.bucket)
	if len(whole) != 4 {
		t.Fatalf("there are %q", whole)
	}
	for seed := range seeds(t, 60) {
		random := rand.New(rand.NewPCG(seed, 11))
		b := c.bucket.Clone()
		key, how := hurt(t, b, random, []string{realmKey, epochPrefix, secondPrefix})
		s, err := readOnly(t, b, c.created.RecoveryKey)
		if err != nil {
			t.Fatalf("seed %d, %s %s: %v", seed, key, how, err)
		}
		report, err := s.Check(t.Context(), CheckOptions{})
		if err != nil {
			t.Fatal(err)
		}
		self := strings.HasSuffix(how, "replaced by "+key)
		gone := how == "removed" && strings.HasPrefix(key, secondPrefix)
		if !self && !gone && !names(report, key) {
			t.Fatalf("seed %d, %s %s: check says %+v", seed, key, how, report.Damage)
		}
		if len(s.Notices()) > 0 {
			t.Fatalf("seed %d: a store that is only read was mended: %q", seed, s.Notices())
		}
		l := &lab{t: t, bucket: b, created: c.created, cache: memoryDir(t)}
		l.open(c.created.LocalKey)
		told := len(l.Notices()) == 1 && strings.Contains(l.Notices()[0], key)
		if !self && !strings.HasPrefix(key, secondPrefix) && !told {
			t.Fatalf("seed %d, %s %s: notices %q", seed, key, how, l.Notices())
		}
		// A damaged second copy is found by a check, and mended by healing.
		if _, err := l.Heal(t.Context(), HealOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := secretsOf(t, b); !slices.Equal(got, whole) {
			t.Fatalf("seed %d, %s %s: there are %q", seed, key, how, got)
		}
		if damage := l.checked(CheckOptions{}).Damage; len(damage) > 0 {
			t.Fatalf("seed %d, %s %s: there is damage still: %+v", seed, key, how, damage)
		}
		l.closeIndex()
		for _, gone := range whole { // any one of them may go now
			b := b.Clone()
			if err := b.Delete(t.Context(), gone); err != nil {
				t.Fatal(err)
			}
			s := openFor(t, b, c.created.RecoveryKey)
			if lost := lostBlocks(t, s, c.points[0], c.disks[c.points[0].ID]); len(lost) > 0 {
				t.Fatalf("seed %d, without %s: %d blocks are lost", seed, gone, len(lost))
			}
		}
	}
}

// What is damaged in both copies names both; a store that is open then is the
// last one that knows it, and mends both.
func TestBothCopiesOfASecretAreDamaged(t *testing.T) {
	c := newCollection(t)
	for _, key := range []string{realmKey, epochKey(1)} {
		b := c.bucket.Clone()
		l := &lab{t: t, bucket: b, created: c.created, cache: memoryDir(t)}
		l.open(c.created.LocalKey)
		b.Replace(key, []byte("damaged"))
		b.Replace(secondPrefix+key, nil)
		_, err := readOnly(t, b, c.created.RecoveryKey)
		if !problem.Is(err, problem.StoreDamaged) {
			t.Fatalf("%s: %v", key, err)
		}
		if p := problem.From(err); !strings.Contains(strings.Join(p.Actions, " "), secondPrefix+key) {
			t.Errorf("%s: what is to be done does not name its copy: %q", key, p.Actions)
		}
		r, err := l.Heal(t.Context(), HealOptions{})
		if err != nil || r.Documents != 2 {
			t.Fatalf("%s: %+v, %v", key, r, err)
		}
		if damage := l.checked(CheckOptions{}).Damage; len(damage) > 0 {
			t.Errorf("%s: there is damage still: %+v", key, damage)
		}
		if got, err := load(t.Context(), openFor(t, b, c.created.RecoveryKey), c.points[0]); err != nil || !bytes.Equal(got, c.disks[c.points[0].ID]) {
			t.Errorf("%s: %v", key, err)
		}
		l.closeIndex()
	}
}

// A store of the first days gets its second copies when it is opened for
// writing, and not before.
func TestAnOlderStoreGetsSecondCopies(t *testing.T) {
	b := golden(t)
	openFor(t, b, goldenKey(t))
	if n := len(keysOf(t, b, secondPrefix)); n > 0 {
		t.Fatalf("a store that is only read got %d objects", n)
	}
	l := &lab{t: t, bucket: b, cache: memoryDir(t)}
	l.open(goldenKey(t))
	want := []string{secondPrefix + epochKey(1), secondPrefix + epochKey(2), secondPrefix + realmKey}
	if got := keysOf(t, b, secondPrefix); !slices.Equal(got, want) || len(l.Notices()) > 0 {
		t.Fatalf("there are %q, notices %q", got, l.Notices())
	}
	for _, key := range []string{realmKey, epochKey(1), epochKey(2)} {
		if err := b.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if err := undamaged(t.Context(), openFor(t, b, goldenKey(t))); err == nil {
		t.Error("check does not miss the first copies")
	}
	l.open(goldenKey(t))
	l.mustBeWhole()
}
