package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/internal/image"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// Compression is how much work is spent on making data small.
type Compression = seal.Compression

// The choices, as the command line names them.
const (
	CompressionAuto    = seal.Auto
	CompressionFast    = seal.Fast
	CompressionDefault = seal.Default
	CompressionMax     = seal.Max
	CompressionNone    = seal.None
)

// WriterOptions say what is going to be written.
type WriterOptions struct {
	ID          ID     // of the recovery point, and so of the session
	Instance    string // ID of the backup instance
	Size        int64  // of the disk, in bytes
	Base        *Image // to compare with, block by block, and to take over from; nil: none
	Compression Compression
	Meter       *meter.Meter // required
}

// Writer stores one image: many Encoders make segments, one goroutine adds
// them in order to the tree, Commit makes the point. Close must be called in
// the end, whatever happened.
type Writer struct {
	store   *Store
	options WriterOptions
	ctx     context.Context // ends with the first error
	cancel  context.CancelCauseFunc
	session *session
	clear   *clearance
	base    *image.Tree // what Base shows, to take over from; nil: none
	shape   image.Shape
	damaged map[pack.ID]bool // packs whose blocks must be stored anew

	put      *meter.Stage
	data     *packer
	metadata *packer
	fresh    fresh
	tree     *image.Builder
	treeWork *meter.Worker

	zero, unchanged, known, fresher, stored atomic.Int64

	closing sync.Once
	noIndex sync.Once
	blind   atomic.Bool // the index failed, and is not asked any more

	mu      sync.Mutex
	notices []string // guarded by mu
}

// Sizes and numbers of pack buffers: what is in flight, and so most of the
// memory of a run.
const (
	filePackSize    = 32 << 20
	objectPackSize  = 16 << 20
	dataBuffers     = 3 // one being filled, one waiting, one being put
	metadataSize    = 4 << 20
	metadataBuffers = 2
)

// ErrBaseGone: what kept the base was deleted, so that it may be collected at
// any time. The disk must be compared with another one, or with none.
var ErrBaseGone = errors.New("the recovery point to compare with was deleted meanwhile")

// NewWriter begins a session and the image in it. Errors: ErrBaseGone, and
// those of the bucket.
func (s *Store) NewWriter(ctx context.Context, o WriterOptions) (*Writer, error) {
	if s.index == nil {
		return nil, errors.New("the store was opened for reading only")
	}
	w := &Writer{store: s, options: o, shape: image.Shape{Size: o.Size, BlockSize: s.blockSize}}
	doc := sessionDocument{ID: o.ID, Task: taskWrite, Instance: o.Instance}
	if o.Base != nil {
		doc.Images = []stored{o.Base.stored()}
	}
	trial, err := seal.NewEncoder(o.Compression)
	if err != nil {
		return nil, problem.Wrap(err, problem.InvalidArgument, "The compression %q is not known.", o.Compression)
	}
	trial.Close()
	if w.damaged, err = s.damagedPacks(ctx); err != nil {
		return nil, err
	}
	w.clear = s.newClearance()
	if w.session, err = s.beginSession(ctx, doc, w.clear); err != nil {
		return nil, err
	}
	if err := w.settle(ctx); err != nil {
		w.session.halt()
		return nil, errors.Join(err, s.deleteSession(ctx, o.ID))
	}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.fresh.blocks = map[Root]freshBlock{}
	buffers, puts := dataBuffers, 1
	if !s.onFiles() {
		buffers, puts = 6, 4
	}
	w.put = o.Meter.Stage("put", puts)
	w.data = newPacker(w, seal.DataPack, s.packLimit, buffers, puts, w.put)
	w.metadata = newPacker(w, seal.MetadataPack, s.nodeLimit, metadataBuffers, 1, o.Meter.Stage("put nodes", 1))
	o.Meter.Queue("cpu-put", cap(w.data.full), func() int { return len(w.data.full) })
	w.tree = image.NewBuilder(w.shape, w.base, s.hasher(nodeDomain), sink{w})
	w.treeWork = o.Meter.Stage("tree", 1).Worker(0)
	return w, nil
}

// settle makes sure of what the writer is going to rely on, now that its
// session is there to be seen by every collector.
func (w *Writer) settle(ctx context.Context) error {
	if w.options.Base != nil {
		kept, err := w.options.Base.kept(ctx)
		if err != nil {
			return err
		}
		if guardBase && !kept {
			return ErrBaseGone
		}
	}
	if err := w.store.syncIndex(ctx); err != nil {
		if problem.Is(err, problem.IndexDamaged) || problem.Is(err, problem.HomeFull) {
			w.indexFailed(err)
		} else {
			return err
		}
	}
	return w.takeBase(ctx)
}

// fail ends the run with the first error.
func (w *Writer) fail(err error) { w.cancel(err) }

// Context ends when the run cannot succeed any more; its cause is the error.
func (w *Writer) Context() context.Context { return w.ctx }

// Bytes counts so far; only the classes that a writer knows are set.
func (w *Writer) Bytes() Bytes {
	return Bytes{
		Zero: w.zero.Load(), Unchanged: w.unchanged.Load(), Known: w.known.Load(),
		New: w.fresher.Load(), Stored: w.stored.Load(),
	}
}

// ErrBaseDamaged: the base cannot be taken over from, since it cannot be read.
// Whoever reads all of the disk does not need it.
var ErrBaseDamaged = errors.New("the recovery point before this one is damaged")

// Add puts the next segment into the tree; the runs of unchanged, in order and
// within it, are taken over from the base. Add, Zeros, Unchanged, Doubtful,
// Checkpoint and Commit are for one goroutine.
func (w *Writer) Add(segment *Segment, unchanged ...Run) error {
	w.treeWork.Enter(meter.Work)
	defer w.treeWork.Enter(meter.Starved)
	for _, d := range segment.doubles {
		select {
		case <-d.frame.ready:
			segment.children[d.at].Place = d.frame.place.Piece(d.slot)
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		}
	}
	children := segment.children
	for _, r := range unchanged {
		before := r.Offset/int64(w.shape.BlockSize) - w.tree.Next()
		if err := w.tree.Blocks(w.ctx, children[:before]); err != nil {
			return err
		}
		if err := w.Unchanged(r.Length); err != nil {
			return err
		}
		children = children[before+w.blocks(r.Length):]
	}
	return w.tree.Blocks(w.ctx, children)
}

// Unchanged says that the next bytes of the disk, a multiple of the block size
// or up to the end, are as in the base. None of them may be Doubtful. Its cost
// does not depend on the length. A base that cannot be read is ErrBaseDamaged.
func (w *Writer) Unchanged(length int64) error {
	if w.options.Base != nil && w.options.Base.partial {
		return errors.New("an unfinished image is for comparing only")
	}
	return w.takingOver(w.tree.Unchanged(w.ctx, w.blocks(length)))
}

// Doubtful gives the parts of the disk, in whole blocks, that the base does not
// have for certain: they must be read, whatever is known about changes.
func (w *Writer) Doubtful() (extent.Set, error) {
	doubtful, err := w.tree.Doubtful(w.ctx)
	return doubtful, w.takingOver(err)
}

func (w *Writer) takingOver(err error) error {
	if isDamage(err) {
		return fmt.Errorf("%w: %w", ErrBaseDamaged, err)
	}
	return err
}

// Zeros says that the next bytes of the disk, a multiple of the block size or
// up to the end, are zeros.
func (w *Writer) Zeros(length int64) error { return w.tree.Zeros(w.ctx, w.blocks(length)) }

func (w *Writer) blocks(length int64) int64 {
	return (length + int64(w.shape.BlockSize) - 1) / int64(w.shape.BlockSize)
}

// Checkpoint puts what was added so far on stable storage and says so in the
// session, so that a later run finds it, even on another machine.
func (w *Writer) Checkpoint() error {
	w.treeWork.Enter(meter.Work)
	defer w.treeWork.Enter(meter.Starved)
	done := min(w.tree.Next()*int64(w.shape.BlockSize), w.shape.Size)
	top, err := w.tree.Checkpoint(w.ctx)
	if err == nil {
		err = w.flush()
	}
	if err != nil {
		return err
	}
	return w.session.checkpoint(w.ctx, checkpoint{
		stored: stored{w.shape.Root(w.store.hasher(rootDomain), top.Hash), w.shape.Size, Ref{top.Hash, top.Place}},
		Done:   done,
		Time:   time.Now().UTC(),
	})
}

func (w *Writer) flush() error {
	if err := w.data.flush(w.ctx, w.treeWork); err != nil {
		return err
	}
	return w.metadata.flush(w.ctx, w.treeWork)
}

// Commit stores what is open and makes the point exist. The fields of p that
// follow from the content are filled in: ID, Root, Size, Top, Created and the
// bytes that the writer counts; a Created that is later than now stays. After
// an error the point does not exist, but for an error of the bucket that leaves
// it unknown.
func (w *Writer) Commit(p Point) (Point, error) {
	top, err := w.tree.Finish(w.ctx)
	if err == nil {
		err = w.flush()
	}
	w.treeWork.Done()
	if err != nil {
		return p, err
	}
	counted := w.Bytes()
	p.ID = w.options.ID.String()
	p.Size = w.shape.Size
	p.Root = w.shape.Root(w.store.hasher(rootDomain), top.Hash)
	p.Top = Ref{top.Hash, top.Place}
	if now := time.Now().UTC(); now.After(p.Created) {
		p.Created = now
	}
	p.Bytes.Zero, p.Bytes.Unchanged, p.Bytes.Known = counted.Zero, counted.Unchanged, counted.Known
	p.Bytes.New, p.Bytes.Stored = counted.New, counted.Stored
	if err := w.session.stands(w.ctx); err != nil {
		return p, err
	}
	if err := w.store.commit(w.ctx, w.options.ID, p); err != nil {
		return p, err
	}
	// The point exists. What fails from here on leaves sessions behind, which
	// the next run removes.
	_ = w.session.end(w.ctx)
	_ = w.store.forgetUnfinished(w.ctx, p.Instance)
	return p, nil
}

// Close ends the workers. Without a commit before it, what is stored stays:
// the session and its last checkpoint tell the next run.
func (w *Writer) Close() {
	w.closing.Do(func() {
		w.cancel(context.Canceled)
		w.data.close()
		w.metadata.close()
		w.session.halt()
	})
}

// lookup asks the index where a block or node lies. What lies in a damaged or
// condemned pack is unknown, and so is all once the index has failed: unknown
// costs space, never correctness.
func (w *Writer) lookup(h Root) (pack.Place, bool) {
	if w.blind.Load() {
		return pack.Place{}, false
	}
	place, ok, err := w.store.index.Lookup(h)
	if err != nil {
		w.indexFailed(err)
		return pack.Place{}, false
	}
	return place, ok && !w.damaged[place.Pack] && w.clear.use(place.Pack)
}

// indexFailed notes that the run goes on without its local accelerator.
func (w *Writer) indexFailed(err error) {
	w.blind.Store(true)
	w.noIndex.Do(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.notices = append(w.notices, "The local index failed, so blocks that the store has from other disks may be stored once more: "+problem.From(err).Error())
	})
}

// Notices are sentences for the user about what the run had to do without.
func (w *Writer) Notices() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.notices)
}

// sink stores the nodes of the tree.
type sink struct{ w *Writer }

func (s sink) Known(h Root) (pack.Place, bool) {
	return s.w.lookup(h)
}

// Serves is always true for a node of the base in a store without damage: the
// session keeps all that the base reaches. Any other is taken over only if it
// names the very places that the new one names, none of which is damaged, and so
// on down: hashes are the same wherever the pieces lie, and a node that nothing
// keeps may name packs that are gone.
func (s sink) Serves(ctx context.Context, c image.Child, n *image.Node, ofBase bool) (bool, error) {
	if ofBase && len(s.w.damaged) == 0 {
		return true, nil
	}
	if s.w.damaged[c.Place.Pack] {
		return false, nil
	}
	stored, err := nodes{s.w.store}.at(ctx, c, c.Place, n.Level)
	if isDamage(err) {
		return false, nil
	}
	return err == nil && stored.Children == n.Children, err
}

func (sink) Damaged(err error) bool { return isDamage(err) }

func (s sink) Distrusted() map[pack.ID]bool { return s.w.damaged }

func (s sink) Frame(ctx context.Context, payload []byte, hashes []Root) (pack.Place, error) {
	e, err := seal.NewEncoder(seal.Fast)
	if err != nil {
		return pack.Place{}, err
	}
	return s.w.metadata.add(ctx, s.w.treeWork, new(meter.Timer), e.Encode(payload, len(hashes)), hashes)
}
