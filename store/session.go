package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// task says what a session is for.
type task string

const (
	taskWrite   task = "write"   // stores packs and commits what refers to them
	taskRead    task = "read"    // relies on images to stay; refers to nothing new
	taskCollect task = "collect" // refers to nothing
)

// stored names an image: what a session stands on, or has reached.
type stored struct {
	Root Root  `json:"root"`
	Size int64 `json:"size"`
	Top  Ref   `json:"top"`
}

// checkpoint is a partial image: what a run had stored, and behind it the base.
type checkpoint struct {
	stored
	Done int64     `json:"done"` // bytes of the disk dealt with
	Time time.Time `json:"time"`
}

type sessionDocument struct {
	ID       ID        `json:"id"`
	Run      ID        `json:"run"` // copies of one point take the same ID
	Task     task      `json:"task"`
	Host     string    `json:"host"`
	Owner    ID        `json:"owner"` // ID of the folder with the local index; see readOwner
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"` // this and the next by the writer's clock
	Renewed  time.Time `json:"renewed"`
	Instance string    `json:"instance"`
	Purpose  string    `json:"purpose,omitempty"` // of a reader, for people
	// CollectEpoch is the newest condemned list that the writer knows of. From
	// it on it refers to none of the packs condemned but those in Pins.
	CollectEpoch int         `json:"collectEpoch"`
	Images       []stored    `json:"images"`
	Pins         []pack.ID   `json:"pins,omitempty"` // condemned packs that it refers to
	Checkpoint   *checkpoint `json:"checkpoint,omitempty"`
	// Ended: the writer has committed. It leaves its session if a condemned list
	// is pending, so that the second marking knows what it stood on.
	Ended bool `json:"ended,omitempty"`
}

// writes tells whether the session may still commit something.
func (d *sessionDocument) writes() bool { return d.Task == taskWrite && !d.Ended }

const (
	sessionPrefix  = "sessions/"
	maxSessionSize = 16 << 20 // pins, at worst
	renewEvery     = time.Minute
)

// session is the word of a writer or reader to everybody else that it is at
// work. It is renewed until halt or end.
type session struct {
	store *Store
	mu    turn // held while a renewal is put
	doc   sessionDocument
	last  int           // number of the newest object; guarded by mu
	sure  int           // of the newest that was there when its successor was; guarded by mu
	first int           // of the oldest that is not removed; guarded by mu
	lost  error         // somebody else removed it; guarded by mu
	at    time.Time     // when it was put, by this machine's clock; guarded by mu
	heed  *clearance    // nil: it refers to nothing new
	nudge chan struct{} // renews at once
	stop  context.CancelFunc
	done  chan struct{}
}

// liveSessions are those of this process.
type liveSessions struct {
	mu  sync.Mutex
	all map[*session]bool
}

func (l *liveSessions) set(x *session, alive bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[*session]bool{}
	}
	if alive {
		l.all[x] = true
	} else {
		delete(l.all, x)
	}
}

func (l *liveSessions) has(id ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for x := range l.all {
		if x.doc.ID == id {
			return true
		}
	}
	return false
}

// nudge makes the sessions of this process renew at once, so that a collector
// beside them need not wait for a minute.
func (l *liveSessions) nudge() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for x := range l.all {
		select {
		case x.nudge <- struct{}{}:
		default: // it is about to
		}
	}
}

// beginSession puts the session. heed may be nil; if not, the condemned lists
// that the session heeds are those that were there after it was put.
func (s *Store) beginSession(ctx context.Context, doc sessionDocument, heed *clearance) (*session, error) {
	doc.Host, doc.Owner, doc.PID, doc.Started = s.host, s.owner, os.Getpid(), time.Now().UTC()
	doc.Run = newSessionID()
	x := &session{store: s, mu: newTurn(), first: 1, heed: heed, nudge: make(chan struct{}, 1), done: make(chan struct{}), doc: doc}
	s.live.set(x, true) // first: one that is not live may be held to be dead
	if err := x.begin(ctx); err != nil {
		s.live.set(x, false)
		return nil, err
	}
	ctx, x.stop = context.WithCancel(ctx)
	go x.renew(ctx)
	return x, nil
}

// begin puts the session until it heeds every list that was published before
// it was visible: a collector that does not see the session is seen by it.
func (x *session) begin(ctx context.Context) error {
	for {
		if err := x.put(ctx); err != nil || x.heed == nil {
			return err
		}
		news, err := x.heed.news(ctx)
		if err != nil || !news {
			return err
		}
	}
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
		case <-x.nudge:
		case <-tick.C:
		}
		if ctx.Err() != nil {
			return
		}
		// One renewal does for both.
		select {
		case <-x.nudge:
		default:
		}
		select {
		case <-tick.C:
		default:
		}
		_ = x.put(ctx)
	}
}

// put writes the session under the next number and removes the one before.
func (x *session) put(ctx context.Context) error {
	x.mu.take()
	defer x.mu.give()
	if x.heed != nil && !x.doc.Ended {
		epoch, pins, err := x.heed.acknowledge(ctx)
		if err != nil {
			return err
		}
		x.doc.CollectEpoch, x.doc.Pins = epoch, pins
	}
	x.at = time.Now()
	x.doc.Renewed = x.at.UTC()
	for {
		_, err := x.store.putDocument(ctx, sessionKey(x.doc.ID, x.last+1), seal.Session, x.doc.ID, x.doc)
		if errors.Is(err, bucket.ErrExists) && x.last > 0 {
			x.last++ // an attempt that was reported as failed
			continue
		}
		if err != nil {
			return err
		}
		break
	}
	x.last++
	if err := x.unbroken(ctx); err != nil {
		return err
	}
	for ; x.first < x.last; x.first++ {
		if err := x.store.bucket.Delete(ctx, sessionKey(x.doc.ID, x.first)); err != nil {
			return err
		}
	}
	return nil
}

// unbroken makes sure that the session was there all the time until the object
// just put: a writer that was given up and wakes later must not bring it back.
func (x *session) unbroken(ctx context.Context) error {
	if x.sure > 0 && guardRun {
		if err := x.mine(ctx, x.sure); problem.Is(err, problem.SessionFenced) {
			x.lost = err
			return errors.Join(err, x.store.bucket.Delete(ctx, sessionKey(x.doc.ID, x.last)))
		} else if err != nil {
			return err
		}
	}
	x.sure = x.last
	return nil
}

// mine fails with SessionFenced unless the object of that number is there, and
// of this very run; mu is held.
func (x *session) mine(ctx context.Context, n int) error {
	if x.lost != nil {
		return x.lost
	}
	var doc sessionDocument
	err := x.store.readDocument(ctx, sessionKey(x.doc.ID, n), seal.Session, x.doc.ID, maxSessionSize, &doc)
	if isMissing(err) || err == nil && doc.Run != x.doc.Run && guardRun {
		return x.store.fenced(errors.Join(err, fmt.Errorf("the session %s was removed", x.doc.ID)))
	}
	return err
}

func (x *session) checkpoint(ctx context.Context, c checkpoint) error {
	x.mu.take()
	x.doc.Checkpoint = &c
	x.mu.give()
	return x.put(ctx)
}

// stands fails with SessionFenced if the session was removed by somebody else.
func (x *session) stands(ctx context.Context) error {
	x.mu.take()
	defer x.mu.give()
	return x.mine(ctx, x.sure)
}

// now is the time by the store's clock.
func (x *session) now(ctx context.Context) (time.Time, error) {
	x.mu.take()
	defer x.mu.give()
	o, err := x.store.bucket.Stat(ctx, sessionKey(x.doc.ID, x.last))
	if isMissing(err) {
		return time.Time{}, x.store.fenced(err)
	}
	return o.Stored.Add(time.Since(x.at)), err
}

// halt ends the renewal; the objects stay.
func (x *session) halt() {
	x.stop()
	<-x.done
	x.store.live.set(x, false)
}

// end removes the session. While packs are condemned, that of a writer stays,
// as ended, until the collection is through: what a later point was made on
// must be known to it, even if this point is deleted at once.
func (x *session) end(ctx context.Context) error {
	x.halt()
	if x.doc.Task == taskWrite {
		lists, err := x.store.condemnedLists(ctx)
		if err != nil {
			return err
		}
		if guardEnded && len(lists.pending) > 0 {
			x.mu.take()
			x.doc.Ended, x.doc.Checkpoint = true, nil
			x.mu.give()
			return x.put(ctx)
		}
	}
	return x.store.deleteSession(ctx, x.doc.ID)
}

func newSessionID() (id ID) {
	rand.Read(id[:])
	return id
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

// sessionObject is a session as the store has it.
type sessionObject struct {
	sessionDocument
	renewed time.Time // by the store's clock
	damage  error     // it cannot be read; of the document the ID is known only
}

// begun is when the session began, by the store's clock.
func (o *sessionObject) begun() time.Time { return o.renewed.Add(o.Started.Sub(o.Renewed)) }

// sessions reads the newest object of each session; one that is removed
// meanwhile is left out.
func (s *Store) sessions(ctx context.Context) ([]sessionObject, error) {
	var ids []ID
	for o, err := range s.bucket.List(ctx, sessionPrefix, "") {
		if err != nil {
			return nil, err
		}
		text, _, _ := strings.Cut(strings.TrimPrefix(o.Key, sessionPrefix), "/")
		if id, err := ParseID(text); err == nil && (len(ids) == 0 || ids[len(ids)-1] != id) {
			ids = append(ids, id)
		}
	}
	var all []sessionObject
	for _, id := range ids {
		o, ok, err := s.session(ctx, id)
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, o)
		}
	}
	return all, nil
}

// session reads the newest object of a session. One that is renewed meanwhile
// can hide between two listings, so it is held to be gone only if two show
// nothing.
func (s *Store) session(ctx context.Context, id ID) (found sessionObject, ok bool, err error) {
	for nothing := 0; nothing < 2; {
		var newest bucket.Object
		for o, err := range s.bucket.List(ctx, sessionPrefix+id.String()+"/", "") {
			if err != nil {
				return found, false, err
			}
			newest = o
		}
		if newest.Key == "" {
			nothing++
			continue
		}
		found = sessionObject{renewed: newest.Stored}
		err := s.readDocument(ctx, newest.Key, seal.Session, id, maxSessionSize, &found.sessionDocument)
		switch {
		case errors.Is(err, bucket.ErrNotFound):
			continue // renewed, or removed
		case isDamage(err):
			found.ID, found.damage = id, err
			return found, true, nil
		}
		return found, err == nil, err
	}
	return found, false, nil
}

// Unfinished is the newest checkpoint of an interrupted run of the instance;
// ok is false if there is none.
func (s *Store) Unfinished(ctx context.Context, instance string) (img *Image, done int64, ok bool, err error) {
	all, err := s.sessions(ctx)
	if err != nil {
		return nil, 0, false, err
	}
	var newest *checkpoint
	var of ID
	for _, o := range all {
		if c := o.Checkpoint; o.Instance == instance && c != nil && (newest == nil || c.Time.After(newest.Time)) {
			newest, of = c, o.ID
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
	img.keeper, img.partial = sessionPrefix+of.String()+"/", true
	return img, newest.Done, true, nil
}

// forgetUnfinished removes the sessions of earlier runs of the instance by this
// host: the point that was just committed has what they stood for.
func (s *Store) forgetUnfinished(ctx context.Context, instance string) error {
	all, err := s.sessions(ctx)
	if err != nil {
		return err
	}
	// What somebody goes on with who began while packs were condemned must be
	// known until the collection is through.
	lists, err := s.condemnedLists(ctx)
	if err != nil || len(lists.pending) > 0 {
		return err
	}
	for _, o := range all {
		if o.Instance != instance || o.Host != s.host || !o.writes() || s.live.has(o.ID) {
			continue
		}
		if !s.dead(&o) {
			// Of another data folder: it may be at work all the same.
			if err := s.fence(ctx, o.ID, "A later run of the disk on the same host has committed."); err != nil {
				return err
			}
		}
		if err := s.deleteSession(ctx, o.ID); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) fenced(cause error) error {
	return problem.Wrap(cause, problem.SessionFenced, "The run was out of touch with the store at %s for so long that it was given up.", s.URL())
}
