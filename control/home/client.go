package home

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// again says that the request has to be tried again.
type again struct {
	after    time.Duration
	answered bool // by an owner; false: nobody was there
}

// handOver has the owner do the request. A nil again means that result and
// err are the answer; else the owner left, died or did not answer.
func (f Folder) handOver(ctx context.Context, r Request, emit func(Event)) (result json.RawMessage, retry *again, err error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, nil, err
	}
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return f.dial(ctx) },
		DisableKeepAlives: true,
	}
	defer transport.CloseIdleConnections()
	// An owner that is stopped takes the connection but never answers; one
	// that is alive sends its first line at once.
	callCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	q, err := http.NewRequestWithContext(callCtx, http.MethodPost, "http://diskvault/call", bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	q.Header.Set("Content-Type", "application/json")
	silence := time.AfterFunc(noAnswer, cancel)
	defer silence.Stop()
	p, err := transport.RoundTrip(q)
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		return nil, &again{after: 10 * time.Millisecond}, err
	}
	defer p.Body.Close()
	silence.Stop()
	if p.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("the owner of the data folder refused the request: %s", p.Status)
	}
	lines := json.NewDecoder(p.Body)
	for {
		var m message
		if err := lines.Decode(&m); err != nil {
			if ctx.Err() != nil {
				return nil, nil, context.Cause(ctx)
			}
			// The owner died in the middle.
			return nil, &again{after: 10 * time.Millisecond, answered: true}, errors.Join(errOwnerDied, err)
		}
		switch {
		case m.Failed != nil:
			return nil, nil, m.Failed.Problem()
		case m.Leaving != nil:
			return nil, &again{after: time.Duration(m.Leaving.AfterMilliseconds) * time.Millisecond, answered: true}, nil
		case m.Result != nil:
			return m.Result, nil, nil
		default:
			emit(m.Event)
		}
	}
}

var errOwnerDied = errors.New("the process that had taken the request ended")
