package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/nbd"
)

// MethodNBD reads an export of an NBD server. That it does not change is the
// word of the server, which offers it read-only, or of the user, who says that it
// is a snapshot; this host cannot see who writes to it elsewhere.
const MethodNBD Method = "nbd"

// trackingBitmap is the name of change tracking by a dirty bitmap that an NBD
// server hands out.
const trackingBitmap = "nbd-bitmap"

// NBD captures disks on NBD servers. The zero value is ready.
type NBD struct{}

func (NBD) method() Method { return MethodNBD }

func (NBD) assess(_ context.Context, src *disk.Source) (a Assessment, refusal Refusal) {
	if src.Kind != disk.Network {
		return a, Refusal{Method: MethodNBD}
	}
	a.Cost = "What the server calls allocated is read over the network at each backup."
	if src.Export != nil && len(src.Export.Bitmaps) > 0 {
		a.Tracking = trackingBitmap
		a.Cost = "What the server's dirty bitmap names is read, if it began at the last recovery point."
	} else {
		a.Better = []string{"With a dirty bitmap of the server (record=NAME at one backup, bitmap=NAME at the next) only what changed would be read."}
	}
	if !still(src, src.ReadOnly) {
		a.Refused = writableExport
		a.Better = append(a.Better, "Let the server offer a snapshot, read-only.")
	}
	return a, Refusal{}
}

const writableExport = "The server lets its clients write to it, so it may change while it is read. Let the server offer it read-only, or add snapshot=yes to the URL if it is a snapshot that nobody writes to."

// still tells whether an export counts as one that does not change.
func still(src *disk.Source, readOnly bool) bool {
	return readOnly || src.Export != nil && src.Export.Snapshot
}

// exportView reads an export over one connection, so from one start of the
// server to its end.
type exportView struct {
	*disk.Reader
	*doubt
	src *disk.Source
}

// Capture implements Capturer.
func (NBD) Capture(ctx context.Context, src *disk.Source) (View, error) {
	if src.Kind != disk.Network {
		return nil, inapplicable("")
	}
	reader, err := src.Open(ctx, disk.ReadOptions{})
	if err != nil {
		return nil, err
	}
	v := &exportView{Reader: reader, doubt: newDoubt(), src: src}
	// By what the server says now, over the connection that is read.
	if !still(src, reader.Export().ReadOnly()) {
		v.raise(writableExport, false)
	}
	return v, nil
}

// Prove implements View.
func (v *exportView) Prove(ctx context.Context) (Proof, error) {
	if p, ok := v.proof(); ok {
		p.Method = MethodNBD
		return p, nil
	}
	// The server must still be the one that was read.
	if err := v.Export().Read(ctx, make([]byte, min(512, v.Size())), 0); err != nil {
		if ctx.Err() != nil {
			return Proof{}, problem.From(ctx.Err())
		}
		if !disk.IsFaultOfRange(err) {
			return Proof{}, problem.Wrap(err, problem.SourceReadFailed, "The NBD server of %s is gone.", v.src.Path)
		}
	}
	reason := "The server offers it read-only, and did so until all was read."
	if !v.Export().ReadOnly() {
		reason = "Its URL says that it is a snapshot that nobody writes to."
	}
	return Proof{Proven: true, Method: MethodNBD, Reason: reason}, nil
}

// exportToken is what a recovery point keeps of a bitmap that began with it.
type exportToken struct {
	Method Method `json:"method"`
	Record string `json:"record"`
	Size   int64  `json:"size"`
}

// Changed implements the tracking of changes by bitmaps of the server. They are
// believed only if the last recovery point names the first of them as begun with
// it, so that a bitmap of another time hides nothing.
func (v *exportView) Changed(ctx context.Context, stored []byte) (Changes, error) {
	var bitmaps []string
	if v.src.Export != nil {
		bitmaps = v.src.Export.Bitmaps
	}
	var t exportToken
	switch err := json.Unmarshal(stored, &t); {
	case v.doubted():
		return Unknown("the export may change while it is read"), nil
	case len(bitmaps) == 0:
		return Unknown("its URL names no dirty bitmap, so all of it was read and compared"), nil
	case len(stored) == 0 || err == nil && t.Method == MethodNBD && t.Record == "":
		return Unknown("the last recovery point names no bitmap that began with it"), nil
	case err != nil || t.Method != MethodNBD:
		return Unknown("the last recovery point was captured in another way"), nil
	case !slices.Contains(bitmaps, t.Record):
		return Unknown(fmt.Sprintf("with the last recovery point began the bitmap %q, and the URL names %s", t.Record, strings.Join(bitmaps, ", "))), nil
	}
	dirty := []extent.Range{extent.Between(t.Size, v.Size())} // was never part of the bitmap
	for _, name := range bitmaps {
		dirtyContext := disk.BitmapContext(name)
		if !v.Export().Has(dirtyContext) {
			return Unknown(fmt.Sprintf("the server does not hand out the bitmap %q", name)), nil
		}
		for e, err := range v.Export().Extents(ctx, dirtyContext, extent.Range{Len: v.Size()}) {
			switch {
			case err != nil && ctx.Err() != nil:
				return Changes{}, ctx.Err()
			case err != nil:
				return Changes{}, problem.Wrap(err, problem.SourceReadFailed, "The NBD server of %s does not tell what its bitmap %q holds.", v.src.Path, name)
			}
			if e.Flags&nbd.StateDirty != 0 {
				dirty = append(dirty, extent.Range{Off: e.Off, Len: e.Len})
			}
		}
	}
	return Changes{Known: true, Ranges: extent.Of(dirty...), Method: trackingBitmap, Reason: "recorded by the NBD server since the last recovery point"}, nil
}

func (v *exportView) doubted() bool {
	_, ok := v.proof()
	return ok
}

// Keep notes the bitmap that began with this point in time, if the user names
// one.
func (v *exportView) Keep(context.Context, string) (Kept, error) {
	t := exportToken{Method: MethodNBD, Size: v.Size()}
	var dropped string
	switch {
	case v.doubted():
		dropped = "the export may have changed while it was read"
	case v.src.Export == nil:
	case v.src.Export.Record == "" && len(v.src.Export.Bitmaps) > 0:
		dropped = "its URL names no bitmap that began with it (record=NAME)"
	default:
		t.Record = v.src.Export.Record
	}
	token, err := json.Marshal(t)
	return Kept{Token: token, Dropped: dropped}, err
}

// Settle has nothing to do: bitmaps belong to the server's owner.
func (v *exportView) Settle(context.Context) error { return nil }
