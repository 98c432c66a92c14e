package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/nbd"
	"github.com/diskvault/diskvault/disk/qemu"
)

// MethodQEMU lets a running QEMU machine hold a point in time of its disk, and
// reads it from there. The machine records what changes until the next one.
const MethodQEMU Method = "qemu-bitmap"

// QEMU captures disks of running machines.
type QEMU struct {
	// Owner is for whom the machine records changes, such as the ID of a backup
	// instance. Without one no record stays.
	Owner string
}

func (QEMU) method() Method { return MethodQEMU }

func (q QEMU) assess(_ context.Context, src *disk.Source) (Assessment, Refusal) {
	if src.Kind != disk.Machine {
		return Assessment{}, Refusal{Method: MethodQEMU}
	}
	return Assessment{
		Tracking: string(MethodQEMU),
		Cost:     "While a backup lasts, the machine copies what its guest is about to overwrite, which delays the first write to each 64 KiB; in between it notes what changes.",
	}, Refusal{}
}

// Capture implements Capturer.
func (q QEMU) Capture(ctx context.Context, src *disk.Source) (View, error) {
	if src.Kind != disk.Machine {
		return nil, inapplicable("")
	}
	views, err := together(ctx, Member{Source: src, Owner: q.Owner})
	if err != nil {
		return nil, err
	}
	return views[0], nil
}

// together takes one point in time of different disks of one machine.
func together(ctx context.Context, members ...Member) ([]*machineView, error) {
	var m *qemu.Machine
	var disks []qemu.Disk
	fail := func(err error) ([]*machineView, error) {
		if m != nil {
			m.Close()
		}
		return nil, err
	}
	for _, member := range members {
		src := member.Source
		address, err := qemu.ParseAddress(src.Path)
		if err != nil {
			return fail(err)
		}
		if m == nil {
			if m, err = qemu.Open(ctx, address); err != nil {
				return nil, err
			}
		}
		d, err := m.Disk(ctx, address.Device)
		if err != nil {
			return fail(err)
		}
		if d.Size != src.Size {
			return fail(problem.New(problem.SourceResized, "%s had %d bytes and now has %d.", src.Path, src.Size, d.Size).
				With("sizeBefore", src.Size).With("sizeNow", d.Size))
		}
		d.Owner = member.Owner
		disks = append(disks, d)
	}
	cut, err := m.Cut(ctx, qemu.CutOptions{}, disks...)
	if err != nil {
		return fail(err)
	}
	held := &heldMachine{machine: m, users: len(cut.Slices)}
	var views []*machineView
	for n, s := range cut.Slices {
		views = append(views, &machineView{doubt: newDoubt(), owner: members[n].Owner, src: members[n].Source, slice: s, held: held, contexts: s.Older})
	}
	for _, v := range views {
		if err := v.connect(ctx); err != nil {
			for _, w := range views {
				err = errors.Join(err, w.Close())
			}
			return nil, err
		}
	}
	return views, nil
}

// heldMachine is the connection that the views of one cut share.
type heldMachine struct {
	machine *qemu.Machine
	mu      sync.Mutex
	users   int // guarded by mu
}

func (h *heldMachine) release() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users--; h.users > 0 {
		return nil
	}
	return h.machine.Close()
}

// machineView reads a slice over NBD.
type machineView struct {
	*doubt
	owner    string
	src      *disk.Source
	slice    *qemu.Slice
	held     *heldMachine
	contexts []string
	client   *nbd.Client // nil once nothing more is read
	watching context.CancelFunc

	kept, ended bool
}

func (v *machineView) connect(ctx context.Context) error {
	client, err := nbd.Dial(ctx, nbd.Address{Network: "unix", Host: v.slice.Socket, Export: v.slice.Export},
		nbd.DialOptions{Contexts: append(slices.Clone(v.contexts), nbd.ContextAllocation)})
	if err != nil {
		return problem.Wrap(err, problem.MachineFailed, "What the machine exports of %s cannot be reached.", v.slice.Name)
	}
	if client.Size() != v.slice.Size {
		client.Close()
		return problem.New(problem.SourceResized, "%s had %d bytes and now has %d.", v.src.Path, v.slice.Size, client.Size())
	}
	v.client = client
	watch, stop := context.WithCancel(context.Background())
	v.watching = stop
	go func() {
		select {
		case <-v.slice.Cut().Broken():
			v.raise(v.slice.Cut().Doubt(context.Background()), true)
		case <-watch.Done():
		}
	}()
	return nil
}

// Size implements View.
func (v *machineView) Size() int64 { return v.slice.Size }

// Read implements View.
func (v *machineView) Read(ctx context.Context, p []byte, off int64) error {
	err := v.client.Read(ctx, p, off)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if !errors.As(err, new(*nbd.Error)) {
		v.raise(fmt.Sprintf("The machine ended, or broke off its export, while it was read: %v.", err), true)
		return v.lost()
	}
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		v.raise("The machine gave the point in time up: the old data under a write of its guest could not be copied, or not in time.", true)
		return v.lost()
	}
	// The machine's storage fails in some places; the others are read.
	var bad []extent.Range
	for piece := range (extent.Range{Off: off, Len: int64(len(p))}).Windows(faultUnit) {
		b := p[piece.Off-off : piece.End()-off]
		one := v.client.Read(ctx, b, piece.Off)
		switch {
		case one == nil:
		case ctx.Err() != nil || !errors.As(one, new(*nbd.Error)):
			return one
		default:
			clear(b)
			bad = append(bad, piece)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return &disk.ReadError{Path: v.src.Path, Ranges: extent.Of(bad...), Err: err}
}

// faultUnit is how small the pieces are that count as unreadable, in bytes.
const faultUnit = 4096

// lost is the error of a read after the point in time is gone.
func (v *machineView) lost() error {
	p, _ := v.proof()
	p.Method = MethodQEMU
	return p.Problem(v.src)
}

// Allocated implements View: what the machine says reads as zeros is left out.
func (v *machineView) Allocated(ctx context.Context) iter.Seq2[extent.Range, error] {
	return func(yield func(extent.Range, error) bool) {
		if !v.client.Has(nbd.ContextAllocation) {
			yield(extent.Range{Len: v.Size()}, nil)
			return
		}
		for e, err := range v.client.Extents(ctx, nbd.ContextAllocation, extent.Range{Len: v.Size()}) {
			if err != nil {
				yield(extent.Range{}, v.explain(ctx, err))
				return
			}
			if e.Flags&nbd.StateZero == 0 && !yield(extent.Range{Off: e.Off, Len: e.Len}, nil) {
				return
			}
		}
	}
}

func (v *machineView) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return problem.Wrap(err, problem.MachineFailed, "The machine does not say what its disk %s holds.", v.slice.Name)
}

// Prove implements View.
func (v *machineView) Prove(ctx context.Context) (Proof, error) {
	if err := ctx.Err(); err != nil {
		return Proof{}, problem.From(err)
	}
	if reason := v.slice.Cut().Doubt(ctx); reason != "" {
		v.raise(reason, true)
	}
	if p, ok := v.proof(); ok {
		p.Method = MethodQEMU
		return p, nil
	}
	reason := "The machine held the point in time until all was read."
	if frozen := v.slice.Cut().Frozen; frozen != "" {
		reason += " " + frozen
	}
	return Proof{Proven: true, Method: MethodQEMU, Reason: reason}, nil
}

// Notices are sentences for the user about the capture.
func (v *machineView) Notices() []string {
	if cut := v.slice.Cut(); cut.Frozen != "" && !cut.Asleep {
		return []string{cut.Frozen}
	}
	return nil
}

// machineToken is what a recovery point keeps of a record of changes.
type machineToken struct {
	Method  Method `json:"method"`
	Record  string `json:"record"`
	Size    int64  `json:"size"`
	Dropped string `json:"dropped,omitempty"`
}

// Changed implements the tracking of changes by the machine's record.
func (v *machineView) Changed(ctx context.Context, stored []byte) (Changes, error) {
	var t machineToken
	switch err := json.Unmarshal(stored, &t); {
	case len(stored) == 0:
		return Unknown("no record of changes was kept at the last recovery point"), nil
	case err != nil || t.Method != MethodQEMU:
		return Unknown("the last recovery point was captured in another way"), nil
	case t.Dropped != "":
		return Unknown("the last record of changes was not kept: " + t.Dropped), nil
	case !v.slice.Has(t.Record) && v.slice.Lost > 0:
		return Unknown("the machine ended without storing its record of changes, by a crash or a kill, so that record is not to be trusted"), nil
	case !v.slice.Has(t.Record):
		return Unknown("the machine no longer has the record of changes since the last recovery point: it was killed, or it was restarted and its image is not qcow2, which alone can hold the record"), nil
	}
	var dirty []extent.Range
	for _, name := range v.contexts {
		if !v.client.Has(name) {
			return Unknown("the machine does not hand out its record of changes"), nil
		}
		for e, err := range v.client.Extents(ctx, name, extent.Range{Len: v.Size()}) {
			if err != nil {
				return Changes{}, v.explain(ctx, err)
			}
			if e.Flags&nbd.StateDirty != 0 {
				dirty = append(dirty, extent.Range{Off: e.Off, Len: e.Len})
			}
		}
	}
	// What a disk grew by was never part of the record.
	dirty = append(dirty, extent.Between(t.Size, v.Size()))
	return Changes{Known: true, Ranges: extent.Of(dirty...), Method: string(MethodQEMU), Reason: "recorded by the machine since the last recovery point"}, nil
}

// Keep ends the point in time and leaves the record that began with it.
func (v *machineView) Keep(context.Context, string) (Kept, error) {
	if err := v.end(); err != nil {
		return Kept{}, err
	}
	if v.owner == "" {
		const reason = "it has no owner to be kept for"
		token, err := json.Marshal(machineToken{Method: MethodQEMU, Dropped: reason})
		return Kept{Token: token, Dropped: reason}, err
	}
	v.kept = true
	token, err := json.Marshal(machineToken{Method: MethodQEMU, Record: v.slice.Base(), Size: v.Size()})
	return Kept{Token: token}, err
}

// end frees what the guest's writes wait for.
func (v *machineView) end() error {
	if v.ended {
		return nil
	}
	v.ended = true
	if v.client != nil {
		v.watching()
		v.client.Close() // only read from; nothing is lost with it
	}
	return v.slice.Close()
}

// Settle removes the record that the earlier point had.
func (v *machineView) Settle(ctx context.Context) error {
	if !v.kept {
		return nil
	}
	return v.slice.Settle(ctx, true)
}

// Close implements View. The record of a point that does not exist goes into
// the one before it.
func (v *machineView) Close() error {
	if v.held == nil {
		return nil
	}
	err := v.end()
	ctx, cancel := context.WithTimeout(context.Background(), settleLimit)
	defer cancel()
	err = errors.Join(err, v.slice.Settle(ctx, false), v.held.release()) // does nothing if it was settled
	v.held = nil
	return err
}

// settleLimit is how long the machine may take to settle a record.
const settleLimit = 30 * time.Second
