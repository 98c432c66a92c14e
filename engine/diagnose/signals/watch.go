package signals

import (
	"context"
	"time"

	"github.com/diskvault/diskvault/base/meter"
)

// every is how often the host is looked at, and tell how many looks make an
// entry in the record.
const (
	every = time.Second
	tell  = 5
)

// Watch looks once a second and writes into the record of a job, until the
// function that it returns is called, which waits for the last look.
func Watch(ctx context.Context, o Options, m *meter.Meter) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s := New(o)
		tick := time.NewTicker(every)
		defer tick.Stop()
		s.Sample(time.Now())
		for n := 1; ; n++ {
			select {
			case <-ctx.Done():
				s.Sample(time.Now())
				m.Surroundings(s.Signals())
				return
			case <-tick.C:
			}
			s.Sample(time.Now())
			if n%tell == 0 {
				m.Surroundings(s.Signals())
			}
		}
	}()
	return func() { cancel(); <-ended }
}
