package home

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/diskvault/diskvault/control/resource"
)

// message is one line of the answer to a call.
type message struct {
	Event
	Leaving *leaving          `json:"leaving,omitempty"`
	Failed  *resource.Failure `json:"error,omitempty"`
	Result  json.RawMessage   `json:"result,omitempty"`
}

// leaving tells a client to ask the next owner, and when, so that those who
// waited longest come first.
type leaving struct {
	AfterMilliseconds int `json:"afterMilliseconds"`
}

// perPlace is how much later each place in the queue tries again.
const perPlace = 20 * time.Millisecond

// host answers the calls of other processes. One goroutine accepts, one per
// connection answers.
type host struct {
	service Service
	server  *http.Server
	ctx     context.Context
	cancel  context.CancelCauseFunc
	served  sync.WaitGroup
}

func newHost(s Service) *host {
	h := &host{service: s}
	h.ctx, h.cancel = context.WithCancelCause(context.Background())
	mux := http.NewServeMux()
	mux.HandleFunc("POST /call", h.call)
	h.server = &http.Server{Handler: mux}
	return h
}

func (h *host) serve(l *listener) {
	h.served.Go(func() { h.server.Serve(l) }) // returns when the host leaves
}

// leave hands back what has not begun and waits for what has; if ctx has
// ended, somebody wants this process to go, and what has begun is handed back
// too: it goes on from what is stored.
func (h *host) leave(ctx context.Context) {
	h.service.Leave()
	if ctx.Err() != nil {
		h.cancel(ErrHandedBack)
	}
	stop := context.AfterFunc(ctx, func() { h.cancel(ErrHandedBack) })
	defer stop()
	h.server.Shutdown(context.Background())
	h.served.Wait()
	h.cancel(nil)
}

func (h *host) call(w http.ResponseWriter, q *http.Request) {
	var r Request
	if err := json.NewDecoder(http.MaxBytesReader(w, q.Body, 1<<20)).Decode(&r); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// The job ends when its client goes away, and when the host must go.
	ctx, cancel := context.WithCancelCause(q.Context())
	defer cancel(nil)
	stop := context.AfterFunc(h.ctx, func() { cancel(context.Cause(h.ctx)) })
	defer stop()

	out := newAnswer(w)
	result, err := h.service.Call(ctx, r, func(e Event) { out.send(message{Event: e}) })
	switch {
	case errors.Is(err, ErrHandedBack) || errors.Is(context.Cause(ctx), ErrHandedBack) && err != nil:
		after := time.Duration(max(1, out.position)) * perPlace
		out.send(message{Leaving: &leaving{int(after.Milliseconds())}})
	case err != nil:
		out.send(message{Failed: resource.FailureOf(err)})
	default:
		if result == nil {
			result = json.RawMessage("null")
		}
		out.send(message{Result: result})
	}
}

// answer writes the lines of one answer.
type answer struct {
	mu       sync.Mutex
	encoder  *json.Encoder
	flush    func() error
	position int // last told; only read after the call
}

func newAnswer(w http.ResponseWriter) *answer {
	a := &answer{encoder: json.NewEncoder(w), flush: http.NewResponseController(w).Flush}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	a.flush() // tells the client at once that somebody is there
	return a
}

// send drops what cannot be written: a client that went away is noticed by the
// end of its request's context.
func (a *answer) send(m message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.Queued > 0 {
		a.position = m.Queued
	}
	if a.encoder.Encode(m) == nil {
		a.flush()
	}
}
