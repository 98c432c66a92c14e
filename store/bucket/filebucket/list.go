package filebucket

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"github.com/diskvault/diskvault/store/bucket"
)

// List is described at bucket.Bucket. It walks the folders in the order of the
// keys and syncs each before it tells what is in it, so that nobody builds on
// an object whose name a power failure could take back.
func (b *Bucket) List(ctx context.Context, prefix, after string) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		w := walk{b: b, ctx: ctx, prefix: prefix, after: after, yield: yield}
		start := folderOf(prefix)
		if start != "" && bucket.CheckKey(start) != nil {
			return // no key can begin like that
		}
		for name := range folders(start) {
			if !b.isSettled(name) && !w.sync(folderOf(name)) {
				return
			}
		}
		w.folder(start)
	}
}

type walk struct {
	b             *Bucket
	ctx           context.Context
	prefix, after string
	yield         func(bucket.Object, error) bool
}

// folder yields what lies in a folder; it returns false if the walk is over.
func (w *walk) folder(name string) bool {
	if err := w.ctx.Err(); err != nil {
		return w.fail(err)
	}
	names, ok := w.read(name)
	if !ok {
		return false
	}
	for _, n := range names {
		if folder, ok := strings.CutSuffix(n, "/"); ok {
			if !w.folder(folder) {
				return false
			}
		} else if !w.file(n) {
			return false
		}
	}
	return true
}

// read gives the names in a folder that the walk wants, in the order of keys:
// that of a folder ends with a slash, as it does within a key.
func (w *walk) read(folder string) (names []string, ok bool) {
	entries, err := w.b.root.ReadFolder(folder)
	if missing(err) {
		return nil, true
	}
	if err != nil {
		return nil, w.fail(w.b.failed("list", folder, err))
	}
	for _, e := range entries {
		name := e.Name
		if folder != "" {
			name = folder + "/" + e.Name
		}
		if bucket.CheckKey(name) != nil {
			continue
		}
		if e.Folder {
			name += "/"
		}
		if w.wants(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return nil, true
	}
	return names, w.sync(folder)
}

// wants tells whether a name, or anything in it if it is a folder, may belong to
// the listing.
func (w *walk) wants(name string) bool {
	if !strings.HasSuffix(name, "/") {
		return strings.HasPrefix(name, w.prefix) && name > w.after
	}
	return (strings.HasPrefix(name, w.prefix) || strings.HasPrefix(w.prefix, name)) &&
		(name > w.after || strings.HasPrefix(w.after, name))
}

func (w *walk) file(key string) bool {
	info, err := w.b.root.Stat(key)
	if errors.Is(err, fs.ErrNotExist) {
		return true // deleted since the folder was read
	}
	if err != nil {
		return w.fail(w.b.failed("list", key, err))
	}
	return w.yield(bucket.Object{Key: key, Size: info.Size, Stored: info.Time}, nil)
}

func (w *walk) sync(folder string) bool {
	err := w.b.root.SyncFolder(folder)
	if err != nil && !missing(err) {
		return w.fail(w.b.failed("list", folder, err))
	}
	return true
}

func (w *walk) fail(err error) bool {
	w.yield(bucket.Object{}, err)
	return false
}
