package lvm

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/diskvault/diskvault/base/extent"
	"github.com/diskvault/diskvault/base/problem"
)

// Diff gives the ranges that may differ between two snapshots of the volume. It
// reads the pool's metadata as they are now, held for that moment. Nobody may
// write to either snapshot.
func (v Volume) Diff(ctx context.Context, from, to Volume) (set extent.Set, err error) {
	pool := mapper(v.Group, v.Pool)
	if _, err := run(ctx, "dmsetup", "message", pool+"-tpool", "0", "reserve_metadata_snap"); err != nil {
		return nil, err
	}
	defer func() {
		_, released := run(context.WithoutCancel(ctx), "dmsetup", "message", pool+"-tpool", "0", "release_metadata_snap")
		err = errors.Join(err, released)
	}()
	out, err := run(ctx, "thin_delta", "--metadata-snap", "--snap1", strconv.Itoa(from.thinID), "--snap2", strconv.Itoa(to.thinID), "/dev/mapper/"+pool+"_tmeta")
	if err != nil {
		return nil, err
	}
	set, err = parseDelta(out, from.thinID, to.thinID, to.Size)
	if err != nil {
		return nil, problem.Wrap(err, problem.SourceReadFailed, "What `thin_delta` says of %s cannot be understood.", v.spec())
	}
	return set, nil
}

// mapper is what the device mapper calls a volume: dashes are doubled, one joins
// the names.
func mapper(group, name string) string {
	double := func(s string) string { return strings.ReplaceAll(s, "-", "--") }
	return double(group) + "-" + double(name)
}

// sectorSize is the unit of data_block_size, in bytes.
const sectorSize = 512

// parseDelta reads what thin_delta prints: runs of blocks that are the same in
// both, different, or in one only. Whatever is not "same" counts, and so does an
// element that is not known.
func parseDelta(out []byte, from, to int, size int64) (extent.Set, error) {
	var block int64
	var ranges []extent.Range
	inside, whole := false, false
	for d := xml.NewDecoder(bytes.NewReader(out)); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if end, ok := token.(xml.EndElement); ok && end.Name.Local == "superblock" {
			whole = true
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		switch start.Name.Local {
		case "superblock":
			sectors, err := number(start, "data_block_size")
			if err != nil || sectors == 0 || sectors > 1<<21 {
				return nil, fmt.Errorf("a block of %d sectors: %w", sectors, err)
			}
			block = sectors * sectorSize
		case "diff":
			left, err := number(start, "left")
			right, other := number(start, "right")
			if err = errors.Join(err, other); err != nil || left != int64(from) || right != int64(to) {
				return nil, fmt.Errorf("it compares %d with %d, and %d with %d was asked for: %w", left, right, from, to, err)
			}
			inside = true
		default:
			begin, err := number(start, "begin")
			length, other := number(start, "length")
			if err = errors.Join(err, other); err != nil || block == 0 || !inside {
				return nil, fmt.Errorf("a run that lies nowhere: %w", err)
			}
			if start.Name.Local == "same" {
				continue
			}
			if begin > size/block || length > size/block+1 {
				begin, length = min(begin, size/block), size/block+1 // cut below
			}
			ranges = append(ranges, extent.Range{Off: begin * block, Len: length * block}.Intersect(extent.Range{Len: size}))
		}
	}
	if !inside || !whole {
		return nil, errors.New("it ends early")
	}
	return extent.Of(ranges...), nil
}

// number is an attribute that must be there and not negative.
func number(e xml.StartElement, name string) (int64, error) {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			n, err := strconv.ParseInt(a.Value, 10, 64)
			if err == nil && n < 0 {
				err = fmt.Errorf("%s is %d", name, n)
			}
			return n, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", e.Name.Local, name)
}
