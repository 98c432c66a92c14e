// Package filebucket is a bucket in a folder: an object is a file, and a slash
// in a key is a folder. Whatever Put and Delete report as done has been synced,
// data and names, through base/durable.
//
// Other files may lie in the folder: names that are not legal keys are passed
// over, among them the temporary files of a Put that was cut short, which later
// Puts remove when they are a day old.
package filebucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/diskvault/diskvault/base/durable"
	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/store/bucket"
)

const (
	filePerm   = 0o600
	folderPerm = 0o700

	// leftoverAge is how old a temporary file is when its writer is taken to be
	// dead.
	leftoverAge = 24 * time.Hour

	// longestKept is the longest name of a folder that stays when its last
	// object is deleted. Short names are the fixed parts of a layout and
	// fan-out; longer ones hold an ID, and would pile up.
	longestKept = 16
)

// Bucket is a bucket in a folder.
type Bucket struct {
	root durable.Root
	url  string

	mu      sync.Mutex
	settled map[string]bool // guarded by mu; folders that stay and whose names, up to the root, are on stable storage
}

var _ bucket.Bucket = (*Bucket)(nil)

// Options of Open. The zero value opens a folder that must exist.
type Options struct {
	Create bool // make the folder, and those above it, if they are missing
}

// Open opens the bucket in the folder at path. Without Options.Create, a folder
// that does not exist is a problem StoreNotFound.
func Open(path string, o Options) (*Bucket, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	url := "file:" + path
	var root *durable.Folder
	if o.Create {
		root, err = durable.MakeRoot(path, folderPerm)
	} else {
		root, err = durable.Open(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem.Wrap(err, problem.StoreNotFound, "There is no folder %s.", path)
	}
	if err != nil {
		return nil, classify(err, url)
	}
	return On(root, url), nil
}

// On makes a bucket of any Root, for example one that loses power in a test.
// The bucket closes root at the end; url is what URL returns.
func On(root durable.Root, url string) *Bucket {
	return &Bucket{root: root, url: url, settled: map[string]bool{"": true}}
}

// URL is "file:" and the absolute path.
func (b *Bucket) URL() string { return b.url }

// Close releases the folder.
func (b *Bucket) Close() error { return b.root.Close() }

// Put is described at bucket.Bucket.
func (b *Bucket) Put(ctx context.Context, key string, parts [][]byte) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	err := b.write(key, parts)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return b.failed("put", key, err)
	}
	// After the file, since only then can nobody remove the folder as empty.
	if err := b.settle(key); err != nil {
		return b.failed("put", key, err)
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", key, bucket.ErrExists)
	}
	return nil
}

// write stores the file and makes its folder if that is missing. It tries more
// than once, since a Delete may remove a folder that has just become empty.
func (b *Bucket) write(key string, parts [][]byte) (err error) {
	for range 10 {
		err = durable.WriteFile(b.root, key, filePerm, parts)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		made := durable.MakeFolder(b.root, folderOf(key), folderPerm)
		if made != nil && !errors.Is(made, fs.ErrNotExist) {
			return made
		}
	}
	return err
}

// settle puts the names of all folders above a key on stable storage. For
// folders that stay once is enough.
func (b *Bucket) settle(key string) error {
	folder := folderOf(key)
	if b.isSettled(folder) {
		return nil
	}
	stays := true
	for name := range folders(folder) {
		stays = stays && len(name)-len(folderOf(name)) <= longestKept
		if b.isSettled(name) {
			continue
		}
		if err := b.root.SyncFolder(folderOf(name)); err != nil {
			return err
		}
		if stays {
			b.mu.Lock()
			b.settled[name] = true
			b.mu.Unlock()
		}
	}
	b.clean(key)
	return nil
}

func (b *Bucket) isSettled(folder string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.settled[folder]
}

// clean removes old temporary files beside a key, when a folder is used for the
// first time. The file just stored tells the time by the clock that dated them.
func (b *Bucket) clean(key string) {
	if info, err := b.root.Stat(key); err == nil {
		durable.CleanTemporary(b.root, folderOf(key), info.Time.Add(-leftoverAge))
	}
}

// Get is described at bucket.Bucket.
func (b *Bucket) Get(ctx context.Context, key string, off int64, dst []byte) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	if off < 0 {
		return fmt.Errorf("get %s: the offset %d is negative", key, off)
	}
	f, err := b.root.Open(key)
	if err != nil {
		return b.failed("get", key, err)
	}
	defer f.Close()
	if len(dst) > 0 {
		_, err = f.ReadAt(dst, off)
		if err == nil {
			return nil
		}
		if !errors.Is(err, io.EOF) {
			return b.failed("get", key, err)
		}
	}
	size, err := f.Size()
	if err != nil {
		return b.failed("get", key, err)
	}
	if off+int64(len(dst)) > size {
		return bucket.Short(b, key, size, off, len(dst))
	}
	return nil
}

// Stat is described at bucket.Bucket.
func (b *Bucket) Stat(ctx context.Context, key string) (bucket.Object, error) {
	if err := check(ctx, key); err != nil {
		return bucket.Object{}, err
	}
	info, err := b.root.Stat(key)
	if err == nil && info.Folder {
		err = fs.ErrNotExist
	}
	if err != nil {
		return bucket.Object{}, b.failed("stat", key, err)
	}
	return bucket.Object{Key: key, Size: info.Size, Stored: info.Time}, nil
}

// Delete is described at bucket.Bucket.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	if err := durable.RemoveFile(b.root, key); err != nil && !missing(err) {
		return b.failed("delete", key, err)
	}
	// A folder that stayed empty would cost every List a little; one that is
	// not empty cannot be removed.
	for f := folderOf(key); len(f)-len(folderOf(f)) > longestKept; f = folderOf(f) {
		if b.root.Rmdir(f) != nil {
			break
		}
	}
	return nil
}

func check(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return bucket.CheckKey(key)
}

// folderOf gives the folder that a name lies in; "" is the root.
func folderOf(name string) string {
	return name[:max(0, strings.LastIndexByte(name, '/'))]
}

// folders yields a folder and all above it but the root, from the top.
func folders(folder string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i := range len(folder) {
			if folder[i] == '/' && !yield(folder[:i]) {
				return
			}
		}
		if folder != "" {
			yield(folder)
		}
	}
}
