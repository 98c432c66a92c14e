package backup

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/store"
)

// endless is a large disk of a repeated byte, with a fault somewhere.
type endless struct {
	size  int64
	fault extent.Range
	slow  time.Duration
}

func (e endless) Size() int64 { return e.size }

func (e endless) Read(ctx context.Context, p []byte, off int64) error {
	time.Sleep(e.slow)
	for i := range p {
		p[i] = byte(1 + (off+int64(i))>>16)
	}
	if bad := e.fault.Intersect(extent.Range{Off: off, Len: int64(len(p))}); !bad.Empty() {
		clear(p[bad.Off-off : bad.End()-off])
		return &disk.ReadError{Path: "endless", Ranges: extent.Of(bad), Err: errors.New("input/output error")}
	}
	return ctx.Err()
}

func (e endless) Allocated(context.Context) iter.Seq2[extent.Range, error] {
	return ranges(extent.Range{Len: e.size})
}

func newPipeline(t *testing.T, source reader) *pipeline {
	t.Helper()
	m := meter.New("transfer")
	w, err := newStore(t).NewWriter(t.Context(), store.WriterOptions{ID: newID(), Instance: "i", Size: source.Size(), Compression: store.CompressionFast, Meter: m})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return &pipeline{source: source, writer: w, meter: m, checkpointEvery: time.Hour}
}

func TestEveryWayToEndAPipelineEarlyIsAnError(t *testing.T) {
	const blockSize = 64 << 10
	source := endless{size: 1 << 30, slow: 10 * time.Millisecond}
	stopped := errors.New("stopped")

	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { cancel(stopped) })
	if err := newPipeline(t, source).run(ctx, blockSize); !errors.Is(err, stopped) {
		t.Errorf("cancelled: %v", err)
	}

	broken := make(chan struct{})
	p := newPipeline(t, source)
	p.broken = broken
	time.AfterFunc(100*time.Millisecond, func() { close(broken) })
	if err := p.run(t.Context(), blockSize); !errors.Is(err, errBroken) {
		t.Errorf("broken: %v", err)
	}

	source.fault = extent.Range{Off: 10<<20 + 5, Len: 4096}
	failed := (*disk.ReadError)(nil)
	if err := newPipeline(t, source).run(t.Context(), blockSize); !errors.As(err, &failed) || !failed.Ranges.Equal(extent.Of(source.fault)) {
		t.Errorf("unreadable: %v", err)
	}
}

// Below the pipeline many a wait ends with a bare context.Canceled; whoever
// comes first, the reason must come out.
func TestTheReasonOfAnEarlyEndIsNotLost(t *testing.T) {
	stopped := errors.New("stopped")
	for round := range 10 {
		p := newPipeline(t, endless{size: 1 << 30})
		p.limit = newLimiter(1 << 20)
		want := errBroken
		ctx, cancel := context.WithCancelCause(t.Context())
		broken := make(chan struct{})
		p.broken = broken
		time.AfterFunc(10*time.Millisecond, func() {
			if round%2 == 0 {
				close(broken)
			} else {
				cancel(stopped)
			}
		})
		if round%2 != 0 {
			want = stopped
		}
		if err := p.run(ctx, 64<<10); !errors.Is(err, want) {
			t.Errorf("round %d: %v, want %v", round, err, want)
		}
		cancel(nil)
	}
}

func TestUnreadableRangesAreNotedWhereThatIsAllowed(t *testing.T) {
	source := endless{size: 32 << 20, fault: extent.Range{Off: 4<<20 - 4096, Len: 8192}}
	p := newPipeline(t, source)
	p.allowUnreadable = true
	if err := p.run(t.Context(), 64<<10); err != nil {
		t.Fatal(err)
	}
	if !p.unreadable.Equal(extent.Of(source.fault)) {
		t.Errorf("noted %v, want %v", p.unreadable, source.fault)
	}
}
