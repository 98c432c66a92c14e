package capture

import (
	"context"
	"errors"
	"sync"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/disk"
	"github.com/diskvault/diskvault/disk/qemu"
)

// Member is one disk of a Group.
type Member struct {
	Source *disk.Source
	Owner  string // as in QEMU
}

// Group captures several disks of one running machine at the same moment: a
// consistency group. It is the Capturer of each of its members, once. Close it
// after the views that it gave are closed. It is safe for concurrent use.
type Group struct {
	mu    sync.Mutex
	views map[*disk.Source]*machineView // not taken yet; guarded by mu
}

// Groupable is the problem GroupRefused unless the disks can be captured at one
// moment: they must be different disks of one running machine. It asks nobody.
func Groupable(sources ...*disk.Source) error {
	var first qemu.Address
	seen := map[string]*disk.Source{}
	for n, src := range sources {
		if src.Kind != disk.Machine {
			return problem.New(problem.GroupRefused, "%s is not a disk of a running machine: there is no moment in common with other disks that could be proven.", src.Path)
		}
		address, err := qemu.ParseAddress(src.Path)
		if err != nil {
			return err
		}
		if n == 0 {
			first = address
		}
		if address.Socket != first.Socket {
			return problem.New(problem.GroupRefused, "%s and %s are disks of different machines; only those of one machine have a common point in time.", sources[0].Path, src.Path)
		}
		if same := seen[address.Device]; same != nil {
			return problem.New(problem.GroupRefused, "%s and %s are the same disk.", same.Path, src.Path).Do("Name each disk of the group once.")
		}
		seen[address.Device] = src
	}
	return nil
}

// NewGroup takes the point in time. Errors are problems: those of Groupable and
// of QEMU.Capture.
func NewGroup(ctx context.Context, members ...Member) (*Group, error) {
	var sources []*disk.Source
	for _, m := range members {
		sources = append(sources, m.Source)
	}
	if err := Groupable(sources...); err != nil {
		return nil, err
	}
	if len(members) == 0 {
		return nil, problem.New(problem.GroupRefused, "A consistency group needs a disk.")
	}
	views, err := together(ctx, members...)
	if err != nil {
		return nil, err
	}
	g := &Group{views: map[*disk.Source]*machineView{}}
	for _, v := range views {
		g.views[v.src] = v
	}
	return g, nil
}

// Capture implements Capturer. The moment is that of NewGroup, so a view that
// breaks cannot be had again: the whole group is to be taken anew.
func (g *Group) Capture(_ context.Context, src *disk.Source) (View, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.views[src]
	if v == nil {
		return nil, problem.New(problem.SourceInUse, "The common point in time of %s is over.", src.Path).
			Do("Run the backup of the whole group again.")
	}
	delete(g.views, src)
	return v, nil
}

// Close gives up what nobody captured.
func (g *Group) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var err error
	for src, v := range g.views {
		err = errors.Join(err, v.Close())
		delete(g.views, src)
	}
	return err
}
