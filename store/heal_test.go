package store

import (
	"context"
	"testing"

	"github.com/diskvault/diskvault/base/meter"
)

// damagePacks damages every object of a prefix in some way.
func (l *lab) damagePacks(prefix string, how func(key string, data []byte)) {
	l.t.Helper()
	for o, err := range l.bucket.List(l.t.Context(), prefix, "") {
		if err != nil {
			l.t.Fatal(err)
		}
		data := make([]byte, o.Size)
		if err := l.bucket.Get(l.t.Context(), o.Key, 0, data); err != nil {
			l.t.Fatal(err)
		}
		how(o.Key, data)
	}
}

func (l *lab) checked(o CheckOptions) CheckReport {
	l.t.Helper()
	r, err := l.Check(l.t.Context(), o)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

// replace puts other bytes in the place of an object; none: it is missing.
func (l *lab) replace(key string, data []byte) {
	l.t.Helper()
	if err := l.bucket.Delete(l.t.Context(), key); err != nil {
		l.t.Fatal(err)
	}
	if data != nil {
		if err := l.bucket.Put(l.t.Context(), key, [][]byte{data}); err != nil {
			l.t.Fatal(err)
		}
	}
}

func TestHealing(t *testing.T) {
	flip := func(l *lab) func(string, []byte) {
		return func(key string, data []byte) { data[len(data)/2] ^= 1; l.replace(key, data) }
	}
	remove := func(l *lab) func(string, []byte) { return func(key string, _ []byte) { l.replace(key, nil) } }
	for _, c := range []struct {
		name   string
		prefix string
		how    func(l *lab) func(string, []byte)
		disk   bool
		other  bool
	}{
		{"flipped data, from the disk", "packs/data/", flip, true, false},
		{"missing data, from the disk", "packs/data/", remove, true, false},
		{"flipped nodes, from the disk", "packs/meta/", flip, true, false},
		{"missing nodes, from the disk", "packs/meta/", remove, true, false},
		{"flipped data, from a copy", "packs/data/", flip, false, true},
		{"missing data, from a copy", "packs/data/", remove, false, true},
		{"missing nodes, from a copy", "packs/meta/", remove, false, true},
		{"missing everything, from a copy", "packs/", remove, false, true},
		{"missing nodes, from nowhere", "packs/meta/", remove, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, CreateOptions{BlockSize: 16 << 10})
			points, disks := l.history(3, 3_000_000)
			var o HealOptions
			if c.other {
				other := newLab(t, CreateOptions{Realm: l.Store})
				if _, err := l.Copy(t.Context(), other.Store, CopyOptions{Meter: meter.New("copy")}); err != nil {
					t.Fatal(err)
				}
				o.From = other.Store
			}
			if c.disk {
				o.Disk = func(_ context.Context, _ string, p []byte, off int64) bool {
					copy(p, disks[2][off:])
					return true
				}
			}
			l.damagePacks(c.prefix, c.how(l))
			l.open(l.created.LocalKey)
			found := l.checked(CheckOptions{ReadData: true})
			if len(found.Damage) == 0 {
				t.Fatal("the damage was not found")
			}
			r, err := l.Heal(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", r)
			whole := c.other
			if !c.other && !c.disk {
				if len(r.Lost) == 0 {
					t.Error("nothing is said to be lost")
				}
				return
			}
			l.open(l.created.LocalKey)
			for i := range points {
				if whole || i == 2 {
					l.holds(points[i], disks[i])
				}
			}
			if !whole {
				return
			}
			if len(r.Lost) > 0 {
				t.Errorf("lost: %+v", r.Lost)
			}
			l.collect(CollectOptions{})
			if again := l.checked(CheckOptions{ReadData: true}); len(again.Damage) > 0 {
				t.Errorf("there is damage still: %+v", again.Damage)
			}
			for i := range points {
				l.holds(points[i], disks[i])
			}
			if n := l.objects(damagePrefix); n > 0 {
				t.Errorf("%d notes of damage stay", n)
			}
		})
	}
}
