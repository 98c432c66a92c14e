package membucket_test

import (
	"testing"
	"time"

	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/bucket/buckettest"
	"github.com/diskvault/diskvault/store/bucket/membucket"
)

func TestConformance(t *testing.T) {
	buckettest.Run(t, buckettest.Options{}, func(*testing.T) bucket.Bucket { return membucket.New() })
}

func TestClockCloneAndReplace(t *testing.T) {
	b := membucket.New()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	b.SetClock(func() time.Time { return at })
	if err := b.Put(t.Context(), "a", [][]byte{[]byte("one")}); err != nil {
		t.Fatal(err)
	}
	c := b.Clone()
	at = at.Add(time.Hour)
	b.Replace("a", []byte("two"))
	b.Replace("b", []byte("new"))
	for _, want := range []struct {
		b      *membucket.Bucket
		key    string
		data   string
		stored time.Time
	}{
		{b, "a", "two", at.Add(-time.Hour)},
		{b, "b", "new", at},
		{c, "a", "one", at.Add(-time.Hour)},
	} {
		data, err := bucket.ReadAll(t.Context(), want.b, want.key, 3)
		if err != nil || string(data) != want.data {
			t.Errorf("%s holds %q, %v", want.key, data, err)
		}
		if o, err := want.b.Stat(t.Context(), want.key); err != nil || !o.Stored.Equal(want.stored) {
			t.Errorf("%s is of %v, %v", want.key, o.Stored, err)
		}
	}
	if _, err := c.Stat(t.Context(), "b"); err == nil {
		t.Error("what was put after cloning is in the clone")
	}
	if _, err := bucket.ReadAll(t.Context(), b, "a", 2); err == nil {
		t.Error("an object larger than allowed was read")
	}
}
