package qemu

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/diskvault/diskvault/base/problem"
)

// Cut is one point in time of some disks of a machine, held open to be read. It
// is the only one of its machine meanwhile. It ends when each of its slices is
// settled.
type Cut struct {
	Slices []*Slice
	Frozen string        // what the guest agent did, a sentence; "" without an agent
	Asleep bool          // the guest's file systems were frozen at the point in time
	Took   time.Duration // from the first change inside the machine until the point in time was held

	machine *Machine
	id      string
	nbd     string // the socket of the machine's NBD server

	mu              sync.Mutex
	open, unsettled int    // slices; guarded by mu
	guard           *guard // runs from the moment that the Cut is given to the caller
}

// Slice is one disk within a Cut.
type Slice struct {
	Disk
	Socket string   // of the NBD server
	Export string   // the disk as it was at the point in time, read-only
	Older  []string // meta contexts: what they call dirty together, and nothing else, has changed since the Cut that left Base
	Lost   int      // records that were found useless, since the machine ended without storing them

	cut             *Cut
	bitmap          string   // records from this point in time on
	older           []string // bitmaps that recorded until then
	closed, settled bool     // guarded by cut.mu
}

// Cut is that to which the slice belongs.
func (s *Slice) Cut() *Cut { return s.cut }

// Base is the name of the record that this Cut begins. Who keeps it can ask a
// later Cut whether it Has it.
func (s *Slice) Base() string { return s.bitmap }

// Has tells whether what has changed since a Cut is known: since the one that
// began the record of this name.
func (s *Slice) Has(base string) bool {
	for _, name := range s.older {
		if name == base {
			return true
		}
	}
	return false
}

// CutOptions say how a Cut is made. The zero value works.
type CutOptions struct {
	// FreezeLimit bounds all that the guest agent may take; 0: 10 seconds.
	FreezeLimit time.Duration
}

// Cut takes one point in time of some disks: of all of them at the same moment.
// It waits for an earlier Cut of the machine by this process to end. Errors are problems, such
// as MachineFailed; then the machine is as it was before.
func (m *Machine) Cut(ctx context.Context, o CutOptions, disks ...Disk) (*Cut, error) {
	if o.FreezeLimit <= 0 {
		o.FreezeLimit = 10 * time.Second
	}
	select {
	case m.cutting <- struct{}{}:
	case <-m.monitor.done:
		return nil, m.failed(m.monitor.ended(), "ended before a point in time was taken")
	case <-ctx.Done():
		return nil, problem.From(context.Cause(ctx))
	}
	c, err := m.cut(ctx, o, disks)
	if err != nil {
		err = m.failed(err, "did not let a point in time be taken")
		// What was begun is undone, even if the caller has no time left.
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
		defer cancel()
		err = errors.Join(err, c.undo(after))
		<-m.cutting
		return nil, err
	}
	return c, nil
}

// undoLimit is how long the machine may take to give up a Cut.
const undoLimit = 30 * time.Second

func (m *Machine) cut(ctx context.Context, o CutOptions, disks []Disk) (*Cut, error) {
	c := &Cut{machine: m, id: randomHex(4)}
	if err := m.sweep(ctx); err != nil {
		return c, err
	}
	switchable := 0
	for _, d := range disks {
		s := &Slice{cut: c, Disk: d, bitmap: recordPrefix(d.Owner) + randomHex(8), Export: prefix + c.id + "-" + randomHex(8)}
		var err error
		if s.older, s.Lost, err = m.records(ctx, d); err != nil {
			return c, err
		}
		for _, old := range s.older {
			s.Older = append(s.Older, "qemu:dirty-bitmap:"+old)
		}
		if d.switchable() {
			switchable++
		}
		c.Slices = append(c.Slices, s)
	}
	var err error
	if c.nbd, err = m.serve(ctx); err != nil {
		return c, err
	}
	began := time.Now()
	switch switchable {
	case len(disks):
		err = c.filter(ctx, o)
	case 0:
		err = c.job(ctx, o)
	default:
		err = problem.New(problem.SourceNotSupported, "Of the %d disks, %d can be switched and the others not, so they cannot be taken at one moment.", len(disks), switchable).
			Do("Back them up one by one.")
	}
	c.Took = time.Since(began)
	if err != nil {
		return c, err
	}
	if err := c.export(ctx); err != nil {
		return c, err
	}
	c.open, c.unsettled = len(disks), len(disks)
	c.guard = watch(m, c.Slices)
	return c, nil
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// name of a node or job of this Cut; at most 31 bytes, as QEMU wants.
func (c *Cut) name(n int, what string) string {
	return fmt.Sprintf("%s%s-%d-%s", prefix, c.id, n, what)
}

// filter takes the point in time by putting a copy-before-write filter above
// each disk, all in one command. Should the fleece be full or slow, the filter
// gives up the copy and lets the guest go on.
func (c *Cut) filter(ctx context.Context, o CutOptions) error {
	m := c.machine
	// The new record begins before the point in time and the old one ends after
	// it: what is written in between is in both.
	if err := c.begin(ctx); err != nil {
		return err
	}
	var switches []any
	for n, s := range c.Slices {
		if s.top == "" {
			if err := m.add(ctx, reroute(c.name(n, "top"), s.root)); err != nil {
				return err
			}
			if err := m.point(ctx, s.path, c.name(n, "top")); err != nil {
				return err
			}
		}
		if err := m.fleece(ctx, s.Disk, c.name(n, "fleece")); err != nil {
			return err
		}
		if err := m.add(ctx, map[string]any{
			"driver": "copy-before-write", "node-name": c.name(n, "cbw"), "file": s.root, "target": c.name(n, "fleece"),
			"on-cbw-error": "break-snapshot", "cbw-timeout": stallLimit, "discard": "unmap",
		}); err != nil {
			return err
		}
		top := s.top
		if top == "" {
			top = c.name(n, "top")
		}
		switches = append(switches, reroute(top, c.name(n, "cbw")))
	}
	err := c.frozen(ctx, o, func() error {
		return m.monitor.run(ctx, "blockdev-reopen", map[string]any{"options": switches}, nil)
	})
	if err != nil {
		return err
	}
	var end []action
	for n, s := range c.Slices {
		for _, old := range s.older {
			end = append(end, bitmapAction("disable", s.Disk, old))
		}
		if err := m.add(ctx, map[string]any{"driver": "snapshot-access", "node-name": c.name(n, "snap"), "file": c.name(n, "cbw")}); err != nil {
			return err
		}
	}
	return m.transact(ctx, end...)
}

// stallLimit is how many seconds a write of the guest may wait for its old data
// to be copied; then the copy is given up.
const stallLimit = 10

// reroute is a raw node that passes everything on to another.
func reroute(name, to string) map[string]any {
	return map[string]any{"driver": "raw", "node-name": name, "file": to, "discard": "unmap"}
}

// begin adds the new records.
func (c *Cut) begin(ctx context.Context) error {
	var add []action
	for _, s := range c.Slices {
		add = append(add, bitmapAdd(s.Disk, s.bitmap))
	}
	return c.machine.transact(ctx, add...)
}

// job takes the point in time by a backup job into a fleece, in one
// transaction. It is for disks that nothing can be put above. Should the fleece
// be full, QEMU fails the guest's write; so there must be room for the worst.
func (c *Cut) job(ctx context.Context, o CutOptions) error {
	m := c.machine
	if err := m.roomForAll(c.Slices); err != nil {
		return err
	}
	var at []action
	for n, s := range c.Slices {
		if err := m.overlay(ctx, s.Disk, c.name(n, "file"), c.name(n, "snap")); err != nil {
			return err
		}
		at = append(at, bitmapAdd(s.Disk, s.bitmap))
		for _, old := range s.older {
			at = append(at, bitmapAction("disable", s.Disk, old))
		}
		at = append(at, action{"blockdev-backup", map[string]any{
			"device": s.root, "target": c.name(n, "snap"), "sync": "none", "job-id": c.name(n, "job"),
		}})
	}
	return c.frozen(ctx, o, func() error { return m.transact(ctx, at...) })
}

// export lets the slices be read.
func (c *Cut) export(ctx context.Context) error {
	for n, s := range c.Slices {
		bitmaps := []bitmapName{}
		for _, old := range s.older {
			bitmaps = append(bitmaps, bitmapName{s.node, old})
		}
		if err := c.machine.monitor.run(ctx, "block-export-add", map[string]any{
			"type": "nbd", "id": s.Export, "name": s.Export, "node-name": c.name(n, "snap"), "bitmaps": bitmaps,
		}, nil); err != nil {
			return err
		}
	}
	socket, err := c.machine.servedAt(ctx, c.nbd, c.Slices[0].Export)
	for _, s := range c.Slices {
		s.Socket = socket
	}
	return err
}

// Doubt is one sentence about why the point in time is no longer held; "" while
// it is. What was read before without an error is of the point in time in any
// case.
func (c *Cut) Doubt(ctx context.Context) string {
	if reason := c.guard.reason(); reason != "" {
		return reason
	}
	g, err := c.machine.graph(ctx)
	if err != nil {
		return fmt.Sprintf("The machine no longer answers: %v.", err)
	}
	for n := range c.Slices {
		if _, ok := g.nodes[c.name(n, "snap")]; !ok {
			return "Another program removed the point in time from the machine."
		}
	}
	return ""
}

// Gone tells that the machine has ended, or its monitor: nothing can be undone
// there, and the next run finds what is left.
func (c *Cut) Gone() bool { return c.machine.monitor.ended() != nil }

// Broken is closed when the point in time had to be given up.
func (c *Cut) Broken() <-chan struct{} { return c.guard.lost }

// Close frees what the slice holds inside the machine; the last one of a Cut
// ends it there. Only the records of changes stay. Errors are problems.
func (s *Slice) Close() error {
	s.cut.mu.Lock()
	defer s.cut.mu.Unlock()
	return s.close()
}

// close is Close for one who holds the lock.
func (s *Slice) close() error {
	c := s.cut
	if s.closed {
		return nil
	}
	s.closed = true
	c.open--
	if c.open == 0 {
		c.guard.stop()
	}
	if c.Gone() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), undoLimit)
	defer cancel()
	if c.open > 0 {
		// The other slices stay; the records of this one are free now.
		return c.machine.failed(c.machine.sweepExports(ctx, s.Export), "did not end the export of a disk")
	}
	return c.machine.failed(c.machine.sweep(ctx), "did not give up the point in time; the next backup tries again")
}

// Settle says whether the slice became a recovery point, and ends it. If that
// fails, or never comes, a later Cut knows more changes than there are, never
// fewer. Errors are problems.
func (s *Slice) Settle(ctx context.Context, success bool) error {
	c := s.cut
	c.mu.Lock()
	defer c.mu.Unlock()
	err := s.close()
	if s.settled {
		return err
	}
	s.settled = true
	if !c.Gone() {
		err = errors.Join(err, c.machine.failed(c.machine.settle(ctx, s, success), "did not settle its record of changes"))
	}
	if c.unsettled--; c.unsettled == 0 {
		<-c.machine.cutting
	}
	return err
}

// undo ends a Cut that was not finished.
func (c *Cut) undo(ctx context.Context) error {
	if err := c.machine.monitor.ended(); err != nil {
		return nil // nobody to tell; the next run clears away
	}
	err := c.machine.sweep(ctx)
	g, graphErr := c.machine.graph(ctx)
	if graphErr != nil {
		return errors.Join(err, graphErr)
	}
	for _, s := range c.Slices {
		for _, b := range g.nodes[s.node].Bitmaps {
			if b.Name == s.bitmap {
				err = errors.Join(err, c.machine.settle(ctx, s, false))
			}
		}
	}
	return err
}
