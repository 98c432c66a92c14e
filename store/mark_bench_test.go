package store

import (
	"crypto/rand"
	"encoding/binary"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/meter"
	"github.com/diskvault/diskvault/store/internal/image"
	"github.com/diskvault/diskvault/store/internal/pack"
)

// BenchmarkMark walks a tree of ten million blocks, each in a place of its own,
// as a collection does. The blocks themselves are not stored: nothing reads them.
func BenchmarkMark(b *testing.B) {
	const blocks = 10_000_000
	l := newLab(b, CreateOptions{})
	size := int64(blocks) * int64(l.BlockSize())
	w, err := l.NewWriter(b.Context(), WriterOptions{ID: newID(), Instance: "disk", Size: size, Compression: CompressionDefault, Meter: meter.New("transfer")})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	children := make([]image.Child, 32)
	var at pack.Place
	for n := range blocks / len(children) {
		if n%48 == 0 { // frames of a pack
			at = pack.Place{Length: 650_000}
			rand.Read(at.Pack[:])
		}
		at.Offset = uint32(n%48) * at.Length
		for i := range children {
			binary.LittleEndian.PutUint64(children[i].Hash[:], uint64(n*len(children)+i+1))
			children[i].Place = at.Piece(i)
		}
		if err := w.tree.Blocks(b.Context(), children); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := w.Commit(Point{Instance: "disk"}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		roots, err := l.roots(b.Context(), nil)
		if err != nil {
			b.Fatal(err)
		}
		pace := pacer{}
		start := time.Now()
		m, err := l.newMarking(b.Context(), map[pack.ID]bool{}, pace.between)
		if err == nil {
			err = m.all(b.Context(), roots)
		}
		if err != nil || m.blocks != blocks {
			b.Fatal(m.blocks, err)
		}
		b.ReportMetric(blocks/time.Since(start).Seconds()/1e6, "Mblocks/s")
	}
}
