package export

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store"
)

// Written is a disk that knows what of it was written.
type Written interface {
	Size() int64
	Read(ctx context.Context, p []byte, off int64) error
	Written() extent.Set
}

// Method is how recovery points say that they were made from an overlay.
const Method = "overlay"

// Keep makes what was written to a recovery point a new recovery point; only
// what was written is read. It shows no moment of the disk that it is named
// after, so it is no backup of it: it counts as inconsistent, and retention
// never lets go of others for its sake. The caller holds the old point. Nobody
// may write meanwhile. Errors are those of the store.
func Keep(ctx context.Context, st *store.Store, from store.Point, d Written, m *meter.Meter) (store.Point, error) {
	base, err := st.Image(from)
	if err != nil {
		return store.Point{}, err
	}
	var id store.ID
	_, _ = rand.Read(id[:]) // never fails
	w, err := st.NewWriter(ctx, store.WriterOptions{ID: id, Instance: from.Instance, Size: from.Size, Base: base, Compression: store.CompressionAuto, Meter: m})
	if err != nil {
		return store.Point{}, err
	}
	defer w.Close()
	doubtful, err := w.Doubtful()
	if err != nil {
		return store.Point{}, err
	}
	block := int64(st.BlockSize())
	changed := d.Written().Union(doubtful).Align(block, from.Size)
	if err := rewrite(ctx, w, d, changed, block, m); err != nil {
		return store.Point{}, err
	}
	p := from
	p.Parent, p.Trigger = from.ID, "OnDemand"
	p.Consistency, p.CaptureMethod, p.ChangeTracking, p.CaptureBase = store.Inconsistent, Method, Method, nil
	p.Reason = "It was made from the recovery point " + from.ID + ", which clients wrote over."
	p.Time, p.FullRead = time.Now().UTC(), time.Time{}
	p.Created = from.Created.Add(1) // at least; the commit knows the time
	p.Bytes = store.Bytes{Provisioned: from.Size, Allocated: changed.Total(), ReportedChanged: changed.Total(), Read: changed.Total()}
	return w.Commit(p)
}

// rewrite gives the writer all of the disk: the changed parts read, all else
// taken over from the base.
func rewrite(ctx context.Context, w *store.Writer, d Written, changed extent.Set, block int64, m *meter.Meter) error {
	stage := m.Stage("encode", 1)
	account := stage.Worker(0)
	defer account.Done()
	account.Enter(meter.Work)
	e, err := w.NewEncoder(stage, 0)
	if err != nil {
		return err
	}
	defer e.Close()
	buffer := make([]byte, store.SegmentSize+block)
	at := int64(0)
	for at < d.Size() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		rest := changed.Within(extent.Between(at, d.Size()))
		next := d.Size()
		if len(rest) > 0 {
			next = rest[0].Off / store.SegmentSize * store.SegmentSize
		}
		if next > at {
			if err := w.Unchanged(next - at); err != nil {
				return problem.From(err)
			}
			at = next
			continue
		}
		piece := extent.Between(at, min(at+store.SegmentSize, d.Size()))
		parts := changed.Within(piece)
		var runs, same []store.Run
		filled := int64(0)
		for _, r := range parts {
			if err := d.Read(ctx, buffer[filled:filled+r.Len], r.Off); err != nil {
				return err
			}
			end := (filled + r.Len + block - 1) / block * block
			clear(buffer[filled+r.Len : end])
			runs = append(runs, store.Run{Offset: r.Off, Length: r.Len})
			filled = end
		}
		for _, r := range extent.Of(piece).Subtract(parts) {
			same = append(same, store.Run{Offset: r.Off, Length: r.Len})
		}
		s, err := e.Encode(ctx, piece.Off, runs, buffer[:filled])
		if err != nil {
			return err
		}
		if err := w.Add(s, same...); err != nil {
			return err
		}
		stage.Add(piece.Len)
		at = piece.End()
	}
	return nil
}
