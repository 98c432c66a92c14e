package upkeep

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestUpkeepYieldsWhileOthersRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Front
		p := NewPace(&f)
		began := time.Now()
		if err := p.Yield(t.Context(), time.Second); err != nil || time.Since(began) != 0 {
			t.Fatalf("with nobody at the front it waited %v, %v", time.Since(began), err)
		}
		leave := f.Enter("a")
		if err := p.Yield(t.Context(), time.Second); err != nil || time.Since(began) != 9*time.Second {
			t.Fatalf("it waited %v, %v", time.Since(began), err)
		}
		time.AfterFunc(2*time.Second, leave)
		if err := p.Yield(t.Context(), time.Second); err != nil || time.Since(began) != 11*time.Second {
			t.Fatalf("it went on after %v, %v", time.Since(began), err)
		}
		a := p.Account()
		if a.YieldedSeconds != 11 || len(a.Beside) != 1 || a.Beside[0] != (Beside{"a", 2}) {
			t.Errorf("%+v", a)
		}
	})
}

// One of two that ends does not set upkeep free, and a cancelled job does not
// wait for its turn.
func TestUpkeepWaitsForAllAndForNobodyWhenCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Front
		p := NewPace(&f)
		time.AfterFunc(time.Second, f.Enter("a"))
		defer f.Enter("b")()
		began := time.Now()
		if err := p.Yield(t.Context(), time.Second); err != nil || time.Since(began) != 9*time.Second {
			t.Fatalf("it waited %v, %v", time.Since(began), err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := p.Yield(ctx, time.Hour); err == nil || time.Since(began) != 10*time.Second {
			t.Fatalf("cancelled, it waited %v, %v", time.Since(began), err)
		}
	})
}
