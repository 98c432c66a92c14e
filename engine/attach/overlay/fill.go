package overlay

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/diskvault/diskvault/base/extent"
)

// fillers is how many segments are brought in at a time: enough to wait for a
// store far away, and few enough to leave the clients of the disk their turn.
const fillers = 4

// saveEvery is how much work a crash can cost.
const saveEvery = 5 * time.Second

// Fill brings all of the base into the file, but for what was written over; the
// disk can be used meanwhile. After it the file is the disk. Interrupted, it
// goes on where it was at the next call, also in another process. done, which
// may be read while it runs, counts bytes of the disk.
func (d *Disk) Fill(ctx context.Context, done *atomic.Int64) error {
	err := d.fillAll(ctx, done)
	if e := d.Flush(context.WithoutCancel(ctx)); err == nil {
		err = e
	}
	return err
}

func (d *Disk) fillAll(ctx context.Context, done *atomic.Int64) error {
	saved := time.Now()
	group, work := errgroup.WithContext(ctx)
	group.SetLimit(fillers)
	var err error
	for at := int64(0); at < d.size && work.Err() == nil; {
		next, ok, e := d.base.NextData(work, at)
		if e != nil {
			err = e
			break
		}
		if !ok {
			next = d.size
		}
		if ok {
			next = next / segment * segment
		}
		if next > at {
			// What a crash left there without a mark has to go.
			if err = d.settle(work, extent.Between(at, next)); err != nil {
				break
			}
			done.Add(next - at)
			at = next
			continue
		}
		if time.Since(saved) > saveEvery {
			if err = d.Flush(work); err != nil {
				break
			}
			saved = time.Now()
		}
		r := extent.Between(at, min(at+segment, d.size))
		group.Go(func() error {
			if err := d.fill(work, r); err != nil {
				return err
			}
			done.Add(r.Len)
			return nil
		})
		at = r.End()
	}
	if e := group.Wait(); e != nil {
		return e
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// fill brings in a segment.
func (d *Disk) fill(ctx context.Context, r extent.Range) error {
	missing := extent.Of(r).Subtract(d.marked(r))
	if len(missing) == 0 {
		return nil
	}
	data, err := d.base.Data(ctx, r.Off, r.Len)
	if err != nil {
		return err
	}
	want := missing.Intersect(data).Align(granule, d.size)
	buffer := make([]byte, r.Len)
	for _, w := range want {
		if err := d.base.Read(ctx, buffer[w.Off-r.Off:w.End()-r.Off], w.Off); err != nil {
			return err
		}
	}
	lock := d.lock(r.Off)
	lock.Lock()
	defer lock.Unlock()
	// Whoever wrote meanwhile has the last word.
	for _, m := range extent.Of(r).Subtract(d.marked(r)) {
		for _, hole := range extent.Of(m).Subtract(want) {
			if err := d.clearData(hole); err != nil {
				return err
			}
		}
		for _, w := range want.Within(m) {
			if _, err := d.file.WriteAt(buffer[w.Off-r.Off:w.End()-r.Off], w.Off); err != nil {
				return writeProblem(err, d.where())
			}
		}
		d.mark(m.Align(granule, d.size))
	}
	return nil
}

// settle makes what is zeros in the base and was not written zeros in the file.
func (d *Disk) settle(ctx context.Context, r extent.Range) error {
	for at := r.Off; at < r.End(); {
		from, err := d.seek(at, seekData)
		if err != nil || from >= r.End() {
			return err
		}
		at = min((from/segment+1)*segment, r.End())
		piece := extent.Between(from, at)
		lock := d.lock(from)
		lock.Lock()
		for _, m := range extent.Of(piece).Subtract(d.marked(piece)) {
			if err = d.clearData(m); err != nil {
				break
			}
		}
		lock.Unlock()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// clearData is clear, if the file holds anything there.
func (d *Disk) clearData(r extent.Range) error {
	from, err := d.seek(r.Off, seekData)
	if err != nil || from >= r.End() {
		return err
	}
	return d.clear(r)
}
