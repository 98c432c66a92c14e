// Package powerloss is a file system in memory that can lose its power: what
// was not synced is then gone, in part or in whole, as a seed decides. Tests
// run real code on it, cut the power at a chosen operation, and look at what a
// restart finds.
//
// It promises no more than POSIX does. Data of a file survives once the file
// was synced; until then each page may hold its old or its new content, or a
// torn mix. A name survives, or stays removed, once its folder was synced;
// until then each name in each folder goes its own way, so that after a rename
// either, both or none of the two names may be there.
package powerloss

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/diskvault/diskvault/base/durable"
)

// ErrPowerLost is what every operation returns once the power is lost.
var ErrPowerLost = errors.New("the power is lost")

// Disk is an empty folder on a file system in memory; it is a durable.Root. All
// methods may be called concurrently; with one goroutine a run is a pure
// function of the seed.
type Disk struct {
	mu     sync.Mutex
	random *rand.Rand       // guarded by mu
	now    func() time.Time // guarded by mu
	root   *node            // guarded by mu, with everything below it
	steps  int              // guarded by mu; operations that change something
	cutAt  int              // guarded by mu; 0: not planned
	lost   bool             // guarded by mu
	lying  bool             // guarded by mu
	nodes  int              // guarded by mu; made so far
}

var _ durable.Root = (*Disk)(nil)

// node is a file or a folder.
type node struct {
	number int // in the order of making
	folder bool
	time   time.Time

	data   []byte // file: as programs see it; only ever appended to
	synced []byte // file: as the last sync left it

	names   map[string]*node // folder: as programs see it
	durable map[string]*node // folder: as the last sync left it
	pending []change         // folder: from durable to names, in order
}

// change is that a name in a folder now means node, or nothing if that is nil.
type change struct {
	name string
	node *node
}

// New makes an empty disk. The seed decides what a loss of power leaves.
func New(seed uint64) *Disk {
	return &Disk{
		random: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)),
		now:    time.Now,
		root:   newFolder(),
	}
}

func newFolder() *node {
	return &node{folder: true, names: map[string]*node{}, durable: map[string]*node{}}
}

// SetClock replaces the clock that dates files from now on.
func (d *Disk) SetClock(now func() time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = now
}

// Steps counts the operations so far that change something; those that only
// read do not count.
func (d *Disk) Steps() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.steps
}

// CutAt plans the loss of power at the given step, counted as by Steps from 1.
// That step is carried out, half carried out or not at all, and fails.
func (d *Disk) CutAt(step int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutAt = step
}

// Cut loses the power now, if it is not lost yet.
func (d *Disk) Cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lost = true
}

// Lost tells whether the power is lost.
func (d *Disk) Lost() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lost
}

// Lie makes every sync from now on do nothing and report success, as some disks
// do. A test that still passes on such a disk tests nothing.
func (d *Disk) Lie() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lying = true
}

// step counts an operation that changes something. It returns whether the
// operation is carried out, and the error to return in the end. mu is held.
func (d *Disk) step() (do bool, err error) {
	if d.lost {
		return false, ErrPowerLost
	}
	d.steps++
	if d.steps == d.cutAt {
		d.lost = true
		return d.random.IntN(2) == 0, ErrPowerLost
	}
	return true, nil
}

// find gives the node of a name; mu is held.
func (d *Disk) find(name string) (*node, error) {
	n := d.root
	for segment := range strings.SplitSeq(name, "/") {
		switch {
		case name == "":
			return n, nil
		case !n.folder:
			return nil, syscall.ENOTDIR
		}
		next, ok := n.names[segment]
		if !ok {
			return nil, fs.ErrNotExist
		}
		n = next
	}
	return n, nil
}

// parent gives the folder of a name and the last segment; mu is held.
func (d *Disk) parent(name string) (*node, string, error) {
	at := strings.LastIndexByte(name, '/')
	folder, err := d.find(name[:max(0, at)])
	if err == nil && !folder.folder {
		err = syscall.ENOTDIR
	}
	return folder, name[at+1:], err
}

// set makes a name mean a node; mu is held.
func (n *node) set(name string, to *node) {
	if to == nil {
		delete(n.names, name)
	} else {
		n.names[name] = to
	}
	n.pending = append(n.pending, change{name, to})
}

// Create is described at durable.Root.
func (d *Disk) Create(name string, _ fs.FileMode) (durable.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &node{}
	if err := d.add(name, n); err != nil {
		return nil, failed("create", name, err)
	}
	return &file{d, n, name}, nil
}

// Mkdir is described at durable.Root.
func (d *Disk) Mkdir(name string, _ fs.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return failed("mkdir", name, d.add(name, newFolder()))
}

func (d *Disk) add(name string, n *node) error {
	folder, last, err := d.parent(name)
	if err != nil {
		return d.orLost(err)
	}
	if folder.names[last] != nil {
		return d.orLost(fs.ErrExist)
	}
	do, err := d.step()
	if do {
		d.nodes++
		n.number, n.time = d.nodes, d.now()
		folder.set(last, n)
	}
	return err
}

// orLost gives err, unless the power is lost; mu is held.
func (d *Disk) orLost(err error) error {
	if d.lost {
		return ErrPowerLost
	}
	return err
}

// Open is described at durable.Root.
func (d *Disk) Open(name string) (durable.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(name)
	if err := d.orLost(err); err != nil {
		return nil, failed("open", name, err)
	}
	return &file{d, n, name}, nil
}

// Rename is described at durable.Root.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return failed("rename", from, d.rename(from, to))
}

func (d *Disk) rename(from, to string) error {
	source, sourceName, err := d.parent(from)
	if err != nil {
		return d.orLost(err)
	}
	target, targetName, err := d.parent(to)
	if err != nil {
		return d.orLost(err)
	}
	n := source.names[sourceName]
	switch {
	case n == nil:
		return d.orLost(fs.ErrNotExist)
	case n.folder:
		return d.orLost(syscall.EISDIR)
	case target.names[targetName] != nil:
		return d.orLost(fs.ErrExist)
	}
	do, err := d.step()
	if do {
		target.set(targetName, n)
		source.set(sourceName, nil)
	}
	return err
}

// Remove is described at durable.Root.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return failed("remove", name, d.remove(name, func(n *node) error {
		if n.folder {
			return syscall.EISDIR
		}
		return nil
	}))
}

// Rmdir is described at durable.Root.
func (d *Disk) Rmdir(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return failed("rmdir", name, d.remove(name, func(n *node) error {
		if !n.folder {
			return syscall.ENOTDIR
		}
		if len(n.names) > 0 {
			return syscall.ENOTEMPTY
		}
		return nil
	}))
}

func (d *Disk) remove(name string, may func(*node) error) error {
	folder, last, err := d.parent(name)
	if err != nil {
		return d.orLost(err)
	}
	n := folder.names[last]
	if n == nil {
		return d.orLost(fs.ErrNotExist)
	}
	if err := may(n); err != nil {
		return d.orLost(err)
	}
	do, err := d.step()
	if do {
		folder.set(last, nil)
	}
	return err
}

// SyncFolder is described at durable.Root.
func (d *Disk) SyncFolder(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(name)
	if err == nil && !n.folder {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return failed("sync", name, d.orLost(err))
	}
	do, err := d.step()
	if do && !d.lying {
		for _, c := range n.pending {
			n.keep(c)
		}
		n.pending = nil
	}
	return failed("sync", name, err)
}

// keep makes a change durable; the Disk's mu is held.
func (n *node) keep(c change) {
	if c.node == nil {
		delete(n.durable, c.name)
	} else {
		n.durable[c.name] = c.node
	}
}

// Stat is described at durable.Root.
func (d *Disk) Stat(name string) (durable.Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(name)
	if err := d.orLost(err); err != nil {
		return durable.Info{}, failed("stat", name, err)
	}
	return durable.Info{Size: int64(len(n.data)), Time: n.time, Folder: n.folder}, nil
}

// ReadFolder is described at durable.Root.
func (d *Disk) ReadFolder(name string) ([]durable.Entry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(name)
	if err == nil && !n.folder {
		err = syscall.ENOTDIR
	}
	if err := d.orLost(err); err != nil {
		return nil, failed("read", name, err)
	}
	entries := make([]durable.Entry, 0, len(n.names))
	for name, child := range n.names {
		entries = append(entries, durable.Entry{Name: name, Folder: child.folder})
	}
	return entries, nil
}

// Close does nothing; the disk can be used on, as after another mount.
func (d *Disk) Close() error { return nil }

func failed(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %q: %w", op, name, err)
}

// file is an open file of a Disk.
type file struct {
	disk *Disk
	node *node
	name string
}

// Write appends. When the power is lost in it, any part from the beginning may
// have reached the file.
func (f *file) Write(parts [][]byte) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.lost {
		return failed("write", f.name, ErrPowerLost)
	}
	_, err := f.disk.step()
	before := len(f.node.data)
	for _, p := range parts {
		f.node.data = append(f.node.data, p...)
	}
	if err != nil {
		written := len(f.node.data) - before
		f.node.data = f.node.data[:before+f.disk.random.IntN(written+1)]
	}
	f.node.time = f.disk.now()
	return failed("write", f.name, err)
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.lost {
		return 0, failed("read", f.name, ErrPowerLost)
	}
	if f.node.folder {
		return 0, failed("read", f.name, syscall.EISDIR)
	}
	if off < 0 {
		return 0, failed("read", f.name, syscall.EINVAL)
	}
	if off > int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) Size() (int64, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.lost {
		return 0, failed("stat", f.name, ErrPowerLost)
	}
	return int64(len(f.node.data)), nil
}

func (f *file) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	do, err := f.disk.step()
	if do && !f.disk.lying {
		f.node.synced = f.node.data
	}
	return failed("sync", f.name, err)
}

func (f *file) Close() error { return nil }
