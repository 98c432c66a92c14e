package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// checkpoint is a partial image: what a run had stored, and behind it the base.
type checkpoint struct {
	Root Root      `json:"root"`
	Size int64     `json:"size"`
	Top  Ref       `json:"top"`
	Done int64     `json:"done"` // bytes of the disk dealt with
	Time time.Time `json:"time"`
}

type sessionDocument struct {
	ID           ID          `json:"id"`
	Host         string      `json:"host"`
	PID          int         `json:"pid"`
	Started      time.Time   `json:"started"`
	Instance     string      `json:"instance"`
	CollectEpoch int         `json:"collectEpoch"`
	Bases        []Root      `json:"bases"`
	Checkpoint   *checkpoint `json:"checkpoint,omitempty"`
}

const (
	sessionPrefix = "sessions/"
	renewEvery    = time.Minute
)

// session is the writer's word to everybody else that it is at work.
type session struct {
	store *Store
	mu    sync.Mutex // held while a renewal is put
	doc   sessionDocument
	last  int // number of the newest object; guarded by mu
	stop  context.CancelFunc
	done  chan struct{}
}

func (s *Store) beginSession(ctx context.Context, id ID, instance string, bases []Root) (*session, error) {
	host, _ := os.Hostname() // empty is as good: it only tells people where to look
	x := &session{store: s, done: make(chan struct{}), doc: sessionDocument{
		ID: id, Host: host, PID: os.Getpid(), Started: time.Now().UTC(), Instance: instance, Bases: bases,
	}}
	if err := x.put(ctx); err != nil {
		return nil, err
	}
	ctx, x.stop = context.WithCancel(ctx)
	go x.renew(ctx)
	return x, nil
}

// renew puts the session again every minute. A renewal that fails is not an
// error of the run: if the session grows so old that a collector fences it,
// the commit says so.
func (x *session) renew(ctx context.Context) {
	defer close(x.done)
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = x.put(ctx)
		}
	}
}

// put writes the session under the next number and removes the one before.
func (x *session) put(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, err := x.store.putDocument(ctx, sessionKey(x.doc.ID, x.last+1), seal.Session, x.doc.ID, x.doc); err != nil {
		return err
	}
	x.last++
	if x.last > 1 {
		return x.store.bucket.Delete(ctx, sessionKey(x.doc.ID, x.last-1))
	}
	return nil
}

func (x *session) checkpoint(ctx context.Context, c checkpoint) error {
	x.mu.Lock()
	x.doc.Checkpoint = &c
	x.mu.Unlock()
	return x.put(ctx)
}

// halt ends the renewal; the objects stay.
func (x *session) halt() {
	x.stop()
	<-x.done
}

// end removes the session.
func (x *session) end(ctx context.Context) error {
	x.halt()
	return x.store.deleteSession(ctx, x.doc.ID)
}

func sessionKey(id ID, n int) string { return fmt.Sprintf("%s%s/%08d", sessionPrefix, id, n) }

func (s *Store) deleteSession(ctx context.Context, id ID) error {
	for o, err := range s.bucket.List(ctx, sessionPrefix+id.String()+"/", "") {
		if err != nil {
			return err
		}
		if err := s.bucket.Delete(ctx, o.Key); err != nil {
			return err
		}
	}
	return nil
}

// sessions reads the newest object of each session; one that is removed
// meanwhile, or that cannot be read, is left out.
func (s *Store) sessions(ctx context.Context) ([]sessionDocument, error) {
	var all []sessionDocument
	for o, err := range s.bucket.List(ctx, sessionPrefix, "") {
		if err != nil {
			return nil, err
		}
		text, _, _ := strings.Cut(strings.TrimPrefix(o.Key, sessionPrefix), "/")
		id, err := ParseID(text)
		if err != nil {
			continue
		}
		var doc sessionDocument
		err = s.readDocument(ctx, o.Key, seal.Session, id, maxControlSize, &doc)
		if errors.Is(err, bucket.ErrNotFound) || isDamage(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n := len(all); n > 0 && all[n-1].ID == doc.ID {
			all = all[:n-1] // a newer number of the same session
		}
		all = append(all, doc)
	}
	return all, nil
}

// Unfinished is the newest checkpoint of an interrupted run of the instance;
// ok is false if there is none.
func (s *Store) Unfinished(ctx context.Context, instance string) (img *Image, done int64, ok bool, err error) {
	all, err := s.sessions(ctx)
	if err != nil {
		return nil, 0, false, err
	}
	var newest *checkpoint
	for _, doc := range all {
		if c := doc.Checkpoint; doc.Instance == instance && c != nil && (newest == nil || c.Time.After(newest.Time)) {
			newest = c
		}
	}
	if newest == nil {
		return nil, 0, false, nil
	}
	img, err = s.image(newest.Root, newest.Size, newest.Top)
	if isDamage(err) {
		return nil, 0, false, nil
	}
	if err != nil {
		return nil, 0, false, err
	}
	img.partial = true
	return img, newest.Done, true, nil
}

// forgetUnfinished removes the sessions of earlier runs of the instance by
// this host: the point that was just committed has what they stood for.
func (s *Store) forgetUnfinished(ctx context.Context, instance string) error {
	all, err := s.sessions(ctx)
	if err != nil {
		return err
	}
	host, _ := os.Hostname()
	for _, doc := range all {
		if doc.Instance == instance && doc.Host == host {
			err = errors.Join(err, s.deleteSession(ctx, doc.ID))
		}
	}
	return err
}
