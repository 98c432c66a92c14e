package service

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/catalog"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/store"
)

func point(id string, day int) catalog.Point {
	at := time.Date(2026, 3, day, 1, 0, 0, 0, time.UTC)
	return catalog.Point{Point: store.Point{ID: id, Time: at, Created: at}}
}

func TestChoose(t *testing.T) {
	// Newest first by commit; the clock was set back before the newest.
	points := []catalog.Point{point("aaaa1111", 5), point("bbbb2222", 9), point("bbbb3333", 3)}
	for text, want := range map[string]string{
		"": "aaaa1111", "latest": "aaaa1111", "aaaa1111": "aaaa1111", "aaaa": "aaaa1111", "BBBB3": "bbbb3333",
		"2026-03-09": "aaaa1111", "2026-03-09T01:00:00Z": "bbbb2222", "2026-03-09 01:00": "bbbb2222", "2026-03-04": "bbbb3333",
		"2026-03-05T02:00:00+01:00": "aaaa1111",
	} {
		got, err := choose(points, "disk", text)
		if err != nil || got.ID != want {
			t.Errorf("%q: %s, %v; want %s", text, got.ID, err, want)
		}
	}
	for text, code := range map[string]problem.Code{
		"bbbb": problem.InvalidArgument, "aaa": problem.RecoveryPointNotFound, "yesterday": problem.RecoveryPointNotFound, "2026-03-01": problem.RecoveryPointNotFound,
	} {
		got, err := choose(points, "disk", text)
		if !problem.Is(err, code) {
			t.Errorf("%q: %s, %v; want %s", text, got.ID, err, code)
		}
	}
}

func TestWithoutFalseStarts(t *testing.T) {
	got := withoutFalseStarts([]resource.Instance{
		{ID: "empty1", Disk: "/a"}, {ID: "used", Disk: "/a"}, {ID: "empty2", Disk: "/a"},
		{ID: "new1", Disk: "/b"}, {ID: "new2", Disk: "/b"}, {ID: "alone", Disk: "/c"}, {ID: "asked", Disk: "/a", DiskID: "/d"},
	}, []store.Point{{Instance: "used"}})
	var ids []string
	for _, i := range got {
		ids = append(ids, i.ID)
	}
	if s := strings.Join(ids, " "); s != "used new2 alone asked" {
		t.Errorf("%s", s)
	}
}

func TestLocks(t *testing.T) {
	var l locks
	var running, most, n int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			unlock, err := l.lock(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			running++
			most = max(most, running)
			n++
			mu.Unlock()
			time.Sleep(time.Millisecond)
			mu.Lock()
			running--
			mu.Unlock()
			unlock()
		})
	}
	wg.Wait()
	if most != 1 || n != 50 || len(l.held) != 0 {
		t.Errorf("%d at a time, %d in all, %d still held", most, n, len(l.held))
	}
	unlock, err := l.lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.lock(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.lock(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	unlock()
}
