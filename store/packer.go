package store

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// packer fills packs of one kind with frames from many goroutines and hands
// full ones to workers that put them. The number of its buffers bounds what is
// in flight.
type packer struct {
	writer *Writer
	kind   seal.Kind
	free   chan []byte        // buffers that nobody uses
	full   chan *pack.Builder // the queue between the stages cpu and put
	puts   sync.WaitGroup     // the workers

	mu   turn          // held to reserve room, which is quick, or to wait for a buffer
	open *pack.Builder // guarded by mu

	pending sync.WaitGroup // packs begun and not yet put
}

// newPacker starts a packer with buffers of the given size and number, of
// which puts may be put at a time.
func newPacker(w *Writer, kind seal.Kind, size, buffers, puts int, stage *meter.Stage) *packer {
	p := &packer{writer: w, kind: kind, mu: newTurn(), free: make(chan []byte, buffers), full: make(chan *pack.Builder, max(1, buffers-1-puts))}
	for range buffers {
		p.free <- w.store.buffers.get(size)
	}
	for i := range puts {
		p.puts.Add(1)
		go func() {
			defer p.puts.Done()
			p.put(stage.Worker(i))
		}()
	}
	return p
}

// add seals a plain frame into a pack and gives its place. It waits while all
// buffers are in flight; worker is then backpressured.
func (p *packer) add(ctx context.Context, worker *meter.Worker, encrypt *meter.Timer, plain []byte, hashes []block.Hash) (pack.Place, error) {
	slot, err := p.reserve(ctx, worker, len(plain), hashes)
	if err != nil {
		return pack.Place{}, err
	}
	start := time.Now()
	slot.Fill(plain)
	encrypt.Since(start)
	return slot.Place(), nil
}

func (p *packer) reserve(ctx context.Context, worker *meter.Worker, n int, hashes []block.Hash) (pack.Slot, error) {
	if !p.mu.try() {
		worker.Enter(meter.Backpressured)
		p.mu.take()
		worker.Enter(meter.Work)
	}
	defer p.mu.give()
	for {
		if p.open == nil {
			if err := p.begin(ctx, worker); err != nil {
				return pack.Slot{}, err
			}
		}
		if slot, ok := p.open.Reserve(n, hashes); ok {
			return slot, nil
		}
		if p.open.Empty() {
			return pack.Slot{}, errors.New("a frame is larger than a pack")
		}
		if err := p.handOver(ctx, worker); err != nil {
			return pack.Slot{}, err
		}
	}
}

// begin opens a pack as soon as a buffer is free; mu is held.
func (p *packer) begin(ctx context.Context, worker *meter.Worker) error {
	var buf []byte
	select {
	case buf = <-p.free:
	default:
		worker.Enter(meter.Backpressured)
		defer worker.Enter(meter.Work)
		select {
		case buf = <-p.free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	s := p.writer.store
	p.open = pack.NewBuilder(buf, p.kind, s.epochs[s.epoch], s.epoch, s.header.StoreID)
	p.writer.clear.own(p.open.ID)
	p.pending.Add(1)
	return nil
}

// handOver gives the open pack to the workers; mu is held.
func (p *packer) handOver(ctx context.Context, worker *meter.Worker) error {
	select {
	case p.full <- p.open:
	default:
		worker.Enter(meter.Backpressured)
		defer worker.Enter(meter.Work)
		select {
		case p.full <- p.open:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	p.open = nil
	return nil
}

// flush stores what is open and waits until all packs begun so far are on
// stable storage. Nothing may be added meanwhile but by other goroutines'
// own packs, for which it may wait too.
func (p *packer) flush(ctx context.Context, worker *meter.Worker) error {
	p.mu.take()
	defer p.mu.give()
	if p.open != nil {
		if err := p.handOver(ctx, worker); err != nil {
			return err
		}
	}
	worker.Enter(meter.Backpressured)
	defer worker.Enter(meter.Work)
	done := make(chan struct{})
	go func() {
		p.pending.Wait() // nothing is begun: mu is held
		close(done)
	}()
	select {
	case <-done:
		return context.Cause(p.writer.ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// put is a worker of the stage put: it stores packs and makes their blocks
// known. After an error the packs that follow are dropped.
func (p *packer) put(worker *meter.Worker) {
	defer worker.Done()
	w := p.writer
	ctx := bucket.WithAccount(w.ctx, bucket.Account{Meter: w.options.Meter, Worker: worker})
	for {
		worker.Enter(meter.Starved)
		b, ok := <-p.full
		if !ok {
			return
		}
		worker.Enter(meter.Work)
		if w.ctx.Err() == nil {
			if err := p.store(ctx, b); err != nil {
				w.fail(err)
			}
		}
		p.free <- b.Buffer()
		p.pending.Done()
	}
}

func (p *packer) store(ctx context.Context, b *pack.Builder) error {
	data := b.Finish()
	if err := p.writer.store.bucket.Put(ctx, packName(p.kind, b.ID), [][]byte{data}); err != nil {
		return err
	}
	w := p.writer
	w.stored.Add(int64(len(data)))
	w.put.Add(int64(len(data)))
	w.options.Meter.Mark(1)
	stored := entries(b.Frames())
	// Only now: an entry must never name a pack that is not there.
	if !w.blind.Load() {
		if err := w.store.index.Add(b.ID, stored); err != nil {
			w.indexFailed(err)
		}
	}
	if p.kind == seal.DataPack {
		w.fresh.forget(stored)
	}
	return nil
}

// close ends the workers and gives the buffers back. Nothing may be added any
// more.
func (p *packer) close() {
	p.mu.take()
	if p.open != nil { // an unfinished run: what is not put is not needed
		p.free <- p.open.Buffer()
		p.pending.Done()
		p.open = nil
	}
	p.mu.give()
	close(p.full)
	p.puts.Wait()
	close(p.free)
	for buf := range p.free {
		p.writer.store.buffers.put(buf)
	}
}
