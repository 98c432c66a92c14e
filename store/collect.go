package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// The times of a collection, all by the store's clock.
const (
	// DefaultGrace is how long condemned packs stay, for whoever reads without
	// a session, and for people who change their mind.
	DefaultGrace = 24 * time.Hour
	// fenceAfter is how long a writer may be out of touch before it is given up.
	fenceAfter = time.Hour
	// resumeWithin is how long what an interrupted run stored is kept for the
	// next run of its disk.
	resumeWithin = 7 * 24 * time.Hour
	// fencesFor is how long a fence stays behind a session that was given up. A
	// writer that wakes later finds its session gone, and does not commit either.
	fencesFor = 30 * 24 * time.Hour
	// sessionSlack widens the time in which a session may have stored packs, by
	// what clocks and renewals may be late.
	sessionSlack = 2 * renewEvery
)

// The phases of a collection, in order.
const (
	phaseRoots   = "roots"
	phaseMark    = "mark"
	phaseCompact = "compact"
	phaseCondemn = "condemn"
	phaseWait    = "wait"
	phaseReview  = "mark again"
	phaseSweep   = "sweep"
)

// CollectOptions say how a store is collected. The zero value removes what can
// be removed at once, and compacts nothing.
type CollectOptions struct {
	// Grace is how long packs stay condemned before they are removed. If it is
	// not over, they are left to a later collection.
	Grace time.Duration
	// MaxUnused is how much of the bytes in use may be taken by pieces that are
	// not in use; above it, packs are compacted. Negative: none is.
	MaxUnused float64
	// Wait bounds how long the collection waits for writers of other processes;
	// 0 stands for ten minutes. After it, the rest is left to a later collection.
	Wait time.Duration
	// Yield is called all along with the time worked since the last call; it
	// waits for as long as others are to go first. May be nil.
	Yield    func(ctx context.Context, worked time.Duration) error
	Progress func(phase string, done, total int64) // may be nil
	Meter    *meter.Meter                          // may be nil
}

// CollectReport says what a collection found and did. Sizes are bytes in the
// store.
type CollectReport struct {
	Points    int64     `json:"points"` // that were walked
	Nodes     int64     `json:"nodes"`
	Blocks    int64     `json:"blocks"`
	InUse     Share     `json:"inUse"`     // packs that something refers to
	Unused    int64     `json:"unused"`    // bytes of pieces in them that nothing refers to
	Spared    Share     `json:"spared"`    // packs that a run under way, or an interrupted one, may need
	Compacted Share     `json:"compacted"` // packs whose pieces were moved
	Written   int64     `json:"written"`   // bytes of the packs that they were moved to
	Condemned Share     `json:"condemned"` // packs that wait to be removed
	Until     time.Time `json:"until,omitzero"`
	Rescued   Share     `json:"rescued"` // condemned packs that came to be needed again
	Removed   Share     `json:"removed"`
	// WaitingFor says in a sentence what keeps the condemned packs; empty: nothing.
	WaitingFor string `json:"waitingFor,omitempty"`
}

// Share is a number of packs, and what they take.
type Share struct {
	Packs int64 `json:"packs"`
	Bytes int64 `json:"bytes"`
}

func (s *Share) add(bytes int64) { s.Packs, s.Bytes = s.Packs+1, s.Bytes+bytes }

// Collect removes packs that nothing refers to. It may run beside backups,
// restores and other collections, in any number of processes, and may be
// interrupted at any time: what is condemned stays so, and the next collection
// goes on. docs/design/concurrency.md tells why it is safe. Errors:
// CollectBlocked if not all that is in use can be read; those of the bucket.
func (s *Store) Collect(ctx context.Context, o CollectOptions) (CollectReport, error) {
	if s.index == nil {
		return CollectReport{}, errors.New("the store was opened for reading only")
	}
	if o.Wait <= 0 {
		o.Wait = 10 * time.Minute
	}
	if o.Meter == nil {
		o.Meter = meter.New(phaseRoots)
	}
	c := &collector{store: s, options: o, pace: pacer{yield: o.Yield}}
	var err error
	if c.session, err = s.beginSession(ctx, sessionDocument{ID: newSessionID(), Task: taskCollect}, nil); err != nil {
		return c.report, err
	}
	defer func() {
		// What is left of it if this fails, a later collection removes.
		_ = c.session.end(context.WithoutCancel(ctx))
	}()
	err = c.run(ctx)
	return c.report, err
}

type collector struct {
	store   *Store
	options CollectOptions
	session *session
	pace    pacer
	report  CollectReport
	packs   []packObject // as they were before anything was marked
	sizes   map[pack.ID]int64
	fences  map[ID]time.Time
	blind   bool // the index failed
}

func (c *collector) phase(name string) {
	c.options.Meter.Phase(name)
	c.progress(name, 0, 0)
}

func (c *collector) progress(phase string, done, total int64) {
	c.options.Meter.Mark(1)
	if c.options.Progress != nil {
		c.options.Progress(phase, done, total)
	}
}

// run ends what an earlier collection began, and then collects anew.
func (c *collector) run(ctx context.Context) error {
	l, err := c.store.condemnedLists(ctx)
	if err != nil {
		return err
	}
	for _, pending := range l.pending {
		done, err := c.finish(ctx, pending)
		if err != nil || !done {
			return err
		}
	}
	list, err := c.condemn(ctx, l.newest()+1)
	if err != nil || list.Key == "" {
		return err
	}
	_, err = c.finish(ctx, list)
	return err
}

// condemn finds the packs that nothing refers to, and publishes them under the
// number. There is no list if there is none.
func (c *collector) condemn(ctx context.Context, number int) (list bucket.Object, err error) {
	s := c.store
	c.phase(phaseRoots)
	if err := c.list(ctx); err != nil {
		return list, err
	}
	roots, err := s.roots(ctx, nil)
	if err != nil {
		return list, err
	}
	c.fences = roots.fences
	there := make(map[pack.ID]bool, len(c.packs))
	for _, p := range c.packs {
		there[p.id] = true
	}
	m, err := c.mark(ctx, phaseMark, roots, there)
	if err != nil {
		return list, err
	}
	windows, err := c.windows(ctx, roots.sessions)
	if err != nil {
		return list, err
	}
	c.weigh(m)
	if c.options.MaxUnused >= 0 {
		c.phase(phaseCompact)
		if err := c.compact(ctx, m, windows); err != nil {
			return list, err
		}
	}
	c.phase(phaseCondemn)
	doc := condemnedList{Number: number, Time: time.Now().UTC(), Points: roots.points}
	for _, p := range c.packs {
		switch {
		case m.packs[p.id] != nil:
		case windows.spare(p.stored):
			c.report.Spared.add(p.size)
		default:
			doc.add(p.kind, p.id)
			continue
		}
		if p.kind == seal.MetadataPack {
			if err := m.retain(ctx, p.id); err != nil && !isDamage(err) {
				return list, err
			}
		}
	}
	for id := range m.moved {
		if !m.used[id] && !there[id] && m.packs[id] == nil {
			doc.Moved = append(doc.Moved, id)
		}
	}
	slices.SortFunc(doc.Moved, comparePacks)
	if err := c.forget(ctx, m, &doc); err != nil {
		return list, err
	}
	c.report.Condemned = doc.share(c.sizes)
	if doc.empty() {
		return list, c.tidy(ctx)
	}
	_, err = s.putDocument(ctx, condemnedKey(number), seal.Condemned, listID(number), doc)
	if err != nil && !errors.Is(err, bucket.ErrExists) {
		return list, err
	}
	// If somebody else was faster, theirs is the list.
	list, err = s.bucket.Stat(ctx, condemnedKey(number))
	if isMissing(err) {
		return bucket.Object{}, nil // and is through
	}
	return list, err
}

// forget adds the packs that are noted as damaged, are gone, and that nothing
// refers to: every index must forget them before the notes may go.
func (c *collector) forget(ctx context.Context, m *marking, doc *condemnedList) error {
	damaged, err := c.store.damagedPacks(ctx)
	if err != nil {
		return err
	}
	for _, id := range slices.SortedFunc(maps.Keys(damaged), comparePacks) {
		if _, there := c.sizes[id]; !there && m.packs[id] == nil {
			doc.add(seal.DataPack, id)
		}
	}
	return nil
}

// list notes which packs there are.
func (c *collector) list(ctx context.Context) error {
	c.packs, c.sizes = nil, map[pack.ID]int64{}
	return c.store.packs(ctx, func(p packObject) error {
		c.packs = append(c.packs, p)
		c.sizes[p.id] = p.size
		return c.pace.between(ctx)
	})
}

// mark walks all that the roots reach.
func (c *collector) mark(ctx context.Context, phase string, r *roots, listed map[pack.ID]bool) (*marking, error) {
	c.phase(phase)
	m, err := c.store.newMarking(ctx, listed, c.pace.between)
	if err != nil {
		return nil, err
	}
	for i, img := range r.images {
		if err := m.all(ctx, &roots{images: []root{img}}); err != nil {
			if gone, unknown := c.givenUp(ctx, img.session, err); !gone {
				return nil, errors.Join(err, unknown)
			}
		}
		c.progress(phase, int64(i+1), int64(len(r.images)))
	}
	err = m.all(ctx, &roots{pins: r.pins})
	c.report.Points += int64(len(r.images))
	c.report.Nodes += m.nodes
	c.report.Blocks += m.blocks
	return m, err
}

// givenUp tells whether an image that cannot be read may be left out: that of a
// session that was out of touch for too long, and now cannot commit any more. Its
// process may have died before it saw that the base was gone.
func (c *collector) givenUp(ctx context.Context, o *sessionObject, unreadable error) (bool, error) {
	if o == nil || !problem.Is(unreadable, problem.CollectBlocked) {
		return false, nil
	}
	now, err := c.session.now(ctx)
	if err != nil || now.Sub(o.renewed) < fenceAfter && !c.store.dead(o) {
		return false, err
	}
	if o.writes() {
		err = c.store.fence(ctx, o.ID, "The run was not heard of for an hour.")
	}
	return err == nil, err
}

// weigh counts what is in use.
func (c *collector) weigh(m *marking) {
	for _, p := range c.packs {
		if r := m.packs[p.id]; r != nil {
			c.report.InUse.add(p.size)
			if !r.whole {
				c.report.Unused += max(0, p.size-r.bytes())
			}
		}
	}
}

// windows are the times in which sessions that are under way, or were
// interrupted not long ago, may have stored packs that nothing refers to yet.
type windows []period

type period struct{ from, to time.Time }

func (w windows) spare(stored time.Time) bool {
	return slices.ContainsFunc(w, func(p period) bool { return !stored.Before(p.from) && stored.Before(p.to) })
}

func (c *collector) windows(ctx context.Context, sessions []sessionObject) (windows, error) {
	now, err := c.session.now(ctx)
	if err != nil {
		return nil, err
	}
	var w windows
	for _, o := range sessions {
		switch {
		case o.damage != nil || !o.writes():
		case now.Sub(o.renewed) < fenceAfter:
			w = append(w, period{o.begun().Add(-sessionSlack), now.Add(fenceAfter)})
		case now.Sub(o.renewed) < resumeWithin:
			w = append(w, period{o.begun().Add(-sessionSlack), o.renewed.Add(sessionSlack)})
		}
	}
	return w, nil
}

// finish removes what a condemned list names, but for what came to be needed
// again. done is false if it is not time yet.
func (c *collector) finish(ctx context.Context, list bucket.Object) (done bool, err error) {
	s := c.store
	number := listNumber(list.Key)
	doc, err := s.readList(ctx, list.Key, seal.Condemned)
	if errors.Is(err, bucket.ErrNotFound) {
		return true, nil // somebody else was faster
	}
	if err != nil {
		return false, err
	}
	if c.sizes == nil {
		if err := c.list(ctx); err != nil {
			return false, err
		}
	}
	c.report.Condemned = doc.share(c.sizes)
	decision, err := s.readList(ctx, sweepKey(number), seal.SweepList)
	undecided := errors.Is(err, bucket.ErrNotFound)
	if err != nil && !undecided {
		return false, err
	}
	if over, err := c.overtaken(ctx, number); over || err != nil {
		return over, err
	}
	if undecided {
		if done, err = c.due(ctx, list); err != nil || !done {
			return done, err
		}
		decision, done, err = c.decide(ctx, number, doc)
	}
	if err != nil || done {
		return done, err
	}
	condemned, going := c.report.Condemned, decision.share(c.sizes)
	c.report.Condemned, c.report.Until, c.report.WaitingFor = Share{}, time.Time{}, ""
	c.report.Rescued.Packs += condemned.Packs - going.Packs
	c.report.Rescued.Bytes += condemned.Bytes - going.Bytes
	return true, c.sweep(ctx, number, decision)
}

// overtaken tells whether a later list than this one was decided. Then it was
// put by a collection that slept while others went through all of its number and
// more: writers do not look at it, and what it names may be in use again.
func (c *collector) overtaken(ctx context.Context, number int) (bool, error) {
	s := c.store
	l, err := s.condemnedLists(ctx)
	if err != nil || !guardNumber || len(l.decided) == 0 || l.decided[len(l.decided)-1] <= number {
		return false, err
	}
	c.report.Condemned = Share{}
	return true, s.bucket.Delete(ctx, condemnedKey(number))
}

// due waits until the grace of a list is over and every writer heeds it. It is
// false if that takes too long.
func (c *collector) due(ctx context.Context, list bucket.Object) (bool, error) {
	c.phase(phaseWait)
	now, err := c.session.now(ctx)
	if err != nil {
		return false, err
	}
	if until := list.Stored.Add(c.options.Grace); c.options.Grace > 0 && now.Before(until) {
		c.report.Until = until
		c.report.WaitingFor = "Condemned packs stay for a time, in case somebody still reads them."
		return false, nil
	}
	number := listNumber(list.Key)
	deadline := time.Now().Add(c.options.Wait)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		c.store.live.nudge()
		behind, err := c.behind(ctx, number)
		if err != nil || behind == "" {
			return behind == "", err
		}
		c.report.WaitingFor = behind
		if time.Now().After(deadline) {
			return false, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// behind names a session that may still commit something and does not heed the
// list yet; empty if there is none. Those out of touch for too long are fenced.
func (c *collector) behind(ctx context.Context, number int) (string, error) {
	s := c.store
	sessions, err := s.sessions(ctx)
	if err != nil {
		return "", err
	}
	now, err := c.session.now(ctx)
	if err != nil {
		return "", err
	}
	waiting := ""
	for _, o := range sessions {
		if o.damage == nil && (!o.writes() || o.CollectEpoch >= number) {
			continue
		}
		if now.Sub(o.renewed) < fenceAfter && !s.dead(&o) {
			waiting = fmt.Sprintf("A run on %s (process %d) that began at %s must first learn what is condemned.", o.Host, o.PID, o.Started.Format(time.RFC3339))
			if o.damage != nil {
				waiting = fmt.Sprintf("The session %s cannot be read, so whoever it belongs to may be at work.", o.ID)
			}
			continue
		}
		if err := s.fence(ctx, o.ID, "The run was not heard of for an hour."); err != nil {
			return "", err
		}
	}
	return waiting, nil
}

// fence forbids a session to commit. If it has committed already its point
// stays.
func (s *Store) fence(ctx context.Context, id ID, reason string) error {
	if !guardFence {
		return nil
	}
	doc := pointDocument{Point: Point{ID: id.String()}, Fence: &fence{By: "collect", Time: time.Now().UTC(), Reason: reason}}
	_, err := s.putDocument(ctx, pointKey(id), seal.Point, id, doc)
	if errors.Is(err, bucket.ErrExists) {
		return nil
	}
	return err
}

// decide marks again, from the roots that came since, and settles once and for
// all what goes. done tells that the collection is through already.
func (c *collector) decide(ctx context.Context, number int, doc condemnedList) (decision condemnedList, done bool, err error) {
	s := c.store
	known := make(map[ID]bool, len(doc.Points))
	for _, id := range doc.Points {
		known[id] = true
	}
	c.phase(phaseReview)
	roots, err := s.roots(ctx, known)
	if err != nil {
		return decision, false, err
	}
	if !guardReview {
		roots.images, roots.pins = nil, nil
	}
	m, err := c.mark(ctx, phaseReview, roots, map[pack.ID]bool{})
	if err != nil {
		return decision, false, err
	}
	decision = condemnedList{Number: number, Time: time.Now().UTC()}
	c.fences = roots.fences
	for kind, id := range doc.packs() {
		if m.packs[id] == nil {
			decision.add(kind, id)
		} else if kind == seal.MetadataPack {
			if err := m.retain(ctx, id); err != nil && !isDamage(err) {
				return decision, false, err
			}
		}
	}
	for _, id := range doc.Moved {
		if !m.used[id] && m.packs[id] == nil {
			decision.Moved = append(decision.Moved, id)
		}
	}
	_, err = s.putDocument(ctx, sweepKey(number), seal.SweepList, listID(number), decision)
	if errors.Is(err, bucket.ErrExists) {
		// Another collection decided, and its word counts for both.
		decision, err = s.readList(ctx, sweepKey(number), seal.SweepList)
	}
	if err != nil {
		return decision, false, err
	}
	if over, err := c.overtaken(ctx, number); over || err != nil {
		return decision, over, err
	}
	// If the list is gone the collection was through before this decision,
	// which then is about packs that may be in use again.
	if _, err := s.bucket.Stat(ctx, condemnedKey(number)); guardList && isMissing(err) {
		return decision, true, nil
	} else if err != nil && !isMissing(err) {
		return decision, false, err
	}
	return decision, false, nil
}

// sweepers is how many objects are removed at a time.
const sweepers = 8

// sweep removes what was decided, and then the traces of the collection.
func (c *collector) sweep(ctx context.Context, number int, decision condemnedList) error {
	s := c.store
	c.phase(phaseSweep)
	damaged, err := s.damagedPacks(ctx)
	if err != nil {
		return err
	}
	if err := s.index.Forget(slices.Concat(decision.Data, decision.Metadata)...); err != nil {
		c.blind = true // the next writer sees that the index is behind
	}
	going := decision.share(c.sizes)
	done := int64(0)
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(sweepers)
	for kind, id := range decision.packs() {
		if inner.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := s.bucket.Delete(inner, packName(kind, id)); err != nil || !damaged[id] {
				return err
			}
			return s.bucket.Delete(inner, damagePrefix+id.String())
		})
		done++
		c.progress(phaseSweep, done, going.Packs)
		if err := c.pace.between(ctx); err != nil {
			return errors.Join(err, group.Wait())
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, id := range decision.Moved {
		if err := s.deleteAll(ctx, movedPrefix+id.String()+"/"); err != nil {
			return err
		}
	}
	c.report.Removed.Packs += going.Packs
	c.report.Removed.Bytes += going.Bytes
	if err := c.tidy(ctx); err != nil {
		return err
	}
	// The list goes last: until then everybody keeps clear of its packs, and
	// ended sessions stay.
	if err := s.bucket.Delete(ctx, condemnedKey(number)); err != nil {
		return err
	}
	if c.blind {
		return nil
	}
	if err := s.syncIndex(ctx); err != nil {
		return nil // the next writer tries again
	}
	_, _ = s.index.Sweep(ctx)
	return nil
}

// tidy removes what sessions left behind that ended, or were given up. Sessions
// that ended while a list is open must stay for its second marking; another
// collector may have published one. The sessions are looked at first: those that
// had ended by then ended before any list that is not there yet.
func (c *collector) tidy(ctx context.Context) error {
	s := c.store
	sessions, err := s.sessions(ctx)
	if err != nil {
		return err
	}
	l, err := s.condemnedLists(ctx)
	if err != nil {
		return err
	}
	open := slices.ContainsFunc(l.pending, func(o bucket.Object) bool { return !slices.Contains(l.decided, listNumber(o.Key)) })
	now, err := c.session.now(ctx)
	if err != nil {
		return err
	}
	// The newest decision of which the list is gone tells the collect epoch.
	for _, n := range l.decided {
		if n < l.swept() {
			if err := s.bucket.Delete(ctx, sweepKey(n)); err != nil {
				return err
			}
		}
	}
	alive := map[ID]bool{}
	for _, o := range sessions {
		age := now.Sub(o.renewed)
		switch {
		case o.damage == nil && o.Ended && !open:
		case o.damage == nil && !o.writes() && !o.Ended && age >= fenceAfter:
		case (o.damage != nil || o.writes()) && age >= resumeWithin:
			if err := s.fence(ctx, o.ID, "The run was not heard of for a week."); err != nil {
				return err
			}
		default:
			alive[o.ID] = true
			continue
		}
		if err := s.deleteSession(ctx, o.ID); err != nil {
			return err
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(c.fences), func(a, b ID) int { return bytes.Compare(a[:], b[:]) }) {
		if !alive[id] && now.Sub(c.fences[id]) >= fencesFor {
			if err := s.bucket.Delete(ctx, pointKey(id)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) deleteAll(ctx context.Context, prefix string) error {
	for o, err := range s.bucket.List(ctx, prefix, "") {
		if err != nil {
			return err
		}
		if err := s.bucket.Delete(ctx, o.Key); err != nil {
			return err
		}
	}
	return nil
}
