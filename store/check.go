package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
	"github.com/diskvault/diskvault/store/internal/block"
	"github.com/diskvault/diskvault/store/internal/image"
	"github.com/diskvault/diskvault/store/internal/pack"
	"github.com/diskvault/diskvault/store/internal/seal"
)

// CheckOptions say what is checked. The zero value checks the structure of
// all points: every document, node and directory, and that every block is
// where its tree says.
type CheckOptions struct {
	Points   []string // IDs; empty: all, and the documents that belong to none
	ReadData bool     // read every pack in use, and verify every byte of it
	Sample   float64  // or this share of the packs, from 0 to 1, chosen by chance
	Expect   []string // IDs of points that somebody relies on: each is checked or reported missing
	Progress func(done, total int64)
	Meter    *meter.Meter // may be nil
}

// Damage is one thing that is not as it was written.
type Damage struct {
	Object string  `json:"object"` // key in the bucket
	What   string  `json:"what"`
	Losses []Lost  `json:"losses,omitempty"` // what cannot be restored because of it
	pack   pack.ID // zero: not a pack
}

// Lost are ranges of a recovery point that cannot be restored.
type Lost struct {
	Point  string  `json:"point"`
	Name   string  `json:"name"`
	Ranges []Range `json:"ranges"`
}

// CheckReport says what was checked and what was found.
type CheckReport struct {
	Points    int64    `json:"points"`
	Nodes     int64    `json:"nodes"`
	Packs     int64    `json:"packs"`     // whose directory was verified
	PacksRead int64    `json:"packsRead"` // of data and of nodes, whose every byte was verified
	BytesRead int64    `json:"bytesRead"`
	Damage    []Damage `json:"damage"`
}

// Check verifies the store without changing it, but for notes about damaged
// packs, which make the next backup store their blocks anew. Damage is
// reported, not returned as an error; an error means that the check could not
// be done.
func (s *Store) Check(ctx context.Context, o CheckOptions) (CheckReport, error) {
	c := &check{
		store: s, options: o, seen: map[block.Hash]bool{}, damage: map[string]*Damage{},
		used: map[pack.ID]bool{}, nodes: map[pack.ID]bool{},
	}
	c.directories.limit = maxDirectories
	s.forgetRead()
	if len(o.Points) == 0 {
		if err := c.documents(ctx); err != nil {
			return c.report, err
		}
	}
	points, err := c.points(ctx)
	if err != nil {
		return c.report, err
	}
	release, err := c.hold(ctx, points)
	defer release()
	if err != nil {
		return c.report, err
	}
	if c.places, err = s.newMarking(ctx, map[pack.ID]bool{}, nil); err != nil {
		return c.report, err
	}
	for _, p := range points {
		if err := c.structure(ctx, p); err != nil {
			return c.report, err
		}
	}
	if o.ReadData || o.Sample > 0 {
		if err := c.data(ctx); err != nil {
			return c.report, err
		}
	}
	if len(c.bad) > 0 {
		if err := c.losses(ctx, points); err != nil {
			return c.report, err
		}
	}
	c.report.Damage = []Damage{}
	for _, key := range c.order {
		d := c.damage[key]
		c.report.Damage = append(c.report.Damage, *d)
		if d.pack != (pack.ID{}) {
			if err := s.markDamaged(ctx, d.pack, d.What); err != nil {
				return c.report, err
			}
		}
	}
	return c.report, nil
}

// forgetRead forgets what was read of trees: only what the storage holds now
// tells whether it is whole.
func (s *Store) forgetRead() {
	s.keys.drop()
	s.frames.drop()
	s.moves.drop()
}

type check struct {
	store   *Store
	options CheckOptions
	report  CheckReport
	seen    map[block.Hash]bool         // nodes verified, with all below them
	damage  map[string]*Damage          // by object
	order   []string                    // of the damage, as it was found
	torn    int                         // how often a node could not be read
	used    map[pack.ID]bool            // data packs in use; true if the directory can be read
	nodes   map[pack.ID]bool            // metadata packs in use
	bad     map[pack.ID]map[uint32]bool // frames in doubt; offset 0 stands for all

	directories lru[pack.ID, directory] // of packs used last
	places      *marking                // knows where pieces were moved to
}

// hold keeps the points from collection while they are checked, even if they
// are deleted meanwhile. A store that cannot be written to is checked without.
func (c *check) hold(ctx context.Context, points []Point) (release func(), err error) {
	var holds []*Hold
	release = func() {
		for _, h := range holds {
			h.Release(ctx)
		}
	}
	for some := range slices.Chunk(points, heldAtOnce) {
		doc := sessionDocument{ID: newSessionID(), Task: taskRead, Purpose: "check"}
		for _, p := range some {
			doc.Images = append(doc.Images, stored{p.Root, p.Size, p.Top})
		}
		x, err := c.store.beginSession(ctx, doc, nil)
		if err != nil {
			return release, context.Cause(ctx)
		}
		holds = append(holds, &Hold{x})
	}
	return release, nil
}

// heldAtOnce bounds the size of a session, which is put every minute.
const heldAtOnce = 4096

// directory is that of a data pack, by offset of the frame.
type directory map[uint32]pack.Frame

// maxDirectories bounds the memory of a check: a directory takes about 50 KiB.
const maxDirectories = 256

// found notes damage of an object, once.
func (c *check) found(key, what string) *Damage {
	d := c.damage[key]
	if d == nil {
		d = &Damage{Object: key, What: what}
		c.damage[key] = d
		c.order = append(c.order, key)
	}
	return d
}

// badFrame notes that a frame of a data pack, or with offset 0 all of them, may
// be lost.
func (c *check) badFrame(id pack.ID, offset uint32, err error) {
	c.found(packName(seal.DataPack, id), reason(err)).pack = id
	if c.bad == nil {
		c.bad = map[pack.ID]map[uint32]bool{}
	}
	if c.bad[id] == nil {
		c.bad[id] = map[uint32]bool{}
	}
	c.bad[id][offset] = true
}

// documents reads every document that is not a point.
func (c *check) documents(ctx context.Context) error {
	if err := c.secrets(ctx); err != nil {
		return err
	}
	return c.store.damagedDocuments(ctx, func(o bucket.Object, _ seal.Kind, _ ID, damage error) error {
		c.found(o.Key, reason(damage))
		return nil
	})
}

// damagedDocuments reads every document that is neither a point nor a secret,
// and visits those that are not as they were written.
func (s *Store) damagedDocuments(ctx context.Context, visit func(o bucket.Object, kind seal.Kind, id ID, damage error) error) error {
	for _, group := range []struct {
		prefix string
		kind   seal.Kind
		id     func(rest string) (ID, bool)
	}{
		{condemnedPrefix, seal.Condemned, numberOf},
		{sweepPrefix, seal.SweepList, numberOf},
		{recordPrefix, seal.Record, idBefore},
		{sessionPrefix, seal.Session, idBefore},
		{movedPrefix, seal.Moved, idBefore},
		{damagePrefix, seal.DamageNote, idBefore},
	} {
		for o, err := range s.bucket.List(ctx, group.prefix, "") {
			if err != nil {
				return err
			}
			id, ok := group.id(o.Key[len(group.prefix):])
			if !ok {
				continue // not ours
			}
			var any struct{}
			err := s.readDocument(ctx, o.Key, group.kind, id, maxListSize, &any)
			if errors.Is(err, bucket.ErrNotFound) {
				continue // removed meanwhile
			}
			if isDamage(err) {
				err = visit(o, group.kind, id, err)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// secrets reads both copies of the realm and of the keys of all epochs. Only a
// store that is open for writing has got its second copies for certain.
func (c *check) secrets(ctx context.Context) error {
	for _, key := range slices.Sorted(maps.Keys(c.store.secrets)) {
		for _, name := range []string{key, secondPrefix + key} {
			_, err := c.store.secretAt(ctx, name, key)
			switch {
			case err == nil, name != key && isMissing(err) && c.store.index == nil:
			case isDamage(err):
				c.found(name, reason(err))
			default:
				return err
			}
		}
	}
	return nil
}

// idBefore is the ID at the beginning of a name; numberOf that of a numbered
// list.
func idBefore(rest string) (id ID, ok bool) {
	if len(rest) < 32 {
		return id, false
	}
	id, err := ParseID(rest[:32])
	return id, err == nil
}

func numberOf(rest string) (id ID, ok bool) {
	n := listNumber(rest)
	return listID(n), n > 0
}

func (c *check) points(ctx context.Context) ([]Point, error) {
	var points []Point
	seen := map[string]bool{}
	add := func(p Point, err error) error {
		seen[p.ID] = true
		switch {
		case problem.Is(err, problem.RecoveryPointNotFound):
			c.lostPoint(p.ID, "it is missing")
		case isDamage(err):
			c.lostPoint(p.ID, reason(err))
		default:
			points = append(points, p)
			return err
		}
		return nil
	}
	if len(c.options.Points) > 0 {
		for _, id := range c.options.Points {
			p, err := c.store.Point(ctx, id)
			p.ID = id
			if err := add(p, err); err != nil {
				return nil, err
			}
		}
		return points, nil
	}
	for p, err := range c.store.Points(ctx) {
		if err := add(p, err); err != nil {
			return nil, err
		}
	}
	for _, id := range c.options.Expect {
		if !seen[id] {
			c.lostPoint(id, "it is missing")
		}
	}
	return points, nil
}

// lostPoint notes a point of which nothing can be restored.
func (c *check) lostPoint(id, what string) {
	c.report.Points++
	c.found(pointPrefix+id, what).Losses = []Lost{{Point: id}}
}

// structure walks the tree of a point, but for what was walked before.
func (c *check) structure(ctx context.Context, p Point) error {
	c.report.Points++
	img, err := c.store.Image(p)
	if err != nil {
		c.found(pointPrefix+p.ID, reason(err)).Losses = []Lost{{Point: p.ID, Name: p.Name}}
		return nil
	}
	return c.subtree(ctx, p, img.tree, img.tree.TopNode, img.tree.Top(), 0)
}

func (c *check) subtree(ctx context.Context, p Point, t *image.Tree, child image.Child, level int, i int64) error {
	if child.Hash.IsZero() || c.seen[child.Hash] {
		return nil
	}
	torn := c.torn
	place, err := c.places.where(ctx, child.Place)
	if err != nil && !isDamage(err) {
		return err
	}
	n, err := nodes{c.store}.at(ctx, child, place, level)
	if isDamage(err) {
		d := c.found(packName(seal.MetadataPack, place.Pack), reason(err))
		d.pack = place.Pack
		c.torn++
		if n, err = t.Loader.Node(ctx, child, level); isDamage(err) {
			span := image.Span(level) * int64(t.BlockSize)
			d.Losses = addLoss(d.Losses, p, Range{i * span, min(span, t.Size-i*span)})
			return nil // what lies elsewhere is checked all the same
		}
	}
	if err != nil {
		return err
	}
	c.nodes[place.Pack] = true
	c.report.Nodes++
	if c.options.Meter != nil {
		c.options.Meter.Mark(1)
	}
	if level == 0 {
		err = c.leaf(ctx, n)
	} else {
		for k := range n.Children {
			if err = c.subtree(ctx, p, t, n.Children[k], level-1, i*image.Fanout+int64(k)); err != nil {
				break
			}
		}
	}
	// A subtree that lacks nodes is walked for each point that has it, so that
	// the report names them all.
	if err == nil && c.torn == torn {
		c.seen[child.Hash] = true
	}
	return err
}

// leaf verifies that each block is where its place says, as far as the
// directories of the packs tell.
func (c *check) leaf(ctx context.Context, n *image.Node) error {
	for k := range n.Children {
		b := &n.Children[k]
		if b.Hash.IsZero() {
			continue
		}
		place, err := c.places.where(ctx, b.Place)
		if err != nil && !isDamage(err) {
			return err
		}
		frames, err := c.directory(ctx, place.Pack)
		if err != nil {
			return err
		}
		if frames == nil {
			continue // noted already
		}
		f, ok := frames[place.Offset]
		if !ok || f.Length != place.Length || int(place.Slot) >= len(f.Hashes) || f.Hashes[place.Slot] != b.Hash {
			c.badFrame(place.Pack, place.Offset, fmt.Errorf("a tree names a block in the frame at offset %d that is not there", place.Offset))
		}
	}
	return nil
}

// directory gives the directory of a data pack, or nil if it cannot be read.
func (c *check) directory(ctx context.Context, id pack.ID) (directory, error) {
	if d, ok := c.directories.get(id); ok {
		return d, nil
	}
	if readable, seen := c.used[id]; seen && !readable {
		return nil, nil
	}
	frames, err := c.store.directory(ctx, seal.DataPack, id, 0)
	if err != nil && !isDamage(err) {
		return nil, err
	}
	if err != nil {
		c.used[id] = false
		c.badFrame(id, 0, err)
		return nil, nil
	}
	d := make(directory, len(frames))
	for _, f := range frames {
		d[f.Offset] = f
	}
	c.directories.put(id, d, 1)
	if !c.used[id] {
		c.used[id] = true
		c.report.Packs++
	}
	return d, nil
}

// data reads packs whole and verifies each piece in them.
func (c *check) data(ctx context.Context) error {
	var packs []packObject
	choose := func(kind seal.Kind, used map[pack.ID]bool) {
		for id, readable := range used {
			if readable && (c.options.ReadData || rand.Float64() < c.options.Sample) {
				packs = append(packs, packObject{kind: kind, id: id})
			}
		}
	}
	choose(seal.DataPack, c.used)
	choose(seal.MetadataPack, c.nodes)
	var mu sync.Mutex // covers the report and the damage
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	for _, p := range packs {
		group.Go(func() error {
			v, err := c.store.verifyPack(ctx, p.kind, p.id)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			c.verified(p, v)
			if c.options.Progress != nil {
				c.options.Progress(c.report.PacksRead, int64(len(packs)))
			}
			return nil
		})
	}
	return group.Wait()
}

// verified notes what reading a pack has shown.
func (c *check) verified(p packObject, v verification) {
	for offset, why := range v.bad {
		if p.kind == seal.DataPack {
			c.badFrame(p.id, offset, why)
		} else {
			// Which nodes that costs, the walk over the trees has found.
			c.found(packName(p.kind, p.id), reason(why)).pack = p.id
		}
	}
	if v.sum != nil {
		c.found(packName(p.kind, p.id), reason(v.sum)).pack = p.id
	}
	c.report.PacksRead++
	c.report.BytesRead += v.read
	if c.options.Meter != nil {
		c.options.Meter.Mark(v.read)
	}
}

// verification is what reading a pack whole has shown.
type verification struct {
	read int64            // bytes
	bad  map[uint32]error // by offset of the frame; 0: the whole pack
	sum  error            // the checksum over all bytes is not that of the trailer
}

// verifyPack reads a pack whole and verifies each piece against its hash, and
// the bytes against the checksum. An error means that it could not be read.
func (s *Store) verifyPack(ctx context.Context, kind seal.Kind, id pack.ID) (v verification, err error) {
	name := packName(kind, id)
	v.bad = map[uint32]error{}
	var key *seal.Key
	frames, err := s.directory(ctx, kind, id, 0)
	if err == nil {
		key, err = s.packKey(ctx, kind, id)
	}
	if isDamage(err) {
		v.bad[0] = err
		return v, nil
	}
	if err != nil {
		return v, err
	}
	limit := max(FrameSize, s.blockSize, maxNodeFrame)
	decoder := seal.NewDecoder(limit)
	defer decoder.Close()
	hash := s.hasher(blockDomain)
	if kind == seal.MetadataPack {
		hash = s.hasher(nodeDomain)
	}
	payload := make([]byte, 0, limit)
	var sealed []byte
	end, sum, err := s.sumOf(ctx, name, 0, seal.HeaderSize, 0)
	if err != nil {
		return v, err
	}
	for _, f := range frames {
		offset := f.Offset
		if cap(sealed) < int(f.Length) {
			sealed = make([]byte, f.Length, 2*f.Length)
		}
		sealed = sealed[:f.Length]
		if err := s.bucket.Get(ctx, name, int64(offset), sealed); err != nil {
			if !isDamage(err) {
				return v, err
			}
			v.bad[offset] = err
			continue
		}
		v.read += int64(f.Length)
		sum = pack.Checksum(sum, sealed)
		end = int64(offset) + int64(f.Length)
		plain, err := key.Open(sealed[:0], sealed, int64(offset))
		if err == nil {
			var decoded []byte
			var pieces int
			if decoded, pieces, err = decoder.Decode(payload, plain); err == nil && kind == seal.DataPack {
				err = verifyFrame(hash, decoded, f, s.blockSize)
			} else if err == nil {
				err = verifyNodes(hash, decoded, pieces, f)
			}
		}
		if err != nil {
			v.bad[offset] = err
		}
	}
	if len(v.bad) == 0 {
		v.sum, err = s.verifySum(ctx, name, end, sum)
	}
	return v, err
}

// sumOf continues a checksum over some bytes of an object, and tells where they
// end.
func (s *Store) sumOf(ctx context.Context, name string, off, length int64, sum uint32) (int64, uint32, error) {
	b := make([]byte, length)
	if err := s.bucket.Get(ctx, name, off, b); err != nil {
		return 0, 0, err
	}
	return off + length, pack.Checksum(sum, b), nil
}

// verifySum compares the checksum of a pack up to the end of its frames,
// continued over its directory, with that of the trailer.
func (s *Store) verifySum(ctx context.Context, name string, end int64, sum uint32) (bad, err error) {
	o, err := s.bucket.Stat(ctx, name)
	if err != nil {
		return nil, err
	}
	if _, sum, err = s.sumOf(ctx, name, end, o.Size-pack.TrailerSize-end, sum); err != nil {
		return nil, err
	}
	var b [pack.TrailerSize]byte
	if err := s.bucket.Get(ctx, name, o.Size-pack.TrailerSize, b[:]); err != nil {
		return nil, err
	}
	t, bad := pack.ParseTrailer(b[:], o.Size)
	if bad == nil && t.Checksum != sum {
		bad = fmt.Errorf("its checksum is not that of its bytes: %w", seal.ErrDamaged)
	}
	return bad, nil
}

func verifyNodes(hash *block.Hasher, decoded []byte, pieces int, f pack.Frame) error {
	stored, err := image.SplitNodes(decoded, pieces)
	if err != nil {
		return err
	}
	if len(stored) != len(f.Hashes) {
		return fmt.Errorf("the frame at offset %d has %d nodes: %w", f.Offset, len(stored), seal.ErrDamaged)
	}
	for slot := range stored {
		var n image.Node
		if err := image.ParseNode(stored[slot], &n); err != nil {
			return err
		}
		if n.Hash(hash) != f.Hashes[slot] {
			return fmt.Errorf("the node in the frame at offset %d, slot %d has another hash: %w", f.Offset, slot, seal.ErrDamaged)
		}
	}
	return nil
}

func verifyFrame(hash *block.Hasher, decoded []byte, f pack.Frame, blockSize int) error {
	if len(decoded) != len(f.Hashes)*blockSize {
		return fmt.Errorf("the frame at offset %d decodes to %d bytes: %w", f.Offset, len(decoded), seal.ErrDamaged)
	}
	for slot, h := range f.Hashes {
		if hash.Sum(decoded[slot*blockSize:(slot+1)*blockSize]) != h {
			return fmt.Errorf("the block in the frame at offset %d, slot %d has another hash: %w", f.Offset, slot, seal.ErrDamaged)
		}
	}
	return nil
}

// losses walks the trees once more to name the ranges that are lost: those in
// doubt that a restore could not read either.
func (c *check) losses(ctx context.Context, points []Point) error {
	for _, p := range points {
		img, err := c.store.Image(p)
		if err != nil {
			continue // reported as damage of the point
		}
		if err := c.lossesOf(ctx, p, img); err != nil {
			return err
		}
	}
	return nil
}

func (c *check) lossesOf(ctx context.Context, p Point, img *Image) error {
	r := img.NewReader()
	defer r.Close()
	cursor := img.tree.NewCursor()
	size := int64(img.tree.BlockSize)
	for i := int64(0); ; i++ {
		leaf, n, ok, err := cursor.NextLeaf(ctx, i)
		if isDamage(err) {
			i = leaf - 1
			continue // reported as damage of the metadata pack
		}
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		i = leaf
		for k := range n.Children {
			if b := &n.Children[k]; !b.Hash.IsZero() {
				b.Place, err = c.places.where(ctx, b.Place)
				if err != nil && !isDamage(err) {
					return err
				}
			}
		}
		for k := 0; k < image.Fanout; {
			run := c.doubtful(n, k)
			if run == 0 {
				k++
				continue
			}
			off := (leaf*image.Fanout + int64(k)) * size
			lost, err := r.unreadable(ctx, off, int64(run)*size)
			if err != nil {
				return err
			}
			d := c.damage[packName(seal.DataPack, n.Children[k].Place.Pack)]
			for _, l := range lost {
				d.Losses = addLoss(d.Losses, p, l)
			}
			k += run
		}
	}
}

// doubtful counts the children from k on that lie in frames in doubt of one pack.
func (c *check) doubtful(n *image.Node, k int) (run int) {
	frames := c.bad[n.Children[k].Place.Pack]
	for ; k+run < image.Fanout; run++ {
		b := &n.Children[k+run]
		if b.Hash.IsZero() || b.Place.Pack != n.Children[k].Place.Pack || !frames[0] && !frames[b.Place.Offset] {
			break
		}
	}
	return run
}

// unreadable gives the parts of a range, in order, that cannot be read.
func (r *Reader) unreadable(ctx context.Context, off, length int64) (lost []Range, err error) {
	err = r.Window(ctx, off, length, func(int64, []byte) error { return nil }, func(off, length int64, _ error) error {
		lost = append(lost, Range{off, length})
		return nil
	})
	slices.SortFunc(lost, func(a, b Range) int { return cmp.Compare(a.Offset, b.Offset) })
	return lost, err
}

// addLoss adds a range to what the point lost, joined to the one before where
// they touch.
func addLoss(losses []Lost, p Point, r Range) []Lost {
	if n := len(losses); n == 0 || losses[n-1].Point != p.ID {
		losses = append(losses, Lost{Point: p.ID, Name: p.Name})
	}
	l := &losses[len(losses)-1]
	if n := len(l.Ranges); n > 0 && l.Ranges[n-1].Offset+l.Ranges[n-1].Length == r.Offset {
		l.Ranges[n-1].Length += r.Length
	} else {
		l.Ranges = append(l.Ranges, r)
	}
	return losses
}

// reason is the cause of damage in one sentence.
func reason(err error) string {
	if isMissing(err) {
		return "it is missing"
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "it is too short"
	}
	if cause := errors.Unwrap(err); cause != nil && isDamage(err) {
		return cause.Error()
	}
	return err.Error()
}
