package arm

import (
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/diskvault/diskvault/base/problem"
)

// limits hold the number of requests of each caller. Safe for concurrent use.
type limits struct {
	rate float64 // requests a second, of each kind

	mu      sync.Mutex
	callers map[string]*caller // guarded by mu
	swept   time.Time          // guarded by mu
}

type caller struct {
	kinds map[string]*rate.Limiter
	last  time.Time
}

func newLimits(perSecond float64) *limits {
	return &limits{rate: perSecond, callers: map[string]*caller{}, swept: time.Now()}
}

// kindOf are the kinds that ARM counts apart, by the header that tells what is
// left.
func kindOf(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		return "reads"
	case http.MethodDelete:
		return "deletes"
	}
	return "writes"
}

// admit counts a request, or returns a TooManyRequests problem and says when to
// come again.
func (l *limits) admit(principal, method string, h http.Header) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.swept) > time.Minute {
		for p, c := range l.callers {
			if now.Sub(c.last) > time.Minute {
				delete(l.callers, p) // its buckets are full again
			}
		}
		l.swept = now
	}
	c := l.callers[principal]
	if c == nil {
		c = &caller{kinds: map[string]*rate.Limiter{}}
		l.callers[principal] = c
	}
	c.last = now
	kind := kindOf(method)
	if c.kinds[kind] == nil {
		c.kinds[kind] = rate.NewLimiter(rate.Limit(l.rate), max(1, int(10*l.rate)))
	}
	if !c.kinds[kind].AllowN(now, 1) {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(1/l.rate))))
		return problem.New(problem.TooManyRequests, "The caller has sent too many requests of the kind %s; %g a second are allowed.", kind, l.rate)
	}
	h.Set("x-ms-ratelimit-remaining-subscription-"+kind, strconv.Itoa(int(c.kinds[kind].TokensAt(now))))
	return nil
}
