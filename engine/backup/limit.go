package backup

import (
	"context"

	"golang.org/x/time/rate"

	"github.com/diskvault/diskvault/base/meter"
)

// limiter holds the reading back to a number of bytes a second; nil does not.
type limiter struct{ rate *rate.Limiter }

// burst is what may be read at once under a limit; no wait is for more.
const burst = 1 << 20

func newLimiter(bytesPerSecond int64) *limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &limiter{rate.NewLimiter(rate.Limit(bytesPerSecond), burst)}
}

// wait returns when n more bytes may be read; the worker is limited meanwhile.
func (l *limiter) wait(ctx context.Context, worker *meter.Worker, n int64) error {
	if l == nil {
		return nil
	}
	worker.Enter(meter.Limited)
	defer worker.Enter(meter.Work)
	for n > 0 {
		part := min(n, burst)
		if err := l.rate.WaitN(ctx, int(part)); err != nil {
			return err
		}
		n -= part
	}
	return nil
}
